"""The gateway's windows under any order of calls, answers, outcomes and restarts: no cap is ever passed or lifted."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from enforcement.facts import Pseudonyms
from enforcement.state import Change, StateDatabase
from enforcement.windows import Windows
from policies.bundles import bundle_from_files
from tests.support.gateway_keys import PSEUDONYM_KEY
from tests.support.policies import make_request

CAP = 100
MANIFEST = {
    "format": "tallystick.bundle/1",
    "name": "caps",
    "engine": "scripted",
    "policies": ["policy.txt"],
    "parameters": "parameters.json",
    "windows": "windows.json",
}
WINDOWS = [
    {"name": "spent", "measure": "sum", "parameter": "amount", "per": "user", "over": "day"},
    {"name": "asked", "measure": "count", "per": "user", "over": "day", "of": "all"},
]
BUNDLE = bundle_from_files(
    {
        "manifest.json": json.dumps(MANIFEST).encode(),
        "policy.txt": b"-",
        "parameters.json": b'{"parameters": [{"name": "amount", "type": "long", "paths": ["amount"]}]}',
        "windows.json": json.dumps({"windows": WINDOWS}).encode(),
    }
)


@dataclass
class Call:
    """One call as the test has it: what it wants, and how far it has come."""

    decision_id: str
    amount: int
    spent: int
    permitted: bool | None = None
    decided: bool = False
    withdrawn: bool = False

    @property
    def taken(self) -> int:
        """What it has taken for good."""
        return self.amount if self.permitted and not self.withdrawn else 0


@dataclass
class Model:
    """What must be true, told without slots, digests or files."""

    calls: list[Call] = field(default_factory=list)
    past: int = 0
    past_asked: int = 0

    def spent(self) -> int:
        """What the next call must hear: all that is certain, and what calls under way could still take."""
        known = sum(call.taken if call.decided else max(0, call.amount) for call in self.calls)
        return self.past + known

    def asked(self) -> int:
        return self.past_asked + len(self.calls)

    def restart(self) -> None:
        """What was settled is in the file; what was not has never been."""
        self.past += sum(call.taken for call in self.calls)
        self.past_asked += sum(call.permitted is not None for call in self.calls)
        self.calls = []

    def close(self, call: Call) -> None:
        self.past += call.taken
        self.past_asked += 1
        self.calls.remove(call)


def store(state: StateDatabase, changes: Iterable[Change]) -> None:
    with state.transaction(synced=False) as connection:
        for change in changes:
            change.apply(connection)


def begin(windows: Windows, model: Model, number: int, amount: int) -> None:
    request = make_request(user="u", arguments=json.dumps({"amount": amount}))
    spent, asked = model.spent() + amount, model.asked() + 1
    request = asyncio.run(windows.reserve(str(number), BUNDLE, request))
    assert request.state.windows is not UNSET
    assert request.state.windows == {"spent": spent, "asked": asked}
    model.calls.append(Call(str(number), amount, spent))


def step(windows: Windows, state: StateDatabase, model: Model, call: Call, operation: str) -> None:
    """Take a call on by a step, if it is one that can follow."""
    if operation == "settle" and call.permitted is None:
        call.permitted = call.spent <= CAP
        store(state, windows.settle(call.decision_id, permitted=call.permitted))
    elif operation == "withhold" and call.permitted and not call.decided and not call.withdrawn:
        store(state, windows.close(call.decision_id, forwarded=False))
        call.withdrawn = True
    elif operation == "decided" and call.permitted is not None and not call.decided:
        windows.decided(call.decision_id)
        call.decided = True
        if not call.permitted or call.withdrawn:
            model.close(call)
    elif operation in {"forwarded", "not forwarded"} and call.decided:
        call.withdrawn = operation == "not forwarded"
        store(state, windows.close(call.decision_id, forwarded=not call.withdrawn))
        model.close(call)


NAMES = ["begin"] * 3 + ["settle", "decided"] * 2 + ["withhold", "forwarded", "not forwarded", "restart"]
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 9), st.sampled_from([0, 1, 30, 50, 60, 100, 101, -20])),
    min_size=5,
    max_size=40,
)


@settings(max_examples=30)
@given(OPERATIONS)
def test_windows_say_what_was_taken_and_could_be_taken_whatever_the_order(operations):
    model = Model()
    with tempfile.TemporaryDirectory() as folder, closing(StateDatabase(Path(folder))) as state:
        windows = Windows(state, Pseudonyms(PSEUDONYM_KEY))
        for number, (operation, which, amount) in enumerate(operations):
            if operation == "begin":
                begin(windows, model, number, amount)
            elif operation == "restart":
                model.restart()
                windows = Windows(state, Pseudonyms(PSEUDONYM_KEY))
            elif model.calls:
                step(windows, state, model, model.calls[which % len(model.calls)], operation)
        credited = -sum(amount for _, _, amount in operations if amount < 0)
        assert model.past + sum(call.taken for call in model.calls) <= CAP + credited
        begin(windows, model, len(operations), 1)
