"""Hypothesis strategies for the values of the core; records are drawn from the types' own declarations."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ledger.body_fields import Name, Uuid
from ledger.canonical import MAX_SAFE_INTEGER
from ledger.checkpoints import Checkpoint
from ledger.merkle import EMPTY_ROOT, RootHash
from ledger.notes import PUBLIC_KEY_BYTES, KeyId, NoteSignature, SignatureType, SignedNote, VerifierKey, encode_base64
from ledger.records import Record
from ledger.trust import TrustPolicy, Witness, WitnessGroup
from policies.model import DecisionRequest

texts = st.text(st.characters(exclude_categories=["Cs"]))
"""Any text that UTF-8 can carry."""

safe_integers = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
scalars = st.none() | st.booleans() | safe_integers | st.floats(allow_nan=False, allow_infinity=False) | texts
json_values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=12)

hashes = st.binary(min_size=32, max_size=32)
key_names = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="+"), min_size=1, max_size=40
).filter(lambda name: not any(char.isspace() for char in name))
note_lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
note_texts = st.lists(note_lines, min_size=1, max_size=6).map(lambda lines: "\n".join(lines) + "\n")
note_signatures = st.builds(
    NoteSignature,
    key_names,
    st.binary(min_size=4, max_size=4).map(KeyId),
    st.binary(min_size=1, max_size=80),
)
notes = st.builds(SignedNote, note_texts, st.lists(note_signatures, min_size=1, max_size=4).map(tuple))

tree_sizes = st.integers(0, 2**63 - 1)
timestamps = st.integers(0, 2**63 - 1)
origins = note_lines.filter(lambda line: 1 <= len(line.encode()) <= 255)


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    size = draw(tree_sizes)
    return Checkpoint(
        origin=draw(origins),
        size=size,
        root=RootHash(draw(hashes)) if size else EMPTY_ROOT,
        extensions=tuple(draw(st.lists(note_lines.filter(bool), max_size=3))),
    )


@st.composite
def verifier_keys(draw: st.DrawFn, types: tuple[int, ...] = tuple(range(256)), name: str | None = None) -> VerifierKey:
    kind = draw(st.sampled_from(types))
    length = PUBLIC_KEY_BYTES.get(kind)  # type: ignore[call-overload]  # unknown types give None
    key = draw(st.binary(min_size=length or 1, max_size=length or 80))
    return VerifierKey(name or draw(key_names), kind, key)


@st.composite
def trust_policies(draw: st.DrawFn) -> TrustPolicy:
    log_types = (SignatureType.ED25519, SignatureType.MLDSA44_COSIGNATURE)
    logs = draw(st.lists(verifier_keys(log_types), max_size=3, unique_by=lambda key: key.public_key))
    witness_types = (SignatureType.ED25519_COSIGNATURE, SignatureType.MLDSA44_COSIGNATURE)
    of_logs = {key.public_key for key in logs}
    others = verifier_keys(witness_types).filter(lambda key: key.public_key not in of_logs)
    keys = draw(st.lists(others, max_size=4, unique_by=lambda key: key.public_key))
    urls = st.none() | st.just("https://witness.example/submit")
    witnesses = {f"w{number}": Witness(f"w{number}", key, draw(urls)) for number, key in enumerate(keys)}
    groups: dict[str, WitnessGroup] = {}
    free = list(witnesses)
    while free and draw(st.booleans()):
        members = draw(st.lists(st.sampled_from(free), min_size=1, max_size=len(free), unique=True))
        name = f"g{len(groups)}"
        groups[name] = WitnessGroup(name, draw(st.integers(1, len(members))), tuple(members))
        free = [other for other in free if other not in members] + [name]
    quorum = draw(st.sampled_from([None, *witnesses, *groups]))
    return TrustPolicy(logs=tuple(logs), witnesses=witnesses, groups=groups, quorum=quorum)


def _pattern(declared: Any) -> str:
    """Return the pattern of a type that is declared as an annotated str."""
    return str(declared.__metadata__[0].pattern)


_SIGNATURE = r"^[A-Za-z0-9+/]{86}==\Z"
_NAME_CHARS = "aZ09_.:/@+-"
_DRAWN: dict[str, SearchStrategy[str]] = {
    _pattern(Name): st.builds(str.__add__, st.sampled_from("aZ09_"), st.text(_NAME_CHARS, max_size=6)),
    _pattern(Uuid): st.uuids().map(str),
    _SIGNATURE: st.binary(min_size=64, max_size=64).map(encode_base64),
}
"""Quicker ways to draw what `from_regex` draws slowly; each is held to its pattern all the same."""


@cache
def _texts_of(pattern: str) -> SearchStrategy[str]:
    if match := re.fullmatch(r"\^\[0-9a-f\]\{([0-9]+)\}\\Z", pattern):
        length = int(match[1]) // 2
        return st.binary(min_size=length, max_size=length).map(bytes.hex)
    return _DRAWN[pattern] if pattern in _DRAWN else st.from_regex(pattern, fullmatch=True)


def _integers_of(kind: msgspec.inspect.IntType) -> SearchStrategy[int]:
    low = kind.ge if kind.ge is not None else -MAX_SAFE_INTEGER
    high = kind.le if kind.le is not None else MAX_SAFE_INTEGER
    return st.integers(low, high)


def _strings_of(kind: msgspec.inspect.StrType) -> SearchStrategy[str]:
    low, high = kind.min_length or 0, kind.max_length

    def fits(text: str) -> bool:
        return (
            low <= len(text)
            and (high is None or len(text) <= high)
            and (kind.pattern is None or re.search(kind.pattern, text) is not None)
        )

    return (_texts_of(kind.pattern) if kind.pattern else texts).filter(fits)


def _members_of(kind: msgspec.inspect.StructType) -> SearchStrategy[dict[str, Any]]:
    tag = {} if kind.tag is None else {str(kind.tag_field): kind.tag}
    required = {field.encode_name: _values_of(field.type) for field in kind.fields if field.required}
    optional = {field.encode_name: _values_of(field.type) for field in kind.fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda members: tag | members)


_VALUES_OF: dict[type[msgspec.inspect.Type], Callable[[Any], SearchStrategy[Any]]] = {
    msgspec.inspect.Metadata: lambda kind: _values_of(kind.type),
    msgspec.inspect.StructType: _members_of,
    msgspec.inspect.UnionType: lambda kind: st.one_of([_values_of(option) for option in kind.types]),
    msgspec.inspect.DictType: lambda kind: st.dictionaries(
        _values_of(kind.key_type), _values_of(kind.value_type), max_size=3
    ),
    msgspec.inspect.VarTupleType: lambda kind: st.lists(_values_of(kind.item_type), max_size=3),
    msgspec.inspect.LiteralType: lambda kind: st.sampled_from(kind.values),
    msgspec.inspect.IntType: _integers_of,
    msgspec.inspect.StrType: _strings_of,
    msgspec.inspect.BoolType: lambda _: st.booleans(),
    msgspec.inspect.NoneType: lambda _: st.none(),
}


def _values_of(kind: msgspec.inspect.Type) -> SearchStrategy[Any]:
    """Return values of a declared type, as plain JSON."""
    return _VALUES_OF[type(kind)](kind)


def structs(kind: type[Any]) -> SearchStrategy[Any]:
    """Return values of a msgspec struct, with optional members now there and now not."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return _members_of(info).map(lambda members: msgspec.convert(members, kind))


