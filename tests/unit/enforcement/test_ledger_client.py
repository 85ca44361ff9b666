"""The wire to the service: entries exactly as signed, acknowledgements believed only if they are complete."""

from __future__ import annotations

import base64
import json

import pytest

from enforcement.batches import QueuedRecord
from enforcement.clock_offset import Offset
from enforcement.ledger_client import ServiceClient, _read_acknowledgements, _retry_after, encode_submission
from enforcement.ports import Posted, Unavailable
from ledger.clock import SimulatedClock
from ledger.ports import Opening
from tests.support.gateway_keys import NOON_MS


def record(number: int = 1, payload: bytes = b'{"a":"\xc3\xa4\n"}') -> QueuedRecord:
    return QueuedRecord(
        position=number,
        record_id=f"id-{number}",
        epoch="0" * 32,
        seq=number,
        entry=b'{"body":{"type":"decision"},"x":"\xc3\xa4"}',
        openings=(Opening("message", bytes(16), payload),),
    )


def test_a_submission_is_one_line_that_holds_the_entry_as_it_is() -> None:
    line = encode_submission(record())
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert record().entry in line
    value = json.loads(line)
    (opening,) = value["openings"]
    assert opening["field"] == "message"
    assert base64.b64decode(opening["payload"]) == record().openings[0].payload
    assert base64.b64decode(opening["salt"]) == bytes(16)


def answer(*results: object) -> bytes:
    return json.dumps({"results": results}).encode()


def test_an_acknowledgement_names_each_record_with_its_index() -> None:
    given = answer({"record_id": "id-1", "leaf_index": 17}, {"record_id": "id-2", "leaf_index": 0, "duplicate": True})
    assert _read_acknowledgements(given, [record(1), record(2)]) == Posted((17, 0))


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"[]",
        b'{"results":{}}',
        answer(),
        answer({"record_id": "id-1", "leaf_index": 1}, {"record_id": "id-2", "leaf_index": 2}),
        answer({"record_id": "id-2", "leaf_index": 1}),
        answer({"record_id": "id-1"}),
        answer({"record_id": "id-1", "leaf_index": -1}),
        answer({"record_id": "id-1", "leaf_index": 1 << 63}),
        answer({"record_id": "id-1", "leaf_index": True}),
        answer({"record_id": "id-1", "leaf_index": "1"}),
        answer("id-1"),
    ],
)
def test_an_acknowledgement_that_is_not_complete_is_none(given: bytes) -> None:
    assert isinstance(_read_acknowledgements(given, [record(1)]), Unavailable)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("-1", None),
        ("1.5", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("²", None),
        ("9" * 9, None),
    ],
)
def test_a_wish_to_be_left_alone_is_understood_in_seconds(value: str, seconds: float | None) -> None:
    assert _retry_after({"Retry-After": value}) == seconds
    assert _retry_after({}) is None


@pytest.mark.parametrize("told", ["", "-1", "1e3", "1.5", "1" * 16, "²", "soon"])
def test_a_time_that_is_none_measures_nothing(told: str) -> None:
    client = ServiceClient("http://127.0.0.1:1", "token", timeout_seconds=1, clock=SimulatedClock(NOON_MS))
    client._measure(NOON_MS, {"Tallystick-Time": told})
    client._measure(NOON_MS, {})
    assert client.offset.measured(NOON_MS) is None


def test_the_services_time_measures_the_clock_and_nothing_is_measured_without_one() -> None:
    client = ServiceClient("http://127.0.0.1:1", "token", timeout_seconds=1, clock=SimulatedClock(NOON_MS))
    client._measure(NOON_MS - 10, {"Tallystick-Time": str(NOON_MS - 205)})
    assert client.offset.measured(NOON_MS) == Offset(200, 6)
    without = ServiceClient("http://127.0.0.1:1", "token", timeout_seconds=1)
    without._measure(0, {"Tallystick-Time": str(NOON_MS)})
    assert without.offset.measured(NOON_MS) is None
