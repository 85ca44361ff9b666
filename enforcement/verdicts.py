"""What a transport hands to the enforcement point and gets back, and what a client is told of a denial.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from enforcement.config import ServerSettings
from enforcement.config_types import Tell
from enforcement.identity import Identity
from enforcement.mcp import Kind, Message, Refusal
from enforcement.mcp_headers import RawHeaders
from enforcement.refusals import ErrorCode, Reply, RequestId, error_reply
from enforcement.revisions import Direction
from enforcement.tls_peer import TLSPeer
from ledger import body_fields
from policies.model import Decision, DecisionRequest, Obligation
from policies.signals import Signals

__all__ = [
    "INPUT_REQUIRED",
    "RESULT_OBLIGATIONS",
    "CallTrace",
    "Completion",
    "Denial",
    "Denied",
    "Dialogue",
    "Inbound",
    "OutcomeStatus",
    "Permitted",
    "Transport",
    "Verdict",
    "Waiting",
    "Withdrawable",
    "denial_reply",
    "enforcement_of",
]

OutcomeStatus: TypeAlias = Literal["completed", "failed", "cancelled", "not_forwarded"]
Transport: TypeAlias = Literal["http", "asgi", "stdio", "sdk"]

INPUT_REQUIRED: Final = "input_required"
"""Reason of the outcome of a call whose server asks for more: it is not done yet."""

_OK: Final = 200
_FORBIDDEN: Final = 403
_UNAVAILABLE: Final = (
    503,
    ErrorCode.UNAVAILABLE,
    "The call cannot be judged or recorded now",
    (("Retry-After", "1"),),
)
_BY_REASON: Final[Mapping[str, tuple[int, int, str, tuple[tuple[str, str], ...]]]] = {
    "unauthenticated": (
        401,
        ErrorCode.UNAUTHENTICATED,
        "A valid bearer token is needed",
        (),
    ),
    "insufficient_scope": (403, ErrorCode.DENIED, "The access token lacks a scope that is needed here", ()),
    "unknown_round": (400, ErrorCode.INVALID_PARAMS, "The requestState was not given for this call, or was used", ()),
    "batch": (400, ErrorCode.INVALID_REQUEST, "A session does not begin in a batch", ()),
    "unknown_session": (404, ErrorCode.DENIED, "There is no such session; begin another one", ()),
    "unknown_event": (400, ErrorCode.DENIED, "No such event was sent in this session", ()),
    "unknown_response": (400, ErrorCode.DENIED, "No request waits for this response", ()),
    "origin_not_allowed": (403, ErrorCode.DENIED, "Calls from this origin are not accepted", ()),
    "unknown_server": (404, ErrorCode.DENIED, "There is no server of this name", ()),
    "overloaded": _UNAVAILABLE,
    "restrictions_stale": _UNAVAILABLE,
    "rounds_unavailable": _UNAVAILABLE,
    "ledger_unavailable": _UNAVAILABLE,
    "ledger_disputed": _UNAVAILABLE,
    "spool_full": _UNAVAILABLE,
    "spool_overdue": _UNAVAILABLE,
    "internal_error": _UNAVAILABLE,
    "signals_unavailable": _UNAVAILABLE,
}


_DENIALS: Final[Mapping[str, str]] = {
    "session_ended": "The session has been ended; an operator must release it",
    "contained": "Stopped by a responder",
    "approval_denied": "A person has denied this call",
    "approval_expired": "Nobody has approved this call in time",
    "tool_changed": "The tool is another one than the one that was approved",
}


class Dialogue(Protocol):
    """What a session of a stateful revision knows of requests that are under way; see `enforcement.conversation`."""

    def awaits(self, request_id: RequestId) -> bool:
        """Whether the server waits for the client's answer to this request of its own."""
        ...

    def take(self, request_id: RequestId) -> Permitted:
        """Return that request, once: from here on nothing waits for its answer."""
        ...

    def in_flight(self, request_id: RequestId) -> bool:
        """Whether a call of the client's under this id is under way."""
        ...

    def has_sent(self, event_id: str) -> bool:
        """Whether an event of this id was passed on to the client."""
        ...


class Withdrawable(Protocol):
    """A call that is held, as its transport sees it; see `enforcement.approvals.Held`."""

    def withdraw(self, reason: str) -> None:
        """Note that nobody waits for it any more; it is not forwarded from here on, whoever agrees."""
        ...


