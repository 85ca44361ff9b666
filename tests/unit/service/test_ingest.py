"""What enters the log: decoded strictly, bound to the token's log and enforcer, signed, opened. Everything else not."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import nacl.signing
import pytest

from ledger.bodies import AccessEvent, Approval, BundleEvent, Dropped, Heartbeat, ModeEvent, Outcome, Tombstone
from ledger.bodies_drift import BaselineEvent, Drift
from ledger.bodies_inventory import InventoryEvent
from ledger.errors import (
    CommitmentError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    SignatureInvalidError,
    StaleKeysError,
)
from ledger.merkle import hash_leaf
from ledger.ports import Acknowledgement, Opening, PendingEntry, SealedPayload, commit
from ledger.records import Record, encode_record, sign_record, verify_record_signature
from ledger.vault import SubjectKey, Vault, key_id_of
from service.ingest import Admission, LogIdentity, Submission, count_ahead, decode_submissions, sequence_admitted
from service.problems import ForbiddenError
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, make_decision

JSON = "application/json"
NDJSON = "application/x-ndjson"
SECRET = "a payload that nobody may see"
IDENTITY = LogIdentity(log_id=LOG_ID, tenant="acme", environment="test", simulated=True)


class SubjectKeys:
    """Subject keys in memory."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get_or_create(self, _log_id: str, subject: str) -> SubjectKey:
        self.asked.append(subject)
        return self.get(_log_id, subject)

    def get(self, _log_id: str, _subject: str) -> SubjectKey:
        return SubjectKey(b"k" * 32, key_id_of(b"k" * 32))


class Payloads:
    """What was sealed, as the store would give it back."""

    def __init__(self, sealed: Mapping[str, SealedPayload]) -> None:
        self.sealed = sealed

    def payload(self, _log_id: str, _record_id: str, field: str) -> SealedPayload:
        if field not in self.sealed:
            raise NotFoundError(field)
        return self.sealed[field]


class Keys:
    """The keys of one enforcer, or of all; `after_refresh` is what the log holds when it is looked at again."""

    def __init__(self, enforcer_id: str | None, known: Sequence[bytes]) -> None:
        self.enforcer_id = enforcer_id
        self.known = list(known)
        self.leaf = 3
        self.after_refresh: list[bytes] | None = None
        self.refreshed = 0

    def keys_of(self, enforcer_id: str) -> tuple[int, Sequence[bytes]]:
        return self.leaf, self.known if self.enforcer_id in (None, enforcer_id) else []

    def refresh(self) -> int:
        self.refreshed += 1
        if self.after_refresh is not None:
            self.known, self.leaf, self.after_refresh = self.after_refresh, self.leaf + 1, None
        return self.leaf


@pytest.fixture
def enforcer() -> Enforcer:
    return Enforcer("gateway-1", seed=21)


def admission(
    enforcer: Enforcer, *more: nacl.signing.SigningKey, identity: LogIdentity = IDENTITY, keys: Keys | None = None
) -> Admission:
    known = [bytes(key.verify_key) for key in (enforcer.key, *more)]
    vault = Vault(LOG_ID, SubjectKeys(), Payloads({}))
    return Admission(identity, vault, keys or Keys(enforcer.enforcer_id, known))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spelt(record: bytes, openings: tuple[Opening, ...] = ()) -> bytes:
    """Return a submission as an enforcer spells it."""
    items = [{"field": one.field, "salt": b64(one.salt), "payload": b64(one.payload)} for one in openings]
    return b'{"record":' + record + b',"openings":' + json.dumps(items, separators=(",", ":")).encode() + b"}"


def heartbeat(enforcer: Enforcer) -> bytes:
    return encode_record(enforcer.record(enforcer.heartbeat()))


def submitted(record: Record, openings: dict[str, Opening]) -> Submission:
    return Submission(record, encode_record(record), openings)


