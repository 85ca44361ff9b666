"""MCP messages as a client posts them: strict parsing, and the check that headers and body are the same call.

Pure: bytes in, a `Message` or a `Refusal` out; `parse_message` raises nothing. What a *server* answers is read in
`enforcement.answers`; who the client is and whether it may is decided in `enforcement.pep`.

The reader refuses whatever two careful readers of the same bytes could take for two different calls, because the
gateway judges one reading and the server executes another:

* JSON with a duplicate key, a lone surrogate, a non-number, a number that no double holds, or excessive depth
  (`ledger.canonical.parse_json`);
* a member of the envelope, of ``params`` or of ``_meta`` that differs from another, or from one that is interpreted
  here, in letter case alone (some decoders match names without regard to case);
* a routing header that is missing, occurs twice, or does not mirror the body;
* beside the name and the arguments of a call, a member of ``params`` that no policy would get to see.

One protocol revision is spoken, the stateless 2026-07-28. A message of an older one is refused with the revisions that
are spoken, as the specification asks.

A request as it arrives::

    POST /servers/finance/mcp
    Content-Type: application/json
    MCP-Protocol-Version: 2026-07-28
    Mcp-Method: tools/call
    Mcp-Name: refund_customer

    {"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"refund_customer","arguments":{"amount":12.50},
     "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
              "io.modelcontextprotocol/clientCapabilities":{}}}}

Source: Model Context Protocol, revision 2026-07-28, "Streamable HTTP" and "Base protocol"; JSON-RPC 2.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from enforcement.json_slices import MAX_JSON_NODES, exceeds_nodes, object_members
from enforcement.mcp_headers import RawHeaders, RoutingHeaders, decode_sentinel, read_headers, read_trace_id
from enforcement.refusals import ErrorCode, RefusalReason, RefusedError, RequestId
from ledger.canonical import MAX_JSON_DEPTH, MAX_SAFE_INTEGER, JSONValue, parse_json
from ledger.errors import MalformedError

__all__ = [
    "NAMED_METHODS",
    "PROTOCOL_VERSIONS",
    "Kind",
    "Message",
    "MessageLimits",
    "Refusal",
    "incomplete_message",
    "parse_message",
    "refuse_lookalikes",
]

PROTOCOL_VERSIONS: Final = ("2026-07-28",)
"""Protocol revisions that the gateway speaks."""

NAMED_METHODS: Final[Mapping[str, str]] = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Method → member of ``params`` that names what is called, and that ``Mcp-Name`` mirrors."""

_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
_ENVELOPE: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
# Of the calls that have a name, policies see the name and the arguments. What else a server might act on, such as
# `inputResponses` and `requestState`, does not pass unjudged.
_JUDGED: Final = ("arguments", "_meta")
_PARAMS: Final = frozenset({"name", "uri", "arguments", "_meta"})
_META: Final = frozenset({_VERSION_KEY, "traceparent"})
_REVISION: Final = re.compile(r"[0-9A-Za-z.-]{1,32}")
_MAX_ID_CHARS: Final = 256


