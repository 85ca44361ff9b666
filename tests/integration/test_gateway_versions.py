"""A gateway of one minor version before: its requests, frozen byte for byte, are answered as they were then.

`tests/vectors/gateways/0.1.0.json` is what a gateway of version 0.1.0 sent to a service of its own version, from its
introduction to its last heartbeat, under the bundle that stands beside it, and how it was answered. One file for each
minor version that is accepted; a new version adds its own and leaves the others as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ledger.bodies import Heartbeat
from ledger.clock import SimulatedClock
from ledger.records import Record, decode_entry
from policies.bundles import parse_archive
from service.auth import Role
from tests.support.gateway_keys import NOON_MS
from tests.support.ledger import LOG_ID
from tests.support.repository import ROOT
from tests.support.service import RunningService, start_service

VERSIONS = sorted((ROOT / "tests" / "vectors" / "gateways").glob("*.json"))
PROMISED = ("ETag", "Preference-Applied")
"""Headers of answers on which such a gateway relies."""


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda path: path.stem)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningService, list[dict[str, Any]], list[httpx.Response]]]:
    """Send all that the gateway sent to a service of this version."""
    frozen = json.loads(request.param.read_text())
    sent = frozen["requests"]
    with start_service(tmp_path_factory.mktemp("service"), clock=SimulatedClock(NOON_MS)) as service:
        service.put_in_force(parse_archive(frozen["bundle"].encode()))
        with service.client(Role.ADMIN) as admin, service.stranger() as gateway:
            answers = [_send(admin, sent[0])]
            gateway.headers["authorization"] = f"Bearer {answers[0].json()['token']}"
            answers += [_send(gateway, one) for one in sent[1:]]
        yield service, sent, answers


def _send(client: httpx.Client, one: dict[str, Any]) -> httpx.Response:
    return client.request(one["method"], one["path"], headers=one["headers"], content=one["body"])


def test_every_request_is_answered_as_it_was(told):
    _, sent, answers = told
    assert [answer.status_code for answer in answers] == [one["status"] for one in sent]


def test_every_header_that_it_relies_on_is_there(told):
    _, sent, answers = told
    for one, answer in zip(sent[1:], answers[1:], strict=True):
        assert {name: answer.headers[name] for name in PROMISED if name in one["answer_headers"]} == one[
            "answer_headers"
        ]


def test_every_record_is_acknowledged_as_it_expects_and_stands_in_the_log_byte_for_byte(told):
    service, sent, answers = told
    for one, answer in zip(sent, answers, strict=True):
        if one["path"] != "/v1/decisions":
            continue
        entries = [_entry(line) for line in one["body"].encode().splitlines()]
        results = answer.json()["results"]
        assert [result["record_id"] for result in results] == [decode_entry(entry).record_id for entry in entries]
        for result, entry in zip(results, entries, strict=True):
            index = result["leaf_index"]
            assert list(service.services.reader.entries(index, index + 1)) == [entry]


def _entry(line: bytes) -> bytes:
    return line[len(b'{"record":') : line.index(b',"openings":[')]


def test_it_speaks_of_all_that_gateways_speak_of(told):
    service, sent, _ = told
    kinds = [type(record.body).__name__ for record in records(sent)]
    assert {"Heartbeat", "Decision", "Outcome"} <= set(kinds)
    beats = [record.body for record in records(sent) if isinstance(record.body, Heartbeat)]
    assert [beat.kind for beat in beats][:1] == ["start"]
    assert [beat.kind for beat in beats][-1:] == ["stop"]
    assert len(service.services.catalog.of_type(LOG_ID, "heartbeat")) >= len(beats)


def records(sent: list[dict[str, Any]]) -> list[Record]:
    bodies = [one["body"] for one in sent if one["path"] == "/v1/decisions"]
    return [decode_entry(_entry(line)) for body in bodies for line in body.encode().splitlines()]


def test_an_answer_says_the_services_time_to_an_enforcer_and_to_nobody_else(told):
    service, _sent, answers = told
    assert {answer.headers.get("tallystick-time") for answer in answers[1:]} == {str(NOON_MS)}
    assert "tallystick-time" not in answers[0].headers
    with service.client(Role.AUDITOR) as auditor:
        assert "tallystick-time" not in auditor.get("/v1/decisions").headers