def decided(enforcer: Enforcer, **changes: object) -> Submission:
    body, openings = make_decision(**changes)
    return submitted(enforcer.record(body), {one.field: one for one in openings})


def read(body: bytes, kind: str = JSON, limit: int = 10) -> list[Submission]:
    return decode_submissions(body, kind, max_records=limit)


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [JSON, "APPLICATION/JSON", "application/json; charset=utf-8", " application/json "])
def test_one_submission_an_array_and_lines_carry_the_same_records(enforcer, kind):
    entries = [heartbeat(enforcer) for _ in range(2)]
    (one,) = read(spelt(entries[0]), kind)
    assert encode_record(one.record) == entries[0]
    array = read(b"[" + b",".join(map(spelt, entries)) + b"]", kind)
    lines = read(b"\n".join(map(spelt, entries)), NDJSON)
    assert [encode_record(item.record) for item in array] == entries
    assert array == lines


def test_openings_come_decoded_by_field(enforcer):
    body, openings = make_decision()
    (one,) = read(spelt(encode_record(enforcer.record(body)), openings))
    assert one.openings == {item.field: item for item in openings}


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\n\n\n", b"\n \t \n"])
def test_lines_end_as_they_like_and_blank_ones_do_not_count(enforcer, between):
    entries = [heartbeat(enforcer) for _ in range(3)]
    body = between + between.join(map(spelt, entries)) + between
    assert len(read(body, NDJSON, limit=3)) == 3


def test_a_vertical_tab_or_another_space_of_unicode_does_not_make_a_line_blank(enforcer):
    line = spelt(heartbeat(enforcer))
    for blank in (b"\x0b", b"\x0c", "\u00a0".encode(), "\u2028".encode()):
        with pytest.raises(MalformedError, match="submission 1"):
            read(line + b"\n" + blank, NDJSON)


def test_a_record_that_is_spelt_otherwise_is_kept_in_its_one_canonical_spelling(enforcer):
    entry = heartbeat(enforcer)
    members = json.loads(entry)
    backwards = json.dumps(dict(reversed(members.items())), indent=2).encode()
    (one,) = read(b'{ "record" : ' + backwards + b"}")
    assert encode_record(one.record) == entry
    verify_record_signature(one.record, bytes(enforcer.key.verify_key))


def test_a_name_in_escapes_is_the_same_name(enforcer):
    entry = heartbeat(enforcer)
    (one,) = read(spelt(entry.replace(b'"gateway-1"', b'"\\u0067ateway-1"')))
    assert encode_record(one.record) == entry


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/json-seq", "application/x-www-form-urlencoded", "json"]
)
def test_another_content_type_is_refused(enforcer, kind):
    with pytest.raises(MalformedError, match="content type"):
        read(spelt(heartbeat(enforcer)), kind)


@pytest.mark.parametrize("kind", [JSON, NDJSON])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   \n\t\n",
        b"[]",
        b"null",
        b"1",
        b'"record"',
        b"[[]]",
        b"{}",
        b'{"record":null}',
        b'{"record":[]}',
        b'{"record":{}}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"record":' * 50_000,
        b'{"record":{"a":"\xff"}}',
        b"NaN",
    ],
)
def test_what_is_no_submission_is_malformed(body, kind):
    with pytest.raises(MalformedError):
        read(body, kind)


