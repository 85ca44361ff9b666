"""AuthZEN's questions as decision requests of ours, and decisions as AuthZEN's answers.

Pure. The mapping, as `docs/interfaces.md` tells it to callers:

* ``subject`` of type ``agent``: its id is the agent; ``properties.user`` the person on whose behalf it acts. Of type
  ``user``: its id is that person, and ``properties.agent`` the agent, without which nothing is decided.
* ``action.name`` is the MCP method.
* ``resource`` of type ``tool``, ``prompt`` or ``resource``: its id is the name (or URI), ``properties.server`` the
  server. Of type ``server``: its id is the server. ``properties.tags`` are the tags; they must be told, also that there
  are none, for a rule that forbids by tag would be passed by leaving them out.
* ``context``: ``time`` (RFC 3339; the service's clock if absent), ``zone`` (UTC if absent), ``address``, ``network``,
  ``session`` with ``calls``, ``denied``, ``started_ms`` (all four, or none: the question is then a session of its own),
  ``windows`` (behaviour windows, by name) and ``arguments``, whose text reaches the policy as it was received.
  ``authzen_access_request_approval`` is the approval that the question is asked again with (`service.access_requests`);
  no policy sees it.

INVARIANT 7: what is missing is not guessed. A question that is not of AuthZEN's form is refused (`MalformedError`); one
that is, but leaves out a fact that has no honest absence, is answered with a denial that names the fact.

Source: OpenID AuthZEN, Authorization API 1.0, sections 5 to 7.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from enforcement.facts import UNKNOWN, local_time
from ledger.bodies import Decision
from ledger.body_fields import Count, Hex16, Name, Names, Zone
from ledger.canonical import parse_json
from ledger.errors import MalformedError
from policies.model import (
    MAX_WINDOWS,
    REQUEST_VERSION,
    DecisionRequest,
    Environment,
    Principal,
    Resource,
    SessionState,
    WindowValue,
    with_windows,
)

__all__ = [
    "MAX_EVALUATIONS",
    "Box",
    "Question",
    "Semantic",
    "answer",
    "answered",
    "parse_box",
    "parse_question",
    "settled",
]

MAX_EVALUATIONS: Final = 256
"""Questions of one request."""

Semantic: TypeAlias = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]

_Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Target: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
_WindowName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z")]
_TYPE_OF_METHOD: Final[Mapping[str, str]] = {
    "tools/call": "tool",
    "prompts/get": "prompt",
    "resources/read": "resource",
}
_NAMED: Final = ("tool", "prompt")  # a resource's URI may name a person, so that it stays in the vault
_MEMBERS: Final = ("subject", "action", "resource", "context")


class _SubjectProperties(msgspec.Struct, frozen=True):
    agent: Name | None = None
    user: _Text | None = None
    roles: Names = ()
    authn: Name = "none"
    mfa: bool = False


class _Subject(msgspec.Struct, frozen=True):
    type: _Text
    id: _Text
    properties: _SubjectProperties = _SubjectProperties()


class _Action(msgspec.Struct, frozen=True):
    name: Name


class _ResourceProperties(msgspec.Struct, frozen=True):
    server: Name | None = None
    tags: Names | None = None


class _Resource(msgspec.Struct, frozen=True):
    type: _Text
    id: _Target
    properties: _ResourceProperties = _ResourceProperties()


class _Approved(msgspec.Struct, frozen=True):
    approval_id: _Text


class _Context(msgspec.Struct, frozen=True):
    time: _Text | None = None
    zone: Zone = "UTC"
    address: _Text = UNKNOWN
    network: Name = UNKNOWN
    session: _Text | None = None
    calls: Count | None = None
    denied: Count | None = None
    started_ms: Count | None = None
    trace_id: Hex16 | None = None
    windows: Annotated[dict[_WindowName, WindowValue], msgspec.Meta(max_length=MAX_WINDOWS)] | None = None
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    authzen_access_request_approval: _Approved | None = None


class _Evaluation(msgspec.Struct, frozen=True):
    subject: _Subject
    action: _Action
    resource: _Resource
    context: _Context = _Context()


class _Options(msgspec.Struct, frozen=True):
    evaluations_semantic: Semantic = "execute_all"


class _Box(msgspec.Struct, frozen=True):
    evaluations: tuple[dict[str, msgspec.Raw], ...] | msgspec.UnsetType = msgspec.UNSET
    options: _Options = _Options()
    subject: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    action: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    resource: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_EVALUATION: Final = msgspec.json.Decoder(_Evaluation)
_BOXED: Final = msgspec.json.Decoder(_Box)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One evaluation that was asked for, as far as it could be read.

    Attributes:
        message: Its bytes: the body as received, or what of a boxed request was this question.
        request: What the policy is asked; None if it is asked nothing.
        reason: Why it is asked nothing: ``missing_fact``, ``unknown_subject``, ``unknown_resource``, ``malformed``.
        detail: Which fact, or what is wrong; never a value.
        agent: For the record, also where there is no request.
        server: The same.
        method: The same, where it is known.
        tool: Name of the tool or prompt, where it is a name.
        user: The person on whose behalf the agent acts.
        address: Where the call comes from.
        session: The session's name; None if the question is a session of its own.
        trace_id: W3C trace id.
        approval: Id of the approval that it is asked again with.
    """

    message: bytes
    request: DecisionRequest | None = None
    reason: str = ""
    detail: str = ""
    agent: str = UNKNOWN
    server: str = UNKNOWN
    method: str | None = None
    tool: str | None = None
    user: str | None = None
    address: str = UNKNOWN
    session: str | None = None
    trace_id: str | None = None
    approval: str | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """Several questions of one request.

    Attributes:
        questions: In order.
        semantic: How far down the list is answered.
    """

    questions: tuple[Question, ...]
    semantic: Semantic


