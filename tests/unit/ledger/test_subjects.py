"""Whom a payload is about and when it expires follow from the leaf, for every type of record."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest

from ledger.bodies import Body
from ledger.errors import MalformedError
from ledger.records import Record, decode_entry, encode_record
from ledger.subjects import Bucket, bucket_of, first_subject_of, subjects_of
from tests.support.ledger import NOW_MS
from tests.vectors.samples import BODIES, unsigned

USER, SESSION, ACTOR = "0a" * 16, "0b" * 16, "0e" * 16

SUBJECTS: dict[str, tuple[str, ...]] = {
    "decision": ("user", "session"),
    "outcome": ("user", "session"),
    "session_end": ("user", "session"),
    "bundle": ("actor",),
    "key": (),
    "heartbeat": (),
    "dropped": (),
    "approval": ("actor",),
    "tombstone": ("actor",),
    "succession": (),
    "access": ("actor",),
    "erasure": ("actor",),
    "hold": ("subject", "session", "actor"),
    "retention": ("actor",),
    "opa_decision": ("user", "session"),
    "opa_loss": (),
    "shadow": (),
    "shadow_count": (),
    "mode": ("actor",),
    "containment": ("session", "actor"),
    "inventory": ("actor",),
    "tool": ("actor",),
    "baseline": ("actor",),
    "drift": ("actor",),
    "discovery": ("actor",),
}
"""Fields that name a subject whose keys seal a record's payloads, in order."""


def sample(kind: str, form: str = "full") -> Record:
    value = unsigned(kind, form) | {"signature": "A" * 86 + "=="}
    return msgspec.json.decode(msgspec.json.encode(value), type=Record)


def test_the_table_knows_every_type_of_record():
    assert set(SUBJECTS) == {kind.__struct_config__.tag for kind in Body.__args__} == set(BODIES)


@pytest.mark.parametrize("form", ["full", "minimal"])
@pytest.mark.parametrize("kind", SUBJECTS)
def test_a_payload_is_about_everybody_whom_its_record_names(kind, form):
    record = sample(kind, form)
    named = [getattr(record.body, name) for name in SUBJECTS[kind]]
    wanted = tuple(dict.fromkeys(name for name in named if name is not None))
    assert subjects_of(record) == (wanted or (f"enforcer-{record.enforcer_id}",))


@pytest.mark.parametrize("kind", SUBJECTS)
def test_every_pseudonym_of_a_person_is_a_subject_or_is_left_out_on_purpose(kind):
    """A field that comes later must be thought about here."""
    hints = {
        field.name
        for field in msgspec.structs.fields(type(sample(kind).body))
        if "pseudonymous" in repr(msgspec.inspect.type_info(field.type))
    }
    left_out = {
        "decision": {"address", "arguments_fingerprint"},
        "outcome": {"result_fingerprint", "contents"},
        # Who was erased must not take along the words that say so.
        "tombstone": {"subject"},
        "erasure": {"subject"},
        # Whoever is erased by name goes under each of his pseudonyms: the reason of a hold goes with the first.
        "hold": {"also"},
        # The same person as the actor, by the key that the author was named by.
        "bundle": {"also"},
        # Whose session was read is not whom the reader's purpose is about.
        "access": {"scope"},
        # Whose token handed an event in is no person whom its input is about.
        "opa_decision": {"client", "fingerprint", "requested_by"},
        "opa_loss": {"client"},
        # A machine and a file, which are nobody; what they are called is sealed for whoever handed it in.
        "discovery": {"place", "holder"},
    }
    assert hints - left_out.get(kind, set()) == set(SUBJECTS[kind])


def test_a_user_who_is_also_the_session_counts_once():
    record = sample("decision")
    same = msgspec.structs.replace(record, body=msgspec.structs.replace(record.body, session=record.body.user))
    assert subjects_of(same) == (record.body.user,)


def test_version_one_sealed_a_tombstone_for_whom_it_buried():
    assert first_subject_of(sample("tombstone")) == sample("tombstone").body.subject
    assert first_subject_of(sample("decision")) == sample("decision").body.user


# --- buckets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_ms", "day"),
    [
        (0, date(1970, 1, 1)),
        (86_399_999, date(1970, 1, 1)),
        (86_400_000, date(1970, 1, 2)),
        (NOW_MS, date(2025, 11, 19)),
        (2**53 - 1, date(9999, 12, 31)),
    ],
)
def test_a_payload_expires_with_those_of_its_type_and_day(time_ms, day):
    record = msgspec.structs.replace(sample("outcome"), time_ms=time_ms)
    assert bucket_of(record) == Bucket("outcome", day)
    assert bucket_of(record, held=True) == Bucket("outcome", day, held=True)


def test_a_bucket_holds_the_times_of_its_day_and_no_other():
    bucket = Bucket("outcome", date(2025, 11, 19))
    for time_ms, inside in [
        (bucket.start_ms - 1, False),
        (bucket.start_ms, True),
        (bucket.end_ms - 1, True),
        (bucket.end_ms, False),
    ]:
        record = msgspec.structs.replace(sample("outcome"), time_ms=time_ms)
        assert (bucket_of(record) == bucket) is inside


def test_every_bucket_has_a_name_and_a_tombstone_of_its_own():
    day = date(2025, 11, 19)
    buckets = [Bucket(kind, day, held) for kind in ("decision", "outcome") for held in (False, True)]
    assert len({bucket.subject for bucket in buckets}) == len({bucket.name for bucket in buckets}) == 4
    assert [Bucket.parse(bucket.name) for bucket in buckets] == buckets
    body = {"type": "tombstone", "subject": buckets[0].subject, "payloads": 1, "reason": "expiry", "actor": ACTOR}
    record = msgspec.convert({**unsigned("tombstone", "full"), "signature": "A" * 86 + "==", "body": body}, Record)
    assert decode_entry(encode_record(record)).body.subject == buckets[0].subject


@pytest.mark.parametrize(
    "name",
    [
        "",
        "decision",
        "decision.",
        "decision.2025-11-19.",
        "decision.2025-11-19.kept",
        "decision.2025-11-19.held.held",
        "decision.2025-13-01",
        "decision.20251119",
        "decision.2025-W47-3",
        "0a" * 16,
        "enforcer-gateway-1",
    ],
)
def test_what_is_no_bucket_is_refused(name):
    with pytest.raises(MalformedError):
        Bucket.parse(name)
