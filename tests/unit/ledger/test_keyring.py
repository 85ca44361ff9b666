"""The keyring: who may introduce keys, and for which leaves a key counts. The rules are ours (`ledger.keyring`)."""

from __future__ import annotations

import msgspec
import pytest

from ledger.bodies import KeyEvent, Succession
from ledger.envelopes import ED25519, MLDSA44, EnvelopeKey
from ledger.errors import MalformedError, SignatureInvalidError, TrustPolicyError
from ledger.keyring import Keyring
from ledger.notes import encode_base64
from ledger.records import Record, sign_record
from ledger.trust import KeyValidity
from tests.support.ledger import Enforcer, make_key


@pytest.fixture
def service() -> Enforcer:
    return Enforcer()


@pytest.fixture
def gateway() -> Enforcer:
    return Enforcer(enforcer_id="gateway-1", seed=11)


def feed(*records: Record) -> Keyring:
    keyring = Keyring()
    for leaf, record in enumerate(records):
        keyring.check(leaf, record)
    return keyring


def beat(enforcer: Enforcer) -> Record:
    return enforcer.record(enforcer.heartbeat())


def introduce(by: Enforcer, whom: Enforcer | None = None, /, **changes: object) -> Record:
    return by.record(msgspec.structs.replace(by.introduction(whom), **changes))


def end(by: Enforcer, subject: Enforcer, action: str = "retired", last_size: int | None = None) -> Record:
    return introduce(by, subject, action=action, last_size=last_size)


# --- leaf 0 ----------------------------------------------------------------------------------------------------------


def test_leaf_0_introduces_the_registrar_by_its_own_key(service):
    keyring = feed(introduce(service), beat(service))
    assert keyring.registrar == "service"
    assert keyring.enforcer_keys("service") == [bytes(service.key.verify_key)]


def test_leaf_0_that_is_no_key_record_introduces_nobody(service):
    keyring = Keyring()
    with pytest.raises(TrustPolicyError):
        keyring.check(0, beat(service))
    assert keyring.registrar is None


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "gateway-1"},
        {"purpose": "log", "key_id": "0" * 8},
        {"purpose": "pack"},
        {"purpose": "vault"},
        {"action": "retired"},
        {"action": "compromised"},
    ],
)
def test_leaf_0_that_introduces_something_else_than_its_writer_is_refused(service, changes):
    keyring = Keyring()
    with pytest.raises(TrustPolicyError):
        keyring.check(0, introduce(service, **changes))
    assert keyring.registrar is None


def test_leaf_0_signed_by_another_key_than_it_introduces_is_refused(service, gateway):
    record = sign_record(introduce(service), gateway.key)
    keyring = Keyring()
    with pytest.raises(SignatureInvalidError):
        keyring.check(0, record)
    assert keyring.registrar is None


@pytest.mark.parametrize(
    "public_key", [None, encode_base64(b"short"), encode_base64(bytes(1312)), encode_base64(bytes(32))]
)
def test_leaf_0_without_a_usable_key_is_refused(service, public_key):
    with pytest.raises(SignatureInvalidError):
        Keyring().check(0, introduce(service, public_key=public_key))


def test_leaf_0_whose_key_has_a_second_spelling_is_malformed(service):
    spelling = service.introduction().public_key
    assert spelling is not None
    other = spelling[:-2] + chr(ord(spelling[-2]) + 1) + "="
    with pytest.raises(MalformedError):
        Keyring().check(0, introduce(service, public_key=other))


def test_nobody_becomes_registrar_after_leaf_0(service):
    keyring = Keyring()
    with pytest.raises(TrustPolicyError):
        keyring.check(0, beat(service))
    for leaf in (1, 2):
        with pytest.raises(TrustPolicyError, match="leaf 0"):
            keyring.check(leaf, introduce(service))
    assert keyring.registrar is None


def test_a_log_whose_beginning_was_cut_off_has_no_registrar(service):
    records = [introduce(service), introduce(service), beat(service)]
    keyring = Keyring()
    for leaf, record in enumerate(records[1:], 1):
        with pytest.raises(TrustPolicyError):
            keyring.check(leaf, record)


# --- introducing enforcers -------------------------------------------------------------------------------------------


def test_an_enforcer_counts_once_the_registrar_introduced_it(service, gateway):
    keyring = feed(introduce(service), introduce(service, gateway), beat(gateway))
    assert keyring.enforcer_keys("gateway-1") == [bytes(gateway.key.verify_key)]


def test_an_enforcer_that_nobody_introduced_does_not_count(service, gateway):
    with pytest.raises(TrustPolicyError, match="gateway-1"):
        feed(introduce(service), beat(gateway))


