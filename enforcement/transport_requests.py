"""The two requests of the stateful revisions that carry no message: opening a stream, and ending a session.

Pure. A policy judges them like messages, under actions of their own that no message can bear (`enforcement.mcp`)::

    GET /servers/finance/mcp                  transport/listen
    Mcp-Session-Id: …
    Last-Event-ID: …

    DELETE /servers/finance/mcp               transport/terminate
    Mcp-Session-Id: …

Source: Model Context Protocol, revision 2025-11-25, Transports, "Listening for Messages from the Server", "Resumability
and Redelivery" and "Session Management".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from enforcement.mcp_headers import RawHeaders, RoutingHeaders, read_headers
from enforcement.messages import Kind, Message, MessageLimits, Refusal
from enforcement.refusals import RefusalReason, RefusedError
from enforcement.revisions import ASSUMED_REVISION, STATELESS

__all__ = ["LISTEN", "TERMINATE", "read_transport_request"]

LISTEN: Final = "transport/listen"
TERMINATE: Final = "transport/terminate"


def read_transport_request(
    action: str,
    lines: RawHeaders,
    *,
    limits: MessageLimits,
    revisions: Collection[str],
    negotiated: str | None,
) -> Message | Refusal:
    """Read a GET or DELETE.

    Args:
        action: `LISTEN` or `TERMINATE`.
        lines: The header lines as received.
        limits: Bounds.
        revisions: The revisions that are spoken.
        negotiated: The revision that the session has agreed on; None if it belongs to none.

    Returns:
        What is judged, or why it is refused. Nothing is raised.
    """
    try:
        headers = read_headers(lines, max_count=limits.header_count, max_bytes=limits.header_bytes)
        version = _version(headers, revisions, negotiated)
    except RefusedError as refused:
        unsupported = refused.reason is RefusalReason.UNSUPPORTED_PROTOCOL
        return Refusal(
            reason=refused.reason,
            code=refused.code,
            status=refused.status,
            text=refused.text,
            data={"supported": sorted(revisions)} if unsupported else None,
            method=action,
        )
    return Message(
        kind=Kind.NOTIFICATION,
        request_id=None,
        method=action,
        name=None,
        arguments=None,
        protocol_version=version,
        trace=headers.trace,
        era="stateful",
    )


def _version(headers: RoutingHeaders, revisions: Collection[str], negotiated: str | None) -> str:
    if headers.method is not None or headers.name is not None:
        raise RefusedError(RefusalReason.HEADER_MISMATCH, "A request without a body calls nothing")
    version = headers.protocol_version or negotiated or ASSUMED_REVISION
    if negotiated is not None and version != negotiated:
        raise RefusedError(RefusalReason.HEADER_MISMATCH)
    if version not in revisions or version in STATELESS:
        raise RefusedError(RefusalReason.UNSUPPORTED_PROTOCOL)
    return version
