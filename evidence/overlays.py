"""Overlays: what an organisation adds to a framework that ships, signed by whoever answers for it.

Pure: JSON values in, a `Framework` out; the file is read by `catalogue`. An overlay names its base with the digest of
the mapping that it was written over, and makes a framework of its own name: a pack that is judged by it says so, and a
verifier that does not have it tells the auditor to read it.

INVARIANT: an overlay takes nothing away. Every control of the base stays, with every test; to a control it may add
tests and words, and lower its strength to *supports*. A test that ships keeps its meaning: an overlay's own have other
ids.

The signature is a DSSE envelope over an in-toto statement whose subject is the digest of the overlay's canonical JSON::

    {"_type": "https://in-toto.io/Statement/v1", "predicate": {"base": "soc2", "base_sha256": "<digest>"},
     "predicateType": "urn:tallystick:overlay:v1", "subject": [{"digest": {"sha256": "<digest>"}, "name": "acme-soc2"}]}

Whose keys must have signed comes from outside of what is verified, and nobody else may have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from evidence.controls import (
    FRAMEWORK_FORMAT,
    Control,
    Framework,
    Place,
    framework_value,
    parse_framework,
)
from evidence.summary import Strength
from ledger.canonical import JSONValue, canonical_bytes
from ledger.envelopes import EnvelopeKey, EnvelopeSigner, parse_envelope, seal_envelope
from ledger.errors import MalformedError, TrustPolicyError, VerificationError

__all__ = ["MAX_OVERLAY_SIGNATURE_BYTES", "apply_overlay", "framework_digest", "sign_overlay", "verify_overlay"]

MAX_OVERLAY_SIGNATURE_BYTES: Final = 64 * 1024

_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_Identifier = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class _Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an overlay says of a control of its base."""

    id: _Text
    reason: _Text
    customer_adds: _Text | None = None
    procedure: _Text | None = None
    strength: Strength | None = None
    tests: tuple[_Identifier, ...] = ()
    conditional_tests: tuple[_Identifier, ...] = ()


class _Overlay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An overlay as JSON."""

    overlay: _Identifier
    base: _Identifier
    base_sha256: _Digest
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    title: _Text
    author: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    changes: Annotated[tuple[_Change, ...], msgspec.Meta(max_length=2_000)] = ()
    controls: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(max_length=2_000)] = ()
    tests: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(max_length=1_000)] = ()


def framework_digest(framework: Framework) -> str:
    """Return SHA-256, in hexadecimal, over a framework's canonical JSON: the digest of its file in a pack."""
    return hashlib.sha256(canonical_bytes(framework_value(framework))).hexdigest()


def _changed(control: Control, change: _Change, where: str) -> dict[str, Any]:
    if change.strength is Strength.DIRECT and control.strength is not Strength.DIRECT:
        raise MalformedError(f"{where}: an overlay does not raise the strength of {control.id}")
    value: dict[str, Any] = msgspec.to_builtins(control)
    for member in ("customer_adds", "procedure"):
        said = getattr(change, member)
        if said is not None:
            value[member] = f"{value[member]} The overlay: {said}"
    if change.strength is not None:
        value["strength"] = change.strength.value
    for member in ("tests", "conditional_tests"):
        added = getattr(change, member)
        if added:
            value[member] = [*value.get(member, []), *added]
    if value.get("tests") and (why := value.pop("not_tested", None)):
        value["customer_adds"] = f"{value['customer_adds']} Without the overlay not tested: {why}."
    value["rationale"] = f"{control.rationale} The overlay: {change.reason}"
    return value


def _changes(overlay: _Overlay, base: Framework, where: Callable[[Place], str]) -> list[dict[str, Any]]:
    known = {control.id: control for control in base.controls}
    changes: dict[str, tuple[int, _Change]] = {}
    for number, change in enumerate(overlay.changes):
        place = where(("changes", number))
        if change.id not in known:
            raise MalformedError(f"{place}: {base.id} has no control {change.id}")
        if change.id in changes:
            raise MalformedError(f"{place}: the control {change.id} is changed twice")
        changes[change.id] = (number, change)
    values = []
    for control in base.controls:
        if control.id in changes:
            number, change = changes[control.id]
            values.append(_changed(control, change, where(("changes", number))))
        else:
            values.append(msgspec.to_builtins(control))
    return values


