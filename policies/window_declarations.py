"""The declaration of one behaviour window: what it says, whether it makes sense, what it measures.

Pure. `policies.windows` explains each member for those who write bundles, and applies declarations to requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from ledger.body_fields import Name
from ledger.canonical import canonical_bytes, parse_json, sha256
from ledger.errors import MalformedError, PolicySyntaxError
from policies.job_profiles import Profile, check_profile
from policies.model import DecisionRequest
from policies.parameters import ParameterSet

__all__ = [
    "MAX_CHOICES",
    "MAX_SECONDS",
    "Volume",
    "Window",
    "checked_window",
    "declared_jobs",
    "volumes_of",
    "window_digest",
]

MAX_SECONDS: Final = 31 * 86_400
"""Longest rolling window."""

MAX_CHOICES: Final = 64
"""Tools, tags or methods that one window names."""

_CALL: Final = "tools/call"
_DIGEST_BYTES: Final = 16
_HOUR_SECONDS: Final = 3_600

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
_Choices = Annotated[tuple[_Text, ...], msgspec.Meta(max_length=MAX_CHOICES)]


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One declaration; the module's text explains each member.

    Attributes:
        name: Under which a policy sees the value.
        measure: What is measured.
        per: Whose calls.
        parameter: What is summed.
        server: Calls of this server; None for every server's.
        tools: Calls that name one of these; empty for any.
        tags: Calls with one of these tags; empty for any.
        methods: Calls of these MCP methods.
        of: Calls that came out so.
        over: Since when; None for a rolling window.
        over_seconds: Length of a rolling window.
        profile: What a call must lie outside of to be counted.
        across: ``fleet``: calls of all gateways count together; None: each gateway counts for itself.
        strict: What a call adds is given out in one place, and counts as reached while that is away.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z")]
    measure: Literal["sum", "count", "seen", "distinct", "off_profile", "staleness"]
    per: Literal["agent", "user", "session", "agent+tool", "agent+user"] | None = None
    parameter: str | None = None
    server: Name | None = None
    tools: _Choices = ()
    tags: _Choices = ()
    methods: Annotated[_Choices, msgspec.Meta(min_length=1)] = (_CALL,)
    of: Literal["permitted", "denied", "all"] = "permitted"
    over: Literal["session", "day"] | None = None
    over_seconds: Annotated[int, msgspec.Meta(ge=1, le=MAX_SECONDS)] | None = None
    profile: Profile | None = None
    across: Literal["fleet"] | None = None
    strict: bool = False

    @property
    def includes_present(self) -> bool:
        """Whether the call that is being decided is part of the value, if it belongs to the window."""
        return self.measure not in {"seen", "staleness"} and self.of != "denied"

    def counts(self, *, permitted: bool) -> bool:
        """Tell whether a call that came out so is counted, if it belongs to the window."""
        return self.of == "all" or (self.of == "permitted") == permitted

    def covers(self, request: DecisionRequest) -> bool:
        """Tell whether a call belongs to the window, however it comes out."""
        resource = request.resource
        return (
            self.measure != "staleness"
            and request.action in self.methods
            and self.server in {None, resource.server}
            and (not self.tools or resource.name in self.tools)
            and (not self.tags or not set(self.tags).isdisjoint(resource.tags))
            and (self.profile is None or self.profile.is_of(request))
        )

    def subject(self, request: DecisionRequest) -> tuple[str | None, ...]:
        """Return whose calls the window speaks of, as seen from a request."""
        match self.per:
            case "agent":
                return (request.principal.agent,)
            case "user":
                return (request.principal.user,)
            case "session":
                return (request.state.session,)
            case "agent+user":
                return (request.principal.agent, request.principal.user)
            case _:
                return (request.principal.agent, request.resource.server, request.resource.name)


def checked_window(window: Window, parameters: ParameterSet) -> Window:
    """Return a declaration with its defaults in it.

    Args:
        window: The declaration.
        parameters: The bundle's parameters.

    Raises:
        PolicySyntaxError: It contradicts itself, or sums what no call can bring; the message names the window.
    """
    if window.measure == "sum":
        _check_sum(window, parameters)
    elif window.parameter is not None:
        raise PolicySyntaxError(f"the window {window.name} is no sum, so it has no parameter")
    if window.measure == "staleness":
        return _checked_staleness(window)
    if window.per is None:
        raise PolicySyntaxError(f"the window {window.name} does not say whose calls: per")
    _check_profile(window)
    _check_fleet(window)
    if window.over is not None and window.over_seconds is not None:
        raise PolicySyntaxError(f"the window {window.name} has both over and over_seconds")
    if window.over == "session" and window.per != "session":
        raise PolicySyntaxError(f"the window {window.name} is over the session, so it is per session")
    if window.over is None and window.over_seconds is None:
        if window.per != "session":
            raise PolicySyntaxError(f"the window {window.name} does not say since when: over or over_seconds")
        return msgspec.structs.replace(window, over="session")
    return window


def _checked_staleness(window: Window) -> Window:
    if window != Window(name=window.name, measure="staleness"):
        raise PolicySyntaxError(f"the window {window.name} measures staleness, and says nothing else")
    return window


def _check_fleet(window: Window) -> None:
    if window.across is None:
        if window.strict:
            raise PolicySyntaxError(f"the window {window.name} is strict, so it is across the fleet")
        return
    if window.per == "session":
        raise PolicySyntaxError(f"the window {window.name} is per session, and a session is of one gateway")
    if window.strict and (window.measure not in {"sum", "count", "seen"} or window.of != "permitted"):
        raise PolicySyntaxError(
            f"the window {window.name} is strict, so it is a sum, count or sight of permitted calls"
        )


def _check_profile(window: Window) -> None:
    if (window.measure == "off_profile") != (window.profile is not None):
        raise PolicySyntaxError(f"the window {window.name} has a profile if, and only if, it measures off_profile")
    if window.profile is None:
        return
    if window.server or window.tools or window.tags or window.methods != (_CALL,):
        raise PolicySyntaxError(
            f"the window {window.name} is of what its profile says, and of no other choice of calls"
        )
    check_profile(window.profile, window.name)
    if window.profile.at_most is None:
        return
    if window.per in {"session", "agent+tool"}:
        raise PolicySyntaxError(f"the window {window.name} limits volumes, so it is per agent, user or agent+user")
    if window.across is not None:
        raise PolicySyntaxError(f"the window {window.name} limits volumes, which each gateway counts for itself")


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a job profile, as a window that no request holds.

    Attributes:
        name: Which member of ``at_most``.
        window: What is counted.
        digest: Of that: of whose work, and since when. The limit is no part of it.
        limit: How much is not too much.
    """

    name: str
    window: Window
    digest: str
    limit: int

    @property
    def of_targets(self) -> bool:
        """Whether different things are counted, and not calls."""
        return self.window.measure == "distinct"


