"""MCP messages of both protocol eras: strict parsing, and the check that headers and body are the same call.

Pure: bytes in, a `Message` or a `Refusal` out; nothing is raised. `parse_message` reads what a client posts over
streamable HTTP, `read_json_message` a message without headers (stdio, and the requests of a server inside a stream).
What a server *answers* is read in `enforcement.answers`; whether a message may pass is decided in `enforcement.pep`.

The reader refuses whatever two careful readers of the same bytes could take for two different calls, because the
gateway judges one reading and the server executes another:

* JSON with a duplicate key, a lone surrogate, a non-number, a number that no double holds, or excessive depth
  (`ledger.canonical.parse_json`);
* a member of the envelope, of ``params`` or of ``_meta`` that differs from another, or from one that is interpreted
  here, in letter case alone (some decoders match names without regard to case);
* a routing header that is missing where it is demanded, occurs twice, or does not mirror the body;
* beside the name and the arguments of a call, a member of ``params`` that no policy would get to see.

Which revisions are spoken is an argument. A message of another one is refused with the revisions that are, as the
specification asks. In the stateful revisions the routing headers are not demanded, for they did not exist; where one
is sent all the same, it must mirror the body.

A request of the stateless revision as it arrives::

    POST /servers/finance/mcp
    Content-Type: application/json
    MCP-Protocol-Version: 2026-07-28
    Mcp-Method: tools/call
    Mcp-Name: refund_customer

    {"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"refund_customer","arguments":{"amount":12.50},
     "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
              "io.modelcontextprotocol/clientCapabilities":{}}}}

Source: Model Context Protocol, revisions 2026-07-28 and 2025-11-25, "Streamable HTTP" (or "Transports") and "Base
protocol"; JSON-RPC 2.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Final

from enforcement.json_slices import exceeds_nodes, object_members
from enforcement.mcp_headers import RawHeaders, RoutingHeaders, decode_sentinel, read_headers
from enforcement.messages import Kind, Message, MessageLimits, Refusal, Round
from enforcement.refusals import ErrorCode, RefusalReason, RefusedError, RequestId
from enforcement.revisions import ASSUMED_REVISION, DEFAULT_REVISIONS, STATEFUL, STATELESS, Direction, Era, era_of
from enforcement.trace_context import TraceContext, read_trace_context
from ledger.canonical import MAX_SAFE_INTEGER, JSONValue, parse_json
from ledger.errors import MalformedError

__all__ = [
    "INITIALIZE",
    "NAMED_METHODS",
    "Kind",
    "Message",
    "MessageLimits",
    "Refusal",
    "incomplete_message",
    "parse_message",
    "read_json_message",
    "refuse_lookalikes",
]

INITIALIZE: Final = "initialize"
"""The request that begins a session of the stateful revisions."""

NAMED_METHODS: Final[Mapping[str, str]] = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Method → member of ``params`` that names what is called, and that ``Mcp-Name`` mirrors."""

_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
_ENVELOPE: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
# Of the calls that have a name, policies see the name and the arguments. What else a server might act on does not pass
# unjudged. `inputResponses` and `requestState` are bound to what was judged before (`enforcement.rounds`).
# A task (2025-11-25) changes how the answer comes, not what is done.
_JUDGED: Final[Mapping[Era, Collection[str]]] = {
    "stateless": ("arguments", "_meta", "inputResponses", "requestState"),
    "stateful": ("arguments", "_meta", "task"),
}
# Requests that say in `params` alone what they are about: policies see them as a whole, as those of servers.
_JUDGED_BY_PARAMS: Final = frozenset(
    {
        "completion/complete",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "subscriptions/listen",
        "tasks/cancel",
        "tasks/get",
        "tasks/result",
    }
)
_RESERVED: Final = "transport/"
_CANCELLED: Final = "notifications/cancelled"
_PARAMS: Final = frozenset({"name", "uri", "arguments", "_meta", "inputResponses", "requestState"})
_META: Final = frozenset({_VERSION_KEY, "traceparent", "tracestate"})
_REVISION: Final = re.compile(r"[0-9A-Za-z.-]{1,32}")
_MAX_ID_CHARS: Final = 256