def test_an_enforcer_that_introduces_itself_does_not_count(service, gateway):
    keyring = feed(introduce(service))
    with pytest.raises(TrustPolicyError):
        keyring.check(1, introduce(gateway))
    with pytest.raises(TrustPolicyError):
        keyring.check(2, beat(gateway))
    assert keyring.enforcer_keys("gateway-1") == []


def test_an_introduced_enforcer_may_not_introduce_another(service, gateway):
    second = Enforcer(enforcer_id="gateway-2", seed=12)
    keyring = feed(introduce(service), introduce(service, gateway))
    with pytest.raises(TrustPolicyError, match="may not introduce"):
        keyring.check(2, introduce(gateway, second))
    with pytest.raises(TrustPolicyError):
        keyring.check(3, beat(second))


@pytest.mark.parametrize("purpose", ["log", "pack", "vault", "pseudonym", "enforcer"])
@pytest.mark.parametrize("action", ["created", "retired", "compromised"])
def test_an_introduced_enforcer_may_not_say_anything_about_keys(service, gateway, purpose, action):
    keyring = feed(introduce(service), introduce(service, gateway))
    before = list(keyring.keys)
    body = msgspec.structs.replace(service.introduction(), purpose=purpose, action=action, key_id="0a1b2c3d")
    with pytest.raises(TrustPolicyError, match="may not introduce"):
        keyring.check(2, gateway.record(body))
    assert keyring.keys == before
    assert keyring.log_validity == {}
    assert keyring.enforcer_keys("service") == [bytes(service.key.verify_key)]


def test_a_record_in_the_registrars_name_needs_the_registrars_key(service, gateway):
    keyring = feed(introduce(service), introduce(service, gateway))
    impostor = Enforcer(enforcer_id="service", seed=11)
    with pytest.raises(SignatureInvalidError):
        keyring.check(2, introduce(impostor, Enforcer(enforcer_id="gateway-2", seed=12)))


def test_a_record_in_another_enforcers_name_needs_that_enforcers_key(service, gateway):
    keyring = feed(introduce(service), introduce(service, gateway))
    with pytest.raises(SignatureInvalidError):
        keyring.check(2, sign_record(beat(gateway), service.key))


@pytest.mark.parametrize(
    "changes", [{"seq": 99}, {"running_count": 7}, {"time_ms": 1}, {"epoch": "f" * 32}, {"tenant": "other"}]
)
def test_a_record_that_was_changed_after_signing_does_not_count(service, gateway, changes):
    keyring = feed(introduce(service), introduce(service, gateway))
    with pytest.raises(SignatureInvalidError):
        keyring.check(2, msgspec.structs.replace(beat(gateway), **changes))


def test_a_key_of_another_purpose_does_not_speak_for_an_enforcer(service, gateway):
    keyring = feed(introduce(service), introduce(service, gateway, purpose="pack"))
    with pytest.raises(TrustPolicyError):
        keyring.check(2, beat(gateway))


def test_any_of_an_enforcers_keys_may_sign_while_they_overlap(service, gateway):
    renewed = Enforcer(enforcer_id="gateway-1", seed=13)
    keyring = feed(
        introduce(service),
        introduce(service, gateway),
        introduce(service, renewed, key_id="gateway-1-second"),
        beat(gateway),
        beat(renewed),
    )
    assert keyring.enforcer_keys("gateway-1") == [bytes(gateway.key.verify_key), bytes(renewed.key.verify_key)]


# --- ending keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["retired", "compromised"])
def test_an_ended_key_does_not_count_any_more(service, gateway, action):
    keyring = feed(introduce(service), introduce(service, gateway), beat(gateway), end(service, gateway, action))
    with pytest.raises(TrustPolicyError):
        keyring.check(4, beat(gateway))
    assert keyring.enforcer_keys("gateway-1") == []


def test_ending_one_key_leaves_the_other_in_force(service, gateway):
    renewed = Enforcer(enforcer_id="gateway-1", seed=13)
    keyring = feed(
        introduce(service),
        introduce(service, gateway),
        introduce(service, renewed, key_id="gateway-1-second"),
        end(service, gateway),
        beat(renewed),
    )
    with pytest.raises(SignatureInvalidError):
        keyring.check(5, beat(gateway))


def test_an_ended_key_that_is_introduced_again_counts_from_then_on(service, gateway):
    feed(
        introduce(service),
        introduce(service, gateway),
        end(service, gateway),
        introduce(service, gateway),
        beat(gateway),
    )


def test_a_registrar_that_ended_its_only_key_can_say_nothing_more(service):
    keyring = feed(introduce(service), end(service, service))
    for record in (beat(service), introduce(service)):
        with pytest.raises(TrustPolicyError):
            keyring.check(2, record)


