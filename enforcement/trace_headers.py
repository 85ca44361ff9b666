"""The trace context that goes on to a server in the headers of a request.

Pure. The body stays what was received and decided: a ``traceparent`` in ``params._meta`` goes on as it was written. Of
the headers, the gateway's own stand in the place of the client's, so that the server finds the gateway between.

Source: W3C Trace Context, section 3.4 (a participant puts its own parent id); OpenTelemetry semantic conventions for
    MCP, "Context propagation" (a server links what the transport says to what the message says).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enforcement.mcp_headers import RawHeaders
from enforcement.verdicts import Permitted

__all__ = ["onward_lines", "trace_headers"]

_TRACING: Final = (b"traceparent", b"tracestate")
_NONE: Final[Mapping[str, str]] = {}


def trace_headers(permitted: Permitted) -> Mapping[str, str]:
    """Return the gateway's own trace headers for a permitted message; none where it traces nothing."""
    return _NONE if permitted.trace is None else permitted.trace.headers


def onward_lines(permitted: Permitted, lines: RawHeaders) -> RawHeaders:
    """Return the client's header lines without those that the gateway's own stand in for.

    Args:
        permitted: The message.
        lines: Its header lines.
    """
    if not trace_headers(permitted):
        return lines
    return [line for line in lines if line[0].lower() not in _TRACING]