records: SearchStrategy[Record] = structs(Record)


def _versioned(members: dict[str, Any]) -> dict[str, Any]:
    """Return a request's members with the version that they make, and what is said of windows only of those there."""
    state = dict(members["state"])
    digests, unavailable = state.pop("measured_by", {}), state.pop("unavailable", None)
    if "windows" in state and digests:
        state["measured_by"] = {name: digests[name] for name in digests.keys() & state["windows"].keys()}
    # Which windows are drawn is chance: of those that are there, as many are unavailable as names were drawn.
    if unavailable and state.get("windows"):
        state["unavailable"] = list(state["windows"])[: len(unavailable)]
    members = {**members, "state": state, "version": 2 if "windows" in state else 1}
    return members if "signals" not in members else {**members, "signals": _held_together(members), "version": 3}


def _held_together(members: dict[str, Any]) -> dict[str, Any]:
    """Return a request's signals as they may be: names sorted, each once, and no findings where nobody looked."""
    signals = dict(members["signals"])
    for names in ("findings", "deviations"):
        signals[names] = sorted(set(signals.get(names, ())))
    if signals.get("inspected", "none") == "none":
        signals |= {"inspector": "", "findings": [], "finding_count": 0}
    return signals | {"finding_count": max(signals.get("finding_count", 0), len(signals["findings"]))}


_REQUEST: SearchStrategy[dict[str, Any]] = _values_of(msgspec.inspect.type_info(DecisionRequest))
requests: SearchStrategy[DecisionRequest] = _REQUEST.map(lambda m: msgspec.convert(_versioned(m), DecisionRequest))
