"""Held calls at the enforcement point itself: what a restart makes of them, and which settings hold for which tool."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from enforcement.approvals import Held, rule_of
from enforcement.config_approvals import ApprovalSettings
from enforcement.holding import _MarkHeld
from enforcement.recorder import Recorder
from enforcement.state import StateDatabase
from enforcement.vitals import Vitals
from enforcement.waiting import progress_at, progress_of
from ledger.approvals import Grant, Terms, Verdicts
from ledger.bodies import Approval, Outcome
from ledger.records import decode_entry
from tests.support.gateway import config_of
from tests.support.spools import MemoryLedger, batch, decision, open_spool

APPROVAL = "01990000-0000-7000-8000-00000000000a"
BINDING = "b1" * 32


def restarted(directory: Path, *, used: bool) -> list[Any]:
    """Hold a call, perhaps use its approval, end without a word, begin anew; return what is recorded then."""

    async def play() -> list[Any]:
        state, spool = open_spool(directory)
        opened = batch(decision())
        (decision_id,) = [item.record_id for item in opened.items]
        marks = [_MarkHeld(decision_id, APPROVAL, BINDING), *([_MarkHeld(decision_id, None, None)] if used else [])]
        for mark in marks:
            spool.append([type(opened)(items=opened.items if mark is marks[0] else (), changes=(mark,))])
        state.close()
        state, spool = open_spool(directory)
        config = config_of(directory, "http://127.0.0.1:1", "http://127.0.0.1:1/mcp")
        ledger = MemoryLedger()
        recorder = Recorder(spool, ledger, config.recording, version="1", vitals=Vitals)
        await recorder.start()
        await recorder.stop()
        state.close()
        return [decode_entry(one.entry).body for one in ledger.taken]

    return [body for body in asyncio.run(play()) if isinstance(body, Approval | Outcome)]


def test_a_restart_ends_what_was_held_as_never_forwarded(tmp_path: Path) -> None:
    step, outcome = restarted(tmp_path, used=False)
    assert (step.action, step.reason, step.approval_id, step.binding) == (
        "cancelled",
        "gateway_restarted",
        APPROVAL,
        BINDING,
    )
    assert (outcome.status, outcome.reason) == ("not_forwarded", "gateway_restarted")


def test_a_restart_does_not_know_what_became_of_a_call_whose_approval_was_used(tmp_path: Path) -> None:
    (outcome,) = restarted(tmp_path, used=True)
    assert (outcome.status, outcome.reason) == ("unknown", "gateway_restarted")


def test_a_file_of_version_13_learns_which_calls_are_held_and_keeps_the_rest(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(decision())])
    before = spool.open_calls()
    state.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as file:
        for column in ("approval_id", "binding"):
            file.execute(f"ALTER TABLE open_calls DROP COLUMN {column}")
        file.execute("PRAGMA user_version = 13")
    state, spool = open_spool(tmp_path)
    assert spool.open_calls() == before
    assert before[0].approval_id is None
    state.close()
    StateDatabase(tmp_path).close()


# --- who counts


def held(needed: int, roles: tuple[str, ...] = ()) -> Held:
    class Permitted:
        decision_id = "d"

    terms = Terms(approval_id="a", expires_ms=1, needed=needed, roles=roles)
    return Held(terms=terms, binding=BINDING, case=None, ruling=None, permitted=Permitted())  # type: ignore[arg-type]


def grant(actor: str, **changes: Any) -> Grant:
    members = {"key_id": "k", "role": "approver", "binding": BINDING, "leaf_index": 1, "time_ms": 1, **changes}
    return Grant(actor=actor, **members)


@pytest.mark.parametrize(
    ("needed", "grants", "granted"),
    [
        (1, ["a"], True),
        (2, ["a"], False),
        (2, ["a", "a"], False),
        (2, ["a", "b"], True),
        (3, ["a", "b", "b"], False),
    ],
)
def test_different_people_are_counted_here_whatever_the_service_counts(
    needed: int, grants: list[str], granted: bool
) -> None:
    call = held(needed)
    said = Verdicts(approval_id="a", decision_id="d", denied=False, grants=tuple(map(grant, grants)))
    call.hear(said)
    assert call.granted is granted
    assert call.news.is_set()


def test_who_may_be_the_same_under_another_key_is_not_two() -> None:
    call = held(2)
    grants = (grant("a"), grant("b", key_id="l"))
    call.hear(Verdicts(approval_id="a", decision_id="d", denied=False, grants=grants))
    assert not call.granted


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"binding": "0" * 64}, {}), ({}, {"decision_id": "e"})],
)
def test_what_is_said_of_another_call_counts_for_nothing(changes: dict[str, str], said: dict[str, str]) -> None:
    call = held(1)
    told = {"approval_id": "a", "decision_id": "d", "denied": False, "grants": (grant("a", **changes),), **said}
    call.hear(Verdicts(**told))
    assert (call.granted, call.mismatched) == (False, True)


def test_a_role_that_is_not_named_counts_for_nothing() -> None:
    call = held(1, ("treasurer",))
    call.hear(Verdicts(approval_id="a", decision_id="d", denied=False, grants=(grant("a"),)))
    assert not call.granted


def test_the_first_reason_for_a_withdrawal_holds() -> None:
    call = held(1)
    call.withdraw("client_cancelled")
    call.withdraw("gateway_stopped")
    assert call.withdrawn == "client_cancelled"


# --- settings


def test_a_tools_settings_go_before_its_servers_and_these_before_the_gateways(tmp_path: Path) -> None:
    tools = [{"name": "close", "approvals": {"needed": 3, "irreversible": "policy"}}, {"name": "open"}]
    server = {"approvals": {"needed": 2, "roles": ["treasurer"]}, "tools": tools}
    config = config_of(
        tmp_path, "http://127.0.0.1:1", "http://127.0.0.1:1/mcp", server=server, approvals={"expires_seconds": 60}
    )
    assert config.approvals is not None
    (finance,) = config.servers
    rules = {name: rule_of(config.approvals, finance, name) for name in ("close", "open", None)}
    assert (rules["close"].needed, rules["close"].roles, rules["close"].irreversible) == (3, ("treasurer",), "policy")
    assert (rules["open"].needed, rules["open"].irreversible) == (2, "hold")
    assert {rule.expires_seconds for rule in rules.values()} == {60}


@pytest.mark.parametrize(
    "wrong",
    [
        {"needed": 0},
        {"needed": 17},
        {"expires_seconds": 0},
        {"expires_seconds": 86_401},
        {"max_held": 0},
        {"irreversible": "alert"},
        {"roles": ["two words"]},
        {"approvers": ["ben"]},
    ],
    ids=str,
)
def test_settings_that_would_hold_nothing_or_for_ever_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ApprovalSettings.model_validate(wrong)


# --- what a waiting client hears


def test_progress_grows_and_stays_below_whatever_the_server_reports() -> None:
    told = [progress_at(count) for count in range(1, 50)]
    assert told == sorted(set(told))
    assert told[-1] < 0


@pytest.mark.parametrize(
    ("body", "token"),
    [
        (b'{"params":{"_meta":{"progressToken":7}}}', 7),
        (b'{"params":{"_meta":{"progressToken":"t"}}}', "t"),
        (b'{"params":{"_meta":{"progressToken":true}}}', None),
        (b'{"params":{"_meta":{"progressToken":1.5}}}', None),
        (b'{"params":{"_meta":[]}}', None),
        (b'{"params":{}}', None),
        (b"[1]", None),
        (b"{", None),
    ],
)
def test_the_token_of_a_request_is_read_and_nothing_else_is_one(body: bytes, token: object) -> None:
    assert progress_of(body) == token