def test_a_registrar_renews_its_key_by_overlap(service):
    renewed = Enforcer(seed=14)
    feed(
        introduce(service),
        introduce(service, renewed, key_id="service-second"),
        end(renewed, service),
        introduce(renewed, Enforcer(enforcer_id="gateway-1", seed=11)),
    )


@pytest.mark.parametrize(
    ("last_size", "covered"),
    [(None, [1, 2, 3]), (0, []), (1, []), (2, [1]), (3, [1, 2]), (4, [1, 2, 3]), (99, [1, 2, 3])],
)
def test_a_key_with_a_last_tree_size_counts_for_the_leaves_of_that_tree(service, gateway, last_size, covered):
    # A tree of N leaves ends with leaf N - 1.
    keyring = feed(
        introduce(service),
        introduce(service, gateway),
        beat(gateway),
        end(service, gateway, "compromised", last_size),
    )
    (key,) = [key for key in keyring.keys if key.subject == "gateway-1"]
    assert [leaf for leaf in range(10) if key.covers(leaf)] == covered


def test_ending_a_key_that_nobody_has_ends_nothing(service, gateway):
    keyring = feed(introduce(service), introduce(service, gateway), introduce(service, action="retired", key_id="none"))
    keyring.check(3, beat(gateway))
    keyring.check(4, beat(service))


@pytest.mark.parametrize(
    ("last_size", "covered", "after"),
    [(None, [1, 2, 3], []), (3, [1, 2], [3]), (2, [1], [2, 3]), (1, [], [2, 3]), (99, [1, 2, 3], [])],
)
def test_a_compromise_declared_after_a_retirement_reaches_back_before_it(service, gateway, last_size, covered, after):
    keyring = feed(
        introduce(service),
        introduce(service, gateway),
        beat(gateway),
        beat(gateway),
        end(service, gateway),
        beat(service),
        end(service, gateway, "compromised", last_size),
    )
    (key,) = [key for key in keyring.keys if key.subject == "gateway-1"]
    assert [leaf for leaf in range(4) if key.covers(leaf)] == covered
    assert keyring.leaves_after_compromise() == after


def test_records_between_a_compromise_and_its_declaration_are_told_apart_and_not_refused(service, gateway):
    keyring = feed(
        introduce(service),
        introduce(service, gateway),
        beat(gateway),
        beat(gateway),
        beat(service),
        beat(gateway),
        end(service, gateway, "compromised", 3),
    )
    (compromise,) = keyring.compromises
    assert (compromise.leaf, compromise.subject, compromise.since) == (6, "gateway-1", 3)
    assert keyring.leaves_after(compromise) == keyring.leaves_after_compromise() == [3, 5]


def test_a_compromised_key_that_is_introduced_again_stays_compromised_under_any_id(service, gateway):
    keyring = feed(
        introduce(service),
        introduce(service, gateway),
        end(service, gateway, "compromised"),
        introduce(service, gateway, key_id="another-id"),
        beat(gateway),
    )
    assert keyring.leaves_after_compromise() == [4]


def test_a_registrar_whose_key_is_compromised_vouches_for_nothing_it_signed_since(service):
    renewed = Enforcer(seed=14)
    keyring = feed(
        introduce(service),
        beat(service),
        introduce(service, renewed, key_id="service-second"),
        end(renewed, service, "compromised", 1),
        beat(renewed),
    )
    assert keyring.leaves_after_compromise() == [1, 2]


def test_a_compromise_of_one_key_says_nothing_of_another_nor_a_retirement_of_any(service, gateway):
    other = Enforcer(enforcer_id="gateway-2", seed=12)
    keyring = feed(
        introduce(service),
        introduce(service, gateway),
        introduce(service, other),
        beat(gateway),
        beat(other),
        end(service, other, "retired", 1),
        introduce(service, gateway, action="compromised", key_id="none", last_size=0),
    )
    assert keyring.leaves_after_compromise() == []


# --- other keys ------------------------------------------------------------------------------------------------------


def log_key_event(**changes: object) -> KeyEvent:
    key = make_key("log")
    return KeyEvent(
        **{
            "action": "created",
            "purpose": "log",
            "algorithm": ED25519,
            "subject": key.name,
            "key_id": key.key_id,
            "public_key": encode_base64(key.public_key),
            **changes,
        }
    )


def test_a_log_key_has_the_tree_sizes_that_its_records_give_it(service):
    key_id = bytes.fromhex(make_key("log").key_id)
    keyring = feed(introduce(service), service.record(log_key_event(first_size=5)))
    assert keyring.log_validity == {key_id: KeyValidity(5, None)}
    keyring.check(20, service.record(log_key_event(action="compromised", last_size=9)))
    assert keyring.log_validity == {key_id: KeyValidity(5, 9)}