class Kind(StrEnum):
    """What a client may post."""

    REQUEST = "request"
    NOTIFICATION = "notification"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLimits:
    """Bounds on what a client may send.

    Attributes:
        body_bytes: Longest body.
        header_count: Most header lines.
        header_bytes: Most bytes of header names and values together.
        json_depth: Deepest nesting.
        json_nodes: Most values in the body.
        method_chars: Longest method name.
        name_chars: Longest tool or prompt name or resource URI.
    """

    body_bytes: int = 1 << 20
    header_count: int = 100
    header_bytes: int = 32 << 10
    json_depth: int = MAX_JSON_DEPTH
    json_nodes: int = MAX_JSON_NODES
    method_chars: int = 128
    name_chars: int = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One well-formed request or notification.

    Attributes:
        kind: Request or notification.
        request_id: The JSON-RPC id; None for a notification.
        method: The MCP method.
        name: Tool or prompt name, or resource URI, for the methods that carry one.
        arguments: JSON text of ``params.arguments`` exactly as received; None if there is none.
        protocol_version: The revision that header and body agree on.
        trace_id: W3C trace id, 32 hexadecimal digits, if the client sent a valid one.
        continues: It asks for a further page of a list (``params.cursor``).
    """

    kind: Kind
    request_id: RequestId | None
    method: str
    name: str | None
    arguments: str | None
    protocol_version: str
    trace_id: str | None
    continues: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A message that no policy gets to see, with what could be read of it.

    Attributes:
        reason: Why.
        code: JSON-RPC error code of the answer.
        status: HTTP status of the answer.
        text: One sentence for the client; holds no text of the message.
        data: Details that the specification asks for: the revisions that are spoken.
        request_id: The id, if it could be read.
        method: The method, if it could be read.
        name: The name, if it could be read.
        protocol_version: The revision of the header, if it is a name.
        trace_id: The trace id, if there is one.
    """

    reason: RefusalReason
    code: int
    status: int
    text: str
    data: Mapping[str, object] | None = None
    request_id: RequestId | None = None
    method: str | None = None
    name: str | None = None
    protocol_version: str | None = None
    trace_id: str | None = None


