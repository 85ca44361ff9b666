"""An OPA decision log over HTTP, to a real service: every event is in the log once, whatever comes in between."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.bodies import Heartbeat, OPADecision, OPALoss
from ledger.completeness import Verdict, assess
from ledger.errors import ErasedError, StorageError
from ledger.records import Record
from service.auth import Role
from tests.support.ledger import LOG_ID
from tests.support.packs import shop_bundle
from tests.support.service import RunningService, start_service

GZIP = {"content-encoding": "gzip", "content-type": "application/json"}
BATCH = 256


def event(decision_id: str, instance: str = "opa-1", **changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "labels": {"id": instance, "version": "1.22.2"},
        "decision_id": decision_id,
        "path": "tallystick/allow",
        "input": {"principal": {"agent": "bot", "user": "alice"}, "state": {"session": "s-1"}},
        "result": True,
        "requested_by": "127.0.0.1:46350",
        "timestamp": "2026-11-21T18:36:42.079496312Z",
    }
    return {**value, **changes}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("opa"), max_request_bytes=200_000) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[httpx.Client]:
    with service.client(Role.CLIENT) as client:
        yield client


def post(client: httpx.Client, events: object) -> dict[str, int]:
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    answer = client.post("/logs", content=gzip.compress(body, mtime=0), headers=GZIP)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert told.pop("log_id") == LOG_ID
    return told


def told(**counts: int) -> dict[str, int]:
    return {"taken": 0, "duplicates": 0, "conflicts": 0, "unreadable": 0, **counts}


def records_of(service: RunningService, kind: str = "opa_decision") -> list[Record]:
    return [service.services.reader.record(index) for index in service.services.catalog.of_type(LOG_ID, kind)]


def bodies_of(service: RunningService, instance: str) -> list[OPADecision]:
    bodies = [record.body for record in records_of(service)]
    return [body for body in bodies if isinstance(body, OPADecision) and body.instance == instance]


def test_an_event_is_a_record_with_its_payloads_in_the_vault(service, client):
    cache = {"nd_builtin_cache": {"time.now_ns": {"[]": 1}}}
    assert post(client, [event("d-1", "whole", **cache, masked=["/result/x"])]) == told(taken=1)
    (record,) = [one for one in records_of(service) if one.body.instance == "whole"]
    body = record.body
    assert (body.kind, body.opa_decision_id, body.path, body.answer) == ("taken", "d-1", "tallystick/allow", "true")
    assert (body.masked, body.withheld, body.replay) == (1, ("result",), "exact")
    vault = service.services.vault
    assert json.loads(vault.open(record, "input").payload) == event("d-1")["input"]
    assert vault.open(record, "result").payload == b"true"
    assert json.loads(vault.open(record, "nd_builtin_cache").payload) == cache["nd_builtin_cache"]
    assert "input" not in json.loads(vault.open(record, "event").payload)
    (user,) = service.services.keys.pseudonyms("user", "alice")
    assert body.user == user
    assert "alice" not in str(body)


def test_handed_in_again_it_is_known_however_it_is_spelt(service, client):
    events = [event(f"d-{n}", "again") for n in range(3)]
    assert post(client, events) == told(taken=3)
    assert post(client, json.dumps(events, indent=1, sort_keys=True).encode()) == told(duplicates=3)
    assert post(client, [*events, event("d-3", "again")]) == told(taken=1, duplicates=3)
    assert len(bodies_of(service, "again")) == 4


def test_another_event_under_a_taken_id_is_recorded_as_a_conflict_and_stops_nothing(service, client):
    first = event("d-1", "conflicting")
    post(client, [first])
    other = {**first, "result": False}
    assert post(client, [other, event("d-2", "conflicting")]) == told(taken=1, conflicts=1)
    assert post(client, [other, first]) == told(duplicates=2)
    taken, second, conflict = sorted(bodies_of(service, "conflicting"), key=lambda body: body.kind, reverse=True)
    assert [body.kind for body in (taken, second, conflict)] == ["taken", "taken", "conflict"]
    assert conflict.conflicts_with is not None
    index = service.services.catalog.index_of(LOG_ID, conflict.conflicts_with)
    assert service.services.reader.record(index).body.answer == "true"


def test_one_upload_may_hold_an_event_twice_and_two_under_one_id(service, client):
    first = event("d-1", "twice")
    other = {**first, "result": False}
    assert post(client, [first, first, other, other, first]) == told(taken=1, conflicts=1, duplicates=3)
    assert post(client, [first, other]) == told(duplicates=2)


def test_two_opas_may_give_one_decision_id(service, client):
    assert post(client, [event("d-1", "left"), event("d-1", "right", result=False)]) == told(taken=2)


def test_what_cannot_be_read_is_set_aside_once_and_the_rest_is_taken(service, client):
    poison = [
        b"7",
        b'{"labels":{"id":"p"},"decision_id":"d","input":{"n":1e400}}',
        b'{"a":1,"a":2}',
        b'{"decision_id":"d"}',
    ]
    body = b"[" + b",".join([*poison, json.dumps(event("d-1", "beside")).encode(), *poison]) + b"]"
    assert post(client, body) == told(taken=1, unreadable=4, duplicates=4)
    assert post(client, body) == told(duplicates=9)
    aside = [record for record in records_of(service) if record.body.kind == "unreadable"]
    assert {record.body.fault for record in aside} >= {"not_an_object", "not_strict_json", "no_instance"}
    assert {service.services.vault.open(record, "event").payload for record in aside} >= set(poison)


@pytest.mark.parametrize(
    ("changes", "replay"),
    [
        ({"bundles": {"shop": {"revision": "published"}}}, "exact"),
        ({"bundles": {"shop": {"revision": "published"}, "more": {"revision": "unheard-of"}}}, "missing_fact"),
        ({"bundles": {"shop": {"revision": "published"}, "more": {}}}, "missing_fact"),
        ({"bundles": {"shop": {"revision": "unheard-of"}}}, "missing_fact"),
        ({"bundles": {"shop": {"revision": "unheard-of"}}, "nd_builtin_cache": {}}, "exact"),
        ({}, "missing_fact"),
        ({"bundles": {"shop": {"revision": "published"}}, "erased": ["/input/principal"]}, "masked"),
        ({"bundles": {"shop": {"revision": "published"}}, "masked": ["/nd_builtin_cache/x"]}, "masked"),
        ({"bundles": {"shop": {"revision": "published"}}, "erased": ["/result"]}, "exact"),
    ],
)
def test_how_far_an_event_could_be_replayed_is_told(service, client, changes, replay):
    bundle = shop_bundle()
    with service.client(Role.ADMIN) as admin:
        admin.post("/v1/bundles", content=bundle.archive()).raise_for_status()
    text = json.dumps(changes).replace("published", bundle.revision)
    instance = f"replay-{zlib.crc32(text.encode())}"
    post(client, [event("d-1", instance, **json.loads(text))])
    (body,) = bodies_of(service, instance)
    assert body.replay == replay


def test_the_same_upload_many_times_at_once_is_taken_once(service, client):
    events = [event(f"d-{n}", "at-once") for n in range(40)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(client, events), range(8)))
    assert sum(answer["taken"] for answer in answers) == 40
    assert sum(answer["duplicates"] for answer in answers) == 7 * 40
    assert len(bodies_of(service, "at-once")) == 40


def test_an_upload_that_broke_off_in_the_middle_is_finished_when_it_comes_again(service, client, monkeypatch):
    events = [event(f"d-{n}", "broken") for n in range(BATCH + 10)]
    whole, calls = service.services.recorder.append, []

    async def fail_second(drafts: Any, **options: Any) -> Any:
        calls.append(len(drafts))
        if len(calls) == 2:
            raise StorageError("the disk is full")
        return await whole(drafts, **options)

    monkeypatch.setattr(service.services.recorder, "append", fail_second)
    assert client.post("/logs", json=events).status_code == 503
    monkeypatch.undo()
    assert post(client, events) == told(taken=10, duplicates=BATCH)
    assert len(bodies_of(service, "broken")) == len(events)


def test_an_answer_that_was_lost_doubles_nothing(service, client, monkeypatch):
    whole = service.services.recorder.append

    async def keep_and_fail(drafts: Any, **options: Any) -> Any:
        await whole(drafts, **options)
        raise StorageError("the connection broke")

    monkeypatch.setattr(service.services.recorder, "append", keep_and_fail)
    assert client.post("/logs", json=[event("d-1", "kept")]).status_code == 503
    monkeypatch.undo()
    assert post(client, [event("d-1", "kept")]) == told(duplicates=1)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"[]", {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"[]", mtime=0)[:-2], GZIP, 400),
        (gzip.compress(b"{}", mtime=0), GZIP, 400),
        (b"[]", {"content-encoding": "br"}, 400),
        (gzip.compress(b"[" + b" " * 40_000_000 + b"]", mtime=0), GZIP, 413),
        (gzip.compress(b"[" + b"7," * 20_000 + b"7]", mtime=0), GZIP, 413),
        (b" " * 200_001, {}, 413),
    ],
)
def test_an_upload_that_is_none_or_too_large_is_refused_whole(service, client, content, headers, status):
    before = service.services.sequenced_size()
    assert client.post("/logs", content=content, headers=headers).status_code == status
    kinds = [service.services.reader.record(i).body for i in range(before, service.services.sequenced_size())]
    assert all(isinstance(body, Heartbeat) for body in kinds)


def test_an_empty_upload_is_nothing(client):
    assert post(client, []) == told()


def test_losses_are_recorded_when_their_counts_change(service, client):
    def report(dropped: int) -> bool:
        metrics = {"counter_decision_logs_dropped_rate_limit_exceeded": dropped}
        status = {"labels": {"id": "losing", "version": "1.22.2"}, "decision_logs": {"metrics": metrics}}
        answer = client.post("/status", json=status)
        assert answer.status_code == 200
        recorded: bool = answer.json()["recorded"]
        return recorded

    assert [report(count) for count in (0, 3, 3, 5, 5)] == [False, True, False, True, False]
    losses = [record.body for record in records_of(service, "opa_loss")]
    assert [body.rate_limited for body in losses if isinstance(body, OPALoss)] == [3, 5]


def test_erasing_a_user_takes_the_inputs_that_name_him_along(service, client):
    post(client, [event("d-1", "erased", input={"principal": {"user": "mallory"}})])
    (record,) = [one for one in records_of(service) if one.body.instance == "erased"]
    with service.client(Role.ADMIN) as admin:
        answer = admin.post("/v1/erasures", json={"user": "mallory", "basis": "a request of today"})
        assert answer.status_code == 200, answer.text
    with pytest.raises(ErasedError):
        service.services.vault.open(record, "input")


def test_the_services_stream_stays_whole_and_its_records_are_proved(service, client):
    post(client, [event("d-1", "proved")])
    records = [service.services.reader.record(index) for index in range(service.services.sequenced_size())]
    own = [record for record in records if record.enforcer_id == service.services.settings.service_id]
    (stream,) = assess(own)
    assert stream.verdict is not Verdict.GAP
    (record,) = [one for one in records_of(service) if one.body.instance == "proved"]
    assert client.get(f"/v1/decisions/{record.record_id}/proof").status_code == 200


def test_a_service_that_was_started_again_knows_what_it_took(tmp_path: Path):
    events = [event(f"d-{n}") for n in range(3)]
    with start_service(tmp_path) as service, service.client(Role.CLIENT) as client:
        assert post(client, events[:2]) == told(taken=2)
    with start_service(tmp_path) as service, service.client(Role.CLIENT) as client:
        assert post(client, events) == told(taken=1, duplicates=2)
