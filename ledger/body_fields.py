"""What the bodies of records are made of: the field types, each with its class, and what all bodies have in common.

Pure. Bodies are in `bodies` and in the files beside it, one for each area; all of them import their types from here.

Each field is declared *public*, *pseudonymous* or *vaulted* (architecture.md, invariant 6). Vaulted fields appear as a
`Commitment`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

__all__ = [
    "PUBLIC",
    "Base64",
    "Capture",
    "Commitment",
    "Count",
    "Effect",
    "Enforcement",
    "FieldClass",
    "Flag",
    "Hex8",
    "Hex16",
    "Hex32",
    "Hour",
    "LogId",
    "Minute",
    "Mode",
    "Name",
    "Names",
    "Ordinal",
    "OutcomeStatus",
    "Pseudonym",
    "SignedCount",
    "Struct",
    "Uuid",
    "Weekday",
    "Zone",
]

PUBLIC: Final = {"field_class": "public"}
_PSEUDONYMOUS: Final = {"field_class": "pseudonymous"}
_VAULTED: Final = {"field_class": "vaulted"}

FieldClass: TypeAlias = Literal["public", "pseudonymous", "vaulted"]

# Patterns end in \Z, for $ would let a trailing line feed pass.
Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}\Z", extra=PUBLIC)]
LogId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z", extra=PUBLIC)]
Uuid: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", extra=PUBLIC)
]
Hex32: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", extra=PUBLIC)]
Hex16: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z", extra=PUBLIC)]
Hex8: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z", extra=PUBLIC)]
Base64: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]*={0,2}\Z", min_length=4, max_length=8192, extra=PUBLIC)
]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, extra=PUBLIC)]
Ordinal: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1, extra=PUBLIC)]
SignedCount: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**53 - 1), le=2**53 - 1, extra=PUBLIC)]
Flag: TypeAlias = Annotated[bool, msgspec.Meta(extra=PUBLIC)]
Hour: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=23, extra=PUBLIC)]
Minute: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=59, extra=PUBLIC)]
Weekday: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=7, extra=PUBLIC)]
Zone: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_+/-]{1,64}\Z", extra=PUBLIC)]
Names: TypeAlias = Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)]
Pseudonym: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z", extra=_PSEUDONYMOUS)]

Effect: TypeAlias = Annotated[Literal["PERMIT", "DENY", "INDETERMINATE", "NOT_APPLICABLE"], msgspec.Meta(extra=PUBLIC)]
Enforcement: TypeAlias = Annotated[Literal["allow", "deny", "ask", "kill"], msgspec.Meta(extra=PUBLIC)]
Mode: TypeAlias = Annotated[Literal["enforce", "observe"], msgspec.Meta(extra=PUBLIC)]
Capture: TypeAlias = Annotated[Literal["redacted", "digest"], msgspec.Meta(extra=PUBLIC)]
OutcomeStatus: TypeAlias = Annotated[
    Literal["completed", "failed", "cancelled", "not_forwarded", "unknown"], msgspec.Meta(extra=PUBLIC)
]


class Struct(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False, cache_hash=True
):
    """Common rules: immutable, keyword only, unknown members refused, defaults left out.

    INVARIANT: a default is None, False, 0 or (). msgspec tells a default by identity, so that any other would be
    written out or left out depending on where the value came from: two spellings of one record.
    """


class Commitment(Struct, frozen=True):
    """A salted commitment to vaulted bytes; see `ledger.commitments`.

    Attributes:
        digest: 32 bytes in hexadecimal.
        size_bytes: Length of the payload.
    """

    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", extra=_VAULTED)]
    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, extra=PUBLIC)]