@pytest.mark.parametrize(
    "later",
    [
        {"action": "retired"},
        {"action": "retired", "last_size": 99},
        {"action": "compromised"},
        {"action": "compromised", "last_size": 15},
        {"action": "created"},
        {"action": "created", "first_size": 0, "last_size": 99},
    ],
    ids=str,
)
def test_a_compromise_of_a_log_key_is_not_taken_back_by_a_later_record(service, later):
    key_id = bytes.fromhex(make_key("log").key_id)
    keyring = feed(introduce(service), service.record(log_key_event(first_size=2)))
    keyring.check(20, service.record(log_key_event(action="compromised", last_size=9)))
    keyring.check(21, service.record(log_key_event(**later)))
    assert keyring.log_validity == {key_id: KeyValidity(2, 9)}


@pytest.mark.parametrize("action", ["retired", "compromised"])
def test_a_log_key_that_is_ended_without_a_size_ends_where_the_record_stands(service, action):
    key_id = bytes.fromhex(make_key("log").key_id)
    keyring = feed(introduce(service))
    keyring.check(20, service.record(log_key_event(action=action)))
    assert keyring.log_validity == {key_id: KeyValidity(0, 20)}


def test_a_compromise_of_a_log_key_does_not_begin_in_the_future(service):
    key_id = bytes.fromhex(make_key("log").key_id)
    keyring = feed(introduce(service))
    keyring.check(20, service.record(log_key_event(action="compromised", last_size=10**9)))
    assert keyring.log_validity == {key_id: KeyValidity(0, 20)}


@pytest.mark.parametrize("key_id", ["not-hexadecimal", "0a1b2c", "0a1b2c3d4e", "0A1B2C3D", "0a:1b:2c"])
def test_a_log_key_with_an_unreadable_id_is_malformed_and_introduces_nothing(service, key_id):
    keyring = feed(introduce(service))
    with pytest.raises(MalformedError):
        keyring.check(1, service.record(log_key_event(key_id=key_id)))
    assert keyring.log_validity == {}
    assert len(keyring.keys) == 1


def test_pack_keys_are_those_that_are_in_force(service):
    keys = {algorithm: make_key("pack", algorithm, seed=seed) for seed, algorithm in ((5, ED25519), (6, MLDSA44))}

    def event(algorithm: str, action: str = "created") -> Record:
        key = keys[algorithm]
        body = KeyEvent(
            action=action,
            purpose="pack",
            algorithm=algorithm,
            subject="packs",
            key_id=key.key_id,
            public_key=encode_base64(key.public_key),
        )
        return service.record(body)

    keyring = feed(introduce(service), event(ED25519), event(MLDSA44))
    assert keyring.pack_keys() == [EnvelopeKey(name, key.public_key) for name, key in keys.items()]
    keyring.check(3, event(ED25519, "retired"))
    assert keyring.pack_keys() == [EnvelopeKey(MLDSA44, keys[MLDSA44].public_key)]


def test_a_symmetric_key_is_introduced_without_a_public_part(service):
    body = KeyEvent(action="created", purpose="vault", algorithm="xchacha20-poly1305", subject="vault", key_id="v")
    keyring = feed(introduce(service), service.record(body))
    assert keyring.keys[-1].public_key == b""


# --- succession ------------------------------------------------------------------------------------------------------

SUCCESSION = Succession(origin="log.example/old", size=7, root="a" * 64, checkpoint_sha256="b" * 64, reason="key_lost")


def test_a_succession_in_the_opening_is_taken() -> None:
    service, ring = Enforcer(), Keyring()
    ring.check(0, service.record(service.introduction()))
    ring.check(1, service.record(SUCCESSION))
    assert ring.succession == SUCCESSION


def test_a_succession_behind_any_other_record_is_refused() -> None:
    service, ring = Enforcer(), Keyring()
    ring.check(0, service.record(service.introduction()))
    ring.check(1, service.record(service.heartbeat()))
    with pytest.raises(TrustPolicyError, match="does not stand in the opening"):
        ring.check(2, service.record(SUCCESSION))
    assert ring.succession is None


def test_a_second_succession_is_refused() -> None:
    service, ring = Enforcer(), Keyring()
    ring.check(0, service.record(service.introduction()))
    ring.check(1, service.record(SUCCESSION))
    with pytest.raises(TrustPolicyError, match="does not stand in the opening"):
        ring.check(2, service.record(SUCCESSION))


def test_a_succession_by_an_enforcer_is_refused() -> None:
    service, ring, mallory = Enforcer(), Keyring(), Enforcer("mallory", seed=9)
    ring.check(0, service.record(service.introduction()))
    ring.check(1, service.record(service.introduction(mallory)))
    with pytest.raises(TrustPolicyError, match="does not speak for the log"):
        ring.check(2, mallory.record(SUCCESSION))
    assert ring.succession is None
