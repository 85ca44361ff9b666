"""What a pack is about: ``scope.json``, the pack's id, and the sentences on what it proves and what not.

Pure. A scope has two sources. *Claims* are what the maker of the pack says: title, period, frameworks, anchors. The
rest follows from the entries and the end checkpoint. A verifier takes the claims from the file, derives the rest again,
and compares the whole byte for byte; so a scope cannot say another period, size or tenant than the pack has.

The pack's id is a UUID over everything that decides what is in the pack: the same evidence has the same id.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from evidence.controls import Framework, framework_value
from evidence.population import MAX_PERIOD_MS, Survey
from evidence.statements import not_proved, proved
from evidence.summary import Population
from ledger.canonical import canonical_bytes, parse_canonical, sha256
from ledger.errors import MalformedError

__all__ = [
    "AnchorClaim",
    "Claims",
    "FrameworkReference",
    "NotApplicable",
    "Scope",
    "framework_bytes",
    "make_scope",
    "parse_scope",
]

_NAMESPACE: Final = uuid.UUID("6d1c9a52-6c9b-5f3e-9a37-0a2f6c2f4b10")
"""Our namespace for version 5 UUIDs of packs (RFC 9562 section 5.5); a constant of the format."""

_MAX_FRAMEWORKS: Final = 64
_MAX_LISTED: Final = 2_000

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
_Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
_Zone = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_+/-]{1,64}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_PERIOD_MS)]
_Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common rules: immutable, every member written out, unknown members refused."""


class AnchorClaim(_Struct, frozen=True):
    """An independent copy of a checkpoint, as the operator names it; nothing here is checked.

    Attributes:
        kind: Kind of anchor, such as ``directory``.
        size: Tree size of the copied checkpoint.
        location: Where the copy is said to be.
        anchored_ms: When it is said to have been made.
        retain_until_ms: Until when it is said to be locked.
    """

    kind: _Text
    size: _Count
    location: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    anchored_ms: _Count
    retain_until_ms: _Count | None


class FrameworkReference(_Struct, frozen=True):
    """A framework of the pack, by the digest of its file."""

    framework: _Text
    mapping_version: _Text
    sha256: _Hash


class NotApplicable(_Struct, frozen=True):
    """A control that whoever asked for the pack declares not applicable, and why."""

    framework: _Text
    control: _Text
    reason: _Reason


class Claims(_Struct, frozen=True):
    """What the maker of a pack says about it.

    Attributes:
        title: For the cover.
        origin: The log's name on its checkpoints.
        from_ms: Start of the period.
        to_ms: End of the period, exclusive.
        zone: IANA zone in which reports print times beside UTC.
        checkpoint_ms: When the end checkpoint was signed, by the log's clock.
        software: Name and version of what made the pack.
        simulated: The maker's keys or clock are simulated, whether or not a record says so.
        not_applicable: Controls declared not applicable.
        anchors: Independent copies of checkpoints.
        witnesses: Witnesses of the end checkpoint, by the maker's trust policy.
    """

    title: _Text
    origin: _Text
    from_ms: _Time
    to_ms: _Time
    zone: _Zone
    checkpoint_ms: _Count
    software: _Text
    simulated: bool
    not_applicable: Annotated[tuple[NotApplicable, ...], msgspec.Meta(max_length=_MAX_LISTED)]
    anchors: Annotated[tuple[AnchorClaim, ...], msgspec.Meta(max_length=_MAX_LISTED)]
    witnesses: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=_MAX_LISTED)]


class Scope(_Struct, frozen=True):
    """A pack's scope: its claims, and what follows from its entries and end checkpoint.

    Attributes:
        format: ``tallystick.scope/1``.
        pack_id: The pack's id.
        claims: What the maker says.
        tenant: Whose log.
        log_id: Which log.
        environment: Deployments that the records name.
        simulated: A record, key or clock was simulated.
        first_leaf: First leaf of the range.
        tree_size: Size of the end checkpoint.
        root: Its root.
        frameworks: Frameworks by digest.
        proved: What a verifier can prove from the pack.
        not_proved: What it cannot.
    """

    format: Literal["tallystick.scope/1"]
    pack_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
    claims: Claims
    tenant: _Text
    log_id: _Text
    environment: str
    simulated: bool
    first_leaf: _Count
    tree_size: _Count
    root: _Hash
    frameworks: Annotated[tuple[FrameworkReference, ...], msgspec.Meta(min_length=1, max_length=_MAX_FRAMEWORKS)]
    proved: tuple[str, ...]
    not_proved: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the file's bytes; the inverse of `parse_scope`."""
        return canonical_bytes(msgspec.to_builtins(self))


def parse_scope(data: bytes) -> Scope:
    """Read a scope; nothing in it has been checked.

    Raises:
        MalformedError: Not a scope in canonical form.
    """
    try:
        return msgspec.convert(parse_canonical(data), Scope)
    except msgspec.ValidationError as error:
        raise MalformedError(f"not a scope: {error}") from error


def framework_bytes(framework: Framework) -> bytes:
    """Return a framework's file."""
    return canonical_bytes(framework_value(framework))


def _pack_id(claims: Claims, survey: Survey, root: bytes, frameworks: Sequence[FrameworkReference]) -> str:
    name = {
        "origin": claims.origin,
        "log_id": survey.log_id,
        "from_ms": claims.from_ms,
        "to_ms": claims.to_ms,
        "first_leaf": survey.first_leaf,
        "tree_size": survey.tree.size,
        "root": root.hex(),
        "frameworks": msgspec.to_builtins(frameworks),
        "not_applicable": msgspec.to_builtins(claims.not_applicable),
    }
    return str(uuid.uuid5(_NAMESPACE, sha256(canonical_bytes(name)).hex()))


def make_scope(
    claims: Claims, survey: Survey, population: Population, root: bytes, frameworks: Sequence[Framework]
) -> Scope:
    """Return the scope of a pack.

    Args:
        claims: What its maker says.
        survey: The finished walk over its entries.
        population: Its population.
        root: Root of the end checkpoint.
        frameworks: Its frameworks.

    Raises:
        MalformedError: The survey saw no record.
    """
    if survey.log_id is None or survey.tenant is None:
        raise MalformedError("a pack needs at least one record")
    references = tuple(
        FrameworkReference(
            framework=one.id, mapping_version=one.mapping_version, sha256=sha256(framework_bytes(one)).hex()
        )
        for one in frameworks
    )
    return Scope(
        format="tallystick.scope/1",
        pack_id=_pack_id(claims, survey, root, references),
        claims=claims,
        tenant=survey.tenant,
        log_id=survey.log_id,
        environment=", ".join(sorted(survey.environments)),
        simulated=claims.simulated or survey.simulated_records > 0,
        first_leaf=survey.first_leaf,
        tree_size=survey.tree.size,
        root=root.hex(),
        frameworks=references,
        proved=proved(population),
        not_proved=not_proved(population),
    )
