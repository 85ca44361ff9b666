"""What a bundle says of an OPA server's package, and what the server's answer says; `policies.engines.opa_server` asks.

Pure. Every name of an answer that the bundle does not list is refused (invariant 6).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from ledger.body_fields import Name
from ledger.canonical import canonical_bytes, parse_json, sha256
from ledger.errors import MalformedError, PolicyError, PolicySyntaxError
from policies.bundles import Bundle
from policies.engine import Reason
from policies.engines.rego_decisions import RegoAnswer
from policies.engines.rego_names import ALLOW, DENIES, OBLIGATIONS, PERMITS
from policies.model import Obligation

__all__ = ["UNKNOWN_VERSION", "OPAContract", "RefusedAnswerError", "read_answer", "read_contract", "server_version"]

UNKNOWN_VERSION: Final = "unknown"
"""Engine version where the server does not say one."""

_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
_REVISION_DIGITS: Final = 16
_MAX_NAMES: Final = 1000

_Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=_MAX_NAMES)]


class OPAContract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle says of the server's package.

    Attributes:
        format: ``tallystick.opa/1``.
        permits: Names that ``permits`` may hold.
        denies: Names that ``denies`` may hold, the first of them named first.
        obligations: What ``obligations`` may hold.
        revision: Revision that a bundle of the server must have, or None.
    """

    format: Literal["tallystick.opa/1"]
    permits: _Names = ()
    denies: _Names = ()
    obligations: tuple[Obligation, ...] = ()
    revision: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None

    def listed(self) -> dict[str, tuple[str, ...]]:
        """Return which names each set may hold."""
        return {PERMITS: self.permits, DENIES: self.denies, OBLIGATIONS: tuple(item.value for item in self.obligations)}


class RefusedAnswerError(PolicyError):
    """Why there is no answer.

    Attributes:
        reason: The decision's reason.
        detail: Which part; never a value.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_contract(bundle: Bundle) -> OPAContract:
    """Return what a bundle says of the server's package.

    Raises:
        PolicySyntaxError: It is not sound; the message names the file.
    """
    manifest = bundle.manifest
    others = {"schema": manifest.schema, "entities": manifest.entities, "data": manifest.data}
    for name, member in others.items():
        if member is not None:
            raise PolicySyntaxError(f"a bundle for an OPA server has no {name}")
    if len(manifest.policies) != 1:
        raise PolicySyntaxError("a bundle for an OPA server has one policy file, which lists names")
    (path,) = manifest.policies
    try:
        return msgspec.convert(parse_json(bundle.files[path]), OPAContract)
    except (MalformedError, msgspec.ValidationError) as error:
        raise PolicySyntaxError(f"{path}: {error}") from error


def server_version(answer: Mapping[str, Any]) -> str:
    """Return the server's version, and which bundles it decided under, as far as it says."""
    provenance = answer.get("provenance")
    if not isinstance(provenance, dict):
        return UNKNOWN_VERSION
    told = provenance.get("version")
    version = told if isinstance(told, str) and _VERSION.fullmatch(told) else UNKNOWN_VERSION
    revisions = _revisions(provenance)
    if not revisions:
        return version
    return f"{version}+{sha256(canonical_bytes(revisions)).hex()[:_REVISION_DIGITS]}"


def _revisions(provenance: object) -> dict[str, str]:
    """Return the revision of each bundle that the server names."""
    bundles = provenance.get("bundles") if isinstance(provenance, dict) else None
    if not isinstance(bundles, dict):
        return {}
    return {
        name: item["revision"]
        for name, item in bundles.items()
        if isinstance(item, dict) and isinstance(item.get("revision"), str)
    }


def _names(result: Mapping[str, Any], kind: str, listed: Sequence[str]) -> list[str]:
    """Return the members of a set in the order of the bundle's list.

    Raises:
        RefusedAnswerError: They are no names, or some that the bundle does not list.
    """
    found = result.get(kind, [])
    if not isinstance(found, list) or not all(isinstance(item, str) and item in listed for item in found):
        raise RefusedAnswerError(Reason.EVALUATION_ERROR, kind)
    return [name for name in listed if name in found]


def read_answer(contract: OPAContract, answer: Mapping[str, Any]) -> RegoAnswer:
    """Return what the server says.

    Raises:
        RefusedAnswerError: It is no answer of such a package, or of another revision.
    """
    if contract.revision is not None and contract.revision not in _revisions(answer.get("provenance")).values():
        raise RefusedAnswerError(Reason.EVALUATION_ERROR, "revision")
    # A package that the server does not have is an answer without a result.
    result = answer.get("result")
    if not isinstance(result, dict):
        raise RefusedAnswerError(Reason.EVALUATION_ERROR, "package")
    allowed = result.get(ALLOW, False)
    if not isinstance(allowed, bool):
        raise RefusedAnswerError(Reason.EVALUATION_ERROR, ALLOW)
    listed = contract.listed()
    return RegoAnswer(
        allowed=allowed,
        denies=_names(result, DENIES, listed[DENIES]),
        permits=_names(result, PERMITS, listed[PERMITS]),
        obligations=_names(result, OBLIGATIONS, listed[OBLIGATIONS]),
    )