def parse_message(
    body: bytes,
    headers: RawHeaders,
    *,
    limits: MessageLimits | None = None,
    revisions: Collection[str] = DEFAULT_REVISIONS,
    negotiated: str | None = None,
) -> Message | Refusal:
    """Read one POST of the streamable HTTP transport.

    Args:
        body: The body's bytes as received.
        headers: The header lines as received.
        limits: Bounds; the defaults of `MessageLimits` if None.
        revisions: The revisions that are spoken.
        negotiated: The revision that the message's session has agreed on; None if it belongs to none.

    Returns:
        The message, or why it is refused. Nothing is raised, whatever the bytes are.

    Source: Model Context Protocol, revision 2026-07-28, Streamable HTTP, "Sending Messages" and "Server Validation";
        revision 2025-11-25, Transports, "Protocol Version Header".
    """
    reader = _Reader(body, limits or MessageLimits(), revisions, negotiated)
    try:
        return reader.read(headers)
    except RefusedError as refused:
        return reader.refusal(refused)


def read_json_message(
    body: bytes,
    *,
    limits: MessageLimits | None = None,
    direction: Direction = "client",
    revisions: Collection[str] = DEFAULT_REVISIONS,
    negotiated: str | None = None,
) -> Message | Refusal:
    """Read one message of a transport without headers.

    Args:
        body: One JSON text, UTF-8.
        limits: Bounds; the defaults of `MessageLimits` if None.
        direction: Who sent it.
        revisions: The revisions that are spoken.
        negotiated: The revision that the session has agreed on. None before that: then a message says its revision
            itself, in ``_meta`` (stateless) or as ``initialize`` does, or is taken for one of `ASSUMED_REVISION`.

    Returns:
        The message, or why it is refused. Nothing is raised, whatever the bytes are.

    Source: Model Context Protocol, revision 2025-11-25, Transports, "stdio"; revision 2026-07-28, "stdio".
    """
    reader = _Reader(body, limits or MessageLimits(), revisions, negotiated, direction)
    try:
        return reader.read(None)
    except RefusedError as refused:
        return reader.refusal(refused)


def incomplete_message() -> Refusal:
    """Return the refusal of a message whose body did not arrive in time; nothing is read of it."""
    refused = RefusedError(RefusalReason.INCOMPLETE)
    return Refusal(reason=refused.reason, code=refused.code, status=refused.status, text=refused.text)


def refuse_lookalikes(members: Mapping[str, object], interpreted: Collection[str]) -> None:
    """Refuse names that a reader without regard to letter case would confuse.

    Args:
        members: A JSON object.
        interpreted: Names that are read here; any other spelling of one of them is refused even if it stands alone.

    Raises:
        MalformedError: Two names are equal after case folding, or one is a misspelling of an interpreted name.
    """
    folded = {name.casefold() for name in interpreted if name not in members}
    for key in members:
        fold = key.casefold()
        if fold in folded:
            raise RefusedError(RefusalReason.AMBIGUOUS_KEY)
        folded.add(fold)


