"""Every codec: what is written is read back to the same value, and has the documented form."""

from __future__ import annotations

import uuid
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoints import (
    Checkpoint,
    ed25519_cosignature_message,
    mldsa44_message,
    pack_timestamped,
    parse_body,
    parse_unverified_checkpoint,
    signature_timestamp,
)
from ledger.envelopes import ED25519, EnvelopeKey, parse_envelope, pre_authentication_encoding, seal_envelope
from ledger.notes import (
    KeyId,
    NoteSignature,
    SignatureType,
    SignedNote,
    VerifierKey,
    decode_base64,
    encode_base64,
    parse_note,
    parse_vkey,
)
from ledger.proof_files import ProofFile, parse_proof_file
from ledger.records import new_record_id
from ledger.tiles import (
    BUNDLE_LEVEL,
    TileCoordinate,
    pack_bundle,
    pack_tile,
    parse_tile_path,
    unpack_bundle,
    unpack_tile,
)
from ledger.trust import parse_trust_policy
from policies.model import decode_request, encode_request
from tests.conformance.reference import c2sp
from tests.property.strategies import (
    checkpoints,
    hashes,
    key_names,
    note_signatures,
    notes,
    origins,
    requests,
    texts,
    timestamps,
    tree_sizes,
    trust_policies,
    verifier_keys,
)


@given(st.binary(max_size=200))
def test_base64(data) -> None:
    assert decode_base64(encode_base64(data)) == data


@given(notes)
def test_a_note(note) -> None:
    assert parse_note(note.encode()) == note
    assert note.encode() == c2sp.note(
        note.text, *(c2sp.line(line.name, line.key_id, line.signature) for line in note.signatures)
    )


@given(verifier_keys())
def test_a_verifier_key(key) -> None:
    assert parse_vkey(key.encode()) == key
    if key.signature_type != SignatureType.ECDSA:
        assert key.encode() == c2sp.vkey(key.name, key.signature_type, key.public_key)


@given(checkpoints())
def test_a_checkpoint_body(checkpoint) -> None:
    assert parse_body(checkpoint.body()) == checkpoint
    assert checkpoint.body() == c2sp.body(checkpoint.origin, checkpoint.size, checkpoint.root, *checkpoint.extensions)


@given(checkpoints(), st.lists(note_signatures, min_size=1, max_size=3))
def test_a_signed_checkpoint(checkpoint, signatures) -> None:
    parsed = parse_unverified_checkpoint(SignedNote(checkpoint.body(), tuple(signatures)).encode())
    assert parsed.claim == checkpoint
    assert parsed.note.signatures == tuple(signatures)


@given(key_names, timestamps, origins, tree_sizes, hashes)
def test_the_signed_messages(name, timestamp, origin, size, root) -> None:
    checkpoint = Checkpoint(origin=origin, size=size, root=root)
    assert mldsa44_message(name, timestamp, checkpoint) == c2sp.subtree_message(name, timestamp, origin, size, root)
    text = checkpoint.body()
    assert ed25519_cosignature_message(timestamp, text) == c2sp.cosignature_message(timestamp, text)


@given(timestamps, st.binary(min_size=1, max_size=80), verifier_keys((4, 6)))
def test_a_timestamp(timestamp, signature, key) -> None:
    line = NoteSignature(key.name, key.key_id, pack_timestamped(timestamp, signature))
    assert signature_timestamp(key, line) == timestamp


@given(trust_policies())
def test_a_trust_policy(policy) -> None:
    assert parse_trust_policy(policy.encode().encode()) == policy


@given(
    st.integers(0, 10**19 - 1),
    st.lists(hashes, max_size=63),
    checkpoints(),
    note_signatures,
    st.none() | st.binary(max_size=300),
)
def test_a_proof_file(index, path, checkpoint, signature, extra) -> None:
    data = SignedNote(checkpoint.body(), (signature,)).encode()
    proof = ProofFile(index=index, path=tuple(path), checkpoint=data, extra=extra)
    assert parse_proof_file(proof.encode()) == proof


@given(st.integers(-1, 63), st.integers(0, 2**55 - 1), st.integers(1, 256))
def test_a_tile_path(level, number, width) -> None:
    tile = TileCoordinate(level, number, width)
    assert parse_tile_path(tile.path) == tile
    assert tile.path == c2sp.tile_path("entries" if level == BUNDLE_LEVEL else level, number, width)


@given(st.lists(hashes, min_size=1, max_size=256))
def test_a_tile(row) -> None:
    assert unpack_tile(pack_tile(row), len(row)) == row


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_a_bundle(entries) -> None:
    assert unpack_bundle(pack_bundle(entries), len(entries)) == entries


class _Sealer:
    def __init__(self, seed: bytes) -> None:
        self._signer = c2sp.Ed25519Signer("pack", seed)

    @property
    def envelope_key(self) -> EnvelopeKey:
        return EnvelopeKey(ED25519, self._signer.public_key)

    def sign(self, message: bytes) -> bytes:
        return self._signer.raw(message)


@given(texts, st.binary(max_size=200), st.sets(hashes, min_size=1, max_size=3))
def test_an_envelope(kind, payload, seeds) -> None:
    signers = [_Sealer(seed) for seed in sorted(seeds)]
    envelope = parse_envelope(seal_envelope(kind, payload, signers))
    assert (envelope.payload_type, envelope.payload) == (kind, payload)
    envelope.verify([signer.envelope_key for signer in signers])


@given(texts, st.binary(), texts, st.binary())
def test_two_contents_of_an_envelope_are_never_signed_as_one(kind, payload, other_kind, other_payload) -> None:
    same = (kind, payload) == (other_kind, other_payload)
    assert (
        pre_authentication_encoding(kind, payload) == pre_authentication_encoding(other_kind, other_payload)
    ) == same


@settings(max_examples=50)
@given(requests)
def test_a_decision_request(request_) -> None:
    assert decode_request(encode_request(request_)) == request_


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_record_id(time_ms, random) -> None:
    value = uuid.UUID(new_record_id(time_ms, random))
    assert (value.int >> 80, value.version, value.variant) == (time_ms, 7, uuid.RFC_4122)


@given(verifier_keys(), key_names, st.binary(min_size=4, max_size=4))
def test_two_keys_share_no_vkey(key, name, key_id) -> None:
    for other in (
        replace(key, name=key.name + "x"),
        replace(key, public_key=key.public_key[::-1] + b"\x01"),
        VerifierKey(key.name, (key.signature_type + 1) % 256, key.public_key),
    ):
        assert other.encode() != key.encode()
    assert NoteSignature(name, KeyId(key_id), b"s").encode().count("\n") == 1
