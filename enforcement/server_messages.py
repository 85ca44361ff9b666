"""What a server sends inside a stream: its answers, notifications, and requests of its own.

Pure. A request is read as strictly as a client's, for a policy judges it. Of a notification no more is read than which
one it is, and an answer is read by `enforcement.answers`: nothing is decided by what they say, and servers that send,
say, half of a surrogate pair in a text must not break.

Source: JSON-RPC 2.0 sections 4 and 5; Model Context Protocol, revision 2025-11-25, Transports, "Listening for Messages
from the Server".
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

import msgspec

from enforcement.json_slices import object_members
from enforcement.mcp import read_json_message, refuse_lookalikes
from enforcement.messages import Kind, Message, MessageLimits, Refusal
from enforcement.refusals import RefusalReason, RefusedError, RequestId
from enforcement.revisions import era_of
from ledger.canonical import MAX_SAFE_INTEGER
from ledger.errors import MalformedError

__all__ = ["ServerLine", "read_server_message", "refusal_to_server", "sketch"]

_ENVELOPE: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_MAX_NAME_CHARS: Final = 256


class ServerLine(msgspec.Struct, frozen=True):
    """Which message a server sent.

    Attributes:
        kind: What it is.
        method: Its method; empty for an answer.
        request_id: Its id; None for a notification, and for an answer to a request that could not be read.
        cancels: For ``notifications/cancelled``, the id of the server's request that is withdrawn.
    """

    kind: Kind
    method: str = ""
    request_id: RequestId | None = None
    cancels: RequestId | None = None


def sketch(data: bytes) -> ServerLine:
    """Return which message a server sent, without reading what it says.

    Args:
        data: One JSON-RPC message, UTF-8.

    Raises:
        MalformedError: It is none, or two readers could take it for two.
    """
    try:
        members = object_members(data.decode())
    except UnicodeDecodeError as error:
        raise MalformedError("a server's message is not UTF-8") from error
    refuse_lookalikes(members, _ENVELOPE)
    if _value(members.get("jsonrpc")) != "2.0":
        raise MalformedError("a server's message is not JSON-RPC 2.0")
    request_id = _id(members["id"]) if "id" in members else None
    if "method" not in members:
        if ("result" in members) == ("error" in members):
            raise MalformedError("an answer has either a result or an error")
        return ServerLine(Kind.RESPONSE, request_id=request_id)
    method = _value(members["method"])
    if not isinstance(method, str) or not 0 < len(method) <= _MAX_NAME_CHARS or {"result", "error"} & members.keys():
        raise MalformedError("a server's message is neither request, notification nor answer")
    if "id" not in members:
        return ServerLine(Kind.NOTIFICATION, method, cancels=_withdrawn(method, members.get("params")))
    if request_id is None:
        raise MalformedError("a request has no id")
    return ServerLine(Kind.REQUEST, method, request_id)


def read_server_message(
    data: bytes, *, limits: MessageLimits, revisions: Collection[str], negotiated: str
) -> Message | Refusal:
    """Read a server's request or notification as a message that is judged.

    Args:
        data: One JSON-RPC message, UTF-8.
        limits: Bounds.
        revisions: The revisions that are spoken.
        negotiated: The revision of the stream that it stands in.

    Returns:
        The message, or why it is refused. Nothing is raised, whatever the bytes are.
    """
    try:
        line = sketch(data)
    except MalformedError as error:
        reason = error.reason if isinstance(error, RefusedError) else RefusalReason.MALFORMED
        refused = RefusedError(reason)
        return Refusal(reason=reason, code=refused.code, status=refused.status, text=refused.text, direction="server")
    if line.kind is not Kind.NOTIFICATION:
        return read_json_message(data, limits=limits, direction="server", revisions=revisions, negotiated=negotiated)
    return Message(
        kind=Kind.NOTIFICATION,
        request_id=None,
        method=line.method,
        name=None,
        arguments=None,
        protocol_version=negotiated,
        direction="server",
        era=era_of(negotiated),
    )


def refusal_to_server(request_id: RequestId, code: int, text: str) -> bytes:
    """Return the JSON-RPC error with which the gateway answers a server's request in the client's place.

    It says no more than that: what a policy holds against a request is the operator's affair.
    """
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": text}})


def _value(text: str | None) -> object:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError("a server's message is not JSON") from error


def _id(text: str) -> RequestId | None:
    value = _value(text)
    if value is None or (isinstance(value, str) and len(value) <= _MAX_NAME_CHARS):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_SAFE_INTEGER:
        return value
    raise MalformedError("an id is neither a string nor an integer")


def _withdrawn(method: str, params: str | None) -> RequestId | None:
    if method != "notifications/cancelled" or params is None:
        return None
    members = object_members(params)
    return _id(members["requestId"]) if "requestId" in members else None