def volumes_of(window: Window) -> tuple[Volume, ...]:
    """Return the volumes that a window's profile limits; none if it limits none, or the window has no profile."""
    profile = window.profile
    if profile is None or profile.at_most is None:
        return ()
    return tuple(
        _volume(window, profile, name, limit)
        for name in profile.at_most.__struct_fields__
        if (limit := getattr(profile.at_most, name)) is not None
    )


def _volume(window: Window, profile: Profile, name: str, limit: int) -> Volume:
    hourly = name.endswith("_hour")
    counted = Window(
        name=name,
        measure="distinct" if name.startswith("targets") else "count",
        per=window.per,
        over=None if hourly else "day",
        over_seconds=_HOUR_SECONDS if hourly else None,
    )
    told = {"volume": name, "per": window.per, "agents": sorted(profile.agents), "roles": sorted(profile.roles)}
    return Volume(name, counted, sha256(canonical_bytes(told))[:_DIGEST_BYTES].hex(), limit)


class _Declared(msgspec.Struct):
    windows: tuple[Window, ...]


def declared_jobs(data: bytes) -> dict[str, Profile]:
    """Return the job profiles that a file declares, by the name of their window.

    Other windows of the file are read and not looked at: the parameters that they sum stand elsewhere.

    Args:
        data: The windows of a bundle, or one job profile by itself, which is named ``job`` and may be of anybody.

    Raises:
        PolicySyntaxError: It is neither, declares no job, or one that contradicts itself.
    """
    try:
        read = parse_json(data)
        if isinstance(read, dict) and "windows" in read:
            windows = [one for one in msgspec.convert(read, _Declared).windows if one.measure == "off_profile"]
        else:
            job = msgspec.convert(read, Profile)
            windows = [Window(name="job", measure="off_profile", per="agent", over="day", profile=job)]
    except (MalformedError, msgspec.ValidationError) as error:
        raise PolicySyntaxError(f"no windows, and no job profile: {error}") from error
    if not windows:
        raise PolicySyntaxError("none of its windows has a job profile")
    jobs = {window.name: window.profile for window in windows if checked_window(window, ParameterSet()).profile}
    if len(jobs) != len(windows):
        raise PolicySyntaxError("two of its windows have one name")
    return {name: profile for name, profile in jobs.items() if profile is not None}


def _check_sum(window: Window, parameters: ParameterSet) -> None:
    name = window.parameter
    if name is None:
        raise PolicySyntaxError(f"the window {window.name} is a sum, so it names a parameter")
    if parameters.types.get(name) not in {"long", "decimal"}:
        raise PolicySyntaxError(f"the window {window.name} sums {name[:64]!a}, which is no numeric parameter")
    if window.of != "permitted" or window.methods != (_CALL,):
        raise PolicySyntaxError(f"the window {window.name} is a sum, so it is of permitted tools/call messages")
    # A misspelt tool would make a cap that nothing ever reaches.
    read = [item for item in parameters.declarations if item.name == name and None in {window.server, item.server}]
    read += [item for item in parameters.declarations if item.name == name and item.server == window.server]
    for tool in window.tools or (None,):
        if not any(tool is None or not item.tools or tool in item.tools for item in read):
            told = "calls" if tool is None else f"calls of {tool[:64]!a}"
            raise PolicySyntaxError(f"the window {window.name} sums {name}, which is not read from {told}")


def window_digest(window: Window, parameters: ParameterSet) -> str:
    """Return what a window measures, as 32 hexadecimal digits; its name is no part of it."""
    declared = msgspec.to_builtins(window)
    del declared["name"]  # another name for the same thing measured is no other window
    declared.update({name: sorted(set(declared[name])) for name in ("tools", "tags", "methods") if name in declared})
    read = [msgspec.to_builtins(item) for item in parameters.declarations if item.name == window.parameter]
    return sha256(canonical_bytes({"window": declared, "parameters": read}))[:_DIGEST_BYTES].hex()