class _UnansweredError(Exception):
    """A question of AuthZEN's form that no policy can be asked."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def _wrong(error: Exception) -> MalformedError:
    # msgspec names type and place; a value appears only in messages about tags and enumerations.
    told = str(error).partition("'")[0] if "Invalid enum" in str(error) else str(error)
    return MalformedError(f"not an AuthZEN request: {told}")


def _decode(body: bytes) -> _Evaluation:
    try:
        return _EVALUATION.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(error) from error


def parse_question(body: bytes, now_ms: int) -> Question:
    """Read the body of ``POST /access/v1/evaluation``.

    Args:
        body: As received.
        now_ms: The service's clock, POSIX milliseconds: the time of a question that says none.

    Raises:
        MalformedError: Not an evaluation request, or JSON that two readers could read in two ways.
    """
    parse_json(body)
    return _question(_decode(body), body, now_ms)


def parse_box(body: bytes, now_ms: int) -> Box | Question:
    """Read the body of ``POST /access/v1/evaluations``; without evaluations, it is one evaluation.

    A boxed question that is not of AuthZEN's form is answered by itself, and does not stop the others.

    Raises:
        MalformedError: Not an evaluations request, too many questions, or JSON that two readers could read in two ways.
    """
    parse_json(body)
    try:
        box = _BOXED.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(error) from error
    if isinstance(box.evaluations, msgspec.UnsetType) or not box.evaluations:
        return _question(_decode(body), body, now_ms)
    if len(box.evaluations) > MAX_EVALUATIONS:
        raise MalformedError(f"a request asks for at most {MAX_EVALUATIONS} evaluations, not {len(box.evaluations)}")
    defaults = {name: raw for name in _MEMBERS if isinstance(raw := getattr(box, name), msgspec.Raw)}
    return Box(tuple(_boxed(defaults, own, now_ms) for own in box.evaluations), box.options.evaluations_semantic)


def _boxed(defaults: Mapping[str, msgspec.Raw], own: Mapping[str, msgspec.Raw], now_ms: int) -> Question:
    # Raw members are written as they came, so that arguments stay what they were.
    message = msgspec.json.encode({**defaults, **own})
    try:
        return _question(_decode(message), message, now_ms)
    except MalformedError as error:
        return Question(message=message, reason="malformed", detail=str(error))


def _question(asked: _Evaluation, message: bytes, now_ms: int) -> Question:
    """Return a question; what it lacks is told in it."""
    context = asked.context
    if context.arguments and not isinstance(msgspec.json.decode(context.arguments), dict):
        raise MalformedError("not an AuthZEN request: context.arguments is not an object")
    agent, user = _principal_names(asked.subject)
    server, name = _target(asked.resource)
    known = Question(
        message=message,
        agent=agent or UNKNOWN,
        server=server or UNKNOWN,
        method=asked.action.name,
        tool=_name(name) if asked.resource.type in _NAMED else None,
        user=user,
        address=context.address,
        session=context.session,
        trace_id=context.trace_id,
        approval=_approval(context),
    )
    try:
        return _with(known, request=_request(asked, now_ms))
    except _UnansweredError as error:
        return _with(known, reason=error.reason, detail=error.detail)


def _approval(context: _Context) -> str | None:
    presented = context.authzen_access_request_approval
    return None if presented is None else presented.approval_id


def _with(question: Question, **changes: object) -> Question:
    fields = {name: getattr(question, name) for name in Question.__slots__}
    return Question(**{**fields, **changes})


def _name(text: str | None) -> str | None:
    """Return what may stand in the open."""
    try:
        return None if text is None else msgspec.convert(text, Name)
    except msgspec.ValidationError:
        return None


def _principal_names(subject: _Subject) -> tuple[str | None, str | None]:
    if subject.type == "agent":
        return _name(subject.id), subject.properties.user
    if subject.type == "user":
        return subject.properties.agent, subject.id
    return None, None


def _target(resource: _Resource) -> tuple[str | None, str | None]:
    """Return server and name of what is to be used."""
    if resource.type == "server":
        return _name(resource.id), None
    return resource.properties.server, resource.id


def _request(asked: _Evaluation, now_ms: int) -> DecisionRequest:
    """Return what the policy is asked.

    Raises:
        _UnansweredError: A fact is missing.
        MalformedError: A time or zone that there is not.
    """
    subject, context = asked.subject, asked.context
    properties = subject.properties
    agent, user = _principal_names(subject)
    server, name = _target(asked.resource)
    if subject.type not in ("agent", "user"):
        raise _UnansweredError("unknown_subject", "subject.type is neither agent nor user")
    if agent is None:
        told = "subject.id is no name" if subject.type == "agent" else "subject.properties.agent"
        raise _UnansweredError("missing_fact", told)
    _require_type(asked.action.name, asked.resource.type)
    if server is None:
        told = "resource.id is no name" if asked.resource.type == "server" else "resource.properties.server"
        raise _UnansweredError("missing_fact", told)
    tags = asked.resource.properties.tags
    if tags is None:
        raise _UnansweredError("missing_fact", "resource.properties.tags")
    request = DecisionRequest(
        version=REQUEST_VERSION,
        principal=Principal(agent=agent, user=user, roles=properties.roles, authn=properties.authn, mfa=properties.mfa),
        action=asked.action.name,
        resource=Resource(server=server, name=name, tags=tuple(sorted(set(tags)))),
        time=local_time(_moment(context.time, now_ms), _zone(context.zone)),
        environment=Environment(address=context.address, network=context.network),
        state=_state(context),
        arguments=bytes(context.arguments).decode(),
    )
    return request if context.windows is None else with_windows(request, context.windows)


def _require_type(method: str, kind: str) -> None:
    """A policy that speaks of tools must not be asked of a prompt under a tool's method, or the other way round."""
    if kind not in ("tool", "prompt", "resource", "server"):
        raise _UnansweredError("unknown_resource", "resource.type is none of tool, prompt, resource, server")
    wanted = _TYPE_OF_METHOD.get(method)
    if wanted is not None and kind != wanted:
        raise _UnansweredError("unknown_resource", f"resource.type is not {wanted}, which {method} is for")


