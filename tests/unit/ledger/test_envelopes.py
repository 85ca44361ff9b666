"""DSSE envelopes: one form, derived key ids, exactly the expected signers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import pytest
import rfc8785

from ledger.envelopes import (
    ED25519,
    MLDSA44,
    Envelope,
    EnvelopeKey,
    parse_envelope,
    pre_authentication_encoding,
    seal_envelope,
)
from ledger.errors import MalformedError, SignatureInvalidError, SignatureUncheckedError, TrustPolicyError
from tests.conformance.reference import c2sp
from tests.conformance.requirements import requirement

_TYPE = "application/vnd.tallystick.pack+json"
_PAYLOAD = b'{"items":[]}'


@dataclass(frozen=True)
class Sealer:
    algorithm: str
    signer: c2sp.Ed25519Signer | c2sp.MLDSA44Signer

    @property
    def envelope_key(self) -> EnvelopeKey:
        return EnvelopeKey(self.algorithm, self.signer.public_key)

    def sign(self, message: bytes) -> bytes:
        return self.signer.raw(message)


_ED = Sealer(ED25519, c2sp.Ed25519Signer("pack", b"\x21" * 32))
_PQ = Sealer(MLDSA44, c2sp.MLDSA44Signer("pack", b"\x22" * 32))
_OTHER = Sealer(ED25519, c2sp.Ed25519Signer("pack", b"\x23" * 32))
_KEYS = [_ED.envelope_key, _PQ.envelope_key]
_SEALED = seal_envelope(_TYPE, _PAYLOAD, [_ED, _PQ])


def changed(**members: object) -> bytes:
    return rfc8785.dumps(json.loads(_SEALED) | members)


class TestSealing:
    @requirement("dsse-01", "dsse-03")
    def test_a_sealed_envelope_is_read_verified_and_gives_the_payload(self) -> None:
        envelope = parse_envelope(_SEALED)
        envelope.verify(_KEYS)
        assert (envelope.payload_type, envelope.payload) == (_TYPE, _PAYLOAD)
        assert set(envelope.signatures) == {key.key_id for key in _KEYS}

    @requirement("dsse-01")
    @pytest.mark.parametrize(
        ("kind", "payload", "encoded"),
        [
            (
                "http://example.com/HelloWorld",
                b"hello world",
                b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
            ),
            ("", b"", b"DSSEv1 0  0 "),
            ("t\xe4", b"\xff\x00", b"DSSEv1 3 t\xc3\xa4 2 \xff\x00"),
        ],
    )
    def test_the_signed_bytes_count_their_parts_in_bytes(self, kind, payload, encoded) -> None:
        assert pre_authentication_encoding(kind, payload) == encoded

    @requirement("dsse-01")
    def test_bytes_do_not_move_between_type_and_payload(self) -> None:
        assert pre_authentication_encoding("a", b"1 b") != pre_authentication_encoding("a 3", b"b")

    def test_the_order_of_the_signers_does_not_matter(self) -> None:
        one, other = (json.loads(seal_envelope(_TYPE, b"", signers)) for signers in ([_ED, _PQ], [_PQ, _ED]))
        assert [line["keyid"] for line in one["signatures"]] == [line["keyid"] for line in other["signatures"]]

    def test_an_envelope_without_a_signer_is_refused(self) -> None:
        with pytest.raises(MalformedError, match="needs a signature"):
            seal_envelope(_TYPE, _PAYLOAD, [])

    def test_any_payload_comes_back_as_it_was(self) -> None:
        for payload in (b"", b"\x00\xff", b"\n\n", bytes(range(256)) * 100):
            assert parse_envelope(seal_envelope(_TYPE, payload, [_ED])).payload == payload

    @requirement("dsse-04")
    def test_a_key_id_is_the_hash_of_algorithm_and_key(self) -> None:
        key = _ED.envelope_key
        assert key.key_id == hashlib.sha256(b"ed25519\n" + key.public_key).hexdigest()
        assert EnvelopeKey(MLDSA44, key.public_key).key_id != key.key_id


class TestVerification:
    @requirement("dsse-02", "dsse-03")
    @pytest.mark.parametrize(
        "members", [{"payloadType": _TYPE + "x"}, {"payloadType": ""}, {"payload": c2sp.b64(b"{}")}, {"payload": ""}]
    )
    def test_type_and_payload_are_signed(self, members) -> None:
        with pytest.raises(SignatureInvalidError):
            parse_envelope(changed(**members)).verify(_KEYS)

    @requirement("dsse-05")
    @pytest.mark.parametrize(
        "keys",
        [
            [],
            [_ED.envelope_key],
            [_PQ.envelope_key],
            [*_KEYS, _OTHER.envelope_key],
            [_OTHER.envelope_key],
            [_OTHER.envelope_key, _PQ.envelope_key],
        ],
    )
    def test_missing_and_foreign_signers_are_refused(self, keys) -> None:
        with pytest.raises(TrustPolicyError):
            parse_envelope(_SEALED).verify(keys)

    @requirement("dsse-04")
    def test_a_key_id_that_is_not_the_keys_own_is_refused(self) -> None:
        lines = json.loads(_SEALED)["signatures"]
        lines[0]["keyid"] = "0" * 64
        with pytest.raises(TrustPolicyError):
            parse_envelope(changed(signatures=sorted(lines, key=lambda line: line["keyid"]))).verify(_KEYS)

    @requirement("dsse-04")
    def test_signatures_under_each_others_key_ids_are_refused(self) -> None:
        lines = json.loads(_SEALED)["signatures"]
        lines[0]["sig"], lines[1]["sig"] = lines[1]["sig"], lines[0]["sig"]
        with pytest.raises(SignatureInvalidError):
            parse_envelope(changed(signatures=lines)).verify(_KEYS)

    @pytest.mark.parametrize("position", [0, 1])
    @pytest.mark.parametrize("blob", [b"", b"\x00", b"\x00" * 64, b"\x00" * 2420])
    def test_one_wrong_signature_of_two_is_refused(self, position, blob) -> None:
        lines = json.loads(_SEALED)["signatures"]
        lines[position]["sig"] = c2sp.b64(blob)
        with pytest.raises(SignatureInvalidError):
            parse_envelope(changed(signatures=lines)).verify(_KEYS)

    def test_an_algorithm_that_is_not_known_is_unchecked(self) -> None:
        strange = EnvelopeKey("ml-dsa-87", b"\x00" * 2592)
        with pytest.raises(SignatureUncheckedError, match="ml-dsa-87"):
            Envelope(_TYPE, _PAYLOAD, {strange.key_id: b"\x00"}).verify([strange])

    def test_a_key_does_not_verify_under_the_other_algorithms_name(self) -> None:
        renamed = EnvelopeKey(MLDSA44, _ED.envelope_key.public_key)
        message = pre_authentication_encoding(_TYPE, _PAYLOAD)
        with pytest.raises(SignatureInvalidError):
            Envelope(_TYPE, _PAYLOAD, {renamed.key_id: _ED.sign(message)}).verify([renamed])


class TestForm:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{}",
            b"[]",
            b"null",
            b'"envelope"',
            _SEALED + b"\n",
            b" " + _SEALED,
            _SEALED[:-1],
            json.dumps(json.loads(_SEALED)).encode(),
            _SEALED.replace(b"payloadType", b"payload\\u0054ype"),
            _SEALED.replace(b'{"payload":', b'{"payload":"","payload":'),
            changed(comment="x"),
            changed(payload=None),
            changed(payload=1),
            changed(payload="e30"),
            changed(payload="e3=="),
            changed(payload="e30=\n"),
            changed(payload="-_8="),
            changed(payloadType=None),
            changed(payloadType=["a"]),
            changed(signatures=None),
            changed(signatures=[]),
            changed(signatures={}),
            changed(signatures=["x"]),
            changed(signatures=[{}]),
            changed(signatures=[{"keyid": "a"}]),
            changed(signatures=[{"sig": "AAAA"}]),
            changed(signatures=[{"keyid": "a", "sig": "AAAA", "cert": ""}]),
            changed(signatures=[{"keyid": 1, "sig": "AAAA"}]),
            changed(signatures=[{"keyid": "a", "sig": None}]),
            changed(signatures=[{"keyid": "a", "sig": "AA=A"}]),
            changed(signatures=[{"keyid": "a", "sig": "AAAA"}] * 2),
            changed(signatures=json.loads(_SEALED)["signatures"][::-1]),
            rfc8785.dumps({name: item for name, item in json.loads(_SEALED).items() if name != "payloadType"}),
            b"[" * 100_000,
        ],
    )
    def test_an_envelope_of_another_form_is_malformed(self, data) -> None:
        with pytest.raises(MalformedError):
            parse_envelope(data)

    def test_every_changed_byte_is_noticed(self) -> None:
        data = seal_envelope(_TYPE, b"p", [_ED])
        for position in range(len(data)):
            altered = bytearray(data)
            altered[position] ^= 1
            with pytest.raises((MalformedError, TrustPolicyError, SignatureInvalidError)):
                parse_envelope(bytes(altered)).verify([_ED.envelope_key])
