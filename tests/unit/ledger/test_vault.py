"""The vault: what it hands out is what the leaf commits to, or it is an error. Invariant 6 of the architecture."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
from pathlib import Path

import msgspec
import nacl.secret
import pytest

from ledger.bodies import AccessEvent, Approval, BundleEvent, Heartbeat, Outcome, Tombstone
from ledger.commitments import SALT_BYTES
from ledger.errors import CommitmentError, ErasedError, MalformedError, NotFoundError
from ledger.ports import Opening, SealedPayload, commit
from ledger.records import Record
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.subjects import bucket_of, first_subject_of
from ledger.vault import MAX_PAYLOAD_BYTES, Vault, check_openings
from tests.support.ledger import LOG_ID, Enforcer, make_decision, make_key

USER, SESSION, ACTOR = "6" * 32, "5" * 32, "4" * 32
SOME_ID = "01990000-0000-7000-8000-000000000000"


class Shelf:
    """A payload store that a test may rearrange."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str, str], SealedPayload] = {}

    def keep(self, payloads: tuple[SealedPayload, ...], log_id: str = LOG_ID) -> None:
        self.held.update({(log_id, payload.record_id, payload.field): payload for payload in payloads})

    def payload(self, log_id: str, record_id: str, field: str) -> SealedPayload:
        try:
            return self.held[log_id, record_id, field]
        except KeyError:
            raise NotFoundError("nothing there") from None


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def keys(tmp_path: Path) -> DirectorySubjectKeys:
    return DirectorySubjectKeys(tmp_path, make_key("vault", "xchacha20-poly1305", seed=3))


@pytest.fixture
def vault(keys, shelf) -> Vault:
    return Vault(LOG_ID, keys, shelf)


@pytest.fixture
def writer() -> Enforcer:
    return Enforcer()


def by_field(openings) -> dict[str, Opening]:
    return {opening.field: opening for opening in openings}


def recorded(vault: Vault, shelf: Shelf, writer: Enforcer, **changes: object) -> tuple[Record, dict[str, Opening]]:
    """Record a decision whose payloads stand in the vault."""
    body, openings = make_decision(**changes)
    record = writer.record(body)
    shelf.keep(vault.seal(record, by_field(openings)))
    return record, by_field(openings)


def key_of(record: Record) -> tuple[str, str, str]:
    return (LOG_ID, record.record_id, "message")


# --- sealing and opening ---------------------------------------------------------------------------------------------


def test_what_was_sealed_is_opened_field_by_field(vault, shelf, writer):
    record, openings = recorded(vault, shelf, writer)
    assert {name: vault.open(record, name) for name in ("message", "request")} == openings


@pytest.mark.parametrize("payload", [b"", b"\0", b"x" * 100_000, bytes(range(256))])
def test_any_bytes_are_kept_as_received(vault, shelf, writer, payload):
    commitment, opening = commit("message", secrets.token_bytes(SALT_BYTES), payload)
    record = writer.record(make_decision(message=commitment, request=None)[0])
    shelf.keep(vault.seal(record, {"message": opening}))
    assert vault.open(record, "message").payload == payload


def test_neither_payload_nor_salt_stands_in_the_open(vault, shelf, writer):
    _, openings = recorded(vault, shelf, writer)
    for sealed in shelf.held.values():
        assert openings[sealed.field].payload not in sealed.ciphertext
        assert openings[sealed.field].salt not in sealed.ciphertext


def test_the_same_payload_is_never_sealed_to_the_same_bytes(vault, writer):
    body, openings = make_decision()
    record = writer.record(body)
    first, second = (vault.seal(record, by_field(openings)) for _ in range(2))
    assert not {payload.ciphertext for payload in first} & {payload.ciphertext for payload in second}


def test_a_record_without_commitments_has_nothing_to_seal(vault, writer):
    assert vault.seal(writer.record(writer.heartbeat()), {}) == ()


def test_a_payload_is_sealed_for_the_subject_of_its_record(vault, shelf, writer):
    recorded(vault, shelf, writer)
    assert {payload.subject for payload in shelf.held.values()} == {USER}


# --- whose payload ---------------------------------------------------------------------------------------------------


