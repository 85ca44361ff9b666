"""W3C trace context as it comes with a message: ``traceparent`` and ``tracestate``.

Pure. It comes in the headers of an HTTP request, or in ``params._meta`` of the message. Where both are there, what the
message says of itself holds: one HTTP request can bring several messages, and one message can go by several requests.

A context looks so::

    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE

Source: W3C Trace Context, sections 3.2 and 3.3; Model Context Protocol SEP-414; OpenTelemetry semantic conventions for
    MCP, "Context propagation".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["TraceContext", "read_trace_context"]

_NO_TRACE: Final = "0" * 32
_NO_PARENT: Final = "0" * 16
_MAX_STATE_CHARS: Final = 512
_PARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<rest>-[!-~]*)?"
)
_STATE: Final = re.compile(r"[\x20-\x7e\t]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """Where in a trace a message was sent.

    Attributes:
        trace_id: 32 hexadecimal digits.
        traceparent: The whole value, as it came.
        tracestate: The whole value, as it came; None if there is none, or it is not sound.
    """

    trace_id: str
    traceparent: str
    tracestate: str | None = None


def read_trace_context(traceparent: object, tracestate: object = None) -> TraceContext | None:
    """Return the context that two values say, or None if ``traceparent`` is not a valid one.

    Args:
        traceparent: Of whatever type a message has in its place.
        tracestate: Likewise; one that is not sound is left out.
    """
    match = _PARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    if match is None or match["version"] == "ff" or match["trace"] == _NO_TRACE or match["parent"] == _NO_PARENT:
        return None
    if match["version"] == "00" and match["rest"]:
        return None
    sound = isinstance(tracestate, str) and len(tracestate) <= _MAX_STATE_CHARS and _STATE.fullmatch(tracestate)
    return TraceContext(
        trace_id=match["trace"],
        traceparent=match.group(),
        tracestate=tracestate if sound and isinstance(tracestate, str) else None,
    )
