"""Access requests as they are sent, and tasks as they are told: the documents of the profile, and no deeds.

Pure. OpenID AuthZEN's draft of a profile for access requests and approvals; `service.access_requests` does what is
asked for here.

INVARIANT: what is presented with an approval is the evaluation that was approved: subject, action, resource and context
with its arguments are the same JSON values, and numbers are spelt the same, for 1.10 is not 1.1 to every tool. Only
what time alone changes may differ.

Source: draft-mcguinness-authzen-access-request, sections named at each rule.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from ledger.approvals import ApprovalState, HeldCall
from ledger.canonical import canonical_bytes, parse_json
from ledger.errors import MalformedError
from service.problems import Problem

__all__ = [
    "CAPABILITY",
    "Submission",
    "access_problem",
    "approval_of",
    "parse_note",
    "parse_submission",
    "said_besides",
    "same_evaluation",
    "stamp",
    "task_of",
    "within_evaluation",
]

CAPABILITY: Final = "urn:openid:authzen:capability:access-request"
"""What the metadata says that we can do; section "Discovery"."""

_PROBLEM: Final = "urn:openid:authzen:access-request:error:"
_PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "not_requestable": (400, "Access is not requestable"),
    "expired_denial": (410, "The denial has expired"),
    "invalid_denial_binding": (400, "Not bound to a denial"),
    "duplicate_request": (409, "Requested already"),
    "unknown_task": (404, "Unknown task"),
    "invalid_task_state": (409, "Not in this state"),
}
_APPROVAL: Final = "authzen_access_request_approval"
_VARIES: Final = frozenset({"time", "calls", "denied", "started_ms", "windows", "trace_id", _APPROVAL})
"""Members of the context that are another at another time; the policy is asked by what they are then."""
_STATUS: Final[Mapping[ApprovalState, str]] = {
    ApprovalState.WAITING: "pending",
    ApprovalState.GRANTED: "approved",
    ApprovalState.USED: "approved",
    ApprovalState.DENIED: "denied",
    ApprovalState.EXPIRED: "expired",
    ApprovalState.CANCELLED: "cancelled",
    ApprovalState.WITHHELD: "failed",
}


def access_problem(name: str, detail: str) -> Problem:
    """Return one of the profile's problems; section "Error Responses"."""
    status, title = _PROBLEMS[name]
    return Problem(status, name, title, detail, type=_PROBLEM + name)


# --- what is sent

_ABSENT: Final = msgspec.Raw(b"")


class _AccessRequest(msgspec.Struct, frozen=True):
    requestable: bool = False
    request_context: msgspec.Raw = _ABSENT


class _Denied(msgspec.Struct, frozen=True):
    decision: bool


class _Denial(msgspec.Struct, frozen=True):
    decision: _Denied
    access_request: _AccessRequest
    evaluation_id: str | None = None


class _Wanted(msgspec.Struct, frozen=True):
    requested_duration: str | None = None
    requested_until: str | None = None


class _Submission(msgspec.Struct, frozen=True):
    subject: msgspec.Raw
    action: msgspec.Raw = _ABSENT
    resource: msgspec.Raw = _ABSENT
    context: dict[str, msgspec.Raw] = {}
    denial: msgspec.Raw = _ABSENT
    requested_access: msgspec.Raw = _ABSENT
    client: msgspec.Raw = _ABSENT
    items: msgspec.Raw = _ABSENT
    callback: msgspec.Raw = _ABSENT


_SUBMISSION: Final = msgspec.json.Decoder(_Submission)
_DENIAL: Final = msgspec.json.Decoder(_Denial)
_WANTED: Final = msgspec.json.Decoder(_Wanted)


@dataclass(frozen=True, slots=True)
class Submission:
    """An access request as it was sent.

    Attributes:
        evaluation_id: Which denied evaluation it is about.
        body: All of it, whose four members say what is requested.
    """

    evaluation_id: str
    body: bytes


