"""How far a restriction has come: by what gateways said, and what they wrote last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ledger.bodies import Body
from ledger.keyring import Keyring
from ledger.records import Record
from service.reach import Acknowledged, Acknowledgements, Gateway, reach
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, Enforcer, make_decision, pending

LEAF = 40
LATER_MS = NOW_MS + 1_000_000


class Scene:
    """A log with a gateway introduced, its keyring, and what gateways said."""

    def __init__(self, ledger: EmbeddedLedger) -> None:
        self.ledger = ledger
        self.keyring = Keyring()
        self.said: dict[str, Acknowledged] = {}
        self.gateway = Enforcer("gateway-1", seed=11)
        self.add(ledger.service.record(ledger.service.introduction()))
        self.introduce(self.gateway)

    def add(self, record: Record) -> None:
        (leaf,) = self.ledger.append(pending(record))
        self.keyring.check(leaf, record)

    def introduce(self, enforcer: Enforcer, action: str = "created") -> None:
        event = msgspec.structs.replace(self.ledger.service.introduction(enforcer), action=action)
        self.add(self.ledger.service.record(event))

    def beat(self, kind: str = "periodic") -> Record:
        body: Body = msgspec.structs.replace(self.gateway.heartbeat(), kind=kind)
        record = self.gateway.record(body)
        self.add(record)
        return record

    def look(self, leaf: int = LEAF) -> list[Gateway]:
        ledger = self.ledger
        return reach(leaf, LOG_ID, keyring=self.keyring, catalog=ledger.catalog, reader=ledger.reader, said=self.said)

    def state(self) -> str:
        (found,) = self.look()
        assert found.enforcer_id == "gateway-1"
        return found.state


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with EmbeddedLedger(tmp_path) as ledger:
        yield Scene(ledger)


@pytest.mark.parametrize(
    ("version", "state"), [(LEAF, "reached"), (LEAF + 1, "reached"), (LEAF - 1, "unreached"), (-1, "unreached")]
)
def test_reached_is_who_says_that_it_has_the_set_or_a_later_one(scene: Scene, version: int, state: str) -> None:
    scene.beat()
    scene.said = {"gateway-1": Acknowledged(version, LATER_MS)}
    assert scene.look() == [Gateway(enforcer_id="gateway-1", state=state, version=version, seen_ms=LATER_MS)]


def test_who_writes_and_never_says_anything_is_unreached(scene: Scene) -> None:
    scene.beat("start")
    scene.add(scene.gateway.record(make_decision()[0]))
    assert scene.look() == [Gateway(enforcer_id="gateway-1", state="unreached")]


def test_who_wrote_nothing_and_said_nothing_has_never_started(scene: Scene) -> None:
    assert scene.state() == "never_started"


def test_who_asks_and_wrote_nothing_yet_runs(scene: Scene) -> None:
    scene.said = {"gateway-1": Acknowledged(LEAF - 1, LATER_MS)}
    assert scene.state() == "unreached"


def test_who_closed_its_stream_is_stopped_whatever_it_had_in_force(scene: Scene) -> None:
    scene.said = {"gateway-1": Acknowledged(LEAF - 1, NOW_MS)}
    scene.beat("stop")
    assert scene.state() == "stopped"


def test_who_closed_its_stream_and_asks_again_runs(scene: Scene) -> None:
    closed = scene.beat("stop")
    scene.said = {"gateway-1": Acknowledged(LEAF - 1, closed.time_ms + 1)}
    assert scene.state() == "unreached"


def test_who_closed_its_stream_and_writes_again_runs(scene: Scene) -> None:
    scene.beat("stop")
    scene.beat("start")
    assert scene.state() == "unreached"


def test_who_is_retired_and_the_service_itself_are_not_waited_for(scene: Scene) -> None:
    scene.beat()
    scene.introduce(scene.gateway, "retired")
    scene.said = {"gateway-1": Acknowledged(LEAF - 1, LATER_MS), "stranger": Acknowledged(LEAF - 1, LATER_MS)}
    assert scene.look() == []


def test_gateways_are_told_by_name(scene: Scene) -> None:
    for number, name in enumerate(("gateway-3", "gateway-2")):
        scene.introduce(Enforcer(name, seed=20 + number))
    assert [found.enforcer_id for found in scene.look()] == ["gateway-1", "gateway-2", "gateway-3"]


# --- the table


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    with EmbeddedLedger(tmp_path) as found:
        yield found


def test_what_a_gateway_says_last_is_what_counts_and_every_process_sees_it(ledger: EmbeddedLedger) -> None:
    first, second = (Acknowledgements(ledger.engine, LOG_ID) for _ in range(2))
    assert first.all() == {}
    first.note("gateway-1", 7, NOW_MS)
    second.note("gateway-1", 9, NOW_MS + 1)
    first.note("gateway-2", 9, NOW_MS + 2)
    expected = {"gateway-1": Acknowledged(9, NOW_MS + 1), "gateway-2": Acknowledged(9, NOW_MS + 2)}
    assert first.all() == second.all() == expected


def test_a_set_that_a_gateway_has_no_more_is_noted_as_well(ledger: EmbeddedLedger) -> None:
    said = Acknowledgements(ledger.engine, LOG_ID)
    for version in (9, -1):
        said.note("gateway-1", version, NOW_MS)
    assert said.all() == {"gateway-1": Acknowledged(-1, NOW_MS)}


def test_the_same_word_again_is_written_now_and_then_only(ledger: EmbeddedLedger) -> None:
    said = Acknowledgements(ledger.engine, LOG_ID)
    for later in (0, 1, 14_999):
        said.note("gateway-1", 7, NOW_MS + later)
    assert said.all() == {"gateway-1": Acknowledged(7, NOW_MS)}
    said.note("gateway-1", 7, NOW_MS + 15_000)
    assert said.all() == {"gateway-1": Acknowledged(7, NOW_MS + 15_000)}
    said.note("gateway-1", 7, NOW_MS)  # a clock that was put back
    assert said.all() == {"gateway-1": Acknowledged(7, NOW_MS)}


def test_the_word_of_one_logs_gateways_is_none_of_anothers(ledger: EmbeddedLedger) -> None:
    Acknowledgements(ledger.engine, LOG_ID).note("gateway-1", 7, NOW_MS)
    assert Acknowledgements(ledger.engine, "other").all() == {}
