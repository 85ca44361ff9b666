"""Key files: who may read them, what protects them, and what a planted one may ask of us."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path

import pytest
from nacl.pwhash import argon2id

from ledger.commitments import pseudonym_key_id
from ledger.envelopes import ED25519, MLDSA44, EnvelopeKey
from ledger.errors import ConfigError, MalformedError
from ledger.keys import ALGORITHMS, PURPOSES, LocalKey, decode_key, encode_key, generate_key, load_key, save_key
from ledger.notes import SignatureType, decode_base64, encode_base64
from tests.support.file_trace import FileTrace
from tests.support.ledger import NOW_MS, make_key

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Argon2id cost little; one test below pays the real price."""
    monkeypatch.setattr("ledger.keys._OPS_LIMIT", argon2id.OPSLIMIT_MIN)
    monkeypatch.setattr("ledger.keys._MEM_LIMIT", argon2id.MEMLIMIT_MIN)


@pytest.fixture
def key() -> LocalKey:
    return make_key("log", ED25519)


def document(key: LocalKey, passphrase: str | None = None) -> dict:
    return json.loads(encode_key(key, passphrase))


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


# --- making and reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_key_file_is_read_back(purpose, algorithm):
    key = generate_key(purpose, algorithm, "log.example/acme", created_ms=NOW_MS)
    assert decode_key(encode_key(key)) == key


@pytest.mark.parametrize("simulated", [True, False])
def test_a_protected_key_file_is_read_back(cheap, simulated):
    key = generate_key("vault", "xchacha20-poly1305", "v", created_ms=NOW_MS, simulated=simulated)
    assert decode_key(encode_key(key, PASSPHRASE), PASSPHRASE) == key


def test_a_protected_key_file_costs_an_attacker_the_price_of_argon2id(key):
    secret = document(key, PASSPHRASE)["secret"]
    assert secret["ops_limit"] == argon2id.OPSLIMIT_MODERATE
    assert secret["mem_limit_bytes"] == argon2id.MEMLIMIT_MODERATE == 256 * 1024 * 1024
    assert encode_base64(key.seed) not in json.dumps(secret)
    assert decode_key(encoded({**document(key), "secret": secret}), PASSPHRASE) == key


def test_keys_are_random():
    made = [generate_key("log", ED25519, "o", created_ms=NOW_MS).seed for _ in range(3)]
    assert len(set(made)) == 3
    assert {len(seed) for seed in made} == {32}


@pytest.mark.parametrize(("purpose", "algorithm"), [("logs", ED25519), ("log", "rsa"), ("", ""), ("log", "ED25519")])
def test_unknown_purposes_and_algorithms_are_refused(purpose, algorithm):
    with pytest.raises(ConfigError):
        generate_key(purpose, algorithm, "o", created_ms=NOW_MS)


def test_a_key_does_not_show_its_seed_when_it_is_printed(key):
    for text in (repr(key), str(key), f"{key}"):
        assert "seed" not in text
        assert key.seed.hex() not in text
        assert repr(key.seed) not in text


# --- public parts ----------------------------------------------------------------------------------------------------


def test_a_log_key_is_known_by_its_note_key():
    for algorithm, kind, size in (
        (ED25519, SignatureType.ED25519, 32),
        (MLDSA44, SignatureType.MLDSA44_COSIGNATURE, 1312),
    ):
        key = make_key("log", algorithm)
        assert (key.verifier_key.name, key.verifier_key.signature_type) == (key.name, kind)
        assert len(key.verifier_key.public_key) == size
        assert key.key_id == key.verifier_key.key_id.hex()


@pytest.mark.parametrize("algorithm", [ED25519, MLDSA44])
def test_a_pack_key_is_known_by_its_envelope_key(algorithm):
    key = make_key("pack", algorithm)
    assert key.public_key is not None
    assert key.key_id == EnvelopeKey(algorithm, key.public_key).key_id


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "xchacha20-poly1305", "xsalsa20-poly1305"])
def test_a_symmetric_key_has_no_public_part_and_signs_nothing(algorithm):
    key = make_key("vault", algorithm)
    assert key.public_key is None
    assert key.key_id == pseudonym_key_id(key.seed)
    for use in (lambda: key.verifier_key, key.signing_key):
        with pytest.raises(ConfigError):
            use()


def test_only_an_ed25519_key_is_an_ed25519_key():
    assert bytes(make_key("enforcer").signing_key()) == b"\x01" * 32
    with pytest.raises(ConfigError):
        make_key("log", MLDSA44).signing_key()


# --- tampered files --------------------------------------------------------------------------------------------------


def test_a_public_key_that_does_not_belong_to_the_seed_is_malformed(key):
    other = make_key("log", ED25519, seed=2)
    for public_key in (encode_base64(other.public_key), None, "", encode_base64(key.public_key)[:-1]):
        with pytest.raises(MalformedError, match="belong"):
            decode_key(encoded({**document(key), "public_key": public_key}))