def mutations() -> Mapping[str, Callable[[bytes], bytes]]:
    """Return what a sender may do to a good submission, by name."""
    return {
        "cut short": lambda good: good[:-1],
        "something behind": lambda good: good + b"x",
        "two in one place": lambda good: good + good,
        "an unknown member": lambda good: good[:-1] + b',"note":1}',
        "an unknown member of the record": lambda good: good.replace(b'"body"', b'"note":1,"body"', 1),
        "an unknown member of the body": lambda good: good.replace(b'"kind"', b'"note":1,"kind"', 1),
        "a member of the record twice": lambda good: good.replace(b'"tenant":"acme"', b'"tenant":"x","tenant":"acme"'),
        "the record twice": lambda good: good.replace(b'{"record"', b'{"record":{},"record"', 1),
        "the openings twice": lambda good: good[:-1] + b',"openings":[]}',
        "a member twice by escape": lambda good: good.replace(
            b'"tenant":"acme"', b'"tenant":"acme","\\u0074enant":"acme"'
        ),
        "a default written out": lambda good: good.replace(b'"tenant"', b'"pseudonym_key_id":null,"tenant"'),
        "a number as a fraction": lambda good: good.replace(b'"seq":1', b'"seq":1.0'),
        "a number as an exponent": lambda good: good.replace(b'"seq":1', b'"seq":1e0'),
        "a number as text": lambda good: good.replace(b'"seq":1', b'"seq":"1"'),
        "a number that is none": lambda good: good.replace(b'"seq":1', b'"seq":NaN'),
        "a number beyond 2**53": lambda good: good.replace(b'"seq":1', b'"seq":9007199254740993'),
        "a number under one": lambda good: good.replace(b'"seq":1', b'"seq":0'),
        "a lone surrogate": lambda good: good.replace(b'"acme"', b'"\\ud800"', 1),
        "an unknown version": lambda good: good.replace(b'"schema_version":1', b'"schema_version":2'),
        "an unknown type": lambda good: good.replace(b'"type":"heartbeat"', b'"type":"rumour"'),
        "no signature": lambda good: good.replace(b'"signature"', b'"signatura"'),
        "a comment": lambda good: b"/* */" + good,
        "a byte order mark": lambda good: b"\xef\xbb\xbf" + good,
        "UTF-16": lambda good: good.decode().encode("utf-16"),
        "openings that are no list": lambda good: good.replace(b'"openings":[]', b'"openings":{}'),
        "an opening without a salt": lambda good: good.replace(b"[]", b'[{"field":"message","payload":""}]'),
    }


@pytest.mark.parametrize("kind", [JSON, NDJSON])
@pytest.mark.parametrize("name", mutations())
def test_a_submission_that_two_readers_could_read_in_two_ways_or_not_at_all_is_malformed(enforcer, name, kind):
    good = spelt(heartbeat(enforcer))
    assert len(read(good, kind)) == 1
    bad = mutations()[name](good)
    assert bad != good
    with pytest.raises(MalformedError):
        read(bad, kind)


def test_a_duplicate_key_is_found_in_an_array_too(enforcer):
    good = spelt(heartbeat(enforcer))
    bad = good.replace(b'{"record"', b'{"openings":[],"record"', 1)
    for body in (b"[" + bad + b"]", b"[" + good + b"," + bad + b"]", b"[ " + bad + b" ]"):
        with pytest.raises(MalformedError, match="twice"):
            read(body)


@pytest.mark.parametrize("text", ["%%%%", "QQ", "QQ=", "QQ==\n", "QR==", "Q Q=", "-_-_"])
@pytest.mark.parametrize("member", ["salt", "payload"])
def test_base64_has_one_spelling(enforcer, text, member):
    item = {"field": "message", "salt": b64(b"s" * 16), "payload": b64(b"p"), member: text}
    body = b'{"record":' + heartbeat(enforcer) + b',"openings":' + json.dumps([item]).encode() + b"}"
    with pytest.raises(MalformedError, match="submission 0"):
        read(body)


def test_two_openings_for_one_field_are_refused_even_if_they_are_equal(enforcer):
    body, openings = make_decision()
    with pytest.raises(MalformedError, match="submission 0: two openings"):
        read(spelt(encode_record(enforcer.record(body)), (*openings, openings[0])))


@pytest.mark.parametrize(("kind", "joined"), [(JSON, b","), (NDJSON, b"\n")])
def test_the_first_bad_one_is_named_by_its_number(enforcer, kind, joined):
    lines = [spelt(heartbeat(enforcer)), spelt(heartbeat(enforcer)), spelt(b'{"log_id":"acme"}'), spelt(b"{}")]
    body = joined.join(lines)
    with pytest.raises(MalformedError, match="submission 2:"):
        read(b"[" + body + b"]" if kind == JSON else body, kind)