class _Reader:
    """Reads one message step by step and remembers what it has seen, so that a refusal can still say it."""

    def __init__(
        self,
        body: bytes,
        limits: MessageLimits,
        revisions: Collection[str],
        negotiated: str | None,
        direction: Direction = "client",
    ) -> None:
        self.body = body
        self.limits = limits
        self.revisions = revisions
        self.negotiated = negotiated
        self.direction: Direction = direction
        self.headers: RoutingHeaders | None = None
        self.request_id: RequestId | None = None
        self.method: str | None = None
        self.name: str | None = None
        self.trace: TraceContext | None = None
        self.requested = "unknown"
        self.says_revision = False

    def read(self, lines: RawHeaders | None) -> Message:
        limits = self.limits
        if lines is not None:
            self.headers = read_headers(lines, max_count=limits.header_count, max_bytes=limits.header_bytes)
            self.trace = self.headers.trace
        envelope = self._read_envelope()
        kind = self._read_kind(envelope)
        method = self._read_method(envelope, kind)
        params, meta = self._read_params(envelope)
        version = self._check_version(kind, method, params, meta)
        era = era_of(version)
        if kind is Kind.RESPONSE:
            if era == "stateless":
                raise RefusedError(RefusalReason.NOT_A_REQUEST)
            _check_response(envelope)
        demanded = era == "stateless" and kind is Kind.REQUEST
        self._check_method(method, demanded=demanded)
        self._check_name(method, params, demanded=demanded, judged=_JUDGED[era])
        return Message(
            kind=kind,
            request_id=self.request_id,
            method=method,
            name=self.name,
            arguments=self._arguments(params),
            protocol_version=version,
            trace=self.trace,
            continues="cursor" in params,
            direction=self.direction,
            era=era,
            cancels=_cancelled(method, params),
            failed="error" in envelope,
            round=_round(params) if method in NAMED_METHODS and era == "stateless" else None,
        )

    def refusal(self, refused: RefusedError) -> Refusal:
        version = None if self.headers is None else self.headers.protocol_version
        unsupported = refused.reason is RefusalReason.UNSUPPORTED_PROTOCOL
        return Refusal(
            reason=refused.reason,
            code=refused.code,
            status=refused.status,
            text=refused.text,
            data={"supported": self._supported(), "requested": self.requested} if unsupported else None,
            request_id=self.request_id,
            method=self.method,
            name=self.name,
            protocol_version=version if version is not None and _REVISION.fullmatch(version) else None,
            trace=self.trace,
            direction=self.direction,
        )

    def _supported(self) -> list[str]:
        """Return the revisions to go on with; one that says its revision in ``_meta`` cannot go on with a stateful one.

        Source: revision 2026-07-28: a server names there what its ``server/discover`` names.
        """
        stateless = STATELESS & set(self.revisions) if self.says_revision else None
        return sorted(stateless or self.revisions)

    def _read_envelope(self) -> dict[str, JSONValue]:
        if len(self.body) > self.limits.body_bytes:
            raise _too_long(self.limits)
        if self.headers is not None:
            _check_media_type(self.headers)
        if exceeds_nodes(self.body, self.limits.json_nodes):
            raise RefusedError(RefusalReason.OVERSIZE, f"The body has more than {self.limits.json_nodes} JSON values")
        try:
            value = parse_json(self.body, max_depth=self.limits.json_depth)
        except MalformedError as error:
            if _has_duplicate_key(self.body):
                raise RefusedError(RefusalReason.DUPLICATE_KEY) from error
            raise _not_json() from error
        if isinstance(value, list):
            raise RefusedError(RefusalReason.BATCH)
        if not isinstance(value, dict):
            raise RefusedError(RefusalReason.MALFORMED)
        refuse_lookalikes(value, _ENVELOPE)
        return value

    def _read_kind(self, envelope: Mapping[str, JSONValue]) -> Kind:
        answers = "result" in envelope or "error" in envelope
        if "id" in envelope:
            self.request_id = _request_id(envelope["id"])
        if answers and "method" not in envelope:
            return Kind.RESPONSE
        if answers or envelope.get("jsonrpc") != "2.0":
            raise RefusedError(RefusalReason.MALFORMED)
        return Kind.REQUEST if "id" in envelope else Kind.NOTIFICATION

    def _read_method(self, envelope: Mapping[str, JSONValue], kind: Kind) -> str:
        if kind is Kind.RESPONSE:
            return ""
        method = envelope.get("method")
        if not isinstance(method, str):
            raise RefusedError(RefusalReason.MALFORMED)
        if not 0 < len(method) <= self.limits.method_chars:
            raise RefusedError(RefusalReason.MALFORMED, "The method is not a name")
        self.method = method
        # Policies know the transport's own actions, and a tool's call, by their names: nobody else may bear them.
        if method.startswith(_RESERVED) or (self.direction == "server" and method in NAMED_METHODS):
            raise RefusedError(RefusalReason.MALFORMED, "The method is none that this side may send")
        return method

    def _read_params(self, envelope: Mapping[str, JSONValue]) -> tuple[dict[str, JSONValue], dict[str, JSONValue]]:
        params = envelope.get("params", {})
        meta = params.get("_meta", {}) if isinstance(params, dict) else None
        if not isinstance(params, dict) or not isinstance(meta, dict):
            raise _bad_params("params and params._meta must be objects")
        refuse_lookalikes(params, _PARAMS)
        refuse_lookalikes(meta, _META)
        self.trace = read_trace_context(meta.get("traceparent"), meta.get("tracestate")) or self.trace
        return params, meta

    def _check_version(
        self, kind: Kind, method: str, params: Mapping[str, JSONValue], meta: Mapping[str, JSONValue]
    ) -> str:
        header = None if self.headers is None else self.headers.protocol_version
        body = meta.get(_VERSION_KEY)
        self.says_revision = body is not None
        said = body if header is None else header
        offered = params.get("protocolVersion") if said is None else said  # `initialize` carries it in its params
        if isinstance(offered, str) and _REVISION.fullmatch(offered):
            self.requested = offered
        if body is not None and body != header and self.headers is not None:
            raise _mismatch("MCP-Protocol-Version")
        version = self._version(method, params, header or body)
        if version not in self.revisions:
            raise RefusedError(RefusalReason.UNSUPPORTED_PROTOCOL)
        if body is None and version in STATELESS and kind is Kind.REQUEST and self.direction == "client":
            raise _bad_params(f"params._meta lacks {_VERSION_KEY}")
        return version

    def _version(self, method: str, params: Mapping[str, JSONValue], said: JSONValue) -> str:
        """Return the revision of a message that says it in header or ``_meta``, or does not."""
        if method == INITIALIZE and said not in STATELESS:
            offered = params.get("protocolVersion")
            if said is not None and said != offered:
                raise _mismatch("MCP-Protocol-Version")
            return offered if isinstance(offered, str) and offered in STATEFUL else ""
        if said is None:
            return self.negotiated or ASSUMED_REVISION
        if self.negotiated is not None and said != self.negotiated:
            raise _mismatch("MCP-Protocol-Version")
        return said if isinstance(said, str) else ""

    # INVARIANT: the call that the headers name is the call that the body makes; a header that is demanded and missing
    # is a mismatch, and so is a wrong one that is not demanded.

    def _check_method(self, method: str, *, demanded: bool) -> None:
        mirrored = None if self.headers is None else self.headers.method
        if self.headers is not None and mirrored != method and (demanded or mirrored is not None):
            raise _mismatch("Mcp-Method")

    def _check_name(
        self, method: str, params: Mapping[str, JSONValue], *, demanded: bool, judged: Collection[str]
    ) -> None:
        member, mirrored = NAMED_METHODS.get(method), None if self.headers is None else self.headers.name
        if member is None:
            if mirrored is not None:
                raise _mismatch("Mcp-Name")
            return
        name = params.get(member)
        if not isinstance(name, str) or not 0 < len(name) <= self.limits.name_chars:
            raise _bad_params(f"params.{member} is not a name")
        self.name = name
        if not params.keys() <= {member, *judged}:
            raise _bad_params("params has a member that no policy gets to see")
        if self.headers is None or (mirrored is None and not demanded):
            return
        if mirrored is None or decode_sentinel(mirrored) != name:
            raise _mismatch("Mcp-Name")

    def _arguments(self, params: Mapping[str, JSONValue]) -> str | None:
        # INVARIANT: the text that policies judge is the text that the server receives: a slice, not a re-encoding.
        whole = self.direction == "server" or self.method in _JUDGED_BY_PARAMS
        if not (params if whole else "arguments" in params):
            return None
        if not whole and not isinstance(params["arguments"], dict):
            raise _bad_params("params.arguments is not an object")
        try:
            text = object_members(self.body.decode())["params"]
            return text if whole else object_members(text)["arguments"]
        except (MalformedError, UnicodeDecodeError) as error:  # two readers of one text: should they ever differ …
            raise _not_json() from error


