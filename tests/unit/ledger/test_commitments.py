"""Commitments, pseudonyms and fingerprints."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from ledger.commitments import (
    PSEUDONYM_KEY_BYTES,
    SALT_BYTES,
    commitment_digest,
    fingerprint,
    open_commitment,
    pseudonym,
    pseudonym_key_id,
)
from ledger.errors import CommitmentError, MalformedError, VerificationError

_SALT = bytes(range(SALT_BYTES))
_KEY = bytes(range(PSEUDONYM_KEY_BYTES))


class TestCommitment:
    def test_the_digest_is_that_of_the_documented_bytes(self) -> None:
        material = b"tallystick/commitment/v1\n" + b"\x07message" + _SALT + b"payload"
        assert commitment_digest("message", _SALT, b"payload") == hashlib.sha256(material).digest()

    @pytest.mark.parametrize("payload", [b"", b"payload", b"\x00" * 100_000])
    def test_salt_and_payload_open_it(self, payload) -> None:
        open_commitment("message", commitment_digest("message", _SALT, payload), _SALT, payload)

    @pytest.mark.parametrize(
        ("field", "salt", "payload"),
        [
            ("request", _SALT, b"payload"),
            ("message", _SALT[::-1], b"payload"),
            ("message", _SALT, b"payloaD"),
            ("message", _SALT, b""),
            ("message", _SALT, b"payload\x00"),
            ("messagf", _SALT, b"payload"),
        ],
    )
    def test_another_field_salt_or_payload_does_not(self, field, salt, payload) -> None:
        digest = commitment_digest("message", _SALT, b"payload")
        with pytest.raises(CommitmentError, match=field):
            open_commitment(field, digest, salt, payload)

    @pytest.mark.parametrize("digest", [b"", b"\x00" * 31, b"\x00" * 32, b"\x00" * 33])
    def test_another_digest_is_not_opened(self, digest) -> None:
        with pytest.raises(CommitmentError):
            open_commitment("message", digest, _SALT, b"payload")

    def test_bytes_do_not_move_between_field_salt_and_payload(self) -> None:
        # Without the length before the field, ("ab", salt) and ("a", "b" + salt) would be one message.
        digests = {
            commitment_digest("a", b"b" + b"\x00" * 15, b"\x00payload"),
            commitment_digest("ab", b"\x00" * 16, b"payload"),
            commitment_digest("ab", b"\x00" * 15 + b"p", b"ayload"),
        }
        assert len(digests) == 3

    @pytest.mark.parametrize("salt", [b"", b"\x00" * 15, b"\x00" * 17, b"\x00" * 32])
    def test_a_salt_of_another_length_is_malformed(self, salt) -> None:
        with pytest.raises(MalformedError, match="16 bytes"):
            commitment_digest("message", salt, b"")
        with pytest.raises(MalformedError, match="16 bytes"):
            open_commitment("message", b"\x00" * 32, salt, b"")

    @pytest.mark.parametrize("field", ["", "f" * 256, "f\xfcr", "\ud800", "\N{SNOWMAN}"])
    def test_a_field_name_that_does_not_fit_is_malformed(self, field) -> None:
        with pytest.raises(MalformedError, match="not a field name"):
            commitment_digest(field, _SALT, b"")

    def test_an_error_holds_neither_salt_nor_payload(self) -> None:
        with pytest.raises(CommitmentError) as caught:
            open_commitment("message", b"\x00" * 32, _SALT, b"hunter2")
        assert "hunter2" not in str(caught.value)
        assert _SALT.hex() not in str(caught.value)
        assert isinstance(caught.value, VerificationError)


class TestPseudonym:
    def test_it_is_the_documented_keyed_hash(self) -> None:
        message = b"tallystick/pseudonym/v1\nuser\nalice"
        assert pseudonym(_KEY, "user", "alice") == hmac.new(_KEY, message, hashlib.sha256).hexdigest()[:32]

    def test_a_fingerprint_is_the_pseudonym_of_a_content_digest(self) -> None:
        digest = hashlib.sha256(b"content").digest()
        message = b"tallystick/pseudonym/v1\ncontent\n" + digest
        assert fingerprint(_KEY, digest) == hmac.new(_KEY, message, hashlib.sha256).hexdigest()[:32]

    def test_equal_values_are_equal_only_under_one_key_and_kind(self) -> None:
        assert pseudonym(_KEY, "user", "alice") == pseudonym(_KEY, "user", "alice")
        others = {
            pseudonym(_KEY, "user", "alice"),
            pseudonym(_KEY, "user", "Alice"),
            pseudonym(_KEY, "user", "alice "),
            pseudonym(_KEY, "session", "alice"),
            pseudonym(_KEY[::-1], "user", "alice"),
            pseudonym(_KEY, "user", ""),
        }
        assert len(others) == 6

    def test_any_text_has_a_pseudonym(self) -> None:
        values = ["\ud800", "\udcff", "\N{SNOWMAN}", "\x00", "a" * 100_000]
        assert len({pseudonym(_KEY, "user", value) for value in values}) == len(values)

    @pytest.mark.parametrize("key", [b"", b"\x00" * 31, b"\x00" * 33])
    def test_a_key_of_another_length_is_malformed(self, key) -> None:
        with pytest.raises(MalformedError, match="32 bytes"):
            pseudonym(key, "user", "alice")
        with pytest.raises(MalformedError, match="32 bytes"):
            fingerprint(key, b"\x00" * 32)

    def test_the_key_id_says_nothing_that_a_pseudonym_says(self) -> None:
        assert pseudonym_key_id(_KEY) == hashlib.sha256(b"tallystick/pseudonym-key/v1\n" + _KEY).hexdigest()[:16]
        assert pseudonym_key_id(_KEY) != pseudonym_key_id(_KEY[::-1])
