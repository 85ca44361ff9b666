"""Key files of an installation: made once, private, each for its own purpose, none of them twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ledger.commitments import pseudonym_key_id
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import ConfigError, MalformedError
from ledger.keyring import Keyring
from ledger.keys import generate_key, load_key, save_key
from ledger.records import encode_record
from ledger.trust import parse_trust_policy
from service.keyset import (
    KEY_FILES,
    KeySet,
    fingerprints,
    introduction,
    introductions,
    load_key_set,
    make_key_set,
    trust_policy,
)
from tests.support.ledger import NOW_MS, ORIGIN, Enforcer


def make(folder: Path, **changes: object) -> KeySet:
    values: dict[str, object] = {"origin": ORIGIN, "service_id": "service", "created_ms": NOW_MS, "simulated": True}
    return make_key_set(folder, **{**values, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "keys"
    make(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Return a copy of a good key directory, to be spoilt."""
    return Path(shutil.copytree(made, tmp_path / "keys"))


# --- making ----------------------------------------------------------------------------------------------------------


def test_keys_are_made_readable_by_their_owner_alone(made):
    assert {path.name for path in made.iterdir()} == {*KEY_FILES, "trust.policy", "fingerprints.txt"}
    assert made.stat().st_mode & 0o777 == 0o700
    for name in KEY_FILES:
        assert (made / name).stat().st_mode & 0o777 == 0o600, name


def test_every_key_is_another_and_for_the_purpose_of_its_file(made):
    keys = load_key_set(made)
    assert len({key.seed for key in keys}) == len(KEY_FILES)
    assert [(key.purpose, key.algorithm) for key in (*keys.log, *keys.pack)] == [
        ("log", ED25519),
        ("log", MLDSA44),
        ("pack", ED25519),
        ("pack", MLDSA44),
    ]
    assert {key.name for key in keys.log} == {ORIGIN}
    assert {key.name for key in keys.pack} == {f"{ORIGIN}/packs"}
    assert keys.service.name == "service"
    assert keys.pseudonym_key_id == pseudonym_key_id(keys.pseudonym.seed)


def test_two_installations_share_no_key(made, tmp_path):
    other = make(tmp_path / "other")
    assert not {key.seed for key in load_key_set(made)} & {key.seed for key in other}


@pytest.mark.parametrize("simulated", [True, False])
def test_keys_for_a_demonstration_say_so_and_others_do_not(tmp_path, simulated):
    assert make(tmp_path / "keys", simulated=simulated).simulated is simulated


def test_one_simulated_key_makes_the_whole_set_simulated(tmp_path):
    make(tmp_path / "keys", simulated=False)
    (tmp_path / "keys" / "vault.json").unlink()
    key = generate_key("vault", "xchacha20-poly1305", ORIGIN, created_ms=NOW_MS, simulated=True)
    save_key(key, tmp_path / "keys" / "vault.json")
    assert load_key_set(tmp_path / "keys").simulated


def test_the_public_files_hold_what_auditors_need_and_no_secret(made):
    keys = load_key_set(made)
    policy = parse_trust_policy((made / "trust.policy").read_bytes())
    assert policy == trust_policy(keys)
    assert {key.key_id for key in policy.logs} == {key.verifier_key.key_id for key in keys.log}
    lines = (made / "fingerprints.txt").read_text().splitlines()
    assert len(lines) == 5
    assert "".join(line + "\n" for line in lines) == fingerprints(keys, policy)
    text = (made / "trust.policy").read_text() + fingerprints(keys, policy)
    assert not any(key.seed.hex() in text for key in keys)


@pytest.mark.parametrize("name", [*KEY_FILES, "trust.policy", "fingerprints.txt"])
def test_nothing_is_made_where_one_file_stands_already(tmp_path, name):
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match=name):
        make(folder)
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "mine"


@pytest.mark.parametrize(
    "origin",
    ["", " ", "a b", "log.example/acme\n", "-log", "/acme", "log.example/ä", "log+example", "a" * 123, "log\u202e"],
)
def test_an_origin_that_no_checkpoint_or_record_can_carry_is_refused_before_a_key_is_made(tmp_path, origin):
    with pytest.raises(ConfigError, match="origin"):
        make(tmp_path / "keys", origin=origin)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("service_id", ["", "a b", "service\n", "-x", "é", "a" * 129])