def commitment():
    return commit("comment", bytes(SALT_BYTES), b"text")[0]


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        (make_decision(user=USER)[0], USER),
        (make_decision(user=None)[0], SESSION),
        (Outcome(decision_id=SOME_ID, status="completed", session=SESSION, user=USER), USER),
        (Outcome(decision_id=SOME_ID, status="completed", session=SESSION), SESSION),
        (
            BundleEvent(
                action="published", name="b", revision="0" * 64, engine="cedar", actor=ACTOR, actor_role="admin"
            ),
            ACTOR,
        ),
        (AccessEvent(action="query", actor=ACTOR, actor_role="auditor", target_kind="log", result="ok"), ACTOR),
        (Tombstone(subject=USER, payloads=1, reason="erasure", actor=ACTOR), USER),
        (
            Approval(
                approval_id=SOME_ID,
                decision_id=SOME_ID,
                action="granted",
                binding="b" * 64,
                actor=ACTOR,
            ),
            ACTOR,
        ),
        (
            Approval(approval_id=SOME_ID, decision_id=SOME_ID, action="expired", binding="b" * 64),
            "enforcer-service",
        ),
        (Heartbeat(kind="start", version="1", spool_depth=0), "enforcer-service"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:8],
)
def test_a_payload_belongs_to_its_user_else_actor_else_session_else_enforcer(writer, body, subject):
    assert first_subject_of(writer.record(body)) == subject


def test_the_name_of_a_subject_fits_its_column(writer):
    long = Enforcer(enforcer_id="e" * 128)
    assert len(first_subject_of(long.record(long.heartbeat()))) == 64


# --- openings that do not fit their record ---------------------------------------------------------------------------


@pytest.fixture
def decision(writer) -> tuple[Record, dict[str, Opening]]:
    body, openings = make_decision()
    return writer.record(body), by_field(openings)


def test_openings_that_fit_pass(decision):
    check_openings(*decision)


@pytest.mark.parametrize("missing", ["message", "request"])
def test_a_commitment_without_its_opening_is_malformed(vault, decision, missing):
    record, openings = decision
    del openings[missing]
    for check in (check_openings, vault.seal):
        with pytest.raises(MalformedError, match="openings"):
            check(record, openings)


def test_an_opening_without_a_commitment_is_malformed(vault, decision):
    record, openings = decision
    openings["comment"] = Opening("comment", bytes(SALT_BYTES), b"stray")
    for check in (check_openings, vault.seal):
        with pytest.raises(MalformedError, match="openings"):
            check(record, openings)


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": b'{"jsonrpc":"2.1"}'},
        {"payload": b""},
        {"payload": b'{"jsonrpc":"2.0"} '},
        {"salt": bytes(SALT_BYTES)},
    ],
)
def test_an_opening_that_opens_something_else_is_refused(vault, decision, changes):
    record, openings = decision
    openings["message"] = dataclasses.replace(openings["message"], **changes)
    for check in (check_openings, vault.seal):
        with pytest.raises(CommitmentError, match="message"):
            check(record, openings)


@pytest.mark.parametrize("salt", [b"", bytes(SALT_BYTES - 1), bytes(SALT_BYTES + 1)])
def test_a_salt_of_another_length_is_malformed(vault, decision, salt):
    record, openings = decision
    openings["message"] = dataclasses.replace(openings["message"], salt=salt)
    with pytest.raises(MalformedError, match="salt"):
        vault.seal(record, openings)


def test_openings_of_two_fields_do_not_serve_each_other(vault, decision):
    record, openings = decision
    openings["message"], openings["request"] = openings["request"], openings["message"]
    with pytest.raises(CommitmentError):
        vault.seal(record, openings)


def test_a_payload_above_the_limit_is_malformed(writer):
    huge = Opening("message", bytes(SALT_BYTES), bytes(MAX_PAYLOAD_BYTES + 1))
    commitment, _ = commit("message", huge.salt, huge.payload)
    record = writer.record(make_decision(message=commitment, request=None)[0])
    with pytest.raises(MalformedError, match="at most"):
        check_openings(record, {"message": huge})


# --- a vault that was tampered with ----------------------------------------------------------------------------------


def test_a_change_of_any_byte_of_a_ciphertext_is_noticed(vault, shelf, writer):
    record, _ = recorded(vault, shelf, writer)
    sealed = shelf.held[key_of(record)]
    for position in range(len(sealed.ciphertext)):
        damaged = bytearray(sealed.ciphertext)
        damaged[position] ^= 1
        shelf.held[key_of(record)] = dataclasses.replace(sealed, ciphertext=bytes(damaged))
        with pytest.raises(CommitmentError):
            vault.open(record, "message")


@pytest.mark.parametrize("length", [1, 8, 10, 23, 24, 39, 40, 55])
def test_a_ciphertext_cut_short_is_noticed(vault, shelf, writer, length):
    record, _ = recorded(vault, shelf, writer)
    sealed = shelf.held[key_of(record)]
    shelf.held[key_of(record)] = dataclasses.replace(sealed, ciphertext=sealed.ciphertext[:length])
    with pytest.raises(CommitmentError):
        vault.open(record, "message")