class Waiting(Protocol):
    """A client that can wait while its call is held; see `enforcement.waiting`."""

    def began(self, request_id: RequestId, held: Withdrawable) -> None:
        """Note that its call is held."""
        ...

    def ended(self, request_id: RequestId, held: Withdrawable) -> None:
        """Note that it is held no more."""
        ...

    async def tell(self, token: int | str | None, count: int) -> None:
        """Say that its call waits, for the ``count``-th time; under a token if it wants to hear of progress."""
        ...

    async def gone(self) -> str:
        """Return once it has gone away, with the reason that is recorded."""
        ...


class CallTrace(Protocol):
    """The spans of one message, where calls are traced; see `enforcement.call_spans`. None of it raises or waits."""

    @property
    def trace_id(self) -> str | None:
        """The trace, 32 hexadecimal digits; None as long as it is not known."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What tells the server that the call is a part of the trace."""
        ...

    def read(self, parsed: Message | Refusal | None) -> None:
        """Note what the message says."""
        ...

    def completed(self, completion: Completion) -> None:
        """Note what became of the permitted call."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """One message as a transport received it.

    Attributes:
        server: The server that the path names.
        body: Body bytes; of a body that is too long, what was read of it.
        headers: Header lines.
        peer: Address of the socket's other end; None if it has none.
        identity: Who sent it, as the transport found out or its configuration says, never as the client does; None
            for a stranger.
        tls: What the connection says of its other end; None without TLS.
        transport: How it arrived.
        parsed: What the transport has read of the body already, or why it refuses the message; None if it is yet to be
            read.
        continues: Record id of the first decision of the call that the message is a part of, if the transport knows it.
        complete: The whole body arrived in time.
        overloaded: As many calls are under way as may be.
        direction: Who sent it; a server's message is about the client whose ``identity`` it is that gets it.
        action: For a request that carries no message, what it does; see `enforcement.transport_requests`.
        negotiated: The revision that its session, or the stream that it stands in, has agreed on; None if there is
            none.
        dialogue: Its session, or what of one there is without a name; None in the stateless era.
        batched: It came with others, in one body.
        unknown_session: It names a session that is not there, or not its principal's.
        waiting: Its client, if that can wait for people; what needs their approval is denied otherwise.
    """

    server: str
    body: bytes
    headers: RawHeaders
    peer: str | None
    identity: Identity | None = None
    tls: TLSPeer | None = None
    transport: Transport = "http"
    parsed: Message | Refusal | None = None
    continues: str | None = None
    complete: bool = True
    overloaded: bool = False
    direction: Direction = "client"
    action: str | None = None
    negotiated: str | None = None
    dialogue: Dialogue | None = None
    batched: bool = False
    unknown_session: bool = False
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """The message goes no further; this is the answer.

    Attributes:
        reply: The answer.
        withdrawn: The client has withdrawn its request: where a transport can, it gets no answer.
    """

    reply: Reply
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Permitted:
    """The message may go upstream, once; whatever becomes of it is reported with `Completion`.

    Attributes:
        decision_id: Record id of the decision.
        message: The message.
        server: Where it goes.
        session: Pseudonym of the session.
        user: Pseudonym of the user.
        strict: The outcome must be in the ledger before the result is released.
        request: What the policy was asked; None if none was.
        inbound: The message as the transport received it.
        continues: Record id of the first decision of its call; None if this is it.
        rewritten: What goes to the server; None if it is the body as it was received.
        trace: Its spans, where calls are traced.
        obligations: What the policy asks for about its result.
    """

    decision_id: str
    message: Message
    server: ServerSettings
    session: str
    user: str | None
    strict: bool
    request: DecisionRequest | None = None
    inbound: Inbound | None = None
    continues: str | None = None
    rewritten: bytes | None = None
    trace: CallTrace | None = None
    obligations: frozenset[str] = frozenset()


Verdict: TypeAlias = Denied | Permitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What became of a permitted call.

    Attributes:
        status: As in the outcome record.
        reason: Why it failed, was cancelled or not forwarded.
        latency_us: From forwarding to the last byte of the answer, microseconds.
        http_status: The server's HTTP status.
        tls_group: Key agreement of the connection to the server; None without TLS.
        answer: The answer's bytes as received.
        result: The bytes of its ``result`` member.
        error_code: Its JSON-RPC error code.
        tool_error: The tool reported an error of its own.
        hidden: Entries of a list that the client does not get, or on an observed server would not.
        messages: For a server's notifications, how many passed under the one decision.
        signals: What inspection found in the answer; None if it was not inspected.
        redacted: Places of the answer that the client got otherwise than the server sent them.
    """

    status: OutcomeStatus
    reason: str | None = None
    latency_us: int = 0
    http_status: int | None = None
    tls_group: str | None = None
    answer: bytes | None = None
    result: bytes | None = None
    error_code: int | None = None
    tool_error: bool = False
    hidden: int = 0
    messages: int = 0
    signals: Signals | None = None
    redacted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why a message goes no further.

    Attributes:
        reason: Machine-readable cause, as in the decision record.
        enforcement: ``deny``, ``ask`` or ``kill``.
        decision_id: Record id of the decision; None if it could not be recorded.
        rule: The rule that stood against it.
        refusal: For a message that could not be read, how.
        drift: What of the call lies outside its tool's description; see `policies.boundaries`.
        challenge: What would be needed instead of the credential that was presented, as ``WWW-Authenticate`` says it.
        needs: What the policy says would be needed.
        tell: How much of that the caller learns.
        restriction: Id of what stands against it, whatever a policy says.
        until_ms: When that ends by itself, POSIX milliseconds.
    """

    reason: str
    enforcement: str
    decision_id: str | None
    rule: str | None = None
    refusal: Refusal | None = None
    drift: tuple[str, ...] = ()
    challenge: str | None = None
    needs: tuple[str, ...] = ()
    tell: Tell = "full"
    restriction: str | None = None
    until_ms: int | None = None


def denial_reply(message: Message | None, denial: Denial) -> Reply:
    """Return the answer to a message that is denied.

    A denied request is answered with status 200: it is JSON-RPC that failed, not HTTP, and a client that takes 401 or
    403 for a call to log in again must not. A notification has no JSON-RPC answer, so that HTTP has to say no.
    """
    data = _told(denial)
    refusal = denial.refusal
    if refusal is not None:
        return error_reply(
            refusal.request_id,
            status=refusal.status,
            code=refusal.code,
            text=refusal.text,
            data={**data, **(refusal.data or {})},
        )
    request_id = message.request_id if message is not None and message.kind is Kind.REQUEST else None
    status, code, text, headers = _wording(denial, request_id)
    if denial.challenge is not None:
        headers = (*headers, ("WWW-Authenticate", denial.challenge))
    return error_reply(request_id, status=status, code=code, text=text, data=data, headers=headers)


def _told(denial: Denial) -> dict[str, object]:
    """Return what a caller learns of a denial: as much as its server is set to tell."""
    if denial.tell == "nothing" and denial.reason not in _BY_REASON:
        return {"reason": "denied", "decision_id": denial.decision_id}
    data: dict[str, object] = {
        "reason": denial.reason,
        "enforcement": denial.enforcement,
        "decision_id": denial.decision_id,
    }
    if denial.tell == "full":
        rule = {} if denial.rule is None else {"rule": denial.rule}
        lists = {"drift": list(denial.drift), "needs": list(denial.needs)}
        data |= rule | {name: names for name, names in lists.items() if names}
    stands = {"restriction": denial.restriction, "until_ms": denial.until_ms}
    return data | {name: value for name, value in stands.items() if value is not None}


def _wording(denial: Denial, request_id: RequestId | None) -> tuple[int, int, str, tuple[tuple[str, str], ...]]:
    known = _BY_REASON.get(denial.reason)
    if known is not None:
        return known
    status = _OK if request_id is not None else _FORBIDDEN
    if denial.tell == "nothing":
        return status, ErrorCode.DENIED, "Denied by policy", ()
    if denial.enforcement == "ask":
        return status, ErrorCode.APPROVAL_REQUIRED, "A person must approve this call", ()
    reason = "session_ended" if denial.enforcement == "kill" else denial.reason
    return status, ErrorCode.DENIED, _DENIALS.get(reason, "Denied by policy"), ()


RESULT_OBLIGATIONS: Final = frozenset({Obligation.REDACT_RESULT, Obligation.BLOCK_RESULT})
"""What is to be done about a call's result, where the enforcement point looks through results."""


def enforcement_of(
    decision: Decision, *, fulfils: frozenset[Obligation] = frozenset()
) -> tuple[body_fields.Enforcement, str]:
    """Return what must be done about a policy's answer, and the reason that is recorded.

    An obligation that this enforcement point cannot fulfil turns a permit into a denial.

    Args:
        decision: The answer.
        fulfils: What can be done about this call's result.
    """
    obligations = set(decision.obligations)
    if Obligation.END_SESSION in obligations:
        return "kill", decision.reason
    if not decision.permitted:
        return "deny", decision.reason
    if not obligations <= {Obligation.APPROVAL, *fulfils}:
        return "deny", "unknown_obligation"
    return ("ask" if Obligation.APPROVAL in obligations else "allow"), decision.reason
