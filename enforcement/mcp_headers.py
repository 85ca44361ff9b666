"""The headers of one POST that mirror its body, read from the raw lines.

Pure. What the body says, and whether it says the same, is `enforcement.mcp`'s part.

Lines are read raw because a folded mapping hides duplicates, and two readers of a duplicate (first wins, last wins)
would route and execute different calls. A hyphen and an underscore count as the same, since some servers cannot tell
them apart once a header has become a variable name.

Source: Model Context Protocol, revision 2026-07-28, Streamable HTTP, "Request Metadata" and "Value Encoding"; W3C Trace
Context section 3.2 (`enforcement.trace_context`).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from enforcement.refusals import RefusalReason, RefusedError
from enforcement.trace_context import TraceContext, read_trace_context

__all__ = ["RawHeaders", "RoutingHeaders", "decode_sentinel", "read_headers", "single_header"]

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Header lines as they arrived, in order."""

_SINGLE: Final = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-type",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "origin",
    }
)
_PARAM_PREFIX: Final = "mcp-param-"
_TRACING: Final = ("traceparent", "tracestate")
_VALUE: Final = re.compile(rb"[\x20-\x7e\t]*")
_SENTINEL: Final = re.compile(r"=\?base64\?(?P<payload>.*)\?=", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingHeaders:
    """The headers that matter to a gateway; None where one is absent.

    Attributes:
        protocol_version: ``MCP-Protocol-Version``.
        method: ``Mcp-Method``.
        name: ``Mcp-Name``, as sent.
        content_type: ``Content-Type``.
        content_encoding: ``Content-Encoding``.
        authorization: ``Authorization``; never shown in a representation.
        origin: ``Origin``, sent by browsers alone.
        trace: From ``traceparent`` and ``tracestate``.
    """

    protocol_version: str | None = None
    method: str | None = None
    name: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    authorization: str | None = field(default=None, repr=False)
    origin: str | None = None
    trace: TraceContext | None = None


def read_headers(lines: RawHeaders, *, max_count: int, max_bytes: int) -> RoutingHeaders:
    """Read the headers that mirror a message.

    Args:
        lines: Header lines as received.
        max_count: Most lines.
        max_bytes: Most bytes of names and values together.

    Raises:
        RefusedError: Too many or too large, one of them twice, or with characters that no header may have.
    """
    if len(lines) > max_count or sum(len(name) + len(value) for name, value in lines) > max_bytes:
        raise RefusedError(RefusalReason.OVERSIZE, "The headers are too large", status=431)
    found: dict[str, str] = {}
    traces: dict[str, list[str]] = {name: [] for name in _TRACING}
    for raw_name, raw_value in lines:
        name = raw_name.decode("latin-1").lower().replace("_", "-")
        if name in traces:
            traces[name].append(raw_value.decode("latin-1").strip(" \t"))
        if name not in _SINGLE and not name.startswith(_PARAM_PREFIX):
            continue
        if name in found:
            raise RefusedError(RefusalReason.DUPLICATE_HEADER)
        if not _VALUE.fullmatch(raw_value):
            raise RefusedError(RefusalReason.HEADER_MISMATCH, "A header value is not plain ASCII")
        found[name] = raw_value.decode("ascii").strip(" \t")
    return RoutingHeaders(
        protocol_version=found.get("mcp-protocol-version"),
        method=found.get("mcp-method"),
        name=found.get("mcp-name"),
        content_type=found.get("content-type"),
        content_encoding=found.get("content-encoding"),
        authorization=found.get("authorization"),
        origin=found.get("origin"),
        trace=_trace(**traces),
    )


def _trace(traceparent: Sequence[str], tracestate: Sequence[str]) -> TraceContext | None:
    # Two traceparent lines are none: tracing is restarted, the call goes on. Those of tracestate are one list.
    return read_trace_context(traceparent[0], ",".join(tracestate) or None) if len(traceparent) == 1 else None


def decode_sentinel(value: str) -> str | None:
    """Undo the Base64 sentinel ``=?base64?…?=`` of a header value.

    Returns:
        The text; the value itself if it carries no sentinel; None if the payload is not the one canonical spelling of
        some UTF-8 text, so that a corrupt header never matches a body by accident.
    """
    match = _SENTINEL.fullmatch(value)
    if match is None:
        return value
    payload = match["payload"]
    try:
        data = base64.b64decode(payload, validate=True)
        text = data.decode()
    except (binascii.Error, ValueError):
        return None
    return text if base64.b64encode(data).decode() == payload else None


def single_header(lines: RawHeaders, name: str) -> str | None:
    """Return a header's value if it occurs exactly once, else None: of two credentials neither counts."""
    values = [value for key, value in lines if key.lower() == name.encode()]
    return values[0].decode("latin-1").strip(" \t") if len(values) == 1 else None