def test_a_payload_moved_to_another_record_is_noticed(vault, shelf, writer):
    (one, _), (other, _) = (recorded(vault, shelf, writer) for _ in range(2))
    first, second = shelf.held[key_of(one)], shelf.held[key_of(other)]
    shelf.held[key_of(one)], shelf.held[key_of(other)] = second, first
    for record in (one, other):
        with pytest.raises(CommitmentError):
            vault.open(record, "message")


def test_a_payload_moved_to_another_field_is_noticed(vault, shelf, writer):
    record, _ = recorded(vault, shelf, writer)
    shelf.held[key_of(record)] = shelf.held[LOG_ID, record.record_id, "request"]
    with pytest.raises(CommitmentError):
        vault.open(record, "message")


def test_a_payload_moved_from_another_log_is_noticed(vault, keys, shelf, writer):
    record, openings = recorded(vault, shelf, writer)
    elsewhere = Vault("other", keys, Shelf()).seal(record, openings)
    shelf.keep(elsewhere)
    with pytest.raises(CommitmentError):
        vault.open(record, "message")


@pytest.mark.parametrize("subject", ["7" * 32, "", "enforcer-service", SESSION])
def test_a_payload_under_another_subject_does_not_pass_for_an_erased_one(vault, shelf, writer, subject):
    # Nobody has a key for that subject: were the store believed, this would look like a lawful erasure.
    record, _ = recorded(vault, shelf, writer)
    shelf.held[key_of(record)] = dataclasses.replace(shelf.held[key_of(record)], subject=subject)
    with pytest.raises(CommitmentError, match="another subject"):
        vault.open(record, "message")


def reseal(keys: DirectorySubjectKeys, record: Record, content: bytes) -> SealedPayload:
    """Seal as somebody would who holds every key."""
    label = f"tallystick/payload/v2\n{LOG_ID}\n{record.record_id}\nmessage".encode()
    held = [keys.get(LOG_ID, name) for name in (USER, SESSION, bucket_of(record).name)]
    header = b"tsvault\x02\x00\x03" + b"".join(bytes.fromhex(key.key_id) for key in held)
    header += hashlib.sha256(label + header[8:]).digest()[:8]
    extracted = hmac.digest(b"tallystick/payload-key/v2", b"".join(key.value for key in held), "sha256")
    box = nacl.secret.Aead(hmac.digest(extracted, label + b"\x01", "sha256"))
    return SealedPayload(record.record_id, "message", USER, header + bytes(box.encrypt(content, header + label)))


def test_who_holds_the_keys_cannot_exchange_what_the_leaf_commits_to(vault, keys, shelf, writer):
    record, openings = recorded(vault, shelf, writer)
    salt, payload = openings["message"].salt, openings["message"].payload
    shelf.keep((reseal(keys, record, salt + payload),))
    assert vault.open(record, "message") == openings["message"]
    for content in (
        salt + b'{"jsonrpc":"2.1"}',
        bytes(SALT_BYTES) + payload,
        salt + payload + b" ",
        salt[1:] + payload,
        salt[:8],
        b"",
    ):
        shelf.keep((reseal(keys, record, content),))
        with pytest.raises(CommitmentError):
            vault.open(record, "message")


def test_a_record_that_commits_to_something_else_is_noticed(vault, shelf, writer):
    record, _ = recorded(vault, shelf, writer)
    body = msgspec.structs.replace(record.body, message=commit("message", bytes(SALT_BYTES), b"other")[0])
    with pytest.raises(CommitmentError):
        vault.open(msgspec.structs.replace(record, body=body), "message")


# --- what is not there -----------------------------------------------------------------------------------------------


def test_a_payload_that_the_vault_lost_is_not_found(vault, shelf, writer):
    record, _ = recorded(vault, shelf, writer)
    del shelf.held[key_of(record)]
    with pytest.raises(NotFoundError):
        vault.open(record, "message")


@pytest.mark.parametrize("field", ["agent", "comment", "result", "", "body"])
def test_a_field_without_a_commitment_cannot_be_opened(vault, shelf, writer, field):
    record, _ = recorded(vault, shelf, writer)
    with pytest.raises(MalformedError):
        vault.open(record, field)


def test_a_payload_whose_key_was_destroyed_is_erased(vault, keys, shelf, writer, tmp_path):
    record, _ = recorded(vault, shelf, writer)
    other, openings = recorded(vault, shelf, writer, user="7" * 32)
    keys._path(LOG_ID, USER).unlink()
    later = DirectorySubjectKeys(tmp_path, make_key("vault", "xchacha20-poly1305", seed=3))
    reopened = Vault(LOG_ID, later, shelf)
    with pytest.raises(ErasedError):
        reopened.open(record, "message")
    assert reopened.open(other, "message") == openings["message"]


# --- several keys ----------------------------------------------------------------------------------------------------


