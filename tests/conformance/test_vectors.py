"""Every vector of `tests/vectors`, given to the code that must accept it as told or refuse it with the error named."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger import errors
from ledger.canonical import canonical_bytes, parse_canonical, parse_json
from ledger.checkpoints import parse_unverified_checkpoint, signature_timestamp, verify_signature
from ledger.envelopes import EnvelopeKey, parse_envelope
from ledger.errors import TallystickError
from ledger.merkle import LeafHash, RootHash, hash_leaf
from ledger.notes import decode_base64, encode_base64, parse_note, parse_vkey
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.proofs import TreeHead, verify_consistency, verify_inclusion
from ledger.records import decode_entry, encode_record, leaf_hash, record_type, verify_record_signature
from ledger.signatures import verify_mldsa44
from ledger.tiles import BUNDLE_LEVEL, Edge, pack_bundle, pack_tile, parse_tile_path, unpack_bundle, unpack_tile
from ledger.trust import KeyValidity, TrustPolicy, parse_trust_policy
from tests.conformance.requirements import requirement
from tests.vectors import generate, keys
from tests.vectors.vector import ACCEPT, ROOT, blob, load, unblob, vector_paths

JSONObject = dict[str, Any]


def _canonical(given: JSONObject) -> JSONObject:
    data = unblob(given["json"])
    if given["operation"] == "write":
        written = canonical_bytes(json.loads(data))
        assert canonical_bytes(json.loads(data, parse_int=float)) == written
        assert canonical_bytes(json.loads(written, parse_int=float)) == written
        parse_canonical(written)
        return {"canonical": blob(written), "sha256": hashlib.sha256(written).hexdigest()}
    if given["operation"] == "read-canonical":
        parse_json(data)
        parse_canonical(data)
    else:
        parse_json(data)
    return {}


def _inclusion(given: JSONObject) -> JSONObject:
    head = TreeHead(size=given["size"], root=RootHash(bytes.fromhex(given["root"])))
    path = [bytes.fromhex(item) for item in given["path"]]
    verify_inclusion(LeafHash(bytes.fromhex(given["leaf"])), given["index"], head, path)
    return {}


def _consistency(given: JSONObject) -> JSONObject:
    old, new = (
        TreeHead(size=given[f"{age}_size"], root=RootHash(bytes.fromhex(given[f"{age}_root"])))
        for age in ("old", "new")
    )
    verify_consistency(old, new, [bytes.fromhex(item) for item in given["path"]])
    return {}


def _notes(given: JSONObject) -> JSONObject:
    if "vkey" in given:
        key = parse_vkey(given["vkey"])
        assert key.encode() == given["vkey"]
        return {
            "name": key.name,
            "key_id": key.key_id.hex(),
            "type": key.signature_type,
            "public_key": encode_base64(key.public_key),
        }
    note = parse_note(unblob(given["note"]))
    assert note.encode() == unblob(given["note"])
    return {
        "text": blob(note.text.encode()),
        "signatures": [
            {"name": line.name, "key_id": line.key_id.hex(), "signature": encode_base64(line.signature)}
            for line in note.signatures
        ],
    }


def _checkpoints(given: JSONObject) -> JSONObject:
    key = parse_vkey(given["vkey"])
    parsed = parse_unverified_checkpoint(unblob(given["checkpoint"]))
    lines = [line for line in parsed.note.signatures if (line.name, line.key_id) == (key.name, key.key_id)]
    line = lines[0] if lines else parsed.note.signatures[0]
    verify_signature(key, parsed, line)
    claim = parsed.claim
    assert claim.body() == parsed.note.text
    return {
        "origin": claim.origin,
        "size": claim.size,
        "root": claim.root.hex(),
        "extensions": list(claim.extensions),
        "timestamp": signature_timestamp(key, line),
    }


def _trust(given: JSONObject) -> JSONObject:
    policy = parse_trust_policy(unblob(given["policy"]))
    if "checkpoint" not in given:
        written = policy.encode().encode(errors="surrogateescape")
        assert parse_trust_policy(written) == policy
        return {"written": blob(written)}
    validity = {
        parse_vkey(item["vkey"]).key_id: KeyValidity(item["first_size"], item["last_size"])
        for item in given.get("validity", [])
    }
    policy = TrustPolicy(
        logs=policy.logs,
        witnesses=policy.witnesses,
        groups=policy.groups,
        quorum=policy.quorum,
        validity=validity,
    )
    verified = policy.verify(unblob(given["checkpoint"]))
    output: JSONObject = {
        "origin": verified.checkpoint.origin,
        "size": verified.head.size,
        "root": verified.head.root.hex(),
        "signers": [key.encode() for key in verified.signers],
        "witnesses": list(verified.witnesses),
    }
    return output | ({"extensions": list(verified.checkpoint.extensions)} if verified.checkpoint.extensions else {})


def _proof_files(given: JSONObject) -> JSONObject:
    proof = parse_proof_file(unblob(given["proof"]))
    assert proof.encode() == unblob(given["proof"])
    verified = verify_entry(unblob(given["entry"]), proof, parse_trust_policy(unblob(given["policy"])))
    return {
        "index": proof.index,
        "size": verified.head.size,
        "root": verified.head.root.hex(),
        "extra": None if proof.extra is None else encode_base64(proof.extra),
    }


def _records(given: JSONObject) -> JSONObject:
    entry = unblob(given["entry"])
    record = decode_entry(entry)
    verify_record_signature(record, decode_base64(given["enforcer_key"]))
    assert encode_record(record) == entry
    assert canonical_bytes(parse_json(entry)) == entry
    return {
        "type": record_type(record),
        "leaf_hash": leaf_hash(record).hex(),
        "record_id": record.record_id,
        "seq": record.seq,
    }


def _tiles(given: JSONObject) -> JSONObject:
    if "path" in given:
        tile = parse_tile_path(given["path"])
        assert tile.path == given["path"]
        level = "entries" if tile.level == BUNDLE_LEVEL else tile.level
        return {"level": level, "number": tile.number, "width": tile.width}
    if "size" in given:
        leaves = [hash_leaf(b"entry %d" % number) for number in range(given["size"])]
        return {"tiles": {tile.path: hashlib.sha256(data).hexdigest() for tile, data in Edge().extend(leaves)}}
    hashes = unpack_tile(base64.b64decode(given["tile"]), given["width"])
    assert pack_tile(hashes) == base64.b64decode(given["tile"])
    return {"hashes": [item.hex() for item in hashes]}


def _bundles(given: JSONObject) -> JSONObject:
    entries = unpack_bundle(base64.b64decode(given["bundle"]), given["width"])
    assert pack_bundle(entries) == base64.b64decode(given["bundle"])
    return {"sha256": [hashlib.sha256(entry).hexdigest() for entry in entries]}


def _envelopes(given: JSONObject) -> JSONObject:
    envelope = parse_envelope(unblob(given["envelope"]))
    envelope.verify([EnvelopeKey(key["algorithm"], decode_base64(key["public_key"])) for key in given["keys"]])
    return {"payload_type": envelope.payload_type, "payload": blob(envelope.payload)}


_CHECKS: dict[str, Callable[[JSONObject], JSONObject]] = {
    "bundles": _bundles,
    "canonical": _canonical,
    "checkpoints": _checkpoints,
    "consistency": _consistency,
    "envelopes": _envelopes,
    "inclusion": _inclusion,
    "notes": _notes,
    "proof-files": _proof_files,
    "records": _records,
    "tiles": _tiles,
    "trust": _trust,
}
_PATHS = vector_paths()


@requirement("tree-06", "tree-08", "note-01", "checkpoint-01", "proof-07", "policy-16", "jcs-01", "dsse-01", "tiles-09")
@pytest.mark.parametrize("path", _PATHS, ids=lambda path: str(path.relative_to(ROOT).with_suffix("")))
def test_a_vector_is_accepted_as_told_or_refused_with_the_error_named(path) -> None:
    vector = load(path)
    check = _CHECKS[vector.family]
    if vector.expect == ACCEPT:
        assert check(vector.input) == vector.output
    else:
        with pytest.raises(TallystickError) as caught:
            check(vector.input)
        # Exactly this class: a subclass or sibling would say something else about the input.
        assert type(caught.value) is getattr(errors, vector.expect), caught.value


def test_every_family_has_vectors_and_a_source() -> None:
    sources = (ROOT / "SOURCES.md").read_text()
    families = {path.relative_to(ROOT).parts[0] for path in _PATHS}
    assert families == set(_CHECKS)
    assert all(f"`{family}`" in sources for family in families)


def test_negative_vectors_outnumber_positive_ones_by_far() -> None:
    counts: dict[str, Counter[bool]] = {}
    for path in _PATHS:
        vector = load(path)
        counts.setdefault(vector.family, Counter())[vector.expect == ACCEPT] += 1
    assert all(count[False] > count[True] for count in counts.values()), counts
    total = sum(counts.values(), Counter[bool]())
    assert total[False] > 8 * total[True]


def test_generating_the_vectors_again_changes_nothing() -> None:
    assert [str(Path(path).relative_to(ROOT)) for path in generate.check()] == []
    assert keys.SIGNATURES.made == 0, "a signature had to be made: the store lacks it"


def test_every_stored_mldsa_signature_signs_what_the_vectors_say() -> None:
    for _ in generate.all_vectors():
        pass
    stored = json.loads(keys.STORE.read_text(encoding="ascii"))
    assert stored == keys.SIGNATURES.used
    for name, (public_key, message) in keys.SIGNATURES.signed.items():
        verify_mldsa44(public_key, message, base64.b64decode(stored[name]), signer="a vector's key")
