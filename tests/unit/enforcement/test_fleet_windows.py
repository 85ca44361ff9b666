"""Windows across gateways, as one gateway sees them: what it asks for, gives back, says again, and holds as reached."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from enforcement.fleet_store import Contribution, Heard, Part
from enforcement.ports import Unavailable
from enforcement.verdicts import Denied, Permitted
from enforcement.window_exchange import WindowExchange
from ledger.errors import StorageError
from policies.window_tallies import Share
from tests.unit.enforcement.test_pep import World
from tests.unit.enforcement.test_windows import asked, bundle_with, call, capped, done

SPENT = {"name": "spent", "measure": "sum", "parameter": "amount", "per": "user", "over": "day", "across": "fleet"}
STRICT = {**SPENT, "strict": True}
LOOKED = {"name": "looked", "measure": "seen", "per": "user", "over": "day", "tools": ["look"], "across": "fleet"}
CALLS = {"name": "calls", "measure": "count", "per": "agent", "over_seconds": 60, "across": "fleet"}
AGE = {"name": "age", "measure": "staleness"}


class Store:
    """A service's windows in memory, and its faults."""

    def __init__(self) -> None:
        self.taken: dict[str, tuple[Part, ...]] = {}
        self.asked: set[str] = set()
        self.elsewhere = 0
        self.said: list[Contribution] = []
        self.pages: list[Heard] = []
        self.away = False
        self.deaf = False
        self.reached = asyncio.Event()
        self.go_on: asyncio.Event | None = None

    async def reserve(self, decision_id: str, parts: Sequence[Part]) -> Sequence[int] | Unavailable:
        if self.away:
            return Unavailable("unreachable")
        self.asked.add(decision_id)
        if any(part.amount != "0" for part in parts):
            self.taken.setdefault(decision_id, tuple(parts))
        self.reached.set()
        if self.go_on is not None:
            await self.go_on.wait()
        if self.deaf:
            return Unavailable("timeout")
        return [self.elsewhere + self.sum(part) for part in parts]

    def sum(self, asked: Part) -> int:
        parts = [part for parts in self.taken.values() for part in parts]
        return sum(int(part.amount) for part in parts if part.digest == asked.digest)

    async def exchange(self, said: Contribution) -> Heard | Unavailable:
        if self.away:
            return Unavailable("unreachable")
        self.said.append(said)
        for decision_id, parts in said.keep:
            self.taken.setdefault(decision_id, tuple(parts))
        for decision_id in said.release:
            self.taken[decision_id] = ()
        return self.pages.pop(0) if self.pages else Heard(version=said.since, more=False, totals=())

    def total(self) -> int:
        return sum(int(part.amount) for parts in self.taken.values() for part in parts)


def exchange_of(world: World, store: Store) -> WindowExchange:
    return WindowExchange(world.windows, store, world.reader, world.recorder, world.clock, interval_seconds=3600)


def play(
    tmp_path: Path, store: Store, scenario: Callable[[World], Any], *windows: dict[str, Any], **members: Any
) -> World:
    answer = members.pop("answer", None)
    return World(tmp_path, answer, bundle=bundle_with(*windows), store=store, **members).run(scenario)


