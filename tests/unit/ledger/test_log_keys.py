"""The life cycle of log keys: which of them sign follows from the entries, and no step of it is a flag day."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.bodies import KeyEvent
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import RollbackError, StateError, StorageError, TrustPolicyError
from ledger.keys import LocalKey
from ledger.log_keys import LogKeys
from ledger.notes import encode_base64
from ledger.signers.local import LocalSigner
from ledger.trust import TrustPolicy
from tests.support.ledger import ORIGIN, EmbeddedLedger, Enforcer, make_key, pending

OLD = (make_key("log", ED25519, seed=1), make_key("log", MLDSA44, seed=2))
NEW = (make_key("log", ED25519, seed=61), make_key("log", MLDSA44, seed=62))


def policy(*keys: LocalKey) -> TrustPolicy:
    return TrustPolicy(logs=tuple(key.verifier_key for key in keys))


class Living(EmbeddedLedger):
    """A ledger whose own records say which log keys count; ``held`` are the keys at hand."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.held: list[LocalKey] = [*OLD, *NEW]
        super().__init__(root, load=False, **options)
        self.restart()

    def make_publisher(self, **parts: Any) -> Any:
        def key_records(start: int) -> Iterator[Any]:
            leaves = self.catalog.of_type(self.log_id, "key")
            return ((leaf, self.reader.record(leaf)) for leaf in leaves if leaf >= start)

        keys = LogKeys(ORIGIN, key_records=key_records, held=lambda: [LocalSigner(key) for key in self.held])
        return super().make_publisher(signers=keys, **parts)

    def restart(self) -> None:
        """Go on as a new process would."""
        self.publisher = self.make_publisher()
        self.publisher.load()

    def begin(self) -> None:
        self.introduce()
        for key in OLD:
            self.say("created", key)

    def say(self, action: Any, key: LocalKey, by: Enforcer | None = None, **changes: Any) -> int:
        """Append a key record."""
        assert key.public_key is not None
        public_key = encode_base64(key.public_key) if action == "created" else None
        body = KeyEvent(
            action=action,
            purpose="log",
            algorithm=key.algorithm,
            subject=key.name,
            key_id=key.key_id,
            public_key=public_key,
            **changes,
        )
        return self.append(pending((by or self.service).record(body)))[0]

    def signed_by(self) -> set[str]:
        """Publish, and return the ids of the keys that signed."""
        note = parse_unverified_checkpoint(self.publish()).note
        return {line.key_id.hex() for line in note.signatures}


@pytest.fixture
def log(tmp_path) -> Iterator[Living]:
    with Living(tmp_path) as living:
        living.begin()
        yield living


def ids(*keys: LocalKey) -> set[str]:
    return {key.key_id for key in keys}


def test_keys_at_hand_that_the_log_does_not_know_sign_nothing(log):
    assert log.signed_by() == ids(*OLD)


@pytest.mark.parametrize("number", [0, 1], ids=[ED25519, MLDSA44])
def test_a_key_signs_from_the_tree_on_that_holds_its_introduction(log, number):
    log.publish()
    log.say("created", NEW[number])
    assert log.signed_by() == ids(*OLD, NEW[number])


def test_during_the_overlap_the_old_policy_verifies_and_the_new_one_does(log):
    for key in NEW:
        log.say("created", key)
    checkpoint = log.publish()
    for trusted in (OLD, NEW, (*OLD, *NEW), (OLD[0], NEW[1]), (NEW[0], OLD[1])):
        assert policy(*trusted).verify(checkpoint).head.size == 5


def test_after_the_retirement_the_old_policy_is_not_met_and_says_why(log):
    for key in NEW:
        log.say("created", key)
    log.publish()
    for key in OLD:
        log.say("retired", key)
    checkpoint = log.publish()
    assert policy(*NEW).verify(checkpoint).head.size == 7
    with pytest.raises(TrustPolicyError, match=r"signed by the keys .* which the trust policy does not list") as caught:
        policy(*OLD).verify(checkpoint)
    assert all(key.key_id in str(caught.value) for key in NEW)


def test_a_policy_with_old_and_new_keys_verifies_every_checkpoint_of_the_log(log):
    log.publish()
    for key in NEW:
        log.say("created", key)
    log.publish()
    for key in OLD:
        log.say("retired", key)
    log.publish()
    for checkpoint in log.published_checkpoints():
        policy(*OLD, *NEW).verify(checkpoint)
    log.policy = policy(*OLD, *NEW)
    report = log.audit()
    assert report.clean, report.findings
    assert {notice.check for notice in report.notices} == {"simulated"}


def test_an_algorithm_is_given_up_and_taken_up_again_with_another_key(log):
    log.publish()
    log.say("retired", OLD[0])
    assert log.signed_by() == ids(OLD[1])
    log.say("created", NEW[0])
    assert log.signed_by() == ids(OLD[1], NEW[0])
    log.restart()
    log.append_heartbeat()
    assert log.signed_by() == ids(OLD[1], NEW[0])