@pytest.mark.parametrize(("kind", "joined"), [(JSON, b","), (NDJSON, b"\n")])
def test_a_request_carries_as_many_records_as_the_setting_says_and_no_more(enforcer, kind, joined):
    lines = [spelt(heartbeat(enforcer)) for _ in range(4)]

    def body(count: int) -> bytes:
        text = joined.join(lines[:count])
        return b"[" + text + b"]" if kind == JSON else text

    assert len(read(body(3), kind, limit=3)) == 3
    with pytest.raises(MalformedError, match="1 to 3 records"):
        read(body(4), kind, limit=3)


def test_lines_beyond_the_limit_are_not_even_read(enforcer):
    body = spelt(heartbeat(enforcer)) + b"\n" + spelt(heartbeat(enforcer)) + b"\n" + b"not json\n" * 1000
    with pytest.raises(MalformedError, match="1 to 1 records"):
        read(body, NDJSON, limit=1)


@pytest.mark.parametrize("kind", [JSON, NDJSON])
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"record": SECRET}).encode(),
        json.dumps({"record": {"body": {"type": SECRET}}}).encode(),
        json.dumps({"record": {"body": {"type": "x' - at `$`" + SECRET}}}).encode(),
        json.dumps({"record": {"body": {"type": f"line\n{SECRET}"}}}).encode(),
        json.dumps({"record": {}, "openings": SECRET}).encode(),
        json.dumps({"record": {}, "openings": [{"field": "message", "salt": SECRET, "payload": SECRET}]}).encode(),
        json.dumps({"record": {"schema_version": SECRET}}).encode(),
        json.dumps({"record": {"log_id": SECRET, "body": {"type": "heartbeat", "kind": SECRET}}}).encode(),
        SECRET.encode(),
        f'{{"record":{{}},"openings":[]}} {SECRET}'.encode(),
    ],
)
def test_no_error_quotes_a_value(body, kind):
    with pytest.raises(MalformedError) as caught:
        read(body, kind)
    assert "nobody may see" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"decision": SECRET}, {"enforcement": SECRET}, {"mode": SECRET}, {"agent": SECRET}, {"session": SECRET}]
)
def test_no_error_quotes_a_field_of_a_record(enforcer, changes):
    body, openings = make_decision()
    entry = json.loads(encode_record(enforcer.record(body)))
    entry["body"] |= changes
    with pytest.raises(MalformedError) as caught:
        read(spelt(json.dumps(entry).encode(), openings))
    assert "nobody may see" not in str(caught.value)
    assert next(iter(changes)) in str(caught.value) or "enum" in str(caught.value)


# --- admission -------------------------------------------------------------------------------------------------------


def test_a_record_is_admitted_as_it_will_stand_in_the_log_with_its_payloads_sealed(enforcer):
    submission = decided(enforcer)
    (pending,) = admission(enforcer).admit([submission], "gateway-1")
    assert pending.record == submission.record
    assert pending.entry == encode_record(submission.record)
    assert pending.leaf == hash_leaf(pending.entry)
    sealed = {payload.field: payload for payload in pending.payloads}
    vault = Vault(LOG_ID, SubjectKeys(), Payloads(sealed))
    for field, opening in submission.openings.items():
        assert opening.payload not in sealed[field].ciphertext
        assert vault.open(submission.record, field) == opening


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("log", {"log_id": "other"}),
        ("tenant", {"tenant": "globex"}),
        ("environment", {"environment": "production"}),
        ("enforcer", {"enforcer_id": "gateway-2"}),
    ],
)
def test_a_record_of_another_log_tenant_environment_or_enforcer_is_forbidden(enforcer, name, changes):
    record = sign_record(msgspec.structs.replace(decided(enforcer).record, **changes), enforcer.key)
    with pytest.raises(ForbiddenError, match=f"another {name} than the token"):
        admission(enforcer).admit([submitted(record, {})], "gateway-1")


