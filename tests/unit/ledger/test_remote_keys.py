"""Key files of log keys that are kept elsewhere: what they say, and what they may not."""

from __future__ import annotations

import json

import pytest

from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import ConfigError, MalformedError
from ledger.keys import decode_key, encode_key
from ledger.notes import encode_base64
from ledger.remote_keys import (
    KMSAddress,
    RemoteKey,
    decode_signing_key,
    encode_remote_key,
    load_signing_key,
    parse_kms_uri,
)
from tests.support.ledger import NOW_MS, ORIGIN, make_key

URI = "awskms:alias/log?region=eu-central-1"
ARN = "arn:aws:kms:eu-west-3:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def remote(algorithm: str = MLDSA44) -> RemoteKey:
    public_key = make_key("log", algorithm).public_key
    assert public_key is not None
    return RemoteKey(
        algorithm=algorithm, name=ORIGIN, public_key=public_key, uri=URI, created_ms=NOW_MS, simulated=True
    )


@pytest.mark.parametrize("algorithm", [ED25519, MLDSA44])
def test_a_key_file_is_read_as_it_was_written(algorithm):
    assert decode_signing_key(encode_remote_key(remote(algorithm))) == remote(algorithm)


def test_a_key_elsewhere_goes_by_the_ids_of_the_same_key_here():
    assert remote().key_id == make_key("log", MLDSA44).key_id
    assert remote().verifier_key == make_key("log", MLDSA44).verifier_key


def test_a_key_here_is_read_as_before():
    key = make_key("log", ED25519)
    assert decode_signing_key(encode_key(key)) == key


def test_a_file_is_found_by_its_uri(tmp_path):
    path = tmp_path / "log.json"
    path.write_bytes(encode_remote_key(remote()))
    path.chmod(0o600)
    assert load_signing_key(f"file:{path}") == remote()


def test_no_key_elsewhere_passes_for_one_here():
    with pytest.raises(MalformedError, match="unknown means: awskms"):
        decode_key(encode_remote_key(remote()))


@pytest.mark.parametrize("purpose", ["pack", "enforcer", "vault", "pseudonym", "spool", "", None])
def test_only_log_keys_are_kept_elsewhere(purpose):
    document = json.loads(encode_remote_key(remote())) | {"purpose": purpose}
    with pytest.raises(MalformedError, match="log keys alone"):
        decode_signing_key(json.dumps(document).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"format": "tallystick.key/2"},
        {"algorithm": "xchacha20-poly1305"},
        {"algorithm": None},
        {"name": 7},
        {"created_ms": -1},
        {"created_ms": True},
        {"created_ms": "now"},
        {"public_key": None},
        {"public_key": encode_base64(bytes(32))},
        {"public_key": "%%%"},
        {"secret": {"protection": "awskms"}},
        {"secret": {"protection": "awskms", "key": 1}},
    ],
)
def test_a_member_that_is_wrong_makes_the_file_malformed(change):
    document = json.loads(encode_remote_key(remote())) | change
    with pytest.raises(MalformedError):
        decode_signing_key(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b'{"secret": 7}'])
def test_what_is_no_key_file_is_malformed(data):
    with pytest.raises(MalformedError):
        decode_signing_key(data)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("awskms:alias/log", KMSAddress(key="alias/log")),
        (URI, KMSAddress(key="alias/log", region="eu-central-1")),
        (f"awskms:{ARN}", KMSAddress(key=ARN, region="eu-west-3")),
        (f"awskms:{ARN}?region=eu-west-1", KMSAddress(key=ARN, region="eu-west-1")),
        ("awskms:k?endpoint=http://127.0.0.1:9", KMSAddress(key="k", endpoint="http://127.0.0.1:9")),
    ],
)
def test_a_uri_names_key_region_and_endpoint(uri, address):
    assert parse_kms_uri(uri) == address


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "awskms:",
        "awskms:?region=eu-central-1",
        "file:key.json",
        "awskms:key with blanks",
        "awskms:k?region",
        "awskms:k?region=",
        "awskms:k?region=EU CENTRAL",
        "awskms:k?region=a&region=b",
        "awskms:k?profile=x",
        "awskms:k?endpoint=ftp://host",
        "awskms:k?endpoint=http://host?x",
    ],
)
def test_a_uri_that_is_none_is_refused(uri):
    with pytest.raises(ConfigError):
        parse_kms_uri(uri)
