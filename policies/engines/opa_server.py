"""An operator's own OPA server, asked over HTTP.

For operators whose policies need what their OPA has and we refuse: data that changes, tokens that it verifies, other
services that it asks. Their price is replay: the answer depends on what the server held at that time, so a decision of
this engine can never be made again (`policies.replay`: *missing fact*).

A bundle of ``"engine": "opa_server"`` holds no Rego. Its manifest names the ``package`` that is asked, and its one
policy file says which names that package may put into a record (invariant 6)::

    {"format": "tallystick.opa/1", "permits": ["finance"], "denies": ["late"], "obligations": ["approval"],
     "revision": "<revision that the server's bundle must have>"}

Each member but ``format`` may be left out. Parameters, windows and boundaries are those of any bundle, and ``input`` is
what it is for our own Rego engine. The server is asked ``POST /v1/data/<package>`` with provenance and strict errors of
built-in functions; ``allow``, ``permits``, ``denies`` and ``obligations`` of the result mean what they mean there.

Which server is asked, and with which token, is said by whoever runs gateway or service, never by a bundle.

The decision's engine version is the server's own, and behind a ``+`` sixteen digits of a digest of the bundle revisions
that it names: ``1.22.2+9f8e…``.

INVARIANT 7: no answer, a late one, a long one, another status than 200, a result that is no such package: each is a
denial. INVARIANT 6: a name that the bundle does not list is no rule's name, and a denial as well.

Source: the REST API of OPA, sections on the data API and provenance.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
import orjson

from ledger.bodies import Name
from ledger.canonical import canonical_bytes, parse_json, sha256
from ledger.errors import ConfigError, MalformedError, PolicyError, PolicySyntaxError, UpstreamError
from ledger.exchange import BoundedExchange
from policies.boundaries import Boundaries, boundary_facts, read_boundaries
from policies.bundles import Bundle
from policies.engine import EngineStoppedError, Limit, LoadedBundle, Reason
from policies.engines.rego_decisions import RegoAnswer, RegoDecisions
from policies.engines.rego_names import ALLOW, DENIES, OBLIGATIONS, PERMITS, package_path
from policies.engines.rego_requests import InputRefusedError, input_document, read_bundle_parameters
from policies.model import Decision, DecisionRequest, Obligation
from policies.parameters import ParameterSet
from policies.windows import WindowSet, read_windows

__all__ = ["OPAServer", "OPAServerEngine"]

_UNKNOWN: Final = "unknown"
_OK: Final = 200
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
_REVISION_DIGITS: Final = 16
_QUERY: Final = "provenance=true&strict-builtin-errors=true"
_MAX_NAMES: Final = 1000

_Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=_MAX_NAMES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OPAServer:
    """Where an OPA is.

    Attributes:
        url: Its base URL, such as ``http://127.0.0.1:8181``.
        token: Bearer token for it, or None.
        timeout_seconds: For one question and its answer.

    Raises:
        ConfigError: The URL is none, or leads to another machine without TLS.
    """

    url: str
    token: str | None = None
    timeout_seconds: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError("the URL of the OPA server must be http(s)://HOST/PATH")
        # Who forges its answers decides.
        if parts.scheme == "http" and not _is_this_machine(parts.hostname):
            raise ConfigError("the OPA server on another machine is asked by https only")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle says of the server's package; the module's text explains it."""

    format: Literal["tallystick.opa/1"]
    permits: _Names = ()
    denies: _Names = ()
    obligations: tuple[Obligation, ...] = ()
    revision: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None

    def listed(self) -> dict[str, tuple[str, ...]]:
        """Return which names each set may hold."""
        return {PERMITS: self.permits, DENIES: self.denies, OBLIGATIONS: tuple(item.value for item in self.obligations)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handle:
    contract: _Contract
    exchange: BoundedExchange | None
    parameters: ParameterSet
    windows: WindowSet
    boundaries: Boundaries | None


class _RefusedError(PolicyError):
    """Why there is no answer; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def _contract(bundle: Bundle) -> _Contract:
    manifest = bundle.manifest
    others = {"schema": manifest.schema, "entities": manifest.entities, "data": manifest.data}
    for name, member in others.items():
        if member is not None:
            raise PolicySyntaxError(f"a bundle for an OPA server has no {name}")
    if len(manifest.policies) != 1:
        raise PolicySyntaxError("a bundle for an OPA server has one policy file, which lists names")
    (path,) = manifest.policies
    try:
        return msgspec.convert(parse_json(bundle.files[path]), _Contract)
    except (MalformedError, msgspec.ValidationError) as error:
        raise PolicySyntaxError(f"{path}: {error}") from error


def _engine_version(answer: Mapping[str, Any]) -> str:
    """Return the server's version, and which bundles it decided under, as far as it says."""
    provenance = answer.get("provenance")
    if not isinstance(provenance, dict):
        return _UNKNOWN
    told = provenance.get("version")
    version = told if isinstance(told, str) and _VERSION.fullmatch(told) else _UNKNOWN
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
        _RefusedError: They are no names, or some that the bundle does not list.
    """
    found = result.get(kind, [])
    if not isinstance(found, list) or not all(isinstance(item, str) and item in listed for item in found):
        raise _RefusedError(Reason.EVALUATION_ERROR, kind)
    return [name for name in listed if name in found]


def _read_answer(contract: _Contract, answer: Mapping[str, Any]) -> RegoAnswer:
    """Return what the server says.

    Raises:
        _RefusedError: It is no answer of such a package, or of another revision.
    """
    if contract.revision is not None and contract.revision not in _revisions(answer.get("provenance")).values():
        raise _RefusedError(Reason.EVALUATION_ERROR, "revision")
    # A package that the server does not have is an answer without a result.
    result = answer.get("result")
    if not isinstance(result, dict):
        raise _RefusedError(Reason.EVALUATION_ERROR, "package")
    allowed = result.get(ALLOW, False)
    if not isinstance(allowed, bool):
        raise _RefusedError(Reason.EVALUATION_ERROR, ALLOW)
    listed = contract.listed()
    return RegoAnswer(
        allowed=allowed,
        denies=_names(result, DENIES, listed[DENIES]),
        permits=_names(result, PERMITS, listed[PERMITS]),
        obligations=_names(result, OBLIGATIONS, listed[OBLIGATIONS]),
    )


class OPAServerEngine:
    """Asks an OPA server; safe for any thread that runs no event loop."""

    def __init__(self, server: OPAServer | None) -> None:
        """Take the server.

        Args:
            server: None if whoever runs this program names none: then every request is denied.

        Raises:
            ConfigError: URL or token cannot be used.
        """
        self._server = server
        self._exchange(())

    @property
    def name(self) -> str:
        """``opa_server``."""
        return "opa_server"

    @property
    def version(self) -> str:
        """``unknown``: only an answer says which version the server has."""
        return _UNKNOWN

    def load(self, bundle: Bundle) -> LoadedBundle:
        """Read what a bundle says of the server's package; the server itself is not asked.

        Raises:
            PolicySyntaxError: The bundle cannot be used; the message names the file.
        """
        contract = _contract(bundle)
        if bundle.manifest.package is None:
            raise PolicySyntaxError("a bundle for an OPA server names the package that is asked")
        handle = _Handle(
            contract=contract,
            exchange=self._exchange(package_path(bundle.manifest.package)),
            parameters=read_bundle_parameters(bundle),
            windows=read_windows(bundle),
            boundaries=read_boundaries(bundle),
        )
        rules = (contract.permits or (ALLOW,)) + contract.denies
        if len(set(rules)) != len(rules):
            raise PolicySyntaxError(f"{bundle.manifest.policies[0]}: a name is listed twice")
        return LoadedBundle(revision=bundle.revision, rules=rules, handle=handle)

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Return one decision for each request, in order; the server is asked for each.

        Raises:
            EngineStoppedError: There is no server, or no answer within time and length.
        """
        if not isinstance(loaded.handle, _Handle):
            raise PolicyError("the bundle was loaded by another engine")
        handle = loaded.handle
        return [self._decide(loaded.revision, handle, request) for request in requests]

    def _decide(self, revision: str, handle: _Handle, request: DecisionRequest) -> Decision:
        boundary = boundary_facts(handle.boundaries, request)
        version = _UNKNOWN
        try:
            document = input_document(handle.parameters, handle.windows, request, boundary)
            answer = _ask(handle.exchange, document)
            version = _engine_version(answer)
            said = _read_answer(handle.contract, answer)
            decision = RegoDecisions(self.name, version).answered(revision, said, lambda: ALLOW)
        except InputRefusedError as error:
            decision = RegoDecisions(self.name, version).failed(revision, Reason(error.reason), error.detail)
        except _RefusedError as error:
            decision = RegoDecisions(self.name, version).failed(revision, error.reason, error.detail)
        return msgspec.structs.replace(decision, drift=boundary.drift) if boundary.drift else decision

    def _exchange(self, package: Sequence[str]) -> BoundedExchange | None:
        server = self._server
        if server is None:
            return None
        return BoundedExchange(
            f"{server.url.rstrip('/')}/v1/data/{'/'.join(package)}?{_QUERY}",
            whom="the OPA server",
            media_type="application/json",
            timeout_seconds=server.timeout_seconds,
            token=server.token,
        )


def _ask(exchange: BoundedExchange | None, document: Mapping[str, object]) -> Mapping[str, Any]:
    """Put a document to the server.

    Raises:
        EngineStoppedError: There is no server, or no answer within time and length.
        _RefusedError: There is no answer that could be read.
    """
    if exchange is None:
        raise EngineStoppedError(Limit.UNAVAILABLE)
    try:
        answer = exchange.post(orjson.dumps({"input": document}))
    except orjson.JSONEncodeError as error:
        raise _RefusedError(Reason.REQUEST_ERROR, "input") from error
    except UpstreamError as error:
        raise EngineStoppedError(Limit.UNAVAILABLE) from error
    if answer.status != _OK:
        raise _RefusedError(Reason.ENGINE_ERROR, f"http_{answer.status}")
    try:
        value = parse_json(answer.body)
    except MalformedError as error:
        raise _RefusedError(Reason.ENGINE_ERROR, "answer") from error
    if not isinstance(value, dict):
        raise _RefusedError(Reason.ENGINE_ERROR, "answer")
    return value
