"""The policy decision point's model: DecisionRequest in, Decision out.

Pure. A `DecisionRequest` holds everything that a decision may depend on, *now* included; its canonical bytes go into
the vault, and replay evaluates exactly them. A `Decision` holds nothing that two evaluations of one request could
differ in (no time, no duration): that is what makes ``same`` and ``different`` meaningful in a replay.

The arguments of the call are kept as JSON *text*, as received: engines read numbers from it exactly.

A request that holds signals (`policies.signals`) is of version 3, with behaviour windows (`policies.windows`) or
without. Without signals it is of version 2 if it holds behaviour windows, and of version 1 if it holds none. Versions 1
and 2 are read and written as ever, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from ledger.bodies import Facts
from ledger.canonical import JSONValue, canonical_bytes, parse_json
from ledger.errors import MalformedError
from policies.signals import Signals

__all__ = [
    "MAX_WINDOWS",
    "REQUEST_VERSION",
    "SIGNALS_VERSION",
    "WINDOWS_VERSION",
    "Decision",
    "DecisionRequest",
    "Effect",
    "Environment",
    "Obligation",
    "Principal",
    "Resource",
    "SessionState",
    "Time",
    "WindowValue",
    "decode_request",
    "encode_request",
    "public_facts",
    "with_signals",
    "with_windows",
]

REQUEST_VERSION: Final = 1
"""Version of a request without behaviour windows and signals."""

WINDOWS_VERSION: Final = 2
"""Version of a request with behaviour windows, and without signals."""

SIGNALS_VERSION: Final = 3
"""Version of a request with signals."""

MAX_WINDOWS: Final = 32
"""Behaviour windows of one bundle, and so of one request."""

_MAX_SAFE: Final = 2**53 - 1

_Text = Annotated[str, msgspec.Meta(max_length=1024)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX_SAFE)]
_WindowName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z")]
_WindowDigest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
_WholeNumber = Annotated[int, msgspec.Meta(ge=-_MAX_SAFE, le=_MAX_SAFE)]
_NumberText = Annotated[str, msgspec.Meta(pattern=r"^-?(0|[1-9][0-9]{0,39})(\.[0-9]{4})?\Z")]

WindowValue: TypeAlias = _WholeNumber | _NumberText | bool
"""What a behaviour window says: a count or sum; a sum with four decimals, or beyond 2**53, as text; or yes or no."""


class Effect(StrEnum):
    """What a policy can answer."""

    PERMIT = "PERMIT"
    DENY = "DENY"
    INDETERMINATE = "INDETERMINATE"
    NOT_APPLICABLE = "NOT_APPLICABLE"


class Obligation(StrEnum):
    """What the enforcement point must fulfil, or deny."""

    END_SESSION = "end_session"
    APPROVAL = "approval"
    REDACT_RESULT = "redact_result"
    BLOCK_RESULT = "block_result"


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Common rules: immutable, keyword only, unknown members refused."""


class Principal(_Struct, frozen=True):
    """Who calls.

    Attributes:
        agent: The agent.
        user: The person on whose behalf it acts, or None.
        roles: Roles of the agent.
        authn: How it proved who it is.
        mfa: Whether a second factor was part of it.
    """

    agent: _Text
    user: _Text | None = None
    roles: tuple[_Text, ...] = ()
    authn: _Text = "none"
    mfa: bool = False


class Resource(_Struct, frozen=True):
    """What is called.

    Attributes:
        server: The MCP server behind the gateway.
        name: Tool or prompt name, or resource URI; None for methods that name nothing.
        tags: Tags of server and tool.
    """

    server: _Text
    name: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    tags: tuple[_Text, ...] = ()


class Time(_Struct, frozen=True):
    """When, with what is derived from it.

    Attributes:
        now_ms: POSIX milliseconds.
        zone: IANA zone that the other fields are in.
        local_date: ``YYYY-MM-DD``.
        hour: 0 to 23.
        minute: 0 to 59.
        weekday: 1 (Monday) to 7.
    """

    now_ms: _Count
    zone: _Text
    local_date: _Text
    hour: Annotated[int, msgspec.Meta(ge=0, le=23)]
    minute: Annotated[int, msgspec.Meta(ge=0, le=59)]
    weekday: Annotated[int, msgspec.Meta(ge=1, le=7)]


class Environment(_Struct, frozen=True):
    """Where.

    Attributes:
        address: The client's network address.
        network: Label of the network that it belongs to; ``unknown`` if to none.
    """

    address: _Text
    network: _Text = "unknown"


class SessionState(_Struct, frozen=True):
    """In what state.

    Attributes:
        session: The gateway's session.
        calls: Calls of this session before this one.
        denied: Denied calls among them.
        started_ms: POSIX milliseconds of its first call.
        windows: Value of each behaviour window, by name; not there in version 1, nor in version 3 without windows.
        measured_by: Digest of the declaration that each window was measured by (`policies.windows`); a window without
            one was stated, as in a policy test. Not there without windows, nor where all are stated.
        unavailable: Strict windows that count as reached, because nobody could say what they have; not there if none.
    """

    session: _Text
    calls: _Count = 0
    denied: _Count = 0
    started_ms: _Count = 0
    windows: Annotated[dict[_WindowName, WindowValue], msgspec.Meta(max_length=MAX_WINDOWS)] | UnsetType = UNSET
    measured_by: Annotated[dict[_WindowName, _WindowDigest], msgspec.Meta(max_length=MAX_WINDOWS)] | UnsetType = UNSET
    unavailable: Annotated[tuple[_WindowName, ...], msgspec.Meta(min_length=1, max_length=MAX_WINDOWS)] | UnsetType = (
        UNSET
    )