def destroy(keys: DirectorySubjectKeys, name: str) -> None:
    keys.destroy(LOG_ID, {name: frozenset({keys.get(LOG_ID, name).key_id})})


@pytest.mark.parametrize("gone", ["user", "session", "bucket"])
def test_a_payload_goes_with_any_of_its_keys_and_the_error_says_whose(vault, keys, shelf, writer, gone):
    record, _ = recorded(vault, shelf, writer)
    bucket = bucket_of(record)
    name, told = {"user": (USER, USER), "session": (SESSION, SESSION), "bucket": (bucket.name, bucket.subject)}[gone]
    destroy(keys, name)
    with pytest.raises(ErasedError) as error:
        vault.open(record, "message")
    assert error.value.subjects == {told}


def test_every_key_that_is_gone_is_told(vault, keys, shelf, writer):
    record, _ = recorded(vault, shelf, writer)
    destroy(keys, USER)
    destroy(keys, bucket_of(record).name)
    with pytest.raises(ErasedError) as error:
        vault.open(record, "message")
    assert error.value.subjects == {USER, bucket_of(record).subject}


def test_a_new_key_of_an_erased_subject_does_not_open_what_is_old(vault, keys, shelf, writer):
    old, _ = recorded(vault, shelf, writer)
    destroy(keys, USER)
    new, openings = recorded(vault, shelf, writer)
    assert vault.open(new, "message") == openings["message"]
    with pytest.raises(ErasedError) as error:
        vault.open(old, "message")
    assert error.value.subjects == {USER}


def test_what_is_sealed_for_a_hold_outlives_its_day_and_not_its_subject(vault, keys, shelf, writer):
    record, openings = recorded(vault, shelf, writer)
    assert not vault.is_held(record)
    shelf.keep(vault.seal_held(record, openings))
    assert vault.is_held(record)
    destroy(keys, bucket_of(record).name)
    assert vault.open(record, "message") == openings["message"]
    destroy(keys, SESSION)
    with pytest.raises(ErasedError):
        vault.open(record, "message")


def test_an_emptied_payload_is_erased_for_whoever_of_them_has_a_tombstone(vault, shelf, writer):
    record, _ = recorded(vault, shelf, writer)
    shelf.held[key_of(record)] = dataclasses.replace(shelf.held[key_of(record)], ciphertext=b"")
    with pytest.raises(ErasedError) as error:
        vault.open(record, "message")
    buckets = {bucket_of(record, held=held).subject for held in (False, True)}
    assert error.value.subjects == {USER, SESSION, *buckets}


# --- what version 0.1 sealed -----------------------------------------------------------------------------------------


def sealed_first(keys: DirectorySubjectKeys, record: Record, openings: dict[str, Opening]) -> SealedPayload:
    """Seal as version 0.1 did, under a key that it made."""
    keys.get_or_create(LOG_ID, SESSION)
    path = keys._path(LOG_ID, USER)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(keys._box.encrypt(b"k" * 32, keys._label(LOG_ID, USER))))
    label = f"tallystick/payload/v1\n{LOG_ID}\n{record.record_id}\nmessage".encode()
    content = openings["message"].salt + openings["message"].payload
    return SealedPayload(record.record_id, "message", USER, bytes(nacl.secret.Aead(b"k" * 32).encrypt(content, label)))


@pytest.fixture
def first(keys, shelf, writer) -> tuple[Record, dict[str, Opening]]:
    body, openings = make_decision()
    record = writer.record(body)
    shelf.keep((sealed_first(keys, record, by_field(openings)),))
    return record, by_field(openings)


def test_what_version_one_sealed_is_still_opened_beside_what_is_sealed_now(vault, shelf, writer, first):
    record, openings = first
    new, other = recorded(vault, shelf, writer)
    assert vault.open(record, "message") == openings["message"]
    assert vault.open(new, "message") == other["message"]


def test_what_version_one_sealed_is_erased_with_its_first_subject(vault, keys, shelf, writer, first):
    destroy(keys, USER)
    for _ in range(2):
        with pytest.raises(ErasedError) as error:
            vault.open(first[0], "message")
        assert error.value.subjects == {USER}
        # The subject comes back, and has a key again: that is not the one.
        recorded(vault, shelf, writer)


@pytest.mark.parametrize("length", [0, 1, 23, 40, 55, 60])
def test_what_version_one_sealed_and_is_cut_short_is_no_erasure(vault, keys, shelf, first, length):
    record, _ = first
    sealed = shelf.held[key_of(record)]
    shelf.held[key_of(record)] = dataclasses.replace(sealed, ciphertext=sealed.ciphertext[:length])
    with pytest.raises(ErasedError if length == 0 else CommitmentError):
        vault.open(record, "message")
