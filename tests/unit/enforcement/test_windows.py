"""The gateway's behaviour windows: no two calls take the same room, and no failure or restart gives any back."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from enforcement import measured_windows
from enforcement.facts import Pseudonyms
from enforcement.ports import Unavailable
from enforcement.session_ends import SessionEnds
from enforcement.state import StateDatabase
from enforcement.verdicts import Completion, Denied, Inbound, Permitted, Verdict
from enforcement.window_sweeps import WindowSweeps
from enforcement.windows import Windows
from ledger.errors import StorageError
from policies.bundles import Bundle, bundle_from_files
from policies.evaluate import Evaluation
from policies.model import DecisionRequest, Effect, WindowValue
from tests.support.gateway import ScriptedEvaluator, identity_of, simple_bundle
from tests.support.gateway_keys import PSEUDONYM_KEY
from tests.support.mcp_messages import body_of, headers_of
from tests.unit.enforcement.test_pep import World, failing_disk, told

PARAMETERS = [{"name": "amount", "type": "decimal", "paths": ["amount"]}]
SPENT = {"name": "spent", "measure": "sum", "parameter": "amount", "per": "user", "over": "day"}
CALLS = {"name": "calls", "measure": "count", "per": "agent", "over_seconds": 60, "of": "all"}
DENIED = {"name": "denied", "measure": "count", "per": "agent", "over": "day", "of": "denied"}
LOOKED = {"name": "looked", "measure": "seen", "per": "session", "tools": ["look"]}


def bundle_with(*windows: dict[str, Any], note: str = "-") -> Bundle:
    manifest = {
        "format": "tallystick.bundle/1",
        "name": "scripted",
        "engine": "scripted",
        "policies": ["policy.txt"],
        "parameters": "parameters.json",
        "windows": "windows.json",
    }
    files = {
        "manifest.json": manifest,
        "parameters.json": {"parameters": PARAMETERS},
        "windows.json": {"windows": windows},
    }
    return bundle_from_files(
        {name: json.dumps(value).encode() for name, value in files.items()} | {"policy.txt": note.encode()}
    )


ALL = bundle_with(SPENT, CALLS, DENIED, LOOKED)


def values(request: DecisionRequest) -> list[WindowValue]:
    assert request.state.windows is not UNSET
    return list(request.state.windows.values())


def capped(limit: int) -> Callable[[DecisionRequest], dict[str, Any]]:
    def answer(request: DecisionRequest) -> dict[str, Any]:
        assert request.state.windows is not UNSET
        spent = float(request.state.windows["spent"])
        return {"effect": Effect.PERMIT if spent <= limit else Effect.DENY}

    return answer


def call(amount: object = 1, *, tool: str = "refund_customer", agent: str = "finance") -> Inbound:
    return Inbound(
        server="finance",
        body=body_of(name=tool, arguments={"amount": amount}),
        headers=headers_of(name=tool),
        peer="127.0.0.1",
        identity=identity_of(f"{agent.capitalize()}-Bot"),
    )


async def done(world: World, inbound: Inbound, status: Any = "completed") -> Verdict:
    """Have a call judged and, if it is permitted, say what became of it."""
    verdict = await world.pep.handle(inbound)
    if isinstance(verdict, Permitted):
        await world.pep.complete(verdict, Completion(status=status))
    return verdict


async def asked(world: World, inbound: Inbound) -> list[WindowValue]:
    """Return what the windows say of a call."""
    await done(world, inbound)
    return values(world.evaluator.asked[-1])


def test_each_request_says_what_its_call_would_make_of_the_windows(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert await asked(world, call("1.5", tool="look")) == ["1.5000", 1, 0, False]
        assert await asked(world, call(2)) == ["3.5000", 2, 0, True]
        # The same user under another agent, in a session of its own.
        assert await asked(world, call(1, agent="support")) == ["4.5000", 1, 0, False]
        request = world.evaluator.asked[-1]
        assert request.version == 2
        assert request.state.measured_by is not UNSET
        assert request.state.measured_by.keys() == {"spent", "calls", "denied", "looked"}

    World(tmp_path, bundle=ALL).run(scenario)


def test_bundle_without_windows_gets_requests_of_version_1_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await done(world, call())
        assert world.evaluator.asked[-1].version == 1
        assert world.reader.read("SELECT * FROM windows") == []
        assert world.windows._holds == {}

    World(tmp_path).run(scenario)


def test_bundle_whose_windows_cannot_be_read_is_left_to_its_engine(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await done(world, call())
        assert world.evaluator.asked[-1].version == 1

    World(tmp_path, bundle=bundle_with({"name": "spent"})).run(scenario)


def test_refused_call_adds_to_no_window_of_permitted_calls(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert await asked(world, call(101)) == ["101.0000", 1, 0, False]
        assert await asked(world, call(100)) == ["100.0000", 2, 1, False]
        assert await asked(world, call(1)) == ["101.0000", 3, 1, False]
        assert await asked(world, call(0)) == ["100.0000", 4, 2, False]

    World(tmp_path, capped(100), bundle=ALL).run(scenario)


def test_call_that_waits_for_a_person_is_not_permitted_yet(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await asked(world, call(5))
        assert await asked(world, call(1)) == ["1.0000", 2, 1, False]

    World(tmp_path, lambda _: {"effect": Effect.PERMIT, "obligations": ("approval",)}, bundle=ALL).run(scenario)


def test_observed_call_counts_for_what_it_was_let_do(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await asked(world, call(101))
        assert await asked(world, call(1)) == ["102.0000", 2, 0, False]

    World(tmp_path, capped(100), bundle=ALL, server={"mode": "observe"}).run(scenario)


def test_message_that_no_policy_was_asked_about_counts_nowhere(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert told(await world.pep.handle(replace(call(), body=b"x")))["reason"] == "malformed"
        assert told(await world.pep.handle(replace(call(), overloaded=True)))["reason"] == "overloaded"
        assert await asked(world, call(1)) == ["1.0000", 1, 0, False]

    World(tmp_path, bundle=ALL).run(scenario)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_call_that_may_have_been_made_keeps_what_it_took(tmp_path: Path, status: str) -> None:
    async def scenario(world: World) -> None:
        await done(world, call(5), status)
        assert await asked(world, call(1)) == ["6.0000", 2, 0, False]
        assert world.windows._holds == {}

    World(tmp_path, bundle=ALL).run(scenario)


def test_call_that_never_went_on_gives_back_what_it_took_and_stays_counted_among_all(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await done(world, call(5, tool="look"), "not_forwarded")
        assert await asked(world, call(1)) == ["1.0000", 2, 0, False]

    World(tmp_path, bundle=ALL).run(scenario)

    async def restarted(world: World) -> None:
        assert await asked(world, call(1)) == ["2.0000", 3, 0, False]

    World(tmp_path, bundle=ALL).run(restarted)


def test_permit_that_the_ledger_does_not_take_gives_back_what_it_took(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.ledger.answer = lambda _: Unavailable("unreachable")
        assert told(await world.pep.handle(call(5)))["reason"] == "ledger_unavailable"
        assert world.reader.read("SELECT total FROM windows") == [("1",)]  # among all calls it counts
        assert world.windows._holds == {}
        assert world.windows._reserved == {}

    World(tmp_path, bundle=ALL, recording={"strict_seconds": 0.05}).run(scenario)


def test_restart_lifts_no_cap(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert isinstance(await done(world, call(60)), Permitted)
        assert isinstance(await world.pep.handle(call(40)), Permitted)  # no outcome: the gateway ends before it

    World(tmp_path, capped(100), bundle=ALL).run(scenario)

    async def restarted(world: World) -> None:
        assert isinstance(await done(world, call("0.0001")), Denied)
        assert values(world.evaluator.asked[-1])[0] == "100.0001"

    World(tmp_path, capped(100), bundle=ALL).run(restarted)


OWN = bundle_with({**SPENT, "name": "own", "per": "agent"}, {**SPENT, "name": "today"}, note="another")


def test_other_bundle_goes_on_with_the_windows_that_it_has_in_common(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await done(world, call(5))
        world.policies.bundle = OWN
        assert await asked(world, call(1)) == ["1.0000", "6.0000"]

    World(tmp_path, bundle=ALL).run(scenario)


@pytest.mark.parametrize("between", [OWN, simple_bundle(), bundle_with({"name": "unreadable"})])
def test_bundle_that_comes_back_finds_what_its_windows_would_have_counted(tmp_path: Path, between: Bundle) -> None:
    async def before(world: World) -> None:
        await done(world, call(5))
        world.policies.bundle = between
        await done(world, call(2, tool="look"))

    World(tmp_path, bundle=ALL).run(before)

    async def restarted(world: World) -> None:
        await done(world, call(3))
        world.policies.bundle = ALL
        assert await asked(world, call(1)) == ["11.0000", 4, 0, True]
        assert world.windows._measured.former == () or between is OWN

    World(tmp_path, bundle=between).run(restarted)


def test_former_windows_are_measured_until_no_call_of_now_could_count(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await done(world, call(5))
        world.policies.bundle = simple_bundle()
        await done(world, call(5))
        sweeps = WindowSweeps(world.windows, world.sessions, world.recorder, world.clock, interval_seconds=60)
        kept = []
        for hours in (0, 1, 71, 1):
            world.clock.advance(hours * 3_600_000)
            await sweeps.look()
            kept.append(len(world.reader.read("SELECT * FROM declarations")))
        assert kept == [4, 3, 0, 0]
        await done(world, call(5))
        assert world.windows._holds == {}

    World(tmp_path, bundle=ALL).run(scenario)


def test_former_windows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_windows, "MAX_FORMER", 2)

    async def scenario(world: World) -> None:
        for seconds in range(10, 16):
            world.policies.bundle = bundle_with({**CALLS, "over_seconds": seconds})
            await done(world, call())
        rows = world.reader.read("SELECT window, until_ms FROM declarations ORDER BY until_ms")
        assert [json.loads(window)["over_seconds"] for window, _ in rows] == [15, 13, 14]

    World(tmp_path).run(scenario)


def test_no_name_of_a_person_stands_in_the_file(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await done(world, call(5))

        rows = world.reader.read("SELECT * FROM windows")
        assert len(rows) == 2
        assert not any(name in str(row) for row in rows for name in ("alice", "Finance-Bot"))

    World(tmp_path, bundle=ALL).run(scenario)


# --- calls in flight -------------------------------------------------------------------------------------------------


class GatedEvaluator(ScriptedEvaluator):
    """Decides no call before so many have asked."""

    def __init__(self, answer: Callable[[DecisionRequest], dict[str, Any]], calls: int) -> None:
        super().__init__(answer)
        self.missing = calls
        self.gate = asyncio.Event()

    async def evaluate_many(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> list[Evaluation]:
        evaluations = await super().evaluate_many(bundle, requests)
        self.missing -= len(requests)
        if self.missing <= 0:
            self.gate.set()
        await self.gate.wait()
        return evaluations


def gated(world: World, answer: Callable[[DecisionRequest], dict[str, Any]], calls: int) -> None:
    world.evaluator = world.pep._evaluator = GatedEvaluator(answer, calls)  # type: ignore[assignment]  # another one


def test_a_hundred_calls_in_flight_together_take_no_more_than_the_cap(tmp_path: Path) -> None:
    amounts = [7, 1, 30, 12, 50] * 20

    async def scenario(world: World) -> None:
        gated(world, capped(500), len(amounts))
        calls = [call(amount, agent=agent) for amount, agent in zip(amounts, ["finance", "support"] * 50, strict=True)]
        verdicts = await asyncio.gather(*(done(world, inbound) for inbound in calls))
        taken = [amount for amount, verdict in zip(amounts, verdicts, strict=True) if isinstance(verdict, Permitted)]
        assert 0 < sum(taken) <= 500
        assert world.windows._reserved == {}
        world.evaluator.gate.set()  # type: ignore[attr-defined]  # the gated one
        assert (await asked(world, call(0)))[0] == f"{sum(taken)}.0000"

    World(tmp_path, bundle=ALL).run(scenario)


def test_room_of_a_refused_call_is_free_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        gated(world, capped(100), 2)
        first, second = await asyncio.gather(done(world, call(101)), done(world, call(50)))
        assert isinstance(first, Denied)
        assert isinstance(second, Denied)  # as long as the first might have been permitted
        assert isinstance(await done(world, call(50)), Permitted)

    World(tmp_path, bundle=ALL).run(scenario)


def test_credit_makes_no_room_before_it_is_certain(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        gated(world, capped(100), 2)
        _, second = await asyncio.gather(done(world, call(-50)), done(world, call(150)))
        assert isinstance(second, Denied)
        assert isinstance(await done(world, call(150)), Permitted)

    World(tmp_path, bundle=ALL).run(scenario)


def test_call_in_flight_was_not_seen(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        gated(world, lambda _: {"effect": Effect.PERMIT}, 2)
        await asyncio.gather(done(world, call(tool="look")), done(world, call()))
        assert [values(request)[3] for request in world.evaluator.asked] == [False, False]
        assert (await asked(world, call()))[3] is True

    World(tmp_path, bundle=ALL).run(scenario)


# --- when something fails --------------------------------------------------------------------------------------------


def test_call_whose_policy_does_not_answer_gives_back_what_it_reserved(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        def fail(_: DecisionRequest) -> dict[str, Any]:
            raise RuntimeError

        answer, world.evaluator.answer = world.evaluator.answer, fail
        assert told(await world.pep.handle(call(5)))["reason"] == "engine_error"
        world.evaluator.answer = answer
        assert await asked(world, call(1)) == ["1.0000", 2, 1, False]
        assert world.windows._holds == {}

    World(tmp_path, bundle=ALL).run(scenario)


def test_permit_that_the_disk_does_not_take_gives_back_what_it_reserved(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with failing_disk(world):
            assert told(await world.pep.handle(call(5)))["reason"] == "internal_error"
        assert await asked(world, call(1)) == ["1.0000", 2, 1, False]

    World(tmp_path, bundle=ALL).run(scenario)


def test_outcome_that_the_disk_did_not_take_gives_back_when_it_is_stored(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(call(5))
        assert isinstance(verdict, Permitted)
        with failing_disk(world), pytest.raises(StorageError):
            await world.pep.complete(verdict, Completion(status="not_forwarded"))
        assert await asked(world, call(1)) == ["1.0000", 2, 0, False]

    World(tmp_path, bundle=ALL).run(scenario)

    async def restarted(world: World) -> None:
        assert (await asked(world, call(1)))[0] == "2.0000"

    World(tmp_path, bundle=ALL).run(restarted)


# --- the file --------------------------------------------------------------------------------------------------------


def test_what_no_window_asks_for_any_more_is_forgotten_in_memory_and_in_the_file(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await done(world, call(5, tool="look"))
        sweeps = WindowSweeps(world.windows, world.sessions, world.recorder, world.clock, interval_seconds=60)
        await sweeps.look()
        assert len(world.reader.read("SELECT * FROM windows")) == 3
        world.clock.advance(121_000)
        await sweeps.look()
        assert len(world.reader.read("SELECT * FROM windows")) == 2
        assert (await asked(world, call(1)))[3] is False  # its session was silent for too long
        await sweeps.look()
        assert world.reader.read("SELECT * FROM windows WHERE forget_ms IS NULL") == []
        world.clock.advance(4 * 86_400_000)
        await sweeps.look()
        assert world.reader.read("SELECT * FROM windows") == []
        assert list(world.windows._history.session_keys()) == []

    World(tmp_path, bundle=ALL).run(scenario)


def test_session_that_goes_on_keeps_what_it_has_seen(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await done(world, call(5, tool="look"))
        sweeps = WindowSweeps(world.windows, world.sessions, world.recorder, world.clock, interval_seconds=60)
        for _ in range(5):
            world.clock.advance(50_000)
            # Messages that cannot be read keep a session alive as well.
            await world.pep.handle(replace(call(), body=b"x"))
            await sweeps.look()
        assert (await asked(world, call()))[3] is True

    World(tmp_path, bundle=ALL).run(scenario)


def test_way_of_a_session_survives_a_restart_and_ends_with_it(tmp_path: Path) -> None:
    profile = {"tools": ["finance/look", "finance/refund_customer"], "next": {"finance/look": ["finance/look"]}}
    off = {"name": "off", "measure": "off_profile", "per": "session", "profile": profile}

    async def before(world: World) -> None:
        assert await asked(world, call(tool="look")) == [0]

    async def after(world: World) -> None:
        assert await asked(world, call()) == [1]
        assert await done(world, call(tool="look"), "not_forwarded")
        assert await asked(world, call()) == [2]  # behind a call that may not have been made, nothing is in the profile
        sweeps = WindowSweeps(world.windows, world.sessions, world.recorder, world.clock, interval_seconds=60)
        world.clock.advance(3_600_000)
        await SessionEnds(world.sessions, world.recorder, world.clock, interval_seconds=60).look()
        await sweeps.look()
        assert world.reader.read("SELECT * FROM trails") == []

    World(tmp_path, bundle=bundle_with(off)).run(before)
    World(tmp_path, bundle=bundle_with(off)).run(after)


def test_distinct_tools_of_a_session_survive_a_restart_and_end_with_it(tmp_path: Path) -> None:
    tools = {"name": "tools", "measure": "distinct", "per": "session"}

    async def before(world: World) -> None:
        assert await asked(world, call(tool="look")) == [1]

    async def after(world: World) -> None:
        assert await asked(world, call()) == [2]
        sweeps = WindowSweeps(world.windows, world.sessions, world.recorder, world.clock, interval_seconds=60)
        await sweeps.look()
        assert len(world.reader.read("SELECT * FROM windows")) == 2
        world.clock.advance(3_600_000)
        await SessionEnds(world.sessions, world.recorder, world.clock, interval_seconds=60).look()
        await sweeps.look()
        assert world.reader.read("SELECT * FROM windows") == []

    World(tmp_path, bundle=bundle_with(tools)).run(before)
    World(tmp_path, bundle=bundle_with(tools)).run(after)


def test_total_beyond_64_bits_survives_a_restart(tmp_path: Path) -> None:
    most = "922337203685477.5807"

    async def scenario(world: World) -> None:
        for _ in range(3):
            await done(world, call(most))

    World(tmp_path, bundle=ALL).run(scenario)

    async def restarted(world: World) -> None:
        assert (await asked(world, call(0)))[0] == "2767011611056432.7421"

    World(tmp_path, bundle=ALL).run(restarted)


def test_state_file_with_something_else_than_a_total_is_refused(tmp_path: Path) -> None:
    with closing(StateDatabase(tmp_path)) as state:
        with state.transaction() as connection:
            connection.execute("INSERT INTO windows VALUES ('d', 's', 1, 'many', NULL)")
        with pytest.raises(StorageError, match="no number"):
            Windows(state, Pseudonyms(PSEUDONYM_KEY))


@pytest.mark.parametrize(
    ("window", "parameters"),
    [("{", "[]"), ('{"name": "w"}', "[]"), (json.dumps(SPENT), "[]"), (json.dumps(SPENT), '[{"name": "amount"}]')],
)
def test_state_file_with_something_else_than_a_declaration_is_refused(
    tmp_path: Path, window: str, parameters: str
) -> None:
    with closing(StateDatabase(tmp_path)) as state:
        with state.transaction() as connection:
            row = ("d", window.encode(), parameters.encode(), 1)
            connection.execute("INSERT INTO declarations VALUES (?, ?, ?, ?)", row)
        with pytest.raises(StorageError, match="declaration of a window"):
            Windows(state, Pseudonyms(PSEUDONYM_KEY))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_state_file_of_an_earlier_version_gets_its_windows(tmp_path: Path, version: int) -> None:
    StateDatabase(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as file:
        file.execute("DROP TABLE windows")
        file.execute("DROP TABLE declarations")
        file.execute("DROP TABLE trails")
        if version == 1:
            file.execute("ALTER TABLE sessions DROP COLUMN agent")
            file.execute("ALTER TABLE sessions DROP COLUMN user")
        file.execute(f"PRAGMA user_version = {version}")

    async def scenario(world: World) -> None:
        assert await asked(world, call(5)) == ["5.0000", 1, 0, False]
        assert await asked(world, call(5)) == ["10.0000", 2, 0, False]

    World(tmp_path, bundle=ALL).run(scenario)
