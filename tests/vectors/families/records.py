"""One record of every type, full and minimal: the frozen bytes of schema version 1, signed by an enforcer."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import rfc8785

from tests.conformance.reference.c2sp import b64
from tests.conformance.reference.rfc6962 import leaf_hash
from tests.vectors.keys import ENFORCER
from tests.vectors.samples import FORMS, JSONObject, unsigned
from tests.vectors.vector import Vector, accepted, blob, rejected

_MALFORMED, _INVALID = "MalformedError", "SignatureInvalidError"
_ON_EVERY_TYPE = {"members-unsorted", "null-written-out", "default-written-out", "unknown-body-member"}


def _signed(value: JSONObject) -> JSONObject:
    message = b"tallystick/record/v1\n" + rfc8785.dumps(value | {"signature": "A" * 86 + "=="})
    return value | {"signature": b64(ENFORCER.raw(message))}


def _given(entry: bytes) -> JSONObject:
    return {"entry": blob(entry), "enforcer_key": b64(ENFORCER.public_key)}


def _other_spellings(value: JSONObject) -> Iterator[tuple[str, str, bytes]]:
    """Yield entries that say the same, or nearly so, in another way."""
    entry = rfc8785.dumps(value)
    body = value["body"]
    yield (
        "members-unsorted",
        "The members are not sorted.",
        json.dumps(dict(sorted(value.items(), reverse=True)), separators=(",", ":")).encode(),
    )
    yield "spaces", "Spaces stand between the tokens.", json.dumps(value, sort_keys=True).encode()
    yield "line-feed-behind", "A line feed follows.", entry + b"\n"
    yield "member-twice", "A member stands twice.", entry[:-1] + b',"time_ms":%d}' % value["time_ms"]
    yield "needless-escape", "A letter is escaped.", entry.replace(b'"acme"', b'"\\u0061cme"', 1)
    yield (
        "integer-as-fraction",
        "An integer has a fraction.",
        entry.replace(b'"schema_version":1', b'"schema_version":1.0'),
    )
    yield "integer-as-string", "An integer is a string.", rfc8785.dumps(value | {"time_ms": str(value["time_ms"])})
    yield "null-written-out", "An absent member is null.", rfc8785.dumps(value | {"pseudonym_key_id": None})
    yield "default-written-out", "A default is written out.", rfc8785.dumps(value | {"simulated": False})
    yield "unknown-member", "A member is not known.", rfc8785.dumps(value | {"comment": "x"})
    yield (
        "unknown-body-member",
        "A member of the body is not known.",
        rfc8785.dumps(value | {"body": body | {"note": "x"}}),
    )
    yield "unknown-type", "The type is not known.", rfc8785.dumps(value | {"body": body | {"type": "rumour"}})
    yield "version-2", "The schema version is 2.", rfc8785.dumps(value | {"schema_version": 2})
    yield "epoch-upper-case", "The epoch is in upper case.", rfc8785.dumps(value | {"epoch": "5F0C" * 8})
    yield "seq-zero", "The sequence number is 0.", rfc8785.dumps(value | {"seq": 0})
    yield "tenant-with-line-feed", "The tenant ends in a line feed.", rfc8785.dumps(value | {"tenant": "acme\n"})
    yield (
        "signature-missing",
        "The signature is missing.",
        rfc8785.dumps({name: item for name, item in value.items() if name != "signature"}),
    )
    last = value["signature"][-3]
    bits = {"A": "B", "Q": "R", "g": "h", "w": "x"}[last]
    yield (
        "signature-trailing-bits",
        "Bits behind the signature's last byte are set.",
        rfc8785.dumps(value | {"signature": value["signature"][:-3] + bits + "=="}),
    )
    yield "cut-short", "The last byte is missing.", entry[:-1]


def _changes(value: JSONObject) -> Iterator[tuple[str, str, JSONObject]]:
    """Yield records that are well-formed but not what was signed."""
    yield "seq-changed", "The sequence number is another.", {"seq": value["seq"] - 1 or 2}
    yield "running-count-changed", "The running count is another.", {"running_count": value["running_count"] + 1}
    yield "time-changed", "The time is another.", {"time_ms": value["time_ms"] + 1}
    yield "tenant-changed", "The tenant is another.", {"tenant": "acme2"}
    yield "environment-changed", "The environment is another.", {"environment": f"{value['environment']}-2"}
    yield "enforcer-changed", "The enforcer is another.", {"enforcer_id": "gateway-2"}
    yield "epoch-changed", "The epoch is another.", {"epoch": "5f0d" * 8}
    yield "pseudonym-key-changed", "The pseudonym key is another.", {"pseudonym_key_id": "f" * 16}
    yield "signature-of-zeros", "The signature is all zeros.", {"signature": "A" * 86 + "=="}
    body = copy.deepcopy(value["body"])
    name = min(set(body) - {"type"})
    body[name] = _other(body[name], body["type"])
    yield f"body-{name.replace('_', '-')}-changed", "A member of the body is another.", {"body": body}


_OTHER_WORDS = {
    "approved": "denied",
    "granted": "denied",
    "irreversible": "policy",
    "expired": "denied",
    "placed": "released",
    "published": "retired",
    "activated": "retired",
    "compromised": "created",
    "retired": "created",
    "periodic": "stop",
    "other": "absent",
    "proposed": "approved",
    "in_force": "reviewed",
    "reviewed": "expired",
    "quarantined": "pinned",
    "registered": "changed",
    "removed": "changed",
    "gone": "returned",
}
_OTHER_WORDS_OF = {
    ("retention", "expired"): "pruned",
    ("retention", "pruned"): "expired",
    ("containment", "expired"): "released",
    ("containment", "ordered"): "expired",
    ("hold", "released"): "placed",
    ("baseline", "learning"): "progress",
    ("baseline", "offered"): "ready",
    ("baseline", "accept_ordered"): "reset_ordered",
    ("drift", "acknowledged"): "closed",
    ("drift", "flagged"): "closed",
    ("drift", "closed"): "acknowledged",
    ("discovery", "found"): "seen",
    ("discovery", "seen"): "found",
    ("discovery", "scanned"): "found",
    ("outcome", "digest"): "redacted",
    ("tool", "quarantined"): "changed",
    ("bundle", "tested"): "retired",
    ("bundle", "signed"): "retired",
    ("bundle", "rolled_back"): "retired",
    ("bundle", "reviewed"): "retired",
}
"""Where the same word has another neighbour in another type."""


def _other(item: Any, kind: str) -> Any:
    """Return another value of the same form, which the type allows."""
    if isinstance(item, dict):
        changed = next(name for name in ("digest", "inspector", "revision") if name in item)
        return item | {changed: "ff" * 32}
    if isinstance(item, int):
        return item + 1
    return _OTHER_WORDS_OF.get((kind, item)) or _OTHER_WORDS.get(item) or item[:-1] + ("0" if item[-1] != "0" else "1")


def vectors() -> Iterator[Vector]:
    for kind, form in FORMS:
        value = _signed(unsigned(kind, form))
        entry = rfc8785.dumps(value)
        name = f"records/{kind}-{form}"
        output = {
            "type": kind,
            "leaf_hash": leaf_hash(entry).hex(),
            "record_id": value["record_id"],
            "seq": value["seq"],
        }
        yield accepted(f"{name}/valid", "A record as schema version 1 writes it, for ever.", _given(entry), output)
        for mutation, about, data in _other_spellings(value):
            # What every type shares is tried on one; what depends on the members, on all.
            if data != entry and ((kind, form) == ("decision", "full") or mutation in _ON_EVERY_TYPE):
                yield rejected(f"{name}/{mutation}", about, _MALFORMED, _given(data))
        for mutation, about, change in _changes(value):
            # The envelope is of one form in every type; what the body says is tried of each.
            if form != "full" and not mutation.startswith("body-"):
                continue
            yield rejected(f"{name}/{mutation}", about, _INVALID, _given(rfc8785.dumps(value | change)))