def test_strict_window_says_what_the_service_says(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        store.elsewhere = 70_000
        assert await asked(world, call(3)) == ["10.0000"]
        assert await asked(world, call(1)) == ["11.0000"]
        assert world.evaluator.asked[-1].state.unavailable is UNSET

    play(tmp_path, store, scenario, STRICT)
    assert store.total() == 40_000


def test_credit_makes_no_room_at_the_service_before_it_is_certain(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        assert await asked(world, call(5)) == ["5.0000"]
        assert await asked(world, call(-2)) == ["3.0000"]
        assert store.total() == 50_000
        await exchange_of(world, store).exchange()
        assert store.total() == 30_000

    play(tmp_path, store, scenario, STRICT)


def test_refused_call_gives_back_what_it_took(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        await done(world, call(7))
        assert isinstance(await done(world, call(9)), Denied)
        assert store.total() == 160_000
        await exchange_of(world, store).exchange()
        assert store.total() == 70_000
        assert world.reader.read("SELECT * FROM fleet_outbox") == []

    play(tmp_path, store, scenario, STRICT, answer=capped(10))


def test_what_is_to_be_given_back_survives_a_restart(tmp_path: Path) -> None:
    store = Store()

    async def before(world: World) -> None:
        await done(world, call(9))
        store.away = True
        assert not await exchange_of(world, store).exchange()

    async def after(world: World) -> None:
        store.away = False
        await exchange_of(world, store).exchange()
        assert store.total() == 0

    play(tmp_path, store, before, STRICT, answer=capped(1))
    assert store.total() == 90_000
    play(tmp_path, store, after, STRICT)


def test_call_that_never_went_on_gives_back_what_it_took_and_others_do_not(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        for amount, status in ((1, "completed"), (2, "failed"), (4, "cancelled"), (8, "not_forwarded")):
            await done(world, call(amount), status)
        await exchange_of(world, store).exchange()
        assert store.total() == 70_000

    play(tmp_path, store, scenario, STRICT)


def test_caller_who_goes_while_the_service_is_asked_leaves_nothing_taken(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        store.go_on = asyncio.Event()
        task = asyncio.create_task(world.pep.handle(call(5)))
        await store.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store.total() == 50_000
        exchange = exchange_of(world, store)
        while await exchange.exchange() or world.reader.read("SELECT * FROM fleet_outbox"):
            pass
        assert store.total() == 0

    play(tmp_path, store, scenario, STRICT)


@pytest.mark.parametrize("fault", ["away", "deaf"])
def test_strict_window_counts_as_reached_while_nobody_answers(tmp_path: Path, fault: str) -> None:
    store = Store()
    setattr(store, fault, True)

    async def scenario(world: World) -> None:
        assert isinstance(await done(world, call(1)), Denied)
        state = world.evaluator.asked[-1].state
        assert state.windows == {"spent": "922337203685477.5807", "looked": True}
        assert state.unavailable == ("spent", "looked")
        # Whatever was heard of the question is given back.
        store.away = False
        await exchange_of(world, store).exchange()
        assert store.total() == 0
        assert 'result="unavailable"} 1.0' in world.metrics.render().decode()

    play(tmp_path, store, scenario, STRICT, {**LOOKED, "strict": True}, answer=capped(10**6))


def test_service_that_is_too_slow_does_not_answer(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        store.go_on = asyncio.Event()
        assert await asked(world, call(1)) == ["922337203685477.5807"]

    play(tmp_path, store, scenario, STRICT, strict_seconds=0.01)


def test_gateway_without_a_service_holds_strict_windows_as_reached(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert await asked(world, call(1)) == ["922337203685477.5807"]

    World(tmp_path, bundle=bundle_with(STRICT)).run(scenario)


@pytest.mark.parametrize("fault", ["away", "deaf"])
def test_call_that_is_let_through_while_nobody_answers_is_counted_once_they_do(tmp_path: Path, fault: str) -> None:
    store = Store()
    setattr(store, fault, True)

    async def scenario(world: World) -> None:
        assert isinstance(await done(world, call(6)), Permitted)  # its denial is only observed
        store.away = store.deaf = False
        exchange = exchange_of(world, store)
        await exchange.exchange()
        await exchange.exchange()
        assert store.total() == 60_000

    play(tmp_path, store, scenario, STRICT, answer=capped(10), server={"mode": "observe"})


def test_service_is_asked_by_calls_that_belong_and_for_sights_by_all(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        await done(world, call(1, tool="other"))
        assert not store.asked
        await done(world, call(1))
        assert len(store.asked) == 1

    play(tmp_path, store, scenario, {**STRICT, "tools": ["refund_customer"]})
    seen = Store()

    async def sights(world: World) -> None:
        assert await asked(world, call(1)) == [False]
        assert await asked(world, call(1, tool="look")) == [False]
        assert await asked(world, call(1)) == [True]
        assert len(seen.asked) == 3

    play(tmp_path / "seen", seen, sights, {**LOOKED, "strict": True})


# --- told from gateway to gateway ------------------------------------------------------------------------------------


def test_gateway_says_totals_and_says_them_again_until_they_are_heard(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        exchange = exchange_of(world, store)
        await done(world, call(2))
        store.away = True
        await exchange.exchange()
        await done(world, call(3))
        store.away = False
        await exchange.exchange()
        (total,) = store.said[-1].totals
        assert total.amount == 50_000
        await exchange.exchange()
        assert store.said[-1].totals == []
        assert isinstance(await done(world, call(4), "not_forwarded"), Permitted)
        await exchange.exchange()
        assert [total.amount for total in store.said[-1].totals] == [50_000]

    play(tmp_path, store, scenario, SPENT)

    async def restarted(world: World) -> None:
        await exchange_of(world, store).exchange()
        assert [total.amount for total in store.said[-1].totals] == [50_000]
        assert len({said.origin for said in store.said}) == 1

    play(tmp_path, store, restarted, SPENT)


def test_what_others_have_counted_survives_a_restart_and_is_forgotten_in_time(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        exchange = exchange_of(world, store)
        assert await asked(world, call(1)) == ["1.0000"]
        await exchange.exchange()
        (own,) = store.said[-1].totals
        store.pages.append(
            Heard(version=7, more=False, totals=(Share(own.digest, own.subject, own.slot, 90_000, own.forget_ms),))
        )
        await exchange.exchange()
        assert await asked(world, call(1)) == ["11.0000"]

    play(tmp_path, store, scenario, SPENT)

    async def restarted(world: World) -> None:
        assert await asked(world, call(1)) == ["12.0000"]
        world.clock.advance(9 * 86_400_000)
        forgotten = world.windows.sweep(world.clock.now_ms(), ())
        with closing(sqlite3.connect(tmp_path / "state.db")) as file:
            for change in forgotten:
                change.apply(file)
            assert file.execute("SELECT * FROM fleet_totals").fetchall() == []

    play(tmp_path, store, restarted, SPENT)


def test_staleness_is_stated_and_not_known_before_others_were_heard_of(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        exchange = exchange_of(world, store)
        assert await asked(world, call(1)) == [1, 2**53 - 1]
        await exchange.exchange()
        world.clock.advance(2500)
        assert await asked(world, call(1)) == [2, 2500]
        store.away = True
        await exchange.exchange()
        world.clock.advance(1000)
        assert await asked(world, call(1)) == [3, 3500]

    play(tmp_path, store, scenario, CALLS, AGE)


@pytest.mark.parametrize("sign", [{"lost": True, "version": 90}, {"version": 3}])
def test_earlier_database_has_all_said_and_heard_again_and_takes_nothing_back_meanwhile(
    tmp_path: Path, sign: dict[str, Any]
) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        exchange = exchange_of(world, store)
        assert await asked(world, call(1)) == [1]
        await exchange.exchange()
        total = store.said[-1].totals[0]
        others = Share(total.digest, total.subject, total.slot, 10, total.forget_ms)
        store.pages = [Heard(version=50, more=False, totals=(others,), told=40)]
        await exchange.exchange()
        assert await asked(world, call(1)) == [12]
        store.pages = [
            Heard(**{"more": False, "totals": (), **sign}),
            Heard(version=91, more=True, totals=(replace(others, amount=4),), told=91),
            Heard(version=92, more=False, totals=(replace(others, amount=3),), told=91),
        ]
        assert await exchange.exchange()
        assert (store.said[-1].since, store.said[-1].told) == (50, 40)
        assert await exchange.exchange()
        assert (store.said[-1].since, [one.amount for one in store.said[-1].totals]) == (0, [2])
        assert not await exchange.exchange()
        assert await asked(world, call(1)) == [13]  # ten of others still
        # One of the others has said its part again, and another has not yet.
        store.pages = [Heard(version=93, more=False, totals=(replace(others, amount=9),), told=92)]
        await exchange.exchange()
        assert await asked(world, call(1)) == [14]
        # Whatever they say after a minute is a change of theirs, and counts.
        world.clock.advance(60_000)
        store.pages = [Heard(version=94, more=False, totals=(replace(others, amount=9),), told=92)]
        await exchange.exchange()
        assert await asked(world, call(1)) == [14]

    play(tmp_path, store, scenario, {**CALLS, "over_seconds": 600})


def test_gateway_that_shares_nothing_asks_nobody(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        await done(world, call(1))
        assert not await exchange_of(world, store).exchange()
        assert store.said == []
        assert not store.asked

    play(tmp_path, store, scenario, {**SPENT, "across": None})


def test_strict_window_that_is_no_longer_declared_is_told_like_any_other(tmp_path: Path) -> None:
    store = Store()

    async def scenario(world: World) -> None:
        await done(world, call(1))
        world.policies.bundle = bundle_with(note="none")
        await done(world, call(2))
        assert next(iter(store.taken.values()))[0].amount == "10000"
        await exchange_of(world, store).exchange()
        assert [total.amount for total in store.said[-1].totals] == [20_000]
        assert store.total() == 10_000

    play(tmp_path, store, scenario, STRICT)


def test_state_file_with_something_else_than_what_decisions_say_is_refused(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with closing(sqlite3.connect(tmp_path / "state.db")) as file:
            file.execute("INSERT INTO fleet_outbox (decision_id, parts) VALUES ('d', x'7b')")
            file.commit()
        with pytest.raises(StorageError, match="cannot have said"):
            await exchange_of(world, Store()).exchange()

    World(tmp_path, bundle=bundle_with(SPENT)).run(scenario)