def parse_submission(body: bytes) -> Submission:
    """Read an access request; section "Access Request Submission".

    Raises:
        MalformedError: Not a submission of that form, or one that wants what is not done here.
        Problem: It is bound to no denial, or to one that is not requestable.
    """
    parse_json(body)
    try:
        sent = _SUBMISSION.decode(body)
        wanted = _WANTED.decode(sent.requested_access or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError("not an access request: it has subject, action, resource, context and denial") from error
    if sent.items:
        raise MalformedError("several items in one access request are not taken: send one for each")
    if sent.callback:
        raise MalformedError("there are no callbacks: ask for the task's status")
    if not sent.action or not sent.resource:
        raise MalformedError("an access request has an action and a resource")
    if wanted.requested_duration is not None and wanted.requested_until is not None:
        raise MalformedError("an access request asks for a duration or for an end, not for both")
    return Submission(_evaluation_of(sent.denial), body)


def _evaluation_of(said: msgspec.Raw) -> str:
    """Return which evaluation a denial is of, that says that it can be requested.

    Raises:
        Problem: It is no such denial.
    """
    if not said:
        raise access_problem("invalid_denial_binding", "the request names no denial")
    try:
        denial = _DENIAL.decode(said)
    except msgspec.MsgspecError as error:
        raise access_problem("invalid_denial_binding", "the denial has a decision and an access_request") from error
    if denial.decision.decision or not denial.access_request.requestable:
        raise access_problem("not_requestable", "only a denial with access_request.requestable is")
    if denial.access_request.request_context:
        raise access_problem("invalid_denial_binding", "no request_context was ever handed out here")
    if denial.evaluation_id is None:
        raise access_problem("invalid_denial_binding", "the denial names no evaluation_id")
    return denial.evaluation_id


def parse_note(body: bytes) -> bytes | None:
    """Read the body of a cancellation, which says why or is empty; section "Cancellation".

    Raises:
        MalformedError: It is neither.
    """
    if not body:
        return None
    if not isinstance(parse_json(body), dict):
        raise MalformedError("a cancellation's body is an object, with a reason and a comment")
    return body


# --- what it is about


class _Asked(msgspec.Struct, frozen=True):
    subject: msgspec.Raw
    action: msgspec.Raw
    resource: msgspec.Raw
    context: dict[str, msgspec.Raw] = {}

    @property
    def arguments(self) -> msgspec.Raw:
        return self.context.get("arguments", msgspec.Raw(b"{}"))

    @property
    def lasting(self) -> dict[str, bytes]:
        """Members of the context that are the same at another time; arguments that are not there are none."""
        return {"arguments": b"{}"} | {name: bytes(raw) for name, raw in self.context.items() if name not in _VARIES}


_ASKED: Final = msgspec.json.Decoder(_Asked)


@dataclass(frozen=True, slots=True)
class _Number:
    """A number as it was spelt, which is no text."""

    text: str


def _value(raw: bytes) -> object:
    return json.loads(raw, parse_int=_Number, parse_float=_Number)


def _agree(one: _Asked, other: _Asked) -> bool:
    """Return whether two questions contradict each other in nothing that both say."""
    pairs = [(bytes(getattr(one, name)), bytes(getattr(other, name))) for name in ("subject", "action", "resource")]
    before, now = one.lasting, other.lasting
    pairs += [(before[name], now[name]) for name in before.keys() & now.keys()]
    return all(_value(first) == _value(second) for first, second in pairs)


def within_evaluation(denied: bytes, sent: bytes) -> bool:
    """Return whether an access request contradicts nothing of what was evaluated.

    Its context may leave out what the evaluation said, for that is known, and may say more, such as a justification.

    Args:
        denied: What was evaluated and denied.
        sent: The access request.
    """
    try:
        one, other = _ASKED.decode(denied), _ASKED.decode(sent)
        if "arguments" not in other.context:
            other = msgspec.structs.replace(other, context={**other.context, "arguments": one.arguments})
        return _agree(one, other)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def same_evaluation(first: bytes, again: bytes) -> bool:
    """Return whether two bodies ask whether the same may be done.

    Args:
        first: What was evaluated and denied.
        again: What is asked now.
    """
    try:
        one, other = _ASKED.decode(first), _ASKED.decode(again)
        return one.lasting.keys() == other.lasting.keys() and _agree(one, other)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def said_besides(denied: bytes, sent: bytes) -> bytes | None:
    """Return what an access request says beyond the evaluation, canonical JSON: why, for how long; None if nothing.

    Args:
        denied: What was evaluated and denied.
        sent: The access request.

    Raises:
        MalformedError: It says a number that is none to everybody.
    """
    submission, evaluated = _SUBMISSION.decode(sent), _ASKED.decode(denied)
    context = {name: raw for name, raw in submission.context.items() if name not in {*evaluated.context, *_VARIES}}
    parts: dict[str, object] = {}
    if context:
        parts["context"] = {name: parse_json(bytes(raw)) for name, raw in context.items()}
    for name in ("requested_access", "client"):
        raw = getattr(submission, name)
        if raw:
            parts[name] = parse_json(bytes(raw))
    return canonical_bytes(parts) if parts else None


# --- what is told


def stamp(time_ms: int) -> str:
    """Return a time as RFC 3339 has it, with milliseconds."""
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def approval_of(call: HeldCall) -> dict[str, str]:
    """Return what an approval is told as; section "Re-evaluation Mode"."""
    until_ms = call.expires_ms if call.ended_ms is None else min(call.expires_ms, call.ended_ms)
    approved = {"approved_at": stamp(call.grants[-1].time_ms)} if call.grants else {}
    return {"id": call.approval_id, **approved, "approved_until": stamp(until_ms)}


def task_of(call: HeldCall, now_ms: int, endpoint: str) -> dict[str, object]:
    """Return the document of a task; sections "Access Request Response" and "Task Status Endpoint".

    Nobody who agreed is named in it, and no rule.

    Args:
        call: The held call.
        now_ms: The service's clock.
        endpoint: Address of the access request endpoint, as the caller reaches it.
    """
    state = call.state(now_ms)
    place = f"{endpoint}/{call.approval_id}"
    task: dict[str, object] = {"id": call.approval_id, "status": _STATUS[state], "status_endpoint": place}
    if state is ApprovalState.WAITING:
        task["progress"] = {"current_step": len(call.grants) + 1, "total_steps": call.needed}
        task["links"] = {"cancel": f"{place}/cancel"}
    if state not in (ApprovalState.GRANTED, ApprovalState.USED):
        return {"task": task}
    context = {"approval_id": call.approval_id}
    return {"task": task, "result": {"mode": "reevaluate", "approval": approval_of(call), "approval_context": context}}
