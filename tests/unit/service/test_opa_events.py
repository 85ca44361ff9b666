"""An OPA's upload, read: bounded, taken apart, and every hazard of its JSON an event that is set aside."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from ledger.errors import MalformedError
from service.opa_events import MAX_EVENTS, TooLargeError, inflate, parse_event, parse_loss, split

INSTANCE = "6c4dd75b-5c3e-4b26-a0f5-9f58f2c903d7"
DECISION = "0e818643-94db-4f9a-a129-20a9190ca183"


def event(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "labels": {"id": INSTANCE, "version": "1.22.2"},
        "decision_id": DECISION,
        "bundles": {"shop": {"revision": "b0" * 32}},
        "path": "tallystick/allow",
        "input": {"principal": {"agent": "bot", "user": "alice"}, "state": {"session": "s-1"}, "n": 1},
        "result": True,
        "requested_by": "127.0.0.1:46350",
        "timestamp": "2026-11-21T18:36:42.079496312Z",
        "metrics": {"timer_rego_query_eval_ns": 412_999},
        "req_id": 7,
    }
    merged = {**value, **changes}
    return {name: item for name, item in merged.items() if item is not ...}


def raw(**changes: Any) -> bytes:
    return json.dumps(event(**changes)).encode()


def test_an_event_says_what_was_decided_by_whom_and_when():
    read = parse_event(raw(trace_id="ab" * 16))
    assert (read.fault, read.instance, read.decision_id, read.version) == (None, INSTANCE, DECISION, "1.22.2")
    assert (read.path, read.bundles, read.revisions, read.unrevised) == (
        "tallystick/allow",
        ("shop",),
        ("b0" * 32,),
        False,
    )
    assert (read.answer, read.error, read.evaluation_us, read.request_number) == ("true", False, 412, 7)
    assert (read.decided_ms, read.address, read.trace_id) == (1_795_286_202_079, "127.0.0.1", "ab" * 16)
    assert (read.user, read.session) == ("alice", "s-1")


def test_payloads_are_kept_as_they_were_received_and_the_rest_without_them():
    text = raw(nd_builtin_cache={"time.now_ns": {"[]": 1}}).replace(b'"n": 1', b'"n":  9007199254740993.10')
    read = parse_event(text)
    assert read.payloads["input"].endswith(b'"n":  9007199254740993.10}')
    assert read.payloads["result"] == b"true"
    assert json.loads(read.payloads["nd_builtin_cache"]) == {"time.now_ns": {"[]": 1}}
    assert json.loads(read.rest) == {
        name: item for name, item in event().items() if name not in ("input", "result", "nd_builtin_cache")
    }


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        (True, "true"),
        (False, "false"),
        ("true", "other"),
        (1, "other"),
        (None, "other"),
        ([], "other"),
        ({"allow": True}, "other"),
        (..., "absent"),
    ],
)
def test_only_a_literal_true_is_true(result, answer):
    assert parse_event(raw(result=result)).answer == answer


def test_what_opa_withheld_is_counted_and_only_the_payload_is_named():
    read = parse_event(raw(erased=["/input/users/alice@example.com", "/custom/x"], masked=["/result/0", "/input", 7]))
    assert (read.erased, read.masked, read.withheld) == (2, 2, ("input", "result"))


@pytest.mark.parametrize("given", ["text", 7, None, [], {"principal": "alice"}, {"principal": {"user": 7}}])
def test_an_input_of_another_form_names_nobody(given):
    read = parse_event(raw(input=given))
    assert (read.fault, read.user, read.session) == (None, None, None)


def test_the_same_values_spelt_anew_are_the_same_event():
    other = json.dumps(event(), sort_keys=True, indent=2).encode()
    assert parse_event(raw()).sha256 == parse_event(other).sha256


@pytest.mark.parametrize(
    "changes",
    [{"result": False}, {"input": {"n": 2}}, {"req_id": 8}, {"metrics": {}}, {"result": "true"}, {"custom": None}],
)
def test_any_other_value_is_another_event(changes):
    assert parse_event(raw()).sha256 != parse_event(raw(**changes)).sha256


def test_numbers_are_compared_as_written():
    texts = [raw().replace(b'"n": 1', b'"n": ' + number) for number in (b"1", b"1.0", b"1e0", b"9007199254740993")]
    assert len({parse_event(text).sha256 for text in texts}) == 4


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"7", "not_an_object"),
        (b"[]", "not_an_object"),
        (b"{}", "no_instance"),
        (raw(labels={"version": "1"}), "no_instance"),
        (raw(labels=7), "no_instance"),
        (raw(labels={"id": "no name"}), "no_instance"),
        (raw(decision_id=...), "no_decision_id"),
        (raw(decision_id=7), "no_decision_id"),
        (raw(decision_id="x" * 129), "no_decision_id"),
        (raw(decision_id="näme"), "no_decision_id"),
        (raw().replace(b'"n": 1', b'"n": 1e400'), "not_strict_json"),
        (raw().replace(b'"n": 1', b'"n": 1, "n": 2'), "not_strict_json"),
        (raw().replace(b'"alice"', b'"\\ud800"'), "not_strict_json"),
        (raw(input={"deep": json.loads("[" * 70 + "]" * 70)}), "not_strict_json"),
        (raw() + b"x", "not_strict_json"),
    ],
)
def test_what_cannot_be_read_is_kept_as_it_is(text, fault):
    read = parse_event(text)
    assert (read.fault, read.rest, read.payloads) == (fault, text, {})


@pytest.mark.parametrize(
    "changes",
    [
        {"path": 7},
        {"path": "näme"},
        {"bundles": 7},
        {"bundles": {"no name": {"revision": 7}}},
        {"metrics": 7},
        {"metrics": {"timer_rego_query_eval_ns": -1}},
        {"timestamp": "yesterday"},
        {"timestamp": 7},
        {"timestamp": "1900-01-01T00:00:00Z"},
        {"timestamp": "2026-01-01T00:00:00"},
        {"requested_by": "nobody"},
        {"requested_by": 7},
        {"req_id": 2**64 - 1},
        {"trace_id": "xyz"},
        {"erased": "all"},
        {"labels": {"id": INSTANCE, "version": 7}},
    ],
)
def test_a_member_of_a_form_that_has_no_place_in_the_open_stays_in_the_vault(changes):
    read = parse_event(raw(**changes))
    assert read.fault is None
    assert json.loads(read.rest)[next(iter(changes))] == next(iter(changes.values()))


def test_more_bundles_than_a_record_names_are_told():
    read = parse_event(raw(bundles={f"b{n}": {"revision": f"r{n}"} for n in range(70)}))
    assert (len(read.bundles), len(read.revisions), read.unrevised) == (64, 64, True)


# --- uploads


def test_an_upload_is_taken_apart_into_what_was_received():
    assert split(b' [ {"a" : 1.0},7, "x" ] ') == [b'{"a" : 1.0}', b"7", b'"x"']


@pytest.mark.parametrize("data", [b"", b"{}", b"[", b"[1,]", b"[1] 2", b"\xff", b"[" * 100_000])
def test_what_is_no_array_is_refused(data):
    with pytest.raises(MalformedError):
        split(data)


def test_too_many_events_are_refused():
    with pytest.raises(TooLargeError):
        split(b"[" + b"7," * MAX_EVENTS + b"7]")


def test_gzip_is_unpacked_and_plain_json_taken_as_it_is():
    assert inflate(gzip.compress(b"[]", mtime=0), "gzip", limit_bytes=2) == inflate(b"[]", "", limit_bytes=2) == b"[]"


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]", mtime=0)
    assert len(bomb) < 60_000
    with pytest.raises(TooLargeError):
        inflate(bomb, "gzip", limit_bytes=1_000_000)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"[]", "gzip"),
        (b"", "gzip"),
        (gzip.compress(b"[]", mtime=0)[:-3], "gzip"),
        (gzip.compress(b"[]", mtime=0) + b"more", "gzip"),
        (gzip.compress(b"[", mtime=0) + gzip.compress(b"]", mtime=0), "gzip"),
        (zlib.compress(b"[]"), "gzip"),
        (zlib.compress(b"[]"), "deflate"),
        (b"[]", "br"),
        (gzip.compress(gzip.compress(b"[]", mtime=0), mtime=0), "gzip, gzip"),
    ],
)
def test_what_is_not_one_whole_gzip_member_is_refused(body, encoding):
    with pytest.raises(MalformedError):
        inflate(body, encoding, limit_bytes=1000)


# --- status


def status(**metrics: object) -> bytes:
    return json.dumps(
        {"labels": {"id": INSTANCE, "version": "1.22.2"}, "decision_logs": {"metrics": metrics}, "plugins": {}}
    ).encode()


def test_counters_of_lost_events_are_read():
    loss = parse_loss(
        status(
            counter_decision_logs_dropped_rate_limit_exceeded=3,
            counter_decision_logs_dropped_buffer_size_limit_exceeded=4,
            counter_decision_logs_dropped_buffer_size_limit_bytes_exceeded=5,
            counter_decision_logs_encoding_failure=1,
            counter_decision_logs_nd_builtin_cache_dropped=2,
            counter_decision_logs_chunks_uploaded=100,
        )
    )
    assert loss is not None
    assert (loss.instance, loss.version, loss.counts) == (INSTANCE, "1.22.2", (3, 9, 1, 2))


@pytest.mark.parametrize("metrics", [{}, {"counter_decision_logs_chunks_uploaded": 9}, {"x": "y"}])
def test_a_status_without_losses_says_nothing(metrics):
    assert parse_loss(status(**metrics)) is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"labels":{}}', b'{"labels":{"id":"no name"}}', b"\xff"])
def test_what_is_no_status_is_refused(data):
    with pytest.raises(MalformedError):
        parse_loss(data)