def _named(control: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tests that a control names; what is not in the right shape is `parse_framework`'s to refuse."""
    for member in ("tests", "conditional_tests"):
        ids = control.get(member)
        yield from (one for one in (ids if isinstance(ids, list) else ()) if isinstance(one, str))


def _read(value: JSONValue, where: Callable[[Place], str]) -> _Overlay:
    try:
        return msgspec.convert(value, _Overlay)
    except msgspec.ValidationError as error:
        raise MalformedError(f"{where(())}: not an overlay: {error}") from error


def apply_overlay(
    value: JSONValue,
    load: Callable[[str], Framework],
    shared: Mapping[str, Mapping[str, Any]],
    where: Callable[[Place], str],
) -> Framework:
    """Return the framework that an overlay makes of its base.

    Args:
        value: The overlay's JSON value.
        load: Returns a framework that ships, by id.
        shared: Tests that ship, by id, which an overlay may name.
        where: Names a place of the value for whoever has to put it right.

    Raises:
        EvidenceError: Its base does not ship.
        MalformedError: It is no overlay, was written over another mapping of the base, takes the title of its base or
            the id of a test that ships, changes what is not there, raises a strength, or what it makes is no sound
            framework.
    """
    overlay = _read(value, where)
    base = load(overlay.base)
    if overlay.title == base.title:
        raise MalformedError(f"{where(())}: it has the title of {base.id}")
    if overlay.base_sha256 != framework_digest(base):
        told = f"it was written over another mapping of {base.id}; this one has SHA-256 {framework_digest(base)}"
        raise MalformedError(f"{where(('base_sha256',))}: {told}")
    controls = [*_changes(overlay, base, where), *overlay.controls]
    own = {str(test.get("id")) for test in overlay.tests}
    for number, test in enumerate(overlay.tests):
        if str(test.get("id")) in shared or str(test.get("id")) in base.tests:
            raise MalformedError(f"{where(('tests', number))}: a test that ships is called {test.get('id')}")
    named = {test for control in controls for test in _named(control)}
    taken = [shared[test] for test in sorted(named & shared.keys() - base.tests.keys() - own)]
    made: dict[str, Any] = {
        "format": FRAMEWORK_FORMAT,
        "framework": overlay.overlay,
        "title": overlay.title,
        "version": base.version,
        "mapping_version": f"{overlay.version} over {base.id} {base.mapping_version}",
        "source": f"{base.source} With an overlay by {overlay.author}.",
        "controls": controls,
        "tests": [*(test.members for test in base.tests.values()), *taken, *overlay.tests],
    }
    return parse_framework(made, lambda place: f"{where(())}, what it makes of {base.id}: {'.'.join(map(str, place))}")


def _statement(value: JSONValue) -> bytes:
    overlay = _read(value, lambda _: "the overlay")
    digest = hashlib.sha256(canonical_bytes(value)).hexdigest()
    statement: dict[str, JSONValue] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": overlay.overlay, "digest": {"sha256": digest}}],
        "predicateType": "urn:tallystick:overlay:v1",
        "predicate": {"base": overlay.base, "base_sha256": overlay.base_sha256},
    }
    return canonical_bytes(statement)


def sign_overlay(value: JSONValue, signers: Sequence[EnvelopeSigner]) -> bytes:
    """Return an envelope over an overlay.

    Raises:
        MalformedError: Not an overlay, or no signer.
    """
    return seal_envelope(_PAYLOAD_TYPE, _statement(value), signers)


def verify_overlay(value: JSONValue, signature: bytes, keys: Sequence[EnvelopeKey]) -> None:
    """Check that every one of ``keys``, and nobody else, has signed an overlay.

    Raises:
        MalformedError: Not an overlay, or not an envelope, or too large.
        VerificationError: The signature is about something else.
        TrustPolicyError: A key has not signed, a stranger has, or no key was given.
        SignatureInvalidError: A signature is wrong.
    """
    if not keys:
        raise TrustPolicyError("nobody is trusted to sign overlays")
    if len(signature) > MAX_OVERLAY_SIGNATURE_BYTES:
        raise MalformedError(f"an overlay's signature has at most {MAX_OVERLAY_SIGNATURE_BYTES} bytes")
    envelope = parse_envelope(signature)
    if envelope.payload_type != _PAYLOAD_TYPE or envelope.payload != _statement(value):
        raise VerificationError("the signature is not about this overlay")
    envelope.verify(keys)