def test_a_symmetric_key_with_a_public_key_is_malformed():
    key = make_key("vault", "xchacha20-poly1305")
    with pytest.raises(MalformedError):
        decode_key(encoded({**document(key), "public_key": encode_base64(bytes(32))}))


def test_a_seed_exchanged_below_its_public_key_is_malformed(key):
    seed = {"protection": "none", "seed": encode_base64(b"\x02" * 32)}
    with pytest.raises(MalformedError, match="belong"):
        decode_key(encoded({**document(key), "secret": seed}))


def test_a_protected_seed_exchanged_below_its_public_key_is_malformed(cheap, key):
    other = document(make_key("log", ED25519, seed=2), PASSPHRASE)["secret"]
    with pytest.raises(MalformedError, match="belong"):
        decode_key(encoded({**document(key, PASSPHRASE), "secret": other}), PASSPHRASE)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "tallystick.key/2"},
        {"format": None},
        {"purpose": "anything"},
        {"purpose": 7},
        {"algorithm": "rsa"},
        {"algorithm": None},
        {"name": None},
        {"created_ms": -1},
        {"created_ms": 1.5},
        {"created_ms": "now"},
        {"created_ms": True},
        {"created_ms": 2**53},
        {"secret": None},
        {"secret": "seed"},
        {"secret": {}},
        {"secret": {"protection": "none"}},
        {"secret": {"protection": "none", "seed": "%%%"}},
        {"secret": {"protection": "none", "seed": encode_base64(bytes(31))}},
        {"secret": {"protection": "none", "seed": encode_base64(bytes(33))}},
        {"secret": {"protection": "rot13", "seed": encode_base64(bytes(32))}},
    ],
)
def test_a_file_that_is_no_key_file_is_malformed(key, changes):
    with pytest.raises(MalformedError):
        decode_key(encoded({**document(key), **changes}))


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"not json", b"\xff", b'{"format":"tallystick.key/1","format":"x"}']
)
def test_bytes_that_are_no_document_are_malformed(data):
    with pytest.raises(MalformedError):
        decode_key(data)


@pytest.mark.parametrize("missing", ["purpose", "algorithm", "name", "created_ms", "secret"])
def test_a_file_that_lacks_a_member_is_malformed(key, missing):
    short = document(key)
    del short[missing]
    with pytest.raises(MalformedError):
        decode_key(encoded(short))


@pytest.mark.parametrize("value", [None, "no", 0, "false", True])
def test_only_a_plain_false_says_that_a_key_is_not_simulated(key, value):
    assert decode_key(encoded({**document(key), "simulated": value})).simulated


def test_a_file_that_does_not_say_whether_it_is_simulated_is(key):
    short = document(generate_key("log", ED25519, "o", created_ms=NOW_MS))
    assert not decode_key(encoded(short)).simulated
    del short["simulated"]
    assert decode_key(encoded(short)).simulated


# --- passphrases -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["", "Correct horse battery staple", PASSPHRASE + " ", "\udcff"])
def test_a_wrong_passphrase_does_not_open_a_key_file(cheap, key, wrong):
    with pytest.raises(ConfigError, match="does not open"):
        decode_key(encode_key(key, PASSPHRASE), wrong)


def test_a_missing_passphrase_is_asked_for(cheap, key):
    with pytest.raises(ConfigError, match="TALLYSTICK_PASSPHRASE"):
        decode_key(encode_key(key, PASSPHRASE))


def test_a_passphrase_that_is_not_needed_is_ignored(key):
    assert decode_key(encode_key(key), PASSPHRASE) == key


@pytest.mark.parametrize("passphrase", ["", "pässwörd", "\udcff\udc80", "x" * 10_000])
def test_any_passphrase_opens_what_it_protected(cheap, key, passphrase):
    assert decode_key(encode_key(key, passphrase), passphrase) == key


def test_the_same_key_is_never_protected_by_the_same_bytes(cheap, key):
    one, other = document(key, PASSPHRASE)["secret"], document(key, PASSPHRASE)["secret"]
    assert one["salt"] != other["salt"]
    assert one["box"] != other["box"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ops_limit", argon2id.OPSLIMIT_SENSITIVE + 1),
        ("ops_limit", 2**32),
        ("ops_limit", -1),
        ("ops_limit", 1.0),
        ("ops_limit", "3"),
        ("ops_limit", True),
        ("ops_limit", None),
        ("mem_limit_bytes", argon2id.MEMLIMIT_SENSITIVE + 1),
        ("mem_limit_bytes", 2**63),
        ("mem_limit_bytes", -1),
        ("mem_limit_bytes", None),
    ],
)
def test_a_planted_file_does_not_make_us_spend_more_than_we_allow(cheap, key, monkeypatch, name, value):
    planted = document(key, PASSPHRASE)
    planted["secret"][name] = value
    monkeypatch.setattr("nacl.pwhash.argon2id.kdf", lambda *_: pytest.fail("the work was begun"))
    with pytest.raises(MalformedError, match=name):
        decode_key(encoded(planted), PASSPHRASE)