class DecisionRequest(_Struct, frozen=True):
    """All facts of one decision.

    Attributes:
        version: 1, 2 with behaviour windows in its state, or 3 with signals.
        principal: Who.
        action: The MCP method.
        resource: What.
        time: When.
        environment: Where.
        state: In what state.
        arguments: JSON text of the call's arguments exactly as received; ``{}`` if there are none.
        signals: What safeguards found; not there in versions 1 and 2.
    """

    version: Literal[1, 2, 3]
    principal: Principal
    action: _Text
    resource: Resource
    time: Time
    environment: Environment
    state: SessionState
    arguments: str = "{}"
    signals: Signals | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Hold version, windows and signals together.

        Raises:
            ValueError: Windows in version 1, none in version 2, signals in one of these or none in version 3, or a
                digest of a window that is not there.
        """
        windows = self.state.windows
        if (self.signals is UNSET) != (self.version != SIGNALS_VERSION):
            raise ValueError("a request has signals in version 3, and in no other")
        if self.version != SIGNALS_VERSION and (windows is UNSET) != (self.version == REQUEST_VERSION):
            raise ValueError("a request without signals has behaviour windows in version 2, and in no other")
        if self.state.measured_by is not UNSET and not self.state.measured_by.keys() <= (windows or {}).keys():
            raise ValueError("a request names the declaration of a behaviour window that it does not hold")
        if self.state.unavailable is not UNSET and not set(self.state.unavailable) <= (windows or {}).keys():
            raise ValueError("a request says of a behaviour window that it does not hold that it is unavailable")

    def parsed_arguments(self) -> JSONValue:
        """Return the arguments with their numbers exact.

        Raises:
            MalformedError: Not strict JSON.
        """
        return parse_json(self.arguments.encode())


class Decision(_Struct, frozen=True):
    """The policy's answer to one request.

    Attributes:
        effect: PERMIT, DENY, INDETERMINATE or NOT_APPLICABLE.
        bundle_revision: Digest of the bundle that answered.
        engine: Engine name.
        engine_version: Exact version of the engine's package.
        rules: Names of the determining rules, sorted.
        failed_condition: First rule, in bundle order, that stood against the call.
        obligations: What the enforcement point must fulfil, sorted.
        reason: ``policy``, ``no_permit``, or for INDETERMINATE what went wrong, such as ``evaluation_error``.
        detail: Rule and attribute names for the person who mends the policy; never a value.
        drift: Codes of what lies outside the bundle's boundaries, sorted; see `policies.boundaries`.
        needs: Names of what the policy says would be needed, sorted; none for a permit. Advice for who was refused.
    """

    effect: Effect
    bundle_revision: str
    engine: str
    engine_version: str
    rules: tuple[str, ...] = ()
    failed_condition: str | None = None
    obligations: tuple[str, ...] = ()
    reason: str = "policy"
    detail: str = ""
    drift: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def permitted(self) -> bool:
        """Whether the call may proceed once the obligations are fulfilled."""
        return self.effect is Effect.PERMIT


_DECODER: Final = msgspec.json.Decoder(DecisionRequest)


def encode_request(request: DecisionRequest) -> bytes:
    """Return a request's canonical bytes (RFC 8785), all members written out."""
    return canonical_bytes(msgspec.to_builtins(request))


def decode_request(data: bytes) -> DecisionRequest:
    """Read a recorded request; the inverse of `encode_request`.

    Raises:
        MalformedError: Not a request of version 1, 2 or 3 in canonical form.
    """
    try:
        request = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"not a decision request: {error}") from error
    if encode_request(request) != data:
        raise MalformedError("a decision request is not in canonical form")
    return request


def with_windows(
    request: DecisionRequest, windows: Mapping[str, WindowValue], measured_by: Mapping[str, str] | None = None
) -> DecisionRequest:
    """Return a request with these behaviour windows and no others.

    Args:
        request: A request of any version.
        windows: Value of each window, by name.
        measured_by: Digest of each window's declaration; None for windows that are stated.
    """
    digests: dict[str, str] | UnsetType = UNSET if measured_by is None else dict(measured_by)
    state = msgspec.structs.replace(request.state, windows=dict(windows), measured_by=digests, unavailable=UNSET)
    version = WINDOWS_VERSION if request.signals is UNSET else SIGNALS_VERSION
    return msgspec.structs.replace(request, version=version, state=state)


def with_signals(request: DecisionRequest, signals: Signals) -> DecisionRequest:
    """Return a request with these signals instead of any that it had.

    Args:
        request: A request of any version.
        signals: What safeguards found.
    """
    return msgspec.structs.replace(request, version=SIGNALS_VERSION, signals=signals)


def public_facts(request: DecisionRequest) -> Facts:
    """Return the facts of a request that stand in the open, in the leaf."""
    return Facts(
        authn=request.principal.authn,
        mfa=request.principal.mfa,
        roles=request.principal.roles,
        zone=request.time.zone,
        local_hour=request.time.hour,
        local_minute=request.time.minute,
        weekday=request.time.weekday,
        network=request.environment.network,
        session_calls=request.state.calls,
    )