def _check_response(envelope: Mapping[str, JSONValue]) -> None:
    """Refuse what is no JSON-RPC response, whoever might read one in it."""
    result, error = envelope.get("result"), envelope.get("error")
    answer = result if "result" in envelope else error
    if "id" not in envelope or ("result" in envelope and "error" in envelope) or not isinstance(answer, dict):
        raise RefusedError(RefusalReason.MALFORMED, "Not a JSON-RPC 2.0 response")
    code = answer.get("code")
    if envelope.get("jsonrpc") != "2.0" or "params" in envelope:
        raise RefusedError(RefusalReason.MALFORMED, "Not a JSON-RPC 2.0 response")
    # The code is recorded: it must be what a record can hold.
    if "error" in envelope and (not isinstance(code, int) or isinstance(code, bool) or abs(code) > MAX_SAFE_INTEGER):
        raise RefusedError(RefusalReason.MALFORMED, "The error has no code")


def _round(params: Mapping[str, JSONValue]) -> Round | None:
    """Return what makes a call a further round; None for a first one."""
    state, answers = params.get("requestState"), params.get("inputResponses")
    if "requestState" in params and not isinstance(state, str):
        raise _bad_params("params.requestState is no text")
    if "inputResponses" in params and not isinstance(answers, dict):
        raise _bad_params("params.inputResponses is not an object")
    if state is None and answers is None:
        return None
    return Round(
        state=state if isinstance(state, str) else None, answers=len(answers) if isinstance(answers, dict) else None
    )


