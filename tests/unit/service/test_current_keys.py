"""The keys of a running service: which are used follows from the keyring, whichever process fed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.bodies import KeyEvent
from ledger.errors import ConfigError, NotFoundError
from ledger.keyring import Keyring
from ledger.keys import LocalKey, generate_key, save_key
from service.current_keys import CurrentKeys
from service.keyset import introduction, introductions, make_key_set, next_key_file
from tests.support.ledger import NOW_MS, Enforcer

ORIGIN = "service.example/acme"


class Log:
    """A keyring, and the service that writes what it is fed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        keys = make_key_set(directory, origin=ORIGIN, service_id="service", created_ms=NOW_MS, simulated=True)
        self.writer = Enforcer("service")
        self.writer.key = keys.service.signing_key()
        self.keyring = Keyring()
        for event in introductions(keys):
            self.say(event)
        self.leaf = self.keyring.taken

    def say(self, event: KeyEvent) -> None:
        self.keyring.check(self.writer.seq, self.writer.record(event))

    def end(self, key: LocalKey) -> None:
        body = KeyEvent(
            action="retired", purpose=key.purpose, algorithm=key.algorithm, subject=key.name, key_id=key.key_id
        )
        self.say(body)

    def make(self, old: LocalKey) -> LocalKey:
        key = generate_key(old.purpose, old.algorithm, old.name, created_ms=NOW_MS, simulated=True)
        save_key(key, self.directory / next_key_file(self.directory, old.purpose, old.algorithm))
        return key

    def current(self) -> CurrentKeys:
        return CurrentKeys(self.directory, None, self.keyring)


@pytest.fixture
def log(tmp_path) -> Log:
    return Log(tmp_path / "keys")


def test_a_key_that_the_log_does_not_know_is_not_used(log):
    current = log.current()
    old = current.keys.service
    new = log.make(old)
    assert current.look_again().service == old
    assert new in current.keys.further


def test_a_key_that_another_process_introduced_is_found_when_the_log_says_so(log):
    current = log.current()
    old = current.keys.service
    new = log.make(old)
    log.say(introduction(new))
    assert current.keys.service == new
    assert bytes(current.service_key()) == new.seed
    assert old in current.keys.further


def test_a_retired_key_is_not_used_and_not_forgotten(log):
    current = log.current()
    old = current.keys.pseudonym
    new = log.make(old)
    log.say(introduction(new))
    log.end(old)
    assert current.keys.pseudonym == new
    assert current.keys.pseudonym_seeds == (new.seed, old.seed)


def test_a_log_that_wants_a_key_whose_file_is_not_here_is_not_written_to(log):
    current = log.current()
    old = current.keys.service
    new = log.make(old)
    log.say(introduction(new))
    (log.directory / "service-ed25519.2.json").unlink()
    log.end(old)
    with pytest.raises(ConfigError, match="another enforcer key"):
        _ = log.current().keys
    with pytest.raises(ConfigError, match="another enforcer key"):
        _ = current.keys


def test_the_newest_of_three_generations_is_used(log):
    current = log.current()
    first = current.keys.pack[0]
    second, third = log.make(first), log.make(first)
    log.say(introduction(third))
    log.say(introduction(second))
    assert current.keys.pack[0] == third
    assert {key.key_id for key in current.keys.further} == {first.key_id, second.key_id}


def test_a_key_is_held_or_not_found(log):
    current = log.current()
    new = log.make(current.keys.vault)
    assert current.held(new.key_id) == new
    with pytest.raises(NotFoundError, match="no key file here holds the key nope"):
        current.held("nope")


@pytest.mark.parametrize(
    ("purpose", "algorithm"), [("spool", "xsalsa20-poly1305"), ("log", "hmac-sha256"), ("enforcer", "ml-dsa-44")]
)
def test_a_kind_of_key_that_an_installation_has_not_has_no_file(log, purpose, algorithm):
    with pytest.raises(ConfigError, match=f"no {purpose} key with {algorithm}"):
        next_key_file(log.directory, purpose, algorithm)