def test_a_service_id_that_no_record_can_carry_is_refused_before_a_key_is_made(tmp_path, service_id):
    with pytest.raises(ConfigError, match="service id"):
        make(tmp_path / "keys", service_id=service_id)
    assert not (tmp_path / "keys").exists()


def test_the_longest_names_that_are_taken_fit_their_records(tmp_path):
    keys = make(tmp_path / "keys", origin="o" * 122, service_id="s" * 128)
    assert len(keys.pack[0].name) == 128


def test_a_directory_that_cannot_be_made_is_an_error_of_configuration(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        make(tmp_path / "file" / "keys")


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_passphrase_protects_every_key_and_opens_it_again(tmp_path, monkeypatch):
    monkeypatch.setattr("ledger.keys._OPS_LIMIT", 1)
    monkeypatch.setattr("ledger.keys._MEM_LIMIT", 8192)
    keys = make(tmp_path / "keys", passphrase="swordfish")
    assert load_key_set(tmp_path / "keys", "swordfish") == keys
    for wrong in (None, "", "Swordfish"):
        with pytest.raises(ConfigError) as caught:
            load_key_set(tmp_path / "keys", wrong)
        assert "swordfish" not in str(caught.value).lower()


@pytest.mark.parametrize("name", KEY_FILES)
def test_a_missing_key_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=name):
        load_key_set(folder)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
@pytest.mark.parametrize("name", ["log-ed25519.json", "vault.json"])
def test_a_key_file_that_others_can_touch_is_refused(folder, name, mode):
    (folder / name).chmod(mode)
    with pytest.raises(ConfigError, match="others than its owner"):
        load_key_set(folder)


@pytest.mark.parametrize(
    ("place", "taken"),
    [
        ("log-ed25519.json", "pack-ed25519.json"),
        ("pack-ml-dsa-44.json", "log-ml-dsa-44.json"),
        ("service-ed25519.json", "log-ed25519.json"),
        ("vault.json", "pseudonym.json"),
        ("log-ml-dsa-44.json", "log-ed25519.json"),
    ],
)
def test_a_key_in_the_place_of_another_is_refused(folder, place, taken):
    shutil.copyfile(folder / taken, folder / place)
    with pytest.raises(ConfigError, match=f"the key file {place} is for"):
        load_key_set(folder)


def test_one_seed_under_two_purposes_is_refused(folder):
    log = load_key(f"file:{folder / 'log-ed25519.json'}")
    (folder / "pack-ed25519.json").unlink()
    from dataclasses import replace

    save_key(replace(log, purpose="pack", name=f"{ORIGIN}/packs"), folder / "pack-ed25519.json")
    with pytest.raises(ConfigError, match="two key files hold the same key"):
        load_key_set(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"format":"tallystick.key/2"}'])
def test_a_file_that_is_no_key_file_is_malformed(folder, text):
    (folder / "vault.json").write_text(text)
    with pytest.raises(MalformedError):
        load_key_set(folder)


# --- introducing -----------------------------------------------------------------------------------------------------


def test_a_log_opens_with_its_service_and_every_key_is_introduced(made):
    keys = load_key_set(made)
    events = introductions(keys)
    assert (events[0].purpose, events[0].subject) == ("enforcer", "service")
    assert [(event.purpose, event.algorithm) for event in events] == [(key.purpose, key.algorithm) for key in keys]
    assert {event.key_id for event in events} == {key.key_id for key in keys}


def test_symmetric_keys_are_introduced_by_id_alone(made):
    keys = load_key_set(made)
    for key in (keys.vault, keys.pseudonym):
        assert introduction(key).public_key is None
    assert all(introduction(key).public_key for key in (*keys.log, *keys.pack, keys.service))


def test_the_introductions_fit_the_keyring_and_their_records(made):
    keys = load_key_set(made)
    writer = Enforcer("service")
    writer.key = keys.service.signing_key()
    ring = Keyring()
    for leaf, event in enumerate(introductions(keys)):
        record = writer.record(event)
        assert not any(key.seed.hex().encode() in encode_record(record) for key in keys)
        ring.check(leaf, record)
    assert ring.registrar == "service"
    assert len(ring.pack_keys()) == 2
