"""What the service is asked for a decision about, and what it answers, as one's own program has it.

Pure: values to AuthZEN's JSON, and its answers to values. Who sends them is in `pdp_client`.

INVARIANT 7: fail closed. What is no whole answer is an error, and an answer that contradicts itself permits nothing.

Source: OpenID AuthZEN, Authorization API 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from ledger.canonical import parse_json
from ledger.errors import MalformedError, UpstreamError

__all__ = ["Answer", "Question", "Semantic", "boxed", "read_one", "read_several"]

Semantic: TypeAlias = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a decision is asked about.

    Attributes:
        agent: The agent that calls.
        method: The MCP method, such as ``tools/call``.
        server: The server that it calls.
        tags: Tags of server and tool; they must be told, also that there are none.
        name: Tool, prompt or resource URI; None if the server itself is meant.
        arguments: The call's arguments as JSON text, kept as it is: numbers reach the policy exactly.
        user: The person on whose behalf the agent acts.
        roles: The agent's roles.
        authn: How it proved who it is.
        mfa: Whether a second factor was part of it.
        time: RFC 3339 with an offset; the service's clock if None.
        zone: IANA time zone that policies see the time in.
        address: The client's network address.
        network: Label of its network.
        session: The session's name; None if the question is a session of its own.
        calls: Calls of the session before this one.
        denied: Denied calls among them.
        started_ms: POSIX milliseconds of its first call.
        windows: Behaviour windows by name, as measured.
        trace_id: W3C trace id.
    """

    agent: str
    method: str
    server: str
    tags: Sequence[str]
    name: str | None = None
    arguments: str = "{}"
    user: str | None = None
    roles: Sequence[str] = ()
    authn: str = "none"
    mfa: bool = False
    time: str | None = None
    zone: str = "UTC"
    address: str = "unknown"
    network: str = "unknown"
    session: str | None = None
    calls: int = 0
    denied: int = 0
    started_ms: int = 0
    windows: Mapping[str, int | str | bool] | None = None
    trace_id: str | None = None

    def encoded(self) -> dict[str, object]:
        """Return AuthZEN's request.

        Raises:
            MalformedError: The arguments are no strict JSON.
        """
        parse_json(self.arguments.encode(errors="surrogatepass"))
        kinds = {"prompts/get": "prompt", "resources/read": "resource"}
        kind = "server" if self.name is None else kinds.get(self.method, "tool")
        target: dict[str, object] = {"tags": list(self.tags)}
        if self.name is not None:
            target["server"] = self.server
        who: dict[str, object] = {"roles": list(self.roles), "authn": self.authn, "mfa": self.mfa}
        if self.user is not None:
            who["user"] = self.user
        return {
            "subject": {"type": "agent", "id": self.agent, "properties": who},
            "action": {"name": self.method},
            "resource": {"type": kind, "id": self.server if self.name is None else self.name, "properties": target},
            "context": self._context(),
        }

    def _context(self) -> dict[str, object]:
        context: dict[str, object] = {
            "zone": self.zone,
            "address": self.address,
            "network": self.network,
            "arguments": msgspec.Raw(self.arguments.encode()),
        }
        optional = {"time": self.time, "trace_id": self.trace_id, "windows": self.windows}
        context |= {name: value for name, value in optional.items() if value is not None}
        if self.session is not None:
            context |= {
                "session": self.session,
                "calls": self.calls,
                "denied": self.denied,
                "started_ms": self.started_ms,
            }
        return context


class _Context(msgspec.Struct, frozen=True):
    decision_id: str
    leaf_index: int
    effect: str
    enforcement: str
    reason: str
    rules: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()
    failed_condition: str | None = None
    bundle_revision: str | None = None
    restriction: str | None = None
    detail: str = ""


class _Evaluation(msgspec.Struct, frozen=True):
    decision: bool
    context: _Context


class _Evaluations(msgspec.Struct, frozen=True):
    evaluations: tuple[_Evaluation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A decision, which stands in the log.

    Attributes:
        permitted: Whether the call may proceed now: a permit without obligations, and nothing else.
        effect: PERMIT, DENY, INDETERMINATE or NOT_APPLICABLE.
        enforcement: allow, deny, ask (a person must agree first), or kill (deny, and end the session).
        reason: Machine-readable cause.
        decision_id: The decision's record id.
        leaf_index: Where it stands in the log.
        rules: The determining rules.
        obligations: What must be fulfilled.
        failed_condition: First rule that stood against the call.
        bundle_revision: The bundle that decided, if one did.
        restriction: The containment or the kill that stopped the call, if one did; no policy was followed then.
        detail: Which fact was missing, if any.
    """

    permitted: bool
    effect: str
    enforcement: str
    reason: str
    decision_id: str
    leaf_index: int
    rules: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()
    failed_condition: str | None = None
    bundle_revision: str | None = None
    restriction: str | None = None
    detail: str = ""


_ONE: Final = msgspec.json.Decoder(_Evaluation)
_SEVERAL: Final = msgspec.json.Decoder(_Evaluations)


def _answer(read: _Evaluation) -> Answer:
    context = read.context
    # Both must say so: an answer that contradicts itself permits nothing.
    permitted = read.decision is True and context.enforcement == "allow" and context.effect == "PERMIT"
    return Answer(permitted=permitted, **{name: getattr(context, name) for name in context.__struct_fields__})


def read_one(body: bytes) -> Answer:
    """Read the answer to one question.

    Raises:
        UpstreamError: It is no decision.
    """
    try:
        return _answer(_ONE.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UpstreamError("the service's answer is no decision") from error


def read_several(body: bytes, asked: int, semantic: Semantic) -> list[Answer]:
    """Read the answers to several questions.

    Args:
        body: As received.
        asked: How many questions there were.
        semantic: How far down they were to be answered.

    Raises:
        UpstreamError: They are no decisions, or not as many as they must be.
    """
    try:
        found = [_answer(one) for one in _SEVERAL.decode(body).evaluations]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UpstreamError("the service's answer is no list of decisions") from error
    if not found or len(found) > asked or (len(found) < asked and not _settles(found[-1], semantic)):
        raise UpstreamError(f"the service answered {len(found)} of {asked} questions")
    return found


def _settles(last: Answer, semantic: Semantic) -> bool:
    """Whether nothing had to be answered after an answer: else who asks about all would pass what nobody decided."""
    return semantic != "execute_all" and last.permitted is (semantic == "permit_on_first_permit")


def boxed(questions: Sequence[Question], semantic: Semantic) -> bytes:
    """Return AuthZEN's request for several questions.

    Raises:
        MalformedError: There is none, or the arguments of one are no strict JSON.
    """
    if not questions:
        raise MalformedError("no question was asked")
    box = {"evaluations": [one.encoded() for one in questions], "options": {"evaluations_semantic": semantic}}
    return msgspec.json.encode(box)
