"""Raw signatures: the two algorithms, and that OpenSSL and our verifiers agree."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey
from pqcrypto import ml_dsa_44

from ledger.errors import SignatureInvalidError
from ledger.signatures import verify_ed25519, verify_mldsa44
from tests.conformance.requirements import requirement

_L = 2**252 + 27742317777372353535851937790883648493
"""Order of the Ed25519 base point."""

_RFC_8032 = {
    "1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
            "655141438e7a100b"
        ),
    ),
    "2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
            "b00d291612bb0c00"
        ),
    ),
    "3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
            "c027beceea1ec40a"
        ),
    ),
}


class TestEd25519:
    @requirement("ed25519-01")
    @pytest.mark.parametrize("vector", _RFC_8032.values(), ids=_RFC_8032)
    def test_the_vectors_of_the_rfc_hold(self, vector) -> None:
        public, message, signature = (bytes.fromhex(item) for item in vector)
        verify_ed25519(public, message, signature, signer="RFC 8032")

    @requirement("ed25519-02")
    @pytest.mark.parametrize("bit", range(0, 512, 7))
    def test_one_changed_bit_of_the_signature_is_refused(self, bit) -> None:
        public, message, signature = (bytes.fromhex(item) for item in _RFC_8032["3"])
        altered = bytearray(signature)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureInvalidError):
            verify_ed25519(public, message, bytes(altered), signer="x")

    @requirement("ed25519-02")
    def test_another_message_is_refused_and_the_signer_is_named(self) -> None:
        public, message, signature = (bytes.fromhex(item) for item in _RFC_8032["2"])
        for other in (b"", message + b"\x00", b"s"):
            with pytest.raises(SignatureInvalidError, match="signature of gateway-1 is wrong"):
                verify_ed25519(public, other, signature, signer="gateway-1")

    @requirement("ed25519-02")
    def test_an_s_that_is_not_reduced_is_refused(self) -> None:
        # S + L verifies in the group equation: accepting it would give every signature a second spelling.
        public, message, signature = (bytes.fromhex(item) for item in _RFC_8032["2"])
        s = int.from_bytes(signature[32:], "little") + _L
        with pytest.raises(SignatureInvalidError):
            verify_ed25519(public, message, signature[:32] + s.to_bytes(32, "little"), signer="x")

    @requirement("ed25519-03")
    @pytest.mark.parametrize("point", [b"\x01" + bytes(31), bytes(32), b"\xec" + b"\xff" * 30 + b"\x7f"])
    def test_a_key_of_small_order_verifies_nothing(self, point) -> None:
        # Under the neutral element as key, R = neutral and S = 0 would "sign" every message.
        for r in (b"\x01" + bytes(31), point):
            with pytest.raises(SignatureInvalidError):
                verify_ed25519(point, b"anything", r + bytes(32), signer="x")

    @pytest.mark.parametrize(
        ("key", "signature"), [(31, 64), (33, 64), (0, 64), (32, 63), (32, 65), (32, 0), (32, 2420)]
    )
    def test_wrong_lengths_are_refused(self, key, signature) -> None:
        with pytest.raises(SignatureInvalidError):
            verify_ed25519(b"\x02" * key, b"", b"\x03" * signature, signer="x")


class TestMLDSA44:
    _private = MLDSA44PrivateKey.from_seed_bytes(b"\x2a" * 32)
    _public = _private.public_key().public_bytes_raw()
    _signature = _private.sign(b"message")

    @requirement("mldsa-01")
    def test_key_and_signature_have_the_sizes_of_the_standard(self) -> None:
        assert (len(self._public), len(self._signature)) == (1312, 2420)
        verify_mldsa44(self._public, b"message", self._signature, signer="x")

    @requirement("mldsa-01")
    @pytest.mark.parametrize(
        ("key", "signature"),
        [(1311, 2420), (1313, 2420), (0, 2420), (1312, 2419), (1312, 2421), (1312, 0), (1952, 3309)],
    )
    def test_wrong_lengths_are_refused(self, key, signature) -> None:
        public = (self._public * 2)[:key]
        with pytest.raises(SignatureInvalidError):
            verify_mldsa44(public, b"message", (self._signature * 2)[:signature], signer="x")

    @requirement("mldsa-02")
    def test_a_signature_under_a_context_is_refused(self) -> None:
        signature = self._private.sign(b"message", b"tallystick")
        self._private.public_key().verify(signature, b"message", b"tallystick")
        with pytest.raises(SignatureInvalidError):
            verify_mldsa44(self._public, b"message", signature, signer="x")

    @requirement("mldsa-03")
    def test_two_signatures_of_one_message_differ_and_both_hold(self) -> None:
        other = self._private.sign(b"message")
        assert other != self._signature
        verify_mldsa44(self._public, b"message", other, signer="x")

    @requirement("mldsa-04")
    def test_openssl_holds_what_pqclean_signs_and_the_other_way_round(self) -> None:
        public, secret = ml_dsa_44.keygen()
        signature = ml_dsa_44.sign(secret, b"message")
        MLDSA44PublicKey.from_public_bytes(bytes(public)).verify(bytes(signature), b"message")
        with pytest.raises(InvalidSignature):
            MLDSA44PublicKey.from_public_bytes(bytes(public)).verify(bytes(signature), b"massage")
        verify_mldsa44(self._public, b"message", self._signature, signer="x")

    @requirement("mldsa-05")
    @pytest.mark.parametrize("position", [*range(0, 2420, 97), 2419])
    def test_one_changed_bit_of_the_signature_is_refused(self, position) -> None:
        # The last bytes hold the hints, whose coding allows no second spelling.
        altered = bytearray(self._signature)
        altered[position] ^= 1
        with pytest.raises(SignatureInvalidError):
            verify_mldsa44(self._public, b"message", bytes(altered), signer="x")

    @requirement("mldsa-05")
    @pytest.mark.parametrize("position", [0, 31, 32, 700, 1311])
    def test_one_changed_bit_of_the_key_is_refused(self, position) -> None:
        altered = bytearray(self._public)
        altered[position] ^= 0x40
        with pytest.raises(SignatureInvalidError, match=r"signature of log\.example is wrong"):
            verify_mldsa44(bytes(altered), b"message", self._signature, signer="log.example")

    @requirement("mldsa-05")
    @pytest.mark.parametrize("message", [b"", b"messagf", b"message\x00"])
    def test_another_message_is_refused(self, message) -> None:
        with pytest.raises(SignatureInvalidError):
            verify_mldsa44(self._public, message, self._signature, signer="x")
