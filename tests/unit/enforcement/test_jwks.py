"""Key sets: what cannot be used is left out, what could be used twice is not used at all."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enforcement.jwks import MAX_KEY_SET_BYTES, KeySet, parse_key_set
from ledger.errors import MalformedError
from tests.support.issuer import jwk_of, key_set, private_key

ALL = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


def parsed(*jwks: dict[str, Any], algorithms: tuple[str, ...] = ALL) -> KeySet:
    return parse_key_set(json.dumps({"keys": [*jwks, jwk_of("ed")]}).encode(), algorithms)


def as_jwk(key: Any, **members: Any) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPublicKey) else jwt.algorithms.ECAlgorithm
    return {**kind.to_jwk(key, as_dict=True), "kid": "x", **members}


def test_a_key_is_found_by_its_name_for_what_its_kind_can_do() -> None:
    keys = parse_key_set(key_set("rsa", "ec", "ed"), ALL)
    for kid, algorithm in (("rsa", "RS256"), ("rsa", "PS256"), ("ec", "ES256"), ("ed", "EdDSA")):
        found = keys.find(kid, algorithm)
        assert found is not None
        assert found.kid == kid
    for kid, algorithm in (("rsa", "ES256"), ("ec", "ES384"), ("ed", "ES256"), ("rsa", "RS512"), ("other", "RS256")):
        assert keys.find(kid, algorithm) is None


UNUSABLE: dict[str, dict[str, Any]] = {
    "for encryption": jwk_of("ec", kid="x", use="enc"),
    "not for verification": jwk_of("ec", kid="x", key_ops=["sign"]),
    "operations that are no list": jwk_of("ec", kid="x", key_ops="verify"),
    "of another algorithm": jwk_of("ec", kid="x", alg="ES512"),
    "symmetric": {"kty": "oct", "kid": "x", "k": "c2VjcmV0", "alg": "HS256"},
    "symmetric, disguised": jwk_of("rsa", kid="x", alg="HS256"),
    "private": {**jwk_of("ec", kid="x"), "d": "AAAA"},
    "no point of its curve": {**jwk_of("ec", kid="x"), "y": jwk_of("ec-2")["y"]},
    "of a curve that nobody asked for": as_jwk(ec.generate_private_key(ec.SECP256K1()).public_key()),
    "of a kind that nobody knows": {"kty": "AKP", "kid": "x", "pub": "AAAA"},
    "without a kind": {"kid": "x"},
    "with a name that is none": jwk_of("ec", kid=7),
    "with a number for a point": {**jwk_of("ec", kid="x"), "x": 7},
    "of the wrong kind for its curve": {**jwk_of("ed", kid="x"), "kty": "EC"},
    "short": {"kty": "RSA", "kid": "x", "e": "AQAB", "n": "wQ" * 80},
    "slow": {**jwk_of("rsa", kid="x"), "e": "AQAAAAAAAQ"},
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_key_that_cannot_be_used_is_left_out_and_the_others_stay(case: str) -> None:
    assert [key.kid for key in parsed(UNUSABLE[case]).keys] == ["ed"]


def test_two_keys_of_one_name_are_none_unless_their_algorithms_differ() -> None:
    twice = parsed(jwk_of("ec", kid="x"), jwk_of("ec-2", kid="x"), jwk_of("rsa", kid="x"))
    assert twice.find("x", "ES256") is None
    assert twice.find("x", "RS256") is not None


def test_a_set_of_several_keys_answers_no_token_without_a_name() -> None:
    assert parse_key_set(key_set("rsa", "ec"), ALL).find(None, "ES256") is None
    assert parse_key_set(key_set("ec"), ALL).find(None, "ES256") is not None


def test_algorithms_that_are_not_accepted_make_a_key_useless() -> None:
    assert parse_key_set(key_set("ec"), ("RS256",)).keys == ()


def test_a_set_without_keys_is_what_its_issuer_says() -> None:
    assert parse_key_set(b'{"keys":[]}', ALL).keys == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":["ec"]}',
        b'{"keys":[],"keys":[]}',
        b" " * (MAX_KEY_SET_BYTES + 1),
        json.dumps({"keys": [jwk_of("ec")] * 101}).encode(),
    ],
)
def test_what_is_no_key_set_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_key_set(data, ALL)


def test_a_certificate_that_comes_with_a_key_changes_nothing() -> None:
    (key, _) = parsed(jwk_of("ec", x5c=["AAAA"], x5u="https://evil.example")).keys
    assert key.key.public_numbers() == private_key("ec").public_key().public_numbers()  # type: ignore[union-attr]  # EC