def _state(context: _Context) -> SessionState:
    if context.session is None:
        # The question is a session of its own, in which no call came before this one.
        return SessionState(session="")
    for name in ("calls", "denied", "started_ms"):
        if getattr(context, name) is None:
            raise _UnansweredError("missing_fact", f"context.{name}")
    return SessionState(
        session=context.session,
        calls=context.calls or 0,
        denied=context.denied or 0,
        started_ms=context.started_ms or 0,
    )


def _moment(text: str | None, now_ms: int) -> int:
    if text is None:
        return now_ms
    try:
        moment = datetime.fromisoformat(text)
        milliseconds = -1 if moment.tzinfo is None else round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        milliseconds = -1
    if milliseconds < 0:
        raise MalformedError("not an AuthZEN request: context.time is no RFC 3339 time with an offset, from 1970 on")
    return milliseconds


def _zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise MalformedError("not an AuthZEN request: context.zone is no IANA time zone") from None
    return name


def answer(
    decision_id: str, leaf_index: int, body: Decision, detail: str, besides: Mapping[str, object] = {}
) -> dict[str, object]:
    """Return an evaluation's answer.

    Only a permit without obligations is ``true``, or one that people have agreed to: a caller that reads nothing but
    that must not pass what a person has to agree to first.

    Args:
        decision_id: Record id of the decision.
        leaf_index: Where it stands in the log.
        body: The recorded decision.
        detail: Which fact was missing, if any; names of rules and attributes.
        besides: What its context says besides.
    """
    context: dict[str, object] = {
        "decision_id": decision_id,
        "leaf_index": leaf_index,
        "effect": body.decision,
        "enforcement": body.enforcement,
        "reason": body.reason,
        "rules": body.rules,
        "obligations": body.obligations,
    }
    if body.failed_condition is not None:
        context["failed_condition"] = body.failed_condition
    if body.bundle is not None:
        context["bundle_revision"] = body.bundle.revision
    if body.restriction is not None:
        context["restriction"] = body.restriction
    if detail:
        context["detail"] = detail
    if body.reason == "malformed":
        context["error"] = {"status": 400, "message": detail}
    return {"decision": body.enforcement == "allow", "context": {**context, **besides}}


def settled(permits: Sequence[bool], semantic: Semantic) -> bool:
    """Return whether no further question is answered.

    Args:
        permits: Whether each of those before it is permitted.
        semantic: As asked for.
    """
    return semantic != "execute_all" and (semantic == "permit_on_first_permit") in permits


def answered(permits: Sequence[bool], semantic: Semantic) -> int:
    """Return how many of the questions are answered: all, or up to the one that settles it.

    Args:
        permits: Whether each would be permitted.
        semantic: As asked for.
    """
    if semantic == "execute_all":
        return len(permits)
    settling = semantic == "permit_on_first_permit"
    return next((position for position, permitted in enumerate(permits, 1) if permitted is settling), len(permits))
