"""The second verifier's own Ed25519 and ML-DSA-44: they say what libsodium and pqcrypto say, on edges as well.

Edges of Ed25519: encodings that are no point, or a second spelling of one; points of small order as key and as first
half; a second half that is not below the group's order (RFC 8032 section 5.1.7). Of ML-DSA-44: every part of a
signature altered, hints in another spelling, answers out of bounds (FIPS 204 algorithms 8 and 27).
"""

from __future__ import annotations

import hashlib

import nacl.signing
import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.standalone.ed25519 import ed25519_holds
from evidence.standalone.mldsa44 import mldsa44_holds
from ledger.errors import SignatureInvalidError
from ledger.signatures import verify_ed25519, verify_mldsa44

ORDER = 2**252 + 27742317777372353535851937790883648493
PRIME = 2**255 - 19
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
]
ED25519_KEY = nacl.signing.SigningKey(hashlib.sha256(b"a key of the tests").digest())
MLDSA_KEY = MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(b"another key of the tests").digest())
MLDSA_PUBLIC = MLDSA_KEY.public_key().public_bytes_raw()
MESSAGE = b"what was signed"
few = settings(max_examples=60, deadline=None)


def ed25519_by_libsodium(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify_ed25519(public_key, message, signature, signer="a test")
    except SignatureInvalidError:
        return False
    return True


def mldsa44_by_pqcrypto(message: bytes, signature: bytes) -> bool:
    try:
        verify_mldsa44(MLDSA_PUBLIC, message, signature, signer="a test")
    except SignatureInvalidError:
        return False
    return True


@pytest.mark.parametrize(
    ("seed", "public_key", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd"
                "25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            (
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c3"
                "87b2eaeb4302aeeb00d291612bb0c00"
            ),
        ),
    ],
)
def test_the_signatures_of_rfc_8032_hold(seed, public_key, message, signature):
    del seed  # a fact of the vector; nothing is signed here
    told = bytes.fromhex(public_key), bytes.fromhex(message), bytes.fromhex(signature)
    assert ed25519_holds(*told)
    assert not ed25519_holds(told[0], told[1] + b"\0", told[2])


@few
@given(message=st.binary(max_size=200), at=st.integers(0, 63), bit=st.integers(0, 7))
def test_an_ed25519_signature_holds_and_no_altered_one_does(message, at, bit):
    public_key, signature = bytes(ED25519_KEY.verify_key), ED25519_KEY.sign(message).signature
    assert ed25519_holds(public_key, message, signature)
    altered = bytearray(signature)
    altered[at] ^= 1 << bit
    assert not ed25519_holds(public_key, message, bytes(altered))
    assert not ed25519_holds(public_key, message + b"x", signature)


@few
@given(public_key=st.binary(min_size=32, max_size=32), signature=st.binary(min_size=64, max_size=64))
def test_arbitrary_keys_and_signatures_are_judged_as_libsodium_judges_them(public_key, signature):
    assert ed25519_holds(public_key, MESSAGE, signature) == ed25519_by_libsodium(public_key, MESSAGE, signature)


@pytest.mark.parametrize("encoding", SMALL_ORDER)
@pytest.mark.parametrize("sign", [0, 0x80])
def test_a_point_of_small_order_signs_nothing_as_key_or_as_first_half(encoding, sign):
    point = bytearray.fromhex(encoding)
    point[31] |= sign
    own = bytes(ED25519_KEY.verify_key)
    for key, signature in ((bytes(point), bytes(point) + bytes(32)), (own, bytes(point) + bytes(32))):
        for message in (MESSAGE, b"", b"another"):
            assert not ed25519_holds(key, message, signature)
            assert not ed25519_by_libsodium(key, message, signature)