def parse_message(body: bytes, headers: RawHeaders, *, limits: MessageLimits | None = None) -> Message | Refusal:
    """Read one POST of the streamable HTTP transport.

    Args:
        body: The body's bytes as received.
        headers: The header lines as received.
        limits: Bounds; the defaults of `MessageLimits` if None.

    Returns:
        The message, or why it is refused. Nothing is raised, whatever the bytes are.

    Source: Model Context Protocol, revision 2026-07-28, Streamable HTTP, "Sending Messages" and "Server Validation".
    """
    reader = _Reader(body, limits or MessageLimits())
    try:
        return reader.read(headers)
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

    def __init__(self, body: bytes, limits: MessageLimits) -> None:
        self.body = body
        self.limits = limits
        self.headers = RoutingHeaders()
        self.request_id: RequestId | None = None
        self.method: str | None = None
        self.name: str | None = None
        self.trace_id: str | None = None
        self.requested = "unknown"

    def read(self, headers: RawHeaders) -> Message:
        limits = self.limits
        self.headers = read_headers(headers, max_count=limits.header_count, max_bytes=limits.header_bytes)
        self.trace_id = self.headers.trace_id
        envelope = self._read_envelope()
        kind, method = self._read_call(envelope)
        params, meta = self._read_params(envelope)
        version = self._check_version(kind, params, meta)
        self._check_method(kind, method)
        self._check_name(kind, method, params)
        return Message(
            kind=kind,
            request_id=self.request_id,
            method=method,
            name=self.name,
            arguments=self._arguments(params),
            protocol_version=version,
            trace_id=self.trace_id,
            continues="cursor" in params,
        )

    def refusal(self, refused: RefusedError) -> Refusal:
        version = self.headers.protocol_version
        unsupported = refused.reason is RefusalReason.UNSUPPORTED_PROTOCOL
        return Refusal(
            reason=refused.reason,
            code=refused.code,
            status=refused.status,
            text=refused.text,
            data={"supported": list(PROTOCOL_VERSIONS), "requested": self.requested} if unsupported else None,
            request_id=self.request_id,
            method=self.method,
            name=self.name,
            protocol_version=version if version is not None and _REVISION.fullmatch(version) else None,
            trace_id=self.trace_id,
        )

    def _read_envelope(self) -> dict[str, JSONValue]:
        if len(self.body) > self.limits.body_bytes:
            raise RefusedError(RefusalReason.OVERSIZE, f"The body has more than {self.limits.body_bytes} bytes")
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

    def _read_call(self, envelope: Mapping[str, JSONValue]) -> tuple[Kind, str]:
        kind = Kind.REQUEST if "id" in envelope else Kind.NOTIFICATION
        answers = "result" in envelope or "error" in envelope
        if answers and "method" not in envelope:
            raise RefusedError(RefusalReason.NOT_A_REQUEST)
        if kind is Kind.REQUEST:
            self.request_id = _request_id(envelope["id"])
        method = envelope.get("method")
        if answers or envelope.get("jsonrpc") != "2.0" or not isinstance(method, str):
            raise RefusedError(RefusalReason.MALFORMED)
        if not 0 < len(method) <= self.limits.method_chars:
            raise RefusedError(RefusalReason.MALFORMED, "The method is not a name")
        self.method = method
        return kind, method

    def _read_params(self, envelope: Mapping[str, JSONValue]) -> tuple[dict[str, JSONValue], dict[str, JSONValue]]:
        params = envelope.get("params", {})
        meta = params.get("_meta", {}) if isinstance(params, dict) else None
        if not isinstance(params, dict) or not isinstance(meta, dict):
            raise _bad_params("params and params._meta must be objects")
        refuse_lookalikes(params, _PARAMS)
        refuse_lookalikes(meta, _META)
        self.trace_id = self.trace_id or read_trace_id(meta.get("traceparent"))
        return params, meta

    def _check_version(self, kind: Kind, params: Mapping[str, JSONValue], meta: Mapping[str, JSONValue]) -> str:
        header, body = self.headers.protocol_version, meta.get(_VERSION_KEY)
        offered = params.get("protocolVersion") if header is None else header  # `initialize` carries it in the body
        if isinstance(offered, str) and _REVISION.fullmatch(offered):
            self.requested = offered
        if header is None and body is None:
            raise RefusedError(RefusalReason.UNSUPPORTED_PROTOCOL)
        if header is None or (body is not None and body != header):
            raise _mismatch("MCP-Protocol-Version")
        if header not in PROTOCOL_VERSIONS:
            raise RefusedError(RefusalReason.UNSUPPORTED_PROTOCOL)
        if body is None and kind is Kind.REQUEST:
            raise _bad_params(f"params._meta lacks {_VERSION_KEY}")
        return header

    # INVARIANT: the call that the headers name is the call that the body makes; a header that is demanded and missing
    # is a mismatch. For notifications only the version is demanded, but a wrong header is refused there as well.

    def _check_method(self, kind: Kind, method: str) -> None:
        mirrored = self.headers.method
        if mirrored != method and not (mirrored is None and kind is Kind.NOTIFICATION):
            raise _mismatch("Mcp-Method")

    def _check_name(self, kind: Kind, method: str, params: Mapping[str, JSONValue]) -> None:
        member, mirrored = NAMED_METHODS.get(method), self.headers.name
        if member is None:
            if mirrored is not None:
                raise _mismatch("Mcp-Name")
            return
        name = params.get(member)
        if not isinstance(name, str) or not 0 < len(name) <= self.limits.name_chars:
            raise _bad_params(f"params.{member} is not a name")
        self.name = name
        if not params.keys() <= {member, *_JUDGED}:
            raise _bad_params("params has a member that no policy gets to see")
        if mirrored is None and kind is Kind.NOTIFICATION:
            return
        if mirrored is None or decode_sentinel(mirrored) != name:
            raise _mismatch("Mcp-Name")

    def _arguments(self, params: Mapping[str, JSONValue]) -> str | None:
        # INVARIANT: the text that policies judge is the text that the server receives: a slice, not a re-encoding.
        if "arguments" not in params:
            return None
        if not isinstance(params["arguments"], dict):
            raise _bad_params("params.arguments is not an object")
        try:
            return object_members(object_members(self.body.decode())["params"])["arguments"]
        except (MalformedError, UnicodeDecodeError) as error:  # two readers of one text: should they ever differ …
            raise _not_json() from error


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