def test_a_token_of_one_enforcer_brings_no_record_of_another_even_with_its_signature(enforcer):
    other = Enforcer("gateway-2", seed=22)
    both = Admission(
        IDENTITY,
        Vault(LOG_ID, SubjectKeys(), Payloads({})),
        Keys(None, [bytes(one.key.verify_key) for one in (enforcer, other)]),
    )
    both.admit([decided(other)], "gateway-2")
    with pytest.raises(ForbiddenError, match="another enforcer"):
        both.admit([decided(other)], "gateway-1")


@pytest.mark.parametrize("simulated", [True, False])
def test_a_simulated_record_and_a_real_log_do_not_mix(enforcer, simulated):
    identity = LogIdentity(log_id=LOG_ID, tenant="acme", environment="test", simulated=not simulated)
    record = sign_record(msgspec.structs.replace(decided(enforcer).record, simulated=simulated), enforcer.key)
    with pytest.raises(ForbiddenError, match=f"is {'simulated' if simulated else 'real'}, the log is not"):
        admission(enforcer, identity=identity).admit([submitted(record, {})], "gateway-1")


SERVICE_BODIES = [
    Enforcer("gateway-1", seed=21).introduction(),
    Enforcer("gateway-1", seed=21).introduction(Enforcer("gateway-2", seed=22)),
    BundleEvent(action="activated", name="x", revision="0" * 64, engine="cedar", actor="a" * 32, actor_role="approver"),
    Tombstone(subject="6" * 32, payloads=1, reason="erasure", actor="a" * 32),
]


@pytest.mark.parametrize("body", SERVICE_BODIES, ids=lambda body: type(body).__name__)
def test_keys_bundles_and_tombstones_are_not_an_enforcers_to_write(enforcer, body):
    with pytest.raises(ForbiddenError, match="of a type that enforcers do not write"):
        admission(enforcer).admit([submitted(enforcer.record(body), {})], "gateway-1")


def approval(action: Any) -> Approval:
    ids = {
        "approval_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
        "decision_id": "1" * 8 + "-0000-0000-0000-" + "0" * 12,
    }
    return Approval(**ids, action=action, binding="b" * 64)


ENFORCER_BODIES = [
    Heartbeat(kind="start", version="1", spool_depth=0),
    Outcome(decision_id="0" * 8 + "-0000-0000-0000-" + "0" * 12, status="completed", session="5" * 32),
    Dropped(first_seq=1, last_seq=2, decisions=1, reason="spool_lost"),
    AccessEvent(action="list_tools", actor="a" * 32, actor_role="agent", target_kind="server", result="ok"),
]


@pytest.mark.parametrize("body", ENFORCER_BODIES, ids=lambda body: type(body).__name__)
def test_what_an_enforcer_writes_beside_decisions_is_admitted(enforcer, body):
    (pending,) = admission(enforcer).admit([submitted(enforcer.record(body), {})], "gateway-1")
    assert pending.payloads == ()


@pytest.mark.parametrize("action", ["held", "used", "expired", "cancelled", "refused"])
def test_what_happens_to_a_held_call_is_its_enforcers_to_write(enforcer, action):
    (pending,) = admission(enforcer).admit([submitted(enforcer.record(approval(action)), {})], "gateway-1")
    assert pending.payloads == ()


@pytest.mark.parametrize("action", ["seen", "granted", "denied"])
def test_no_enforcer_says_what_people_said_of_a_held_call(enforcer, action):
    with pytest.raises(ForbiddenError, match="says what people said"):
        admission(enforcer).admit([submitted(enforcer.record(approval(action)), {})], "gateway-1")


