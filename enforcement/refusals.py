"""How the gateway says no on the wire: reasons, JSON-RPC error codes, HTTP statuses.

Pure. Why a *policy* said no is decided in `enforcement.pep`; here is what a client is told, and nothing in it repeats
text of the message that is refused.

A denial as the client gets it (line breaks are ours)::

    HTTP/1.1 200 OK
    Content-Type: application/json

    {"jsonrpc":"2.0","id":7,"error":{"code":-32010,"message":"Denied by policy",
     "data":{"decision_id":"0199…","enforcement":"deny","reason":"policy","rule":"refund-limit"}}}

Source: JSON-RPC 2.0 section 5.1; Model Context Protocol, revision 2026-07-28, "Error Codes" (-32000 to -32019 are free
for implementations; -32020 and below belong to the specification).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from ledger.errors import MalformedError

__all__ = ["ErrorCode", "RefusalReason", "RefusedError", "Reply", "RequestId", "error_reply"]

RequestId: TypeAlias = int | str
"""A JSON-RPC request id."""


class ErrorCode:
    """JSON-RPC error codes: the standard's, the MCP specification's, and ours."""

    PARSE_ERROR: Final = -32700
    INVALID_REQUEST: Final = -32600
    INVALID_PARAMS: Final = -32602
    INTERNAL_ERROR: Final = -32603
    HEADER_MISMATCH: Final = -32020
    UNSUPPORTED_PROTOCOL: Final = -32022
    DENIED: Final = -32010
    APPROVAL_REQUIRED: Final = -32011
    UNAVAILABLE: Final = -32012
    UNAUTHENTICATED: Final = -32013
    UPSTREAM_FAILED: Final = -32014
    RESULT_WITHHELD: Final = -32015


class RefusalReason(StrEnum):
    """Why a message is refused before any policy sees it; the ``reason`` of its decision record."""

    MALFORMED = "malformed"
    DUPLICATE_KEY = "duplicate_key"
    AMBIGUOUS_KEY = "ambiguous_key"
    DUPLICATE_HEADER = "duplicate_header"
    HEADER_MISMATCH = "header_mismatch"
    BATCH = "batch"
    NOT_A_REQUEST = "not_a_request"
    UNSUPPORTED_PROTOCOL = "unsupported_protocol"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    OVERSIZE = "oversize"
    INCOMPLETE = "incomplete"


_DEFAULTS: Final[Mapping[RefusalReason, tuple[int, int, str]]] = {
    RefusalReason.MALFORMED: (ErrorCode.INVALID_REQUEST, 400, "Not a JSON-RPC 2.0 request or notification"),
    RefusalReason.DUPLICATE_KEY: (ErrorCode.PARSE_ERROR, 400, "A JSON object has the same name twice"),
    RefusalReason.AMBIGUOUS_KEY: (ErrorCode.INVALID_REQUEST, 400, "JSON names differ in letter case alone"),
    RefusalReason.DUPLICATE_HEADER: (ErrorCode.HEADER_MISMATCH, 400, "A header occurs twice"),
    RefusalReason.HEADER_MISMATCH: (ErrorCode.HEADER_MISMATCH, 400, "A header does not match the body"),
    RefusalReason.BATCH: (ErrorCode.INVALID_REQUEST, 400, "Batches are not part of this protocol"),
    RefusalReason.NOT_A_REQUEST: (ErrorCode.INVALID_REQUEST, 400, "A client posts requests and notifications only"),
    RefusalReason.UNSUPPORTED_PROTOCOL: (ErrorCode.UNSUPPORTED_PROTOCOL, 400, "Unsupported protocol version"),
    RefusalReason.UNSUPPORTED_MEDIA_TYPE: (
        ErrorCode.INVALID_REQUEST,
        415,
        "The body must be application/json in UTF-8, without content encoding",
    ),
    RefusalReason.OVERSIZE: (ErrorCode.INVALID_REQUEST, 413, "The message is too large"),
    RefusalReason.INCOMPLETE: (ErrorCode.INVALID_REQUEST, 408, "The body did not arrive in time"),
}


class RefusedError(MalformedError):
    """A message that is refused; raised inside the readers of this room, turned into a value at their border.

    Attributes:
        reason: Why.
        text: One sentence for the client.
        code: JSON-RPC error code.
        status: HTTP status.
    """

    def __init__(
        self, reason: RefusalReason, text: str | None = None, *, code: int | None = None, status: int | None = None
    ) -> None:
        default_code, default_status, default_text = _DEFAULTS[reason]
        self.reason = reason
        self.text = text or default_text
        self.code = default_code if code is None else code
        self.status = default_status if status is None else status
        super().__init__(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer of the gateway's own.

    Attributes:
        status: HTTP status.
        body: JSON-RPC error object, UTF-8.
        headers: Header lines beside the content type.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def error_reply(
    request_id: RequestId | None,
    *,
    status: int,
    code: int,
    text: str,
    data: Mapping[str, object] | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """Return a JSON-RPC error as an HTTP answer.

    Args:
        request_id: The request's id; None (``"id":null``) for a notification or where it could not be read.
        status: HTTP status.
        code: JSON-RPC error code.
        text: One sentence.
        data: Machine-readable details: reason, decision id, rule.
        headers: Header lines beside the content type.
    """
    error: dict[str, object] = {"code": code, "message": text}
    if data:
        error["data"] = dict(data)
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": error})
    return Reply(status=status, body=body, headers=headers)