@pytest.mark.parametrize("times", [1, 2, 7])
def test_a_second_half_that_is_not_below_the_order_is_refused(times):
    signature = ED25519_KEY.sign(MESSAGE).signature
    scalar = int.from_bytes(signature[32:], "little") + times * ORDER
    altered = signature[:32] + scalar.to_bytes(32, "little")
    assert not ed25519_holds(bytes(ED25519_KEY.verify_key), MESSAGE, altered)


@pytest.mark.parametrize("y", [PRIME, PRIME + 1, PRIME + 3, 2**255 - 1])
def test_a_key_in_another_spelling_than_its_own_is_refused(y):
    signature = ED25519_KEY.sign(MESSAGE).signature
    assert not ed25519_holds(y.to_bytes(32, "little"), MESSAGE, signature)
    assert not ed25519_holds((y | 1 << 255).to_bytes(32, "little"), MESSAGE, signature)


@pytest.mark.parametrize(("key", "length"), [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_keys_and_signatures_of_other_lengths_are_none(key, length):
    signature = ED25519_KEY.sign(MESSAGE).signature
    assert not ed25519_holds((bytes(ED25519_KEY.verify_key) + b"\0")[:key], MESSAGE, (signature + b"\0")[:length])


@few
@given(message=st.binary(max_size=200), context=st.binary(max_size=255))
def test_an_ml_dsa_signature_of_openssl_holds_under_its_context_and_no_other(message, context):
    signature = MLDSA_KEY.sign(message, context=context)
    assert mldsa44_holds(MLDSA_PUBLIC, message, signature, context)
    assert not mldsa44_holds(MLDSA_PUBLIC, message + b"x", signature, context)
    assert not mldsa44_holds(MLDSA_PUBLIC, message, signature, context + b"x" if len(context) < 255 else b"")


@few
@given(at=st.integers(0, 2419), bit=st.integers(0, 7))
def test_no_altered_ml_dsa_signature_holds_and_pqcrypto_agrees(at, bit):
    altered = bytearray(MLDSA_KEY.sign(MESSAGE))
    altered[at] ^= 1 << bit
    assert not mldsa44_holds(MLDSA_PUBLIC, MESSAGE, bytes(altered))
    assert not mldsa44_by_pqcrypto(MESSAGE, bytes(altered))


@pytest.mark.parametrize(
    "hints",
    [
        bytes(80) + bytes((1, 0, 0, 0)),  # fewer in the second row than in the first
        bytes(80) + bytes((81, 81, 81, 81)),  # more than there is room for
        bytes((5, 5)) + bytes(78) + bytes((2, 2, 2, 2)),  # one place twice
        bytes((9, 5)) + bytes(78) + bytes((2, 2, 2, 2)),  # not in order
        bytes(79) + b"\x01" + bytes(4),  # something behind the last one
    ],
)
def test_hints_in_another_spelling_are_refused(hints):
    signature = MLDSA_KEY.sign(MESSAGE)[:-84] + hints
    assert len(signature) == 2420
    assert not mldsa44_holds(MLDSA_PUBLIC, MESSAGE, signature)
    assert not mldsa44_by_pqcrypto(MESSAGE, signature)


def test_an_answer_that_is_out_of_bounds_is_refused():
    signature = MLDSA_KEY.sign(MESSAGE)
    assert not mldsa44_holds(MLDSA_PUBLIC, MESSAGE, signature[:32] + bytes(3) + signature[35:])


@pytest.mark.parametrize(("key", "length"), [(1311, 2420), (1313, 2420), (1312, 2419), (1312, 2421), (0, 0)])
def test_ml_dsa_keys_and_signatures_of_other_lengths_are_none(key, length):
    signature = MLDSA_KEY.sign(MESSAGE)
    assert not mldsa44_holds((MLDSA_PUBLIC + b"\0")[:key], MESSAGE, (signature + b"\0")[:length])


def test_a_context_of_more_than_255_bytes_is_refused():
    assert not mldsa44_holds(MLDSA_PUBLIC, MESSAGE, MLDSA_KEY.sign(MESSAGE), bytes(256))
