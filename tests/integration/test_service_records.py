"""Records over HTTP: written whole or not at all, proved, found by what they say, opened for a purpose."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import text, update
from structlog.testing import capture_logs

from ledger.bodies import AccessEvent, Outcome
from ledger.commitments import fingerprint, pseudonym
from ledger.database import writing
from ledger.errors import StorageError, VerificationError
from ledger.notes import encode_base64
from ledger.ports import Opening, commit
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.records import Record, encode_record, sign_record
from ledger.stores import tables
from ledger.stores.sql_rows import id_bytes
from ledger.trust import TrustPolicy
from service.auth import Role
from service.keyset import trust_policy
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, make_decision
from tests.support.service import EnforcerClient, RunningService, start_service

SECRET = b'{"patient":"Erika Mustermann"}'
MISSING = "01a1fcad-9ff9-750b-91ac-898a54d423a5"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("records"), max_batch_records=50, max_request_bytes=200_000) as service:
        yield service


@pytest.fixture(scope="module")
def enforcer(running: RunningService) -> EnforcerClient:
    return running.enforcer()


@pytest.fixture(scope="module")
def auditor(running: RunningService) -> Iterator[httpx.Client]:
    with running.client(Role.AUDITOR) as client:
        yield client


@pytest.fixture(scope="module")
def responder(running: RunningService) -> Iterator[httpx.Client]:
    with running.client(Role.RESPONDER) as client:
        yield client


@pytest.fixture
def policy(running: RunningService) -> TrustPolicy:
    return trust_policy(running.services.keys)


def decision(enforcer: EnforcerClient, **changes: object) -> tuple[Record, list[Opening]]:
    body, openings = make_decision(**changes)
    return enforcer.record(body), [one for one in openings if getattr(body, one.field) is not None]


def size(running: RunningService) -> int:
    return running.services.sequenced_size()


def raw_entry(running: RunningService, index: int) -> bytes:
    return next(running.services.reader.entries(index, index + 1))


def detail(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


# --- writing ---------------------------------------------------------------------------------------------------------


def test_what_is_answered_with_201_stands_at_its_index_byte_for_byte(running, enforcer):
    batch = [decision(enforcer) for _ in range(3)]
    answer = enforcer.post(batch)
    assert answer.status_code == 201
    results = answer.json()["results"]
    assert [item["record_id"] for item in results] == [record.record_id for record, _ in batch]
    indexes = [item["leaf_index"] for item in results]
    assert indexes == list(range(indexes[0], indexes[0] + 3))
    for index, (record, _) in zip(indexes, batch, strict=True):
        assert raw_entry(running, index) == encode_record(record)


@pytest.mark.parametrize("form", ["one", "array", "lines"])
def test_every_form_of_a_request_is_taken(running, enforcer, form):
    lines = enforcer.spell([decision(enforcer) for _ in range(1 if form == "one" else 3)]).split(b"\n")
    body = {"one": lines[0], "array": b"[" + b",".join(lines) + b"]", "lines": b"\n".join(lines) + b"\n"}[form]
    kind = "application/x-ndjson" if form == "lines" else "application/json"
    with running.client(token=enforcer.token) as client:
        answer = client.post("/v1/decisions", content=body, headers={"content-type": kind})
    assert answer.status_code == 201
    assert len(answer.json()["results"]) == len(lines)


def test_a_record_sent_again_is_acknowledged_with_its_first_index_and_not_counted_again(running, enforcer):
    sent = decision(enforcer)
    first = enforcer.post([sent]).json()["results"][0]
    before = size(running)
    again = enforcer.post([sent])
    assert again.status_code == 201
    assert again.json()["results"] == [{**first, "duplicate": True}]
    assert size(running) == before


def test_a_record_twice_in_one_batch_has_one_index(running, enforcer):
    sent = decision(enforcer)
    before = size(running)
    results = enforcer.post([sent, sent]).json()["results"]
    assert [item["duplicate"] for item in results] == [False, True]
    assert results[0]["leaf_index"] == results[1]["leaf_index"]
    assert size(running) == before + 1


def test_one_id_with_other_content_is_a_conflict_and_nothing_is_taken(running, enforcer):
    record, openings = decision(enforcer)
    enforcer.post([(record, openings)]).raise_for_status()
    other = sign_record(msgspec.structs.replace(record, time_ms=record.time_ms + 1), enforcer.enforcer.key)
    before = size(running)
    fresh = decision(enforcer)
    answer = enforcer.post([fresh, (other, openings)])
    enforcer.enforcer.seq -= 1
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:tallystick:problem:conflict"
    assert size(running) == before
    assert raw_entry(running, before - 1) == encode_record(record)


def test_one_sequence_number_with_two_records_is_a_conflict(running, enforcer):
    record, openings = decision(enforcer)
    enforcer.post([(record, openings)]).raise_for_status()
    body, others = make_decision(agent="another")
    enforcer.enforcer.seq -= 1
    second = enforcer.record(body)
    assert second.seq == record.seq
    assert enforcer.post([(second, others)]).status_code == 409


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("spoil", ["tenant", "signature", "opening", "missing opening", "not json"])
def test_a_batch_with_one_bad_record_is_refused_whole(running, enforcer, position, spoil):
    batch = [decision(enforcer) for _ in range(3)]
    record, openings = batch[position]
    if spoil == "tenant":
        batch[position] = (
            sign_record(msgspec.structs.replace(record, tenant="globex"), enforcer.enforcer.key),
            openings,
        )
    elif spoil == "signature":
        batch[position] = (msgspec.structs.replace(record, running_count=99), openings)
    elif spoil == "opening":
        batch[position] = (record, [openings[0], Opening(openings[1].field, b"x" * 16, openings[1].payload)])
    elif spoil == "missing opening":
        batch[position] = (record, openings[:1])
    lines = enforcer.spell(batch).split(b"\n")
    if spoil == "not json":
        lines[position] = b"{"
    before = size(running)
    with running.client(token=enforcer.token) as client:
        answer = client.post(
            "/v1/decisions", content=b"\n".join(lines), headers={"content-type": "application/x-ndjson"}
        )
    enforcer.enforcer.seq -= 3
    assert answer.status_code == {"tenant": 403, "signature": 403, "opening": 422}.get(spoil, 400)
    assert size(running) == before


def test_a_forged_record_is_not_told_from_any_other_that_is_not_the_enforcers(running, enforcer):
    thief = Enforcer("gateway-1", LOG_ID, seed=66, epoch="e" * 32)
    body, openings = make_decision()
    answer = enforcer.post([(thief.record(body), openings)])
    assert answer.status_code == 403
    assert "not signed by a key of the enforcer gateway-1" in detail(answer)


def test_a_real_record_does_not_enter_a_simulated_log(running, enforcer):
    record, openings = decision(enforcer)
    enforcer.enforcer.seq -= 1
    real = sign_record(msgspec.structs.replace(record, simulated=False), enforcer.enforcer.key)
    answer = enforcer.post([(real, openings)])
    assert answer.status_code == 403
    assert "is real, the log is not" in detail(answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 400),
        ({"content-type": ""}, 400),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 400),
    ],
)
def test_a_body_of_another_kind_is_malformed(running, enforcer, headers, status):
    with running.client(token=enforcer.token) as client:
        answer = client.post("/v1/decisions", content=b"\x1f\x8b\x08\x00", headers=headers)
    assert answer.status_code == status


def test_more_records_or_bytes_than_the_settings_allow_are_refused(running, enforcer):
    before = size(running)
    many = [decision(enforcer) for _ in range(51)]
    answer = enforcer.post(many)
    enforcer.enforcer.seq -= 51
    assert (answer.status_code, "1 to 50 records" in detail(answer)) == (400, True)
    with running.client(token=enforcer.token) as client:
        large = client.post("/v1/decisions", content=b" " * 200_001, headers={"content-type": "application/json"})
        assert large.status_code == 413
        chunked = client.post(
            "/v1/decisions", content=iter([b" " * 50_000] * 5), headers={"content-type": "application/json"}
        )
        assert chunked.status_code == 413
    assert size(running) == before


@pytest.mark.parametrize("query", ["?wait=", "?wait=Proof", "?wait=proof&wait=proof", "?wait=0"])
def test_a_wait_that_is_not_known_is_refused_before_anything_is_written(running, enforcer, query):
    before = size(running)
    answer = enforcer.post([decision(enforcer)], query=query)
    enforcer.enforcer.seq -= 1
    assert answer.status_code in (400, 422)
    assert size(running) == before


def test_a_payload_that_is_not_json_or_text_comes_back_as_it_was_sent(running, enforcer, responder):
    payload = bytes(range(256)) * 3
    message, opening = commit("message", b"s" * 16, payload)
    body, openings = make_decision(message=message)
    record = enforcer.record(body)
    enforcer.post([(record, [opening, openings[1]])]).raise_for_status()
    answer = responder.post(
        f"/v1/decisions/{record.record_id}/openings", json={"purpose": "an inquiry", "fields": ["message"]}
    )
    assert base64.b64decode(answer.json()["openings"][0]["payload"]) == payload


# --- proofs ----------------------------------------------------------------------------------------------------------


def test_waiting_for_a_proof_as_json_gives_one_for_every_record_that_verifies(enforcer, policy):
    batch = [decision(enforcer) for _ in range(3)]
    answer = enforcer.post(batch, query="?wait=proof")
    assert answer.status_code == 201
    for (record, _), item in zip(batch, answer.json()["results"], strict=True):
        proof = parse_proof_file(item["proof"].encode())
        assert proof.index == item["leaf_index"]
        verify_entry(encode_record(record), proof, policy)


def test_waiting_for_a_proof_as_text_gives_the_file_itself(enforcer, policy):
    record, openings = decision(enforcer)
    answer = enforcer.post([(record, openings)], query="?wait=proof", accept="text/plain")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    proof = parse_proof_file(answer.content)
    assert answer.headers["tallystick-leaf-index"] == str(proof.index)
    verify_entry(encode_record(record), proof, policy)
    other, _ = decision(enforcer)
    enforcer.enforcer.seq -= 1
    with pytest.raises(VerificationError):
        verify_entry(encode_record(other), proof, policy)


def test_a_proof_of_a_record_that_was_sent_again_is_that_of_the_first(enforcer, policy):
    sent = decision(enforcer)
    first = enforcer.post([sent]).json()["results"][0]["leaf_index"]
    answer = enforcer.post([sent], query="?wait=proof")
    proof = parse_proof_file(answer.json()["results"][0]["proof"].encode())
    assert proof.index == first
    verify_entry(encode_record(sent[0]), proof, policy)


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.RESPONDER, Role.APPROVER, Role.ADMIN])
def test_a_proof_is_had_later_too(running, enforcer, policy, role):
    record, openings = decision(enforcer)
    enforcer.post([(record, openings)]).raise_for_status()
    with running.client(role) as client:
        answer = client.get(f"/v1/decisions/{record.record_id}/proof")
    assert record.record_id in answer.headers["content-disposition"]
    verify_entry(encode_record(record), parse_proof_file(answer.content), policy)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1/decisions/{MISSING}", 404),
        (f"/v1/decisions/{MISSING}/proof", 404),
        ("/v1/decisions/x", 422),
        (f"/v1/decisions/{MISSING.upper()}", 422),
        (f"/v1/decisions/{MISSING}%0a", 400),
        ("/v1/decisions/..%2f..%2fetc%2fpasswd", 404),
        (f"/v1/sessions/{'f' * 32}", 404),
        (f"/v1/sessions/{'F' * 32}", 422),
        ("/v1/sessions/" + "5" * 31, 422),
        ("/v1/sessions/" + "5" * 33, 422),
    ],
)
def test_what_is_not_there_is_not_found_and_what_is_no_id_is_invalid(auditor, path, status):
    assert auditor.get(path).status_code == status


# --- finding ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(running: RunningService, enforcer: EnforcerClient) -> Mapping[str, Any]:
    """Record one decision that differs in everything one can search for, among others."""
    key = running.services.keys.pseudonym.seed
    arguments, result = hashlib.sha256(b"arguments").hexdigest(), hashlib.sha256(b"result").hexdigest()
    unlike: dict[str, Any] = {
        "agent": "odd-agent",
        "server": "odd-server",
        "tool": "odd-tool",
        "rules": ("odd-rule", "other-rule"),
        "failed_condition": "odd-rule",
        "decision": "INDETERMINATE",
        "enforcement": "kill",
        "mode": "observe",
        "reason": "odd_reason",
        "session": "7" * 32,
        "user": pseudonym(key, "user", "odd user ü"),
        "trace_id": "8" * 32,
        "arguments_fingerprint": fingerprint(key, bytes.fromhex(arguments)),
    }
    for _ in range(3):
        enforcer.decide()
    decision_id = enforcer.decide(time_ms=NOW_MS, **unlike)
    enforcer.complete(
        decision_id, session="7" * 32, result_fingerprint=fingerprint(key, bytes.fromhex(result)), reason="odd_reason"
    )
    for _ in range(3):
        enforcer.decide()
    return {"id": decision_id, "arguments": arguments, "result": result}


@pytest.mark.parametrize(
    "wanted",
    [
        {"agent": "odd-agent"},
        {"server": "odd-server"},
        {"tool": "odd-tool"},
        {"rule": "odd-rule"},
        {"rule": "other-rule"},
        {"decision": "INDETERMINATE"},
        {"enforcement": "kill"},
        {"mode": "observe"},
        {"reason": "odd_reason"},
        {"session": "7" * 32},
        {"user": "odd user ü"},
        {"trace": "8" * 32},
        {"digest": "arguments"},
        {"digest": "result"},
        {"time_to_ms": NOW_MS + 1},
        {"time_from_ms": NOW_MS, "time_to_ms": NOW_MS + 1},
        {"agent": "odd-agent", "server": "odd-server", "tool": "odd-tool", "mode": "observe"},
    ],
    ids=str,
)
def test_a_decision_is_found_by_each_thing_that_it_says(auditor, told, wanted):
    wanted = {name: told.get(str(value), value) if name == "digest" else value for name, value in wanted.items()}
    items = auditor.get("/v1/decisions", params=wanted).json()["items"]
    assert [item["record"]["record_id"] for item in items] == [told["id"]]


@pytest.mark.parametrize(
    "wanted",
    [
        {"agent": "odd"},
        {"agent": "odd-agent", "mode": "enforce"},
        {"user": "odd user"},
        {"user": "ODD USER ü"},
        {"user": ""},
        {"rule": "odd"},
        {"digest": "0" * 64},
        {"time_to_ms": NOW_MS},
        {"time_from_ms": 2**53 - 1},
        {"cursor": 0},
        {"session": "7" * 31 + "8"},
        {"bundle_revision": "0" * 64},
    ],
    ids=str,
)
def test_what_does_not_match_whole_is_not_found(auditor, told, wanted):
    answer = auditor.get("/v1/decisions", params=wanted)
    told = answer.json()
    assert (answer.status_code, told["items"], told["next_cursor"]) == (200, [], None)


@pytest.mark.parametrize(
    "query",
    [
        "agnet=odd-agent",
        "agent=",
        "agent=a%20b",
        "agent=a&agent=b",
        "agent=odd-agent%0a",
        "agent=" + "a" * 129,
        "user=" + "a" * 257,
        "session=x",
        "decision=permit",
        "decision=MAYBE",
        "enforcement=DENY",
        "mode=",
        "digest=zz",
        "trace=" + "8" * 31,
        "limit=0",
        "limit=501",
        "limit=1e2",
        "cursor=-1",
        "cursor=x",
        "cursor=9007199254740992",
        "time_from_ms=-1",
        "time_from_ms=9007199254740992",
        "time_to_ms=2026-01-01",
        "from_ms=1",
        "%00=1",
    ],
)
def test_a_filter_that_is_unknown_twice_or_cannot_match_is_refused_and_not_ignored(auditor, query):
    answer = auditor.get(f"/v1/decisions?{query}")
    assert answer.status_code in (400, 422), answer.text
    assert "odd-agent" not in answer.text


def test_pages_hold_every_decision_once_newest_first(auditor, told):
    whole = auditor.get("/v1/decisions", params={"limit": 500}).json()["items"]
    indexes = [item["leaf_index"] for item in whole]
    assert indexes == sorted(indexes, reverse=True)
    seen: list[int] = []
    cursor: int | None = None
    while True:
        wanted = {"limit": 3} if cursor is None else {"limit": 3, "cursor": cursor}
        page = auditor.get("/v1/decisions", params=wanted).json()
        seen += [item["leaf_index"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == indexes


def test_what_is_found_is_what_the_leaf_says_byte_for_byte(running, auditor, told):
    answer = auditor.get("/v1/decisions", params={"agent": "odd-agent"})
    index = answer.json()["items"][0]["leaf_index"]
    assert raw_entry(running, index) in answer.content


def test_a_decision_is_shown_with_its_outcome(auditor, told):
    found = auditor.get(f"/v1/decisions/{told['id']}").json()
    assert found["record"]["record_id"] == told["id"]
    assert [item["record"]["body"]["decision_id"] for item in found["outcomes"]] == [told["id"]]


def test_a_record_that_is_no_decision_is_not_shown_as_one(enforcer, auditor):
    decision_id = enforcer.decide()
    outcome_id = enforcer.complete(decision_id)
    assert auditor.get(f"/v1/decisions/{outcome_id}").status_code == 404
    assert auditor.get(f"/v1/decisions/{outcome_id}/proof").status_code == 200


# --- sessions --------------------------------------------------------------------------------------------------------


def test_a_session_is_told_in_order_with_its_outcomes(enforcer, auditor):
    session = "a1" * 16
    first = enforcer.decide(session=session)
    enforcer.complete(first, session=session)
    second = enforcer.decide(session=session)
    found = auditor.get(f"/v1/sessions/{session}").json()
    events = [event["record"] for event in found["events"]]
    assert [event["body"]["type"] for event in events] == ["decision", "outcome", "decision"]
    assert [events[0]["record_id"], events[2]["record_id"]] == [first, second]
    indexes = [event["leaf_index"] for event in found["events"]]
    assert indexes == sorted(indexes)
    (stream,) = found["streams"]
    assert (stream["enforcer_id"], stream["missing"]) == ("gateway-1", 0)


def test_a_session_says_how_many_records_are_missing_in_between(running, auditor):
    session = "a2" * 16
    lossy = running.enforcer("lossy", seed=31)
    lossy.decide(session=session)
    lossy.enforcer.seq += 3
    lossy.decide(session=session)
    lossy.decide(session="a3" * 16)
    lossy.decide(session=session)
    (stream,) = auditor.get(f"/v1/sessions/{session}").json()["streams"]
    assert (stream["first_seq"], stream["last_seq"], stream["missing"]) == (1, 7, 3)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_a_long_session_is_told_in_pages_that_miss_nothing_of_what_is_missing(running, auditor, limit):
    session = f"a{4 + limit}" * 16
    lossy = running.enforcer(f"lossy-{limit}", seed=40 + limit)
    told = [lossy.decide(session=session)]
    lossy.enforcer.seq += 3
    told += [lossy.decide(session=session), lossy.decide(session=session)]
    lossy.enforcer.seq += 5
    told.append(lossy.decide(session=session))
    found, missing, cursor = [], 0, None
    while True:
        query = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
        page = auditor.get(f"/v1/sessions/{session}", params=query).json()
        assert len(page["events"]) <= limit
        found += [event["record"]["record_id"] for event in page["events"]]
        missing += sum(stream["missing"] for stream in page["streams"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == told
    assert missing == 8


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 501}, {"cursor": -1}, {"cursor": 2**53}, {"cursor": "x"}])
def test_a_page_of_a_session_that_cannot_be_is_refused(auditor, enforcer, query):
    enforcer.decide(session="af" * 16)
    assert auditor.get(f"/v1/sessions/{'af' * 16}", params=query).status_code == 422


# --- opening ---------------------------------------------------------------------------------------------------------


def open_(client: httpx.Client, decision_id: str, **body: object) -> httpx.Response:
    return client.post(f"/v1/decisions/{decision_id}/openings", json={"purpose": "an inquiry by the board", **body})


def test_an_opening_opens_the_commitment_in_the_leaf(enforcer, responder):
    record, openings = decision(enforcer)
    enforcer.post([(record, openings)]).raise_for_status()
    answer = open_(responder, record.record_id, fields=["message", "request"])
    assert answer.status_code == 200
    for item, sent in zip(answer.json()["openings"], openings, strict=True):
        assert (item["field"], item["record_id"]) == (sent.field, record.record_id)
        assert base64.b64decode(item["payload"]) == sent.payload
        assert base64.b64decode(item["salt"]) == sent.salt
        assert item["sha256"] == hashlib.sha256(sent.payload).hexdigest()


def test_the_result_is_opened_from_the_outcome(running, enforcer, responder):
    decision_id = enforcer.decide()
    result, opening = commit("result", b"s" * 16, SECRET)
    record = enforcer.record(Outcome(decision_id=decision_id, status="completed", session="5" * 32, result=result))
    enforcer.post([(record, [opening])]).raise_for_status()
    (item,) = open_(responder, decision_id, fields=["result"]).json()["openings"]
    assert (item["record_id"], base64.b64decode(item["payload"])) == (record.record_id, SECRET)


def test_an_opening_is_recorded_with_its_purpose_in_the_vault(running, enforcer, responder):
    decision_id = enforcer.decide()
    before = len(running.access_events("open_payload"))
    open_(responder, decision_id, fields=["request"])
    events = running.access_events("open_payload")
    assert len(events) == before + 1
    assert (events[-1].target_id, events[-1].actor_role, events[-1].items) == (decision_id, "responder", 1)
    index = running.services.catalog.of_type(LOG_ID, "access")[-1]
    record = running.services.reader.record(index)
    assert b"board" not in raw_entry(running, index)
    assert running.services.vault.open(record, "purpose").payload == b"an inquiry by the board"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"purpose": ""}, 422),
        ({"purpose": "short"}, 422),
        ({"purpose": "x" * 1001}, 422),
        ({"purpose": None}, 422),
        ({"fields": []}, 422),
        ({"fields": ["purpose"]}, 422),
        ({"fields": ["message", "request", "result", "result"]}, 422),
        ({"field": ["message"]}, 422),
        ({"fields": ["result"]}, 404),
    ],
    ids=str,
)
def test_an_opening_without_purpose_or_of_what_is_not_there_is_refused(enforcer, responder, body, status):
    assert open_(responder, enforcer.decide(), **body).status_code == status


def test_an_opening_of_an_unknown_record_or_of_no_decision_is_not_found_and_not_recorded(running, enforcer, responder):
    outcome_id = enforcer.complete(enforcer.decide())
    before = size(running)
    assert open_(responder, MISSING).status_code == 404
    assert open_(responder, outcome_id).status_code == 404
    assert size(running) == before


def test_nothing_is_handed_out_that_could_not_be_recorded(running, enforcer, responder, auditor, monkeypatch):
    """The sink fails: whatever a record of access belongs to is not told, not even in part."""
    record, openings = decision(enforcer, agent="unseen-agent", session="b1" * 16)
    enforcer.post([(record, openings)]).raise_for_status()

    async def failing(_drafts: object, **_options: object) -> None:
        raise StorageError("injected")

    published = running.services.publishing.published.head.size
    monkeypatch.setattr(running.services.recorder, "append", failing)
    answers = [
        open_(responder, record.record_id, fields=["message"]),
        auditor.get("/v1/decisions", params={"agent": "unseen-agent"}),
        auditor.get(f"/v1/decisions/{record.record_id}"),
        auditor.get(f"/v1/sessions/{'b1' * 16}"),
        responder.post("/v1/replays", json={"decision_ids": [record.record_id]}),
        auditor.get(f"/logs/{LOG_ID}/tile/entries/000.p/{min(published, 255)}"),
    ]
    with running.client(Role.ADMIN) as admin:
        issued = admin.post("/v1/tokens", json={"role": "admin", "name": "mallory"})
        introduced = admin.post(
            "/v1/enforcers", json={"enforcer_id": "mallory", "public_key": encode_base64(b"m" * 32)}
        )
    monkeypatch.undo()
    for answer in (*answers, issued, introduced):
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        for secret in (openings[0].payload, b"unseen-agent", b"ts1."):
            assert secret not in answer.content
    assert running.services.keyring.enforcer_keys("mallory") == []


def test_every_read_leaves_its_record(running, enforcer, auditor):
    decision_id = enforcer.decide(session="c1" * 16)
    running.wait_until_published()
    width = min(running.services.publishing.published.head.size, 256)
    bundle = "tile/entries/000" if width == 256 else f"tile/entries/000.p/{width}"
    before = size(running)
    for path in ("/v1/decisions?limit=2", f"/v1/decisions/{decision_id}", f"/v1/sessions/{'c1' * 16}"):
        auditor.get(path).raise_for_status()
    entries = auditor.get(f"/logs/{LOG_ID}/{bundle}").content
    bodies = [running.services.reader.record(index).body for index in range(before, size(running))]
    told = [body for body in bodies if isinstance(body, AccessEvent)]
    assert [(body.action, body.target_kind, body.items) for body in told] == [
        ("query", "decisions", 2),
        ("read", "record", 1),
        ("read", "session", 1),
        ("export_entries", "log", width),
    ]
    assert told[1].target_id == decision_id
    assert (told[3].target_id, told[3].digest) == (bundle, hashlib.sha256(entries).hexdigest())
    assert {body.actor_role for body in told} == {"auditor"}


# --- the index is not believed ---------------------------------------------------------------------------------------


def test_where_a_bent_index_leads_nothing_is_shown_opened_or_replayed(tmp_path):
    with start_service(tmp_path) as service:
        enforcer = service.enforcer()
        first, second = enforcer.decide(agent="first"), enforcer.decide(agent="second")
        result, opening = commit("result", b"s" * 16, SECRET)
        outcome = enforcer.record(Outcome(decision_id=second, status="completed", session="5" * 32, result=result))
        enforcer.post([(outcome, [opening])]).raise_for_status()
        leaf = service.services.catalog.index_of(LOG_ID, first)
        columns = tables.records.c
        with writing(service.services.database) as connection:
            kept = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            for (name,) in connection.execute(text(kept)).all():
                connection.execute(text(f"DROP TRIGGER {name}"))
            missing, there = id_bytes(MISSING), id_bytes(second)
            connection.execute(update(tables.records).where(columns.record_id == there).values(record_id=missing))
            connection.execute(update(tables.records).where(columns.leaf_index == leaf).values(record_id=there))
            is_outcome = columns.decision_id.is_not(None)
            connection.execute(update(tables.records).where(is_outcome).values(decision_id=missing))
        with service.client(Role.ADMIN) as admin:
            assert admin.get(f"/v1/decisions/{second}").status_code == 404
            assert open_(admin, second).status_code == 404
            assert admin.post("/v1/replays", json={"decision_ids": [second]}).status_code == 404
            assert open_(admin, MISSING, fields=["result"]).status_code == 404


# --- telling nothing -------------------------------------------------------------------------------------------------


def test_neither_problem_nor_log_quotes_payloads_tokens_or_names(running, enforcer, responder):
    message, _ = commit("message", b"s" * 16, SECRET)
    body, openings = make_decision(message=message)
    wrong = [Opening("message", b"t" * 16, SECRET), openings[1]]
    with capture_logs() as logged:
        record = enforcer.record(body)
        enforcer.enforcer.seq -= 1
        refused = enforcer.post([(record, wrong)])
        bad = enforcer.post([(record, [Opening("request", b"t" * 16, SECRET)])])
        lost = responder.get("/v1/decisions", params={"user": "Erika Mustermann", "limit": "many"})
        unknown = responder.get("/v1/decisions", params={"Erika Mustermann": "x"})
    assert [answer.status_code for answer in (refused, bad, lost, unknown)] == [422, 400, 422, 422]
    for answer in (refused, bad, lost):
        assert "Mustermann" not in answer.text
        assert base64.b64encode(SECRET).decode() not in answer.text
    assert "Mustermann" not in json.dumps(logged)
    assert enforcer.token not in json.dumps(logged)


def test_an_unexpected_error_is_a_500_that_says_nothing_and_the_service_goes_on(running, auditor, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("patient Erika Mustermann")

    with monkeypatch.context() as patched, capture_logs() as logged:
        patched.setattr(type(running.services.catalog), "search", broken)
        answer = auditor.get("/v1/decisions")
    assert answer.status_code == 500
    assert "Mustermann" not in answer.text + json.dumps(logged)
    assert "request_failed" in [entry["event"] for entry in logged]
    assert auditor.get("/v1/decisions").status_code == 200


# --- beneath HTTP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /v1/decisions HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"b" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=["no host", "version", "two lengths", "negative", "bad chunk", "long path", "long header", "TLS"],
)
def test_bytes_that_are_no_request_do_not_hurt(running, auditor, request_):
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        answer = b""
        # Who is sent too much may end the connection before he has taken all of it.
        with contextlib.suppress(OSError):
            connection.sendall(request_)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                answer += chunk
    assert not answer or answer.split(b" ", 2)[1][:1] in (b"3", b"4"), answer[:200]
    assert auditor.get("/healthz").status_code == 200


def test_a_body_that_never_comes_is_given_up(tmp_path):
    with start_service(tmp_path, max_body_seconds=0.3) as service:
        enforcer = service.enforcer()
        host, port = service.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.putrequest("POST", "/v1/decisions")
        connection.putheader("authorization", f"Bearer {enforcer.token}")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", "10")
        connection.endheaders(b"{")
        answer = connection.getresponse()
        assert answer.status == 408
        assert json.loads(answer.read())["type"] == "urn:tallystick:problem:too-slow"
        connection.close()
