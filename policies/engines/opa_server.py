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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import orjson

from ledger.canonical import parse_json
from ledger.errors import ConfigError, MalformedError, PolicyError, PolicySyntaxError, UpstreamError
from ledger.exchange import BoundedExchange
from policies.boundaries import Boundaries, boundary_facts, read_boundaries
from policies.bundles import Bundle
from policies.engine import EngineStoppedError, Limit, LoadedBundle, Reason
from policies.engines.opa_answers import (
    UNKNOWN_VERSION,
    OPAContract,
    RefusedAnswerError,
    read_answer,
    read_contract,
    server_version,
)
from policies.engines.rego_decisions import RegoDecisions
from policies.engines.rego_names import ALLOW, package_path
from policies.engines.rego_requests import InputRefusedError, input_document
from policies.listing import Unknown, unknown_in
from policies.model import Decision, DecisionRequest, Effect
from policies.parameters import ParameterSet, read_parameters
from policies.windows import WindowSet, read_windows

__all__ = ["OPAServer", "OPAServerEngine"]

_OK: Final = 200
_QUERY: Final = "provenance=true&strict-builtin-errors=true"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handle:
    contract: OPAContract
    exchange: BoundedExchange | None
    parameters: ParameterSet
    windows: WindowSet
    boundaries: Boundaries | None


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
        return UNKNOWN_VERSION

    def load(self, bundle: Bundle) -> LoadedBundle:
        """Read what a bundle says of the server's package; the server itself is not asked.

        Raises:
            PolicySyntaxError: The bundle cannot be used; the message names the file.
        """
        contract = read_contract(bundle)
        if bundle.manifest.package is None:
            raise PolicySyntaxError("a bundle for an OPA server names the package that is asked")
        handle = _Handle(
            contract=contract,
            exchange=self._exchange(package_path(bundle.manifest.package)),
            parameters=read_parameters(bundle),
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
        if unknown_in(request) is not Unknown.NOTHING:
            # A server says what it makes of arguments, and not of none: nothing that it might allow may be hidden.
            return RegoDecisions(self.name, UNKNOWN_VERSION).listed(revision, Effect.PERMIT, Reason.POLICY)
        boundary = boundary_facts(handle.boundaries, request)
        version = UNKNOWN_VERSION
        try:
            document = input_document(handle.parameters, handle.windows, request, boundary)
            answer = _ask(handle.exchange, document)
            version = server_version(answer)
            said = read_answer(handle.contract, answer)
            decision = RegoDecisions(self.name, version).answered(revision, said, lambda: ALLOW)
        except InputRefusedError as error:
            decision = RegoDecisions(self.name, version).failed(revision, Reason(error.reason), error.detail)
        except RefusedAnswerError as error:
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
        RefusedAnswerError: There is no answer that could be read.
    """
    if exchange is None:
        raise EngineStoppedError(Limit.UNAVAILABLE)
    try:
        answer = exchange.post(orjson.dumps({"input": document}))
    except orjson.JSONEncodeError as error:
        raise RefusedAnswerError(Reason.REQUEST_ERROR, "input") from error
    except UpstreamError as error:
        raise EngineStoppedError(Limit.UNAVAILABLE) from error
    if answer.status != _OK:
        raise RefusedAnswerError(Reason.ENGINE_ERROR, f"http_{answer.status}")
    try:
        value = parse_json(answer.body)
    except MalformedError as error:
        raise RefusedAnswerError(Reason.ENGINE_ERROR, "answer") from error
    if not isinstance(value, dict):
        raise RefusedAnswerError(Reason.ENGINE_ERROR, "answer")
    return value