SAID = {"actor": "a" * 32, "actor_role": "approver"}
CHANGE = {"change_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "server": "crm", "mode": "observe"}
DRIFT = {"drift_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12}


@pytest.mark.parametrize(
    "body",
    [
        *(ModeEvent(action=step, **CHANGE, **SAID) for step in ("proposed", "approved", "rejected", "reviewed")),
        *(InventoryEvent(action=step, server="crm", **SAID) for step in ("confirmed", "rejected", "pinned")),
        *(BaselineEvent(action=step, agent="bot", **SAID) for step in ("accept_ordered", "reset_ordered")),
        *(Drift(action=step, **DRIFT, **SAID) for step in ("acknowledged", "closed")),
    ],
    ids=lambda body: f"{type(body).__name__}-{body.action}",
)
def test_no_enforcer_says_what_people_said_of_anything_else(enforcer, body):
    with pytest.raises(ForbiddenError, match="says what people said"):
        admission(enforcer).admit([submitted(enforcer.record(body), {})], "gateway-1")


@pytest.mark.parametrize(
    "body",
    [
        ModeEvent(action="in_force", previous="enforce", **CHANGE),
        InventoryEvent(action="suggested", server="crm", tool="refund"),
        BaselineEvent(action="accepted", agent="bot"),
        Drift(action="flagged", **DRIFT),
    ],
    ids=lambda body: f"{type(body).__name__}-{body.action}",
)
def test_what_an_enforcer_itself_has_seen_or_done_is_admitted(enforcer, body):
    (pending,) = admission(enforcer).admit([submitted(enforcer.record(body), {})], "gateway-1")
    assert pending.payloads == ()


@pytest.mark.parametrize(
    "change",
    [{"seq": 99}, {"running_count": 7}, {"time_ms": NOW_MS + 99}, {"epoch": "f" * 32}, {"signature": "A" * 86 + "=="}],
)
def test_a_record_that_was_changed_after_it_was_signed_is_forbidden(enforcer, change):
    submission = decided(enforcer)
    forged = submitted(msgspec.structs.replace(submission.record, **change), submission.openings)
    with pytest.raises(ForbiddenError, match="not signed by a key of the enforcer gateway-1"):
        admission(enforcer).admit([forged], "gateway-1")


def test_a_record_signed_by_somebody_else_or_by_nobody_known_is_forbidden(enforcer):
    thief = Enforcer("gateway-1", seed=99)
    with pytest.raises(ForbiddenError, match="not signed"):
        admission(enforcer).admit([decided(thief)], "gateway-1")
    nobody = Admission(IDENTITY, Vault(LOG_ID, SubjectKeys(), Payloads({})), Keys("nobody", []))
    with pytest.raises(ForbiddenError, match="not signed"):
        nobody.admit([decided(enforcer)], "gateway-1")


def test_any_key_that_counts_for_the_enforcer_will_do(enforcer):
    second = nacl.signing.SigningKey(b"\x17" * 32)
    record = sign_record(decided(enforcer).record, second)
    with pytest.raises(SignatureInvalidError):
        verify_record_signature(record, bytes(enforcer.key.verify_key))
    body, openings = make_decision()
    record = sign_record(enforcer.record(body), second)
    submission = submitted(record, {one.field: one for one in openings})
    assert admission(enforcer, second).admit([submission], "gateway-1")[0].record == record


def bent(opening: Opening, **changes: bytes) -> Opening:
    return Opening(opening.field, changes.get("salt", opening.salt), changes.get("payload", opening.payload))


def test_an_opening_that_does_not_open_is_refused(enforcer):
    submission = decided(enforcer)
    message = submission.openings["message"]
    for other in (bent(message, salt=b"x" * 16), bent(message, payload=b"y" * len(message.payload))):
        wrong = submitted(submission.record, {**submission.openings, "message": other})
        with pytest.raises(CommitmentError):
            admission(enforcer).admit([wrong], "gateway-1")


def test_an_opening_of_another_size_than_its_leaf_says_is_refused(enforcer):
    submission = decided(enforcer)
    longer = bent(submission.openings["message"], payload=submission.openings["message"].payload + b" ")
    with pytest.raises(CommitmentError, match="another size"):
        admission(enforcer).admit(
            [submitted(submission.record, {**submission.openings, "message": longer})], "gateway-1"
        )


def test_openings_swapped_between_fields_are_refused(enforcer):
    submission = decided(enforcer)
    first, second = submission.openings["message"], submission.openings["request"]
    swapped = {"message": second, "request": first}
    with pytest.raises(CommitmentError):
        admission(enforcer).admit([submitted(submission.record, swapped)], "gateway-1")


@pytest.mark.parametrize("fields", [[], ["message"], ["message", "request", "result"], ["result"]])
def test_openings_are_neither_missing_nor_too_many(enforcer, fields):
    submission = decided(enforcer)
    given = {name: submission.openings.get(name, Opening(name, b"s" * 16, b"")) for name in fields}
    with pytest.raises(MalformedError, match="commits to"):
        admission(enforcer).admit([submitted(submission.record, given)], "gateway-1")


def test_an_error_about_an_opening_quotes_none_of_it(enforcer):
    commitment, _ = commit("message", b"s" * 16, SECRET.encode())
    submission = decided(enforcer, message=commitment)
    for payload in (SECRET.encode()[::-1], (SECRET * 2).encode()):
        openings = {**submission.openings, "message": Opening("message", b"t" * 16, payload)}
        with pytest.raises(CommitmentError) as caught:
            admission(enforcer).admit([submitted(submission.record, openings)], "gateway-1")
        assert SECRET not in str(caught.value)
        assert SECRET[::-1] not in str(caught.value)


def beat_at(enforcer: Enforcer, time_ms: int) -> Submission:
    record = msgspec.structs.replace(enforcer.record(enforcer.heartbeat()), time_ms=time_ms)
    return submitted(sign_record(record, enforcer.key), {})


@pytest.mark.parametrize("time_ms", [0, NOW_MS, NOW_MS + 86_400_000, 253_402_300_799_999])
def test_a_wrong_clock_loses_no_record(enforcer, time_ms):
    assert len(admission(enforcer).admit([beat_at(enforcer, time_ms)], "gateway-1")) == 1


@pytest.mark.parametrize("time_ms", [253_402_300_800_000, 2**53 - 1])
def test_a_time_that_no_calendar_has_is_refused_and_nothing_beside_it_admitted(enforcer, time_ms):
    # The attack: a time of 2**53 - 1 stopped every report of a period with that leaf.
    with pytest.raises(MalformedError, match="no calendar has"):
        admission(enforcer).admit([decided(enforcer), beat_at(enforcer, time_ms)], "gateway-1")


def test_records_ahead_of_our_clock_by_more_than_five_minutes_are_counted(enforcer):
    submissions = [beat_at(enforcer, NOW_MS + ahead) for ahead in (-1, 0, 300_000, 300_001, 86_400_000)]
    assert count_ahead(submissions, NOW_MS) == 2
    assert count_ahead([], NOW_MS) == 0


def test_nothing_of_a_batch_is_sealed_if_one_record_is_not_admitted(enforcer):
    keys = SubjectKeys()
    mine = Admission(
        IDENTITY, Vault(LOG_ID, keys, Payloads({})), Keys(enforcer.enforcer_id, [bytes(enforcer.key.verify_key)])
    )
    good = decided(enforcer)
    bad: Record = msgspec.structs.replace(decided(enforcer).record, tenant="globex")
    with pytest.raises(ForbiddenError):
        mine.admit([good, submitted(bad, {})], "gateway-1")
    assert keys.asked == []


def test_an_enforcer_id_of_nobody_admits_nothing(enforcer):
    """A token that is not an enforcer's has no enforcer id; the route hands on an empty one."""
    with pytest.raises(ForbiddenError):
        admission(enforcer).admit([decided(enforcer)], "")


# --- keys that other processes change --------------------------------------------------------------------------------


def test_a_key_that_another_process_introduced_is_found_before_anything_is_refused(enforcer):
    keys = Keys(enforcer.enforcer_id, [])
    keys.after_refresh = [bytes(enforcer.key.verify_key)]
    (entry,) = admission(enforcer, keys=keys).admit([decided(enforcer)], enforcer.enforcer_id)
    assert (entry.keys_leaf, keys.refreshed) == (4, 1)


def test_what_is_signed_by_a_known_key_costs_no_look_into_the_log(enforcer):
    keys = Keys(enforcer.enforcer_id, [bytes(enforcer.key.verify_key)])
    (entry,) = admission(enforcer, keys=keys).admit([decided(enforcer)], enforcer.enforcer_id)
    assert (entry.keys_leaf, keys.refreshed) == (3, 0)


def test_a_key_that_nobody_introduced_is_refused_after_one_look(enforcer):
    keys = Keys(enforcer.enforcer_id, [])
    with pytest.raises(ForbiddenError, match="not signed by a key"):
        admission(enforcer, keys=keys).admit([decided(enforcer)], enforcer.enforcer_id)
    assert keys.refreshed == 1


def test_what_was_admitted_is_judged_again_by_the_keys_that_count_now(enforcer):
    keys = Keys(enforcer.enforcer_id, [bytes(enforcer.key.verify_key)])
    door = admission(enforcer, keys=keys)
    entries = door.admit([decided(enforcer), decided(enforcer)], enforcer.enforcer_id)
    keys.after_refresh = [bytes(enforcer.key.verify_key)]
    again = door.admit_again(entries, enforcer.enforcer_id)
    assert [entry.keys_leaf for entry in again] == [4, 4]
    assert [(entry.entry, entry.payloads) for entry in again] == [(entry.entry, entry.payloads) for entry in entries]
    keys.after_refresh = []
    with pytest.raises(ForbiddenError):
        door.admit_again(entries, enforcer.enforcer_id)


class StaleSequencer:
    """Refuses a number of times as one does whose log has a newer key record."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.taken: list[Sequence[PendingEntry]] = []

    async def append(self, batch: Sequence[PendingEntry]) -> list[Acknowledgement]:
        if self.times:
            self.times -= 1
            raise StaleKeysError("injected")
        self.taken.append(batch)
        return [Acknowledgement(entry.record.record_id, index) for index, entry in enumerate(batch)]


def run_stale(enforcer: Enforcer, keys: Keys, times: int) -> StaleSequencer:
    door, sequencer = admission(enforcer, keys=keys), StaleSequencer(times)
    entries = door.admit([decided(enforcer)], enforcer.enforcer_id)
    asyncio.run(sequence_admitted(sequencer, door, entries, enforcer.enforcer_id))
    return sequencer


def test_records_whose_keys_changed_on_the_way_are_judged_again_and_sequenced(enforcer):
    keys = Keys(enforcer.enforcer_id, [bytes(enforcer.key.verify_key)])
    ((entry,),) = run_stale(enforcer, keys, 3).taken
    assert keys.refreshed == 3
    assert entry.keys_leaf == keys.leaf


def test_records_whose_key_ended_on_the_way_are_not_sequenced(enforcer):
    keys = Keys(enforcer.enforcer_id, [bytes(enforcer.key.verify_key)])
    door, sequencer = admission(enforcer, keys=keys), StaleSequencer(1)
    entries = door.admit([decided(enforcer)], enforcer.enforcer_id)
    keys.after_refresh = []
    with pytest.raises(ForbiddenError):
        asyncio.run(sequence_admitted(sequencer, door, entries, enforcer.enforcer_id))
    assert sequencer.taken == []


def test_keys_that_never_come_to_rest_are_told_as_an_overload(enforcer):
    keys = Keys(enforcer.enforcer_id, [bytes(enforcer.key.verify_key)])
    with pytest.raises(OverloadedError, match="keys change"):
        run_stale(enforcer, keys, 100)