STEPS = [("created", NEW[0]), ("created", NEW[1]), ("retired", OLD[0]), ("retired", OLD[1]), ("retired", NEW[1])]


@pytest.mark.parametrize("published", [(), (0,), (1,), (2,), (3,), (0, 2), (1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("stop", range(1, len(STEPS) + 1))
def test_a_process_that_ends_anywhere_in_a_rotation_is_followed_by_one_that_goes_on(log, published, stop):
    log.publish()
    for number, (action, key) in enumerate(STEPS[:stop]):
        log.say(action, key)
        if number in published:
            log.publish()
    log.restart()
    log.append_heartbeat()
    log.publish()
    log.restart()


def test_a_key_that_must_sign_and_is_not_at_hand_stops_publishing_until_it_is(log):
    log.publish()
    log.held = list(OLD)
    log.restart()
    log.say("created", NEW[0])
    with pytest.raises(StateError, match=f"{NEW[0].key_id}, whose key file is not here"):
        log.publisher.publish()
    assert len(log.published_checkpoints()) == 1
    log.held = [*OLD, NEW[0]]
    assert log.signed_by() == ids(*OLD, NEW[0])


def test_a_log_that_names_no_key_of_its_own_is_not_signed(tmp_path):
    with Living(tmp_path) as log:
        log.introduce()
        with pytest.raises(StateError, match="no key is in force for a tree of 1 leaves"):
            log.publisher.publish()


def test_a_key_of_another_origin_does_not_sign_here(log):
    log.publish()
    other = make_key("log", ED25519, "log.example/other", seed=63)
    log.held.append(other)
    log.say("created", other)
    assert log.signed_by() == ids(*OLD)


def test_a_key_that_is_introduced_for_later_signs_from_then_on(log):
    log.publish()
    log.say("created", NEW[0], first_size=6)
    assert log.signed_by() == ids(*OLD)
    log.append_heartbeat()
    log.append_heartbeat()
    assert log.signed_by() == ids(*OLD, NEW[0])


def test_a_key_that_ends_later_signs_until_then(log):
    log.say("created", NEW[0])
    log.say("retired", OLD[0], last_size=6)
    assert log.signed_by() == ids(*OLD, NEW[0])
    log.append_heartbeat()
    assert log.signed_by() == ids(*OLD, NEW[0])
    log.append_heartbeat()
    assert log.signed_by() == ids(OLD[1], NEW[0])


def test_a_compromised_key_signs_no_more_and_what_it_signed_before_is_still_ours(log):
    log.say("created", NEW[0])
    log.publish()
    log.append_heartbeat()
    log.publish()
    log.say("compromised", OLD[0], last_size=4)
    log.restart()  # the newest checkpoint was signed before anybody knew
    assert log.signed_by() == ids(OLD[1], *NEW[:1])


def test_a_key_record_of_somebody_else_signs_nothing_and_stops_publishing(log):
    log.publish()
    mallory = Enforcer("mallory", seed=66)
    log.append(pending(log.service.record(log.service.introduction(mallory))))
    log.publish()
    log.say("created", NEW[0], by=mallory)
    with pytest.raises(TrustPolicyError, match="may not introduce keys"):
        log.publisher.publish()
    assert len(log.published_checkpoints()) == 2


def test_a_key_record_that_the_index_names_and_the_log_lacks_is_a_failing_store(log, monkeypatch):
    log.publish()
    log.say("created", NEW[0])
    monkeypatch.setattr(log.catalog, "of_type", lambda *_: [0, 1, 2, 3, 4])
    with pytest.raises(StorageError, match="not in the log"):
        log.publisher.publish()


def test_a_store_that_was_put_back_behind_a_rotation_publishes_nothing(tmp_path):
    (tmp_path / "now").mkdir()
    with Living(tmp_path / "now") as log:
        log.begin()
        log.publish()
        log.engine.dispose()
        shutil.copytree(tmp_path / "now", tmp_path / "backup")
        for key in NEW:
            log.say("created", key)
        log.publish()
        for key in OLD:
            log.say("retired", key)
        log.publish()
        log.engine.dispose()
        for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
            (tmp_path / "now" / name).unlink(missing_ok=True)
            if (tmp_path / "backup" / name).exists():
                shutil.copyfile(tmp_path / "backup" / name, tmp_path / "now" / name)
        # What was shown is signed by the new keys alone, of which the store that was put back knows nothing.
        with pytest.raises(RollbackError, match="shown with 7 leaves"):
            log.restart()
        (tmp_path / "now" / "logs" / log.log_id / "checkpoint").unlink()
        with pytest.raises(RollbackError, match="shown with 7 leaves"):
            log.restart()
