"""DSSE envelopes that carry an Ed25519 and an ML-DSA-44 signature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import rfc8785

from tests.conformance.reference.c2sp import Ed25519Signer, MLDSA44Signer, b64
from tests.vectors.keys import LOG, PACK, PACK_PQ
from tests.vectors.vector import JSONObject, Vector, accepted, blob, rejected

_MALFORMED, _INVALID, _POLICY = "MalformedError", "SignatureInvalidError", "TrustPolicyError"
_TYPE = "application/vnd.tallystick.pack+json"
_PAYLOAD = b'{"items":[],"version":1}'
_NAMES = {PACK: "ed25519", PACK_PQ: "ml-dsa-44", LOG: "ed25519"}

Signer = Ed25519Signer | MLDSA44Signer


def _key_id(signer: Signer) -> str:
    return hashlib.sha256(_NAMES[signer].encode() + b"\n" + signer.public_key).hexdigest()


def _message(kind: str, payload: bytes) -> bytes:
    data = kind.encode()
    return b" ".join([b"DSSEv1", str(len(data)).encode(), data, str(len(payload)).encode(), payload])


def _line(signer: Signer, kind: str = _TYPE, payload: bytes = _PAYLOAD) -> JSONObject:
    return {"keyid": _key_id(signer), "sig": b64(signer.raw(_message(kind, payload)))}


def _sealed(lines: list[JSONObject], kind: str = _TYPE, payload: bytes = _PAYLOAD) -> JSONObject:
    ordered = sorted(lines, key=lambda line: str(line["keyid"]))
    return {"payload": b64(payload), "payloadType": kind, "signatures": ordered}


def _given(data: bytes, *signers: Signer) -> JSONObject:
    keys = [{"algorithm": _NAMES[signer], "public_key": b64(signer.public_key)} for signer in signers]
    return {"envelope": blob(data), "keys": keys}


def _broken(value: JSONObject) -> Iterator[tuple[str, str, bytes]]:
    data = rfc8785.dumps(value)
    lines = value["signatures"]
    yield "empty", "Nothing.", b""
    yield "array", "An array.", b"[]"
    yield "line-feed-behind", "A line feed follows.", data + b"\n"
    yield "spaces", "Spaces stand between the tokens.", json.dumps(value, sort_keys=True).encode()
    yield (
        "members-unsorted",
        "The members are not sorted.",
        json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(),
    )
    yield "member-twice", "A member stands twice.", data[:-1] + b',"signatures":[]}'
    yield (
        "payload-missing",
        "The payload is missing.",
        rfc8785.dumps({k: v for k, v in value.items() if k != "payload"}),
    )
    yield "type-missing", "The type is missing.", rfc8785.dumps({k: v for k, v in value.items() if k != "payloadType"})
    yield "unknown-member", "A member is not known.", rfc8785.dumps(value | {"comment": ""})
    yield "payload-not-base64", "The payload is not base64.", rfc8785.dumps(value | {"payload": "{}"})
    yield "payload-base64-url", "The payload is in the alphabet of URLs.", rfc8785.dumps(value | {"payload": "-_8="})
    yield "payload-null", "The payload is null.", rfc8785.dumps(value | {"payload": None})
    yield "no-signature", "There is no signature.", rfc8785.dumps(value | {"signatures": []})
    yield "signatures-swapped", "The signatures are not in order.", rfc8785.dumps(value | {"signatures": lines[::-1]})
    yield "signature-twice", "A signature stands twice.", rfc8785.dumps(value | {"signatures": [lines[0], *lines]})
    yield (
        "keyid-missing",
        "A key id is missing.",
        rfc8785.dumps(value | {"signatures": [{"sig": lines[0]["sig"]}, lines[1]]}),
    )
    yield (
        "certificate",
        "A signature has a member more.",
        rfc8785.dumps(value | {"signatures": [lines[0] | {"cert": ""}, lines[1]]}),
    )


def vectors() -> Iterator[Vector]:
    both = _sealed([_line(PACK), _line(PACK_PQ)])
    output: JSONObject = {"payload_type": _TYPE, "payload": blob(_PAYLOAD)}
    name = "envelopes/two-signatures"
    yield accepted(f"{name}/valid", "Both have signed.", _given(rfc8785.dumps(both), PACK, PACK_PQ), output)
    one = _sealed([_line(PACK)])
    yield accepted("envelopes/one-signature/valid", "One has signed.", _given(rfc8785.dumps(one), PACK), output)
    binary = bytes(range(256))
    sealed = _sealed([_line(PACK, "t\xe4", binary)], "t\xe4", binary)
    yield accepted(
        "envelopes/binary-payload/valid",
        "The payload is binary, and the type not ASCII.",
        _given(rfc8785.dumps(sealed), PACK),
        {"payload_type": "t\xe4", "payload": blob(binary)},
    )
    for mutation, about, data in _broken(both):
        yield rejected(f"{name}/{mutation}", about, _MALFORMED, _given(data, PACK, PACK_PQ))
    lines = both["signatures"]
    crossed = [lines[0] | {"sig": lines[1]["sig"]}, lines[1] | {"sig": lines[0]["sig"]}]
    moved = [_line(PACK, "application/vnd.tallystick.pack+json 24", b""), _line(PACK_PQ)]
    for mutation, about, error, value, signers in (
        ("payload-changed", "The payload is another.", _INVALID, both | {"payload": b64(b"{}")}, [PACK, PACK_PQ]),
        ("type-changed", "The type is another.", _INVALID, both | {"payloadType": "text/plain"}, [PACK, PACK_PQ]),
        (
            "signatures-crossed",
            "Each has the other's signature.",
            _INVALID,
            both | {"signatures": crossed},
            [PACK, PACK_PQ],
        ),
        (
            "type-and-payload-moved",
            "One has signed another split of the bytes.",
            _INVALID,
            _sealed(moved),
            [PACK, PACK_PQ],
        ),
        ("ml-dsa-44-missing", "ML-DSA-44 has not signed.", _POLICY, one, [PACK, PACK_PQ]),
        ("signer-not-trusted", "One more has signed than is trusted.", _POLICY, both, [PACK]),
        ("nobody-trusted", "Nobody is trusted.", _POLICY, both, []),
        ("other-key-trusted", "Another key is trusted.", _POLICY, one, [LOG]),
        (
            "key-id-of-another",
            "A stranger has signed under a trusted key's id.",
            _INVALID,
            _sealed([{"keyid": _key_id(PACK), "sig": _line(LOG)["sig"]}]),
            [PACK],
        ),
    ):
        yield rejected(f"{name}/{mutation}", about, error, _given(rfc8785.dumps(value), *signers))