@pytest.mark.parametrize(("name", "value"), [("ops_limit", 0), ("mem_limit_bytes", 0), ("mem_limit_bytes", 100)])
def test_limits_too_low_for_argon2id_open_nothing(cheap, key, name, value):
    planted = document(key, PASSPHRASE)
    planted["secret"][name] = value
    with pytest.raises(ConfigError):
        decode_key(encoded(planted), PASSPHRASE)


@pytest.mark.parametrize("name", ["salt", "box"])
@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: bytes(len(data)), lambda _: b""]
)
def test_a_damaged_box_opens_nothing(cheap, key, name, change):
    planted = document(key, PASSPHRASE)
    planted["secret"][name] = encode_base64(change(decode_base64(planted["secret"][name])))
    with pytest.raises(ConfigError, match="does not open"):
        decode_key(encoded(planted), PASSPHRASE)


# --- files and environment -------------------------------------------------------------------------------------------


def test_a_key_file_is_for_its_owner_alone(key, tmp_path):
    save_key(key, tmp_path / "log.json")
    assert stat.S_IMODE((tmp_path / "log.json").stat().st_mode) == 0o600
    assert load_key(f"file:{tmp_path / 'log.json'}") == key


def test_a_saved_key_is_durable(key, tmp_path, monkeypatch):
    trace = FileTrace.start(monkeypatch)
    save_key(key, tmp_path / "log.json")
    (written,) = trace.positions("sync", tmp_path / "log.json")
    (named,) = trace.positions("link", tmp_path / "log.json")
    assert written < named < trace.positions("sync", tmp_path)[-1]


def test_a_key_file_is_never_overwritten(key, tmp_path):
    path = tmp_path / "log.json"
    save_key(key, path)
    before = path.read_bytes()
    for other in (key, make_key("log", ED25519, seed=2)):
        with pytest.raises(ConfigError, match="exists"):
            save_key(other, path)
    assert path.read_bytes() == before


def test_of_two_who_save_at_once_one_is_told_that_the_file_exists(key, tmp_path, monkeypatch):
    path = tmp_path / "log.json"
    save_key(make_key("log", ED25519, seed=2), path)
    before = path.read_bytes()
    # The other one came between our look and our write.
    monkeypatch.setattr(Path, "exists", lambda self: self != path)
    with pytest.raises(ConfigError, match="exists"):
        save_key(key, path)
    assert path.read_bytes() == before


def test_a_disk_that_is_full_leaves_no_half_of_a_key_file(key, tmp_path, monkeypatch):
    trace = FileTrace.start(monkeypatch)
    trace.fail("sync", errno.ENOSPC)
    with pytest.raises(ConfigError) as caught:
        save_key(key, tmp_path / "log.json")
    assert isinstance(caught.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_not_saved_into_a_directory_that_nobody_made(key, tmp_path):
    with pytest.raises(ConfigError, match="directory"):
        save_key(key, tmp_path / "no" / "log.json")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o777])
def test_a_key_file_that_others_may_open_is_refused(key, tmp_path, mode):
    path = tmp_path / "log.json"
    save_key(key, path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(f"file:{path}")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_that_only_its_owner_may_open_is_read(key, tmp_path, mode):
    path = tmp_path / "log.json"
    save_key(key, path)
    path.chmod(mode)
    assert load_key(f"file:{path}") == key


def test_a_file_too_large_for_a_key_file_is_malformed(key, tmp_path):
    path = tmp_path / "log.json"
    path.write_bytes(encode_key(key) + b" " * 16_384)
    path.chmod(0o600)
    with pytest.raises(MalformedError, match="at most"):
        load_key(f"file:{path}")


def test_an_endless_file_is_not_read_to_its_end():
    with pytest.raises((ConfigError, MalformedError)):
        load_key("file:/dev/zero")


def test_a_key_file_that_is_not_there_is_named_without_its_directory(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_key(f"file:{tmp_path / 'log.json'}")
    assert "log.json" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_directory_is_no_key_file(tmp_path: Path):
    with pytest.raises(ConfigError):
        load_key(f"file:{tmp_path}")


def test_a_key_may_stand_in_the_environment(cheap, key, monkeypatch):
    monkeypatch.setenv("LOG_KEY", encode_key(key, PASSPHRASE).decode())
    assert load_key("env:LOG_KEY", PASSPHRASE) == key
    monkeypatch.delenv("LOG_KEY")
    with pytest.raises(ConfigError, match="LOG_KEY"):
        load_key("env:LOG_KEY", PASSPHRASE)


def test_an_environment_variable_that_is_no_key_is_malformed(monkeypatch):
    for text in ("", "secret", "\udcff"):
        monkeypatch.setenv("LOG_KEY", text)
        with pytest.raises(MalformedError) as caught:
            load_key("env:LOG_KEY")
        assert not text or text not in str(caught.value)


@pytest.mark.parametrize("uri", ["", "file:", "log.json", "/etc/passwd", "http://key", "awskms:key", "FILE:log.json"])
def test_a_uri_of_another_kind_is_refused(uri):
    with pytest.raises(ConfigError):
        load_key(uri)
