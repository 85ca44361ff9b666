"""What a message says, once it has been read: the values that `enforcement.mcp` makes of bytes.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from enforcement.json_slices import MAX_JSON_NODES
from enforcement.refusals import RefusalReason, RequestId
from enforcement.revisions import Direction, Era
from enforcement.trace_context import TraceContext
from ledger.canonical import MAX_JSON_DEPTH

__all__ = ["Kind", "Message", "MessageLimits", "Refusal", "Round"]


class Kind(StrEnum):
    """What may be sent."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"


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
class Round:
    """What makes a call a further round of one that was made before.

    Attributes:
        state: ``params.requestState``; None if there is none.
        answers: How many answers ``params.inputResponses`` has; None if it is not there.
    """

    state: str | None
    answers: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One well-formed message.

    Attributes:
        kind: Request, notification, or response to a request of the other side.
        request_id: The JSON-RPC id; None for a notification.
        method: The MCP method; empty for a response, which names none.
        name: Tool or prompt name, or resource URI, for the methods that carry one.
        arguments: JSON text of ``params.arguments`` exactly as received; None if there is none. Of a server's request,
            and of completions, subscriptions, tasks and the like, it is the text of ``params`` as a whole: there is
            nothing else by which to judge them.
        protocol_version: The revision that header and body agree on; of ``initialize``, the one that is offered.
        trace: Where in a trace it was sent, if its sender says so in a valid way.
        continues: It asks for a further page of a list (``params.cursor``).
        direction: Who sent it.
        era: The era of its revision.
        cancels: For ``notifications/cancelled``, the id of the request that is withdrawn, if it names one.
        failed: For a response, that it is an error.
        round: What makes it a further round of an earlier call; None for a first one.
    """

    kind: Kind
    request_id: RequestId | None
    method: str
    name: str | None
    arguments: str | None
    protocol_version: str
    trace: TraceContext | None = None
    continues: bool = False
    direction: Direction = "client"
    era: Era = "stateless"
    cancels: RequestId | None = None
    failed: bool = False
    round: Round | None = None


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
        trace: Where in a trace it was sent, if that could be read.
        direction: Who sent it.
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
    trace: TraceContext | None = None
    direction: Direction = "client"
