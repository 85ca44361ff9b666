"""What scans find stands open until a list has it or a person spoke; no scanner and no enforcer speaks for either."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.bodies_discovery import DiscoveryEvent
from ledger.errors import ConflictError, NotFoundError
from service.discovery_book import DiscoveryBook
from tests.support.ledger import Enforcer

SERVICE = "tallystick"
PLACE, OTHER_PLACE = "2b" * 16, "2c" * 16
LISTED = frozenset({"finance"})
NOBODY = "019a9c14-6d80-7abc-8def-ffffffffffff"


class Log:
    """Records in order, by whom the test says."""

    def __init__(self) -> None:
        self.book = DiscoveryBook(SERVICE)
        self.enforcers = {name: Enforcer(name) for name in (SERVICE, "gateway-1")}
        self.size = 0

    def take(self, by: str = SERVICE, **members: Any) -> str:
        body = DiscoveryEvent(actor="0e" * 16, actor_role="client", **members)
        record = self.enforcers[by].record(body)
        self.book.take(self.size, record)
        self.size += 1
        return record.record_id

    def see(self, discovery_id: str = "", by: str = SERVICE, **changes: Any) -> str:
        """Record a sighting; a first one without an id gets one that tells it from others."""
        discovery_id = discovery_id or f"019a9c14-6d80-7abc-8def-{self.size:012x}"
        members = {"place": PLACE, "standing": "shadow", "source": "network", "transport": "streamable_http"}
        self.take(by, action="found", discovery_id=discovery_id, **{**members, **changes})
        return discovery_id

    def say(self, action: str, discovery_id: str, by: str = SERVICE) -> None:
        self.take(by, action=action, discovery_id=discovery_id)

    def state(self, discovery_id: str) -> str:
        return self.book.get(discovery_id).state(LISTED)


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_server_in_no_list_is_open_until_a_person_dismisses_it_and_again_if_he_takes_that_back(log):
    found = log.see()
    assert log.state(found) == "open"
    log.say("dismissed", found)
    assert log.state(found) == "dismissed"
    log.say("reopened", found)
    assert log.state(found) == "open"
    assert [step.event.action for step in log.book.get(found).steps] == ["found", "dismissed", "reopened"]


def test_it_is_settled_once_a_gateways_list_has_it_under_the_scanners_name(log):
    found = log.see()
    log.see(found, standing="registered", server="finance")
    assert log.state(found) == "settled"
    assert log.book.get(found).state(frozenset()) == "open"  # it went from the gateways' lists


def test_a_scanners_word_alone_registers_nothing(log):
    found = log.see(standing="registered", server="made-up")
    assert log.state(found) == "open"


def test_a_gateway_itself_is_no_unregistered_server(log):
    assert log.state(log.see(standing="gateway")) == "settled"


def test_who_goes_past_the_gateways_is_open_however_registered_the_server_is(log):
    assert log.state(log.see(standing="bypass", server="finance", source="client", client="Cursor")) == "open"


@pytest.mark.parametrize(
    "changes",
    [
        {"standing": "bypass", "server": "finance"},
        {"transport": "sse"},
        {"source": "client"},
        {"standing": "registered", "server": "made-up"},
        {"disabled": True},
        {"needs_token": True},
    ],
)
def test_a_dismissal_does_not_hold_for_what_stands_otherwise_later(log, changes):
    found = log.see()
    log.say("dismissed", found)
    log.see(found)  # as it was: still dismissed
    assert log.state(found) == "dismissed"
    log.see(found, **changes)
    assert log.state(found) == "open"
    log.see(found)  # back again: nobody has said that this is in order
    assert log.state(found) == "open"


def test_what_was_seen_before_a_dismissal_opens_nothing_again(log):
    found = log.see()
    log.see(found, transport="sse")
    log.say("dismissed", found)
    log.see(found)
    log.see(found, transport="sse")
    assert log.state(found) == "dismissed"


def test_one_place_is_one_server_and_another_client_or_file_is_another(log):
    first = log.see()
    again = log.see()  # another process recorded the same place at once
    assert again != first
    assert log.book.get(first).sightings == 2
    with pytest.raises(NotFoundError):
        log.book.get(again)
    others = [
        log.see(place=OTHER_PLACE),
        log.see(client="Cursor", source="client"),
        log.see(client="Cursor", source="client", holder="3c" * 16),
    ]
    assert len({first, *others}) == 4
    assert [one.discovery_id for one in log.book.servers] == [*reversed(others), first]


def test_a_place_by_a_later_pseudonym_key_is_the_same_server(log):
    found = log.see()
    log.see(found, place=OTHER_PLACE)
    assert log.book.get(found).sightings == 2
    assert log.book.known([(OTHER_PLACE, None, None)]) == log.book.known([(PLACE, None, None)])
    assert log.book.known([("ff" * 16, None, None), (PLACE, None, None)]).discovery_id == found
    assert log.book.known([("ff" * 16, None, None)]) is None


@pytest.mark.parametrize("action", ["dismissed", "reopened"])
def test_nobody_but_the_service_records_what_people_say(log, action):
    found = log.see()
    if action == "reopened":
        log.say("dismissed", found)
    before = log.state(found)
    log.say(action, found, by="gateway-1")
    assert log.state(found) == before


def test_nobody_but_the_service_records_what_was_found(log):
    log.see(by="gateway-1")
    log.take("gateway-1", action="scanned")
    assert log.book.servers == ()
    assert log.book.scans == ()


@pytest.mark.parametrize("members", [{}, {"discovery_id": NOBODY}, {"place": PLACE}])
@pytest.mark.parametrize("action", ["found", "seen", "dismissed", "reopened"])
def test_a_record_that_is_about_no_server_changes_nothing(log, action, members):
    log.take(action=action, **members)
    assert log.book.servers == ()


def test_what_stands_so_already_is_not_said_again(log):
    found, gateway = log.see(), log.see(place=OTHER_PLACE, standing="gateway")
    with pytest.raises(ConflictError, match="open"):
        log.book.speakable(found, "reopened", LISTED)
    log.say("dismissed", found)
    with pytest.raises(ConflictError, match="dismissed"):
        log.book.speakable(found, "dismissed", LISTED)
    for action in ("dismissed", "reopened"):
        with pytest.raises(ConflictError, match="settled"):
            log.book.speakable(gateway, action, LISTED)
    with pytest.raises(NotFoundError):
        log.book.speakable(NOBODY, "dismissed", LISTED)


def test_of_very_many_sightings_and_scans_the_latest_are_kept(log):
    found = log.see()
    for _ in range(120):
        log.see(found)
        log.take(action="scanned")
    server = log.book.get(found)
    assert (server.sightings, len(server.steps), server.first_leaf) == (121, 50, 0)
    assert len(log.book.scans) == 100
    assert log.book.scans[0].leaf == log.size - 1