def _cancelled(method: str, params: Mapping[str, JSONValue]) -> RequestId | None:
    """Return which request a cancellation withdraws."""
    if method != _CANCELLED or "requestId" not in params:
        return None
    return _request_id(params["requestId"])


def _too_long(limits: MessageLimits) -> RefusedError:
    return RefusedError(RefusalReason.OVERSIZE, f"The body has more than {limits.body_bytes} bytes")


def _not_json() -> RefusedError:
    return RefusedError(RefusalReason.MALFORMED, "The body is not JSON", code=ErrorCode.PARSE_ERROR)


def _bad_params(text: str) -> RefusedError:
    return RefusedError(RefusalReason.MALFORMED, text, code=ErrorCode.INVALID_PARAMS)


def _mismatch(header: str) -> RefusedError:
    return RefusedError(RefusalReason.HEADER_MISMATCH, f"The header {header} does not match the body")


def _check_media_type(headers: RoutingHeaders) -> None:
    kind, _, parameters = (headers.content_type or "").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    coding = (headers.content_encoding or "identity").lower()
    if kind.strip() != "application/json" or charset not in ("", "charset=utf-8") or coding != "identity":
        raise RefusedError(RefusalReason.UNSUPPORTED_MEDIA_TYPE)


def _request_id(value: JSONValue) -> RequestId:
    if isinstance(value, str) and len(value) <= _MAX_ID_CHARS:
        return value
    # An integer beyond 2**53 - 1 would come back rounded from some servers, and answer another request.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_SAFE_INTEGER:
        return value
    raise RefusedError(RefusalReason.MALFORMED, "The id is neither a string nor an integer")


class _DuplicateError(Exception):
    """Found what `_has_duplicate_key` looks for."""


def _pairs(pairs: list[tuple[str, object]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _DuplicateError


def _has_duplicate_key(body: bytes) -> bool:
    """Tell the cause of a refusal apart; it is refused already, so that a wrong answer costs no more than a label."""
    try:
        json.loads(body, object_pairs_hook=_pairs)
    except _DuplicateError:
        return True
    except (ValueError, RecursionError):
        return False
    return False
