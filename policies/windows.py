"""Behaviour windows: what a bundle wants to know of earlier calls, and how one call counts.

Pure. A policy sees one request. What went before reaches it as *windows*, values that the enforcement point measures
and records in the request (version 2). A bundle declares them in a file that its manifest names as ``windows``::

    {"windows": [
      {"name": "refunded_today", "measure": "sum", "parameter": "amount", "server": "finance",
       "tools": ["refund_customer"], "per": "user", "over": "day"},
      {"name": "calls_last_minute", "measure": "count", "per": "agent", "over_seconds": 60},
      {"name": "read_sensitive", "measure": "seen", "tags": ["sensitive"], "methods": ["tools/call", "resources/read"],
       "per": "session"}]}

* ``measure``: ``sum`` of a numeric parameter (`policies.parameters`), exactly; ``count`` of calls; how many
  ``distinct`` tools (prompts, URIs) they named; how many lay outside a job profile, ``off_profile``
  (`policies.job_profiles`); or whether one was ``seen``.
* ``per``: whose calls: the ``agent``'s, the ``user``'s (under whatever agent), the ``session``'s, ``agent+user``, the
  agent's for the same user, or ``agent+tool``, the agent's calls of the same tool. Calls for no user are together those
  of one user: a cap holds for them as well.
* ``over``: since when: the ``session`` began (the default of a window per session), the ``day`` in the gateway's zone,
  or ``over_seconds``, so many seconds before now.
* ``across``: ``fleet`` if calls of all gateways count together; left out, each gateway counts for itself. With
  ``strict``, what a call adds is given out by the service, one decision after the other; while that is away, the window
  counts as *reached*: its value is the greatest there is, or yes. Without it, gateways tell each other what they have
  counted, and the measure ``staleness`` says how many milliseconds ago they did last.
* ``methods`` (``tools/call`` unless stated), ``server``, ``tools`` (names of tools, prompts, or URIs) and ``tags`` (one
  of them is enough) say which calls belong to it; what is left out leaves nobody out.
* ``of``: ``permitted`` (the default), ``denied`` or ``all`` calls. A call is permitted if the enforcement point let it
  through. A sum is of permitted calls: what a denied one says of amounts need not be readable.

Numbers include the call that is being decided, if it belongs to the window, as if it were permitted: a
policy compares them with its limit. ``seen``, and numbers of denied calls, speak of earlier calls only.

What a window measures has a *digest*, 32 hexadecimal digits over its declaration without the name and over those of
its parameter. It stands in the request beside the value, so that no replay takes one thing measured for another
(invariant 8). What is elsewhere: one declaration (`policies.window_declarations`), adding up
(`policies.window_history`), reservation and durability (`enforcement.windows`).

INVARIANT 7: a window that a request does not hold, or whose value is no number of 64 bits, denies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from ledger.canonical import MAX_SAFE_INTEGER, JSONValue, parse_json, sha256
from ledger.errors import MalformedError, PolicyError, PolicySyntaxError
from policies.bundles import Bundle
from policies.model import MAX_WINDOWS, DecisionRequest, WindowValue, with_windows
from policies.parameters import (
    DECIMAL_PLACES,
    FixedDecimal,
    Parameter,
    ParameterError,
    ParameterSet,
    parse_parameters,
    read_number,
)
from policies.window_declarations import Volume, Window, checked_window, volumes_of, window_digest

__all__ = [
    "MAX_LONG",
    "Call",
    "WindowError",
    "WindowKind",
    "WindowSet",
    "parse_windows",
    "read_windows",
]

MAX_LONG: Final = 2**63 - 1
"""Greatest value of a window: a long, or of a decimal times 10,000."""

WindowKind: TypeAlias = Literal["long", "decimal", "bool"]


class WindowError(PolicyError):
    """A request does not say what a window of the bundle asks for.

    Attributes:
        reason: ``request_error`` if the value is not there, was measured by another declaration or is of another kind;
            ``parameter_error`` if it is no number of 64 bits.
        window: Which one.
    """

    def __init__(self, reason: str, window: str) -> None:
        super().__init__(f"{reason}: {window}")
        self.reason = reason
        self.window = window


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    windows: Annotated[tuple[Window, ...], msgspec.Meta(max_length=MAX_WINDOWS)]


@dataclass(frozen=True, slots=True)
class Call:
    """A request with what it adds to each window that it belongs to.

    Attributes:
        windows: The windows of a bundle.
        request: The request.
        amounts: Name of each window that the call belongs to → 1, or what it adds to a sum: a whole number, of a
            decimal parameter times 10,000. A call that leaves the parameter out, or whose parameters cannot be read
            (no policy permits it), adds 0. Whether a call lies outside a profile, only a history can tell.
        volumes: The volumes of job profiles that the call adds to, by what they count.
        target: What the call is about, where a volume counts that: SHA-256 over its arguments, hexadecimal.
        outside: Name of each window whose job profile the call lies outside of → in what; a history says so.
    """

    windows: WindowSet
    request: DecisionRequest
    amounts: Mapping[str, int]
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    target: str = ""
    outside: Mapping[str, str] = field(default_factory=dict)


class WindowSet:
    """The windows of one bundle, ready to be used."""

    def __init__(self, windows: Sequence[Window] = (), parameters: ParameterSet | None = None) -> None:
        """Check the declarations.

        Args:
            windows: The declarations.
            parameters: The bundle's parameters, which sums name.

        Raises:
            PolicySyntaxError: A declaration that contradicts itself or another, or sums what no call can bring; the
                message names the window.
        """
        self._parameters = parameters or ParameterSet()
        if len(windows) > MAX_WINDOWS:
            raise PolicySyntaxError(f"a bundle has at most {MAX_WINDOWS} windows, not {len(windows)}")
        self._windows = {window.name: checked_window(window, self._parameters) for window in windows}
        if len(self._windows) != len(windows):
            names = [window.name for window in windows]
            twice = next(name for name in names if names.count(name) > 1)
            raise PolicySyntaxError(f"the window {twice} is declared twice")
        self._digests = {name: window_digest(window, self._parameters) for name, window in self._windows.items()}
        volumes = {name: volumes_of(window) for name, window in self._windows.items()}
        self._volumes = {name: limited for name, limited in volumes.items() if limited}

    @property
    def windows(self) -> Mapping[str, Window]:
        """Each window by its name, in order."""
        return self._windows

    @property
    def digests(self) -> Mapping[str, str]:
        """What each window measures, 32 hexadecimal digits, by name."""
        return self._digests

    @property
    def volumes(self) -> Mapping[str, tuple[Volume, ...]]:
        """The volumes that the job profile of a window limits, by the window's name."""
        return self._volumes

    def kind(self, name: str) -> WindowKind:
        """Return the kind of a window's value."""
        window = self._windows[name]
        if window.measure == "seen":
            return "bool"
        return "decimal" if self._parameters.types.get(window.parameter or "") == "decimal" else "long"

    def reached(self, name: str) -> WindowValue:
        """Return the value of a strict window of which nobody can say what it has: no cap is above it."""
        return self.written(name, MAX_LONG)

    def parameters_of(self, name: str) -> tuple[Parameter, ...]:
        """Return the declarations of the parameter that a window sums; none if it sums nothing."""
        summed = self._windows[name].parameter
        return tuple(item for item in self._parameters.declarations if item.name == summed)

    def read_call(self, request: DecisionRequest) -> Call:
        """Return what a call adds to the windows that it belongs to."""
        amounts = {name: 1 for name, window in self._windows.items() if window.covers(request)}
        sums = [name for name in amounts if self._windows[name].measure == "sum"]
        if sums:
            said = self._scaled_parameters(request)
            amounts.update({name: said.get(self._windows[name].parameter or "", 0) for name in sums})
        limited = {volume.digest: volume for name in amounts for volume in self._volumes.get(name, ())}
        about = any(volume.of_targets for volume in limited.values())
        target = sha256(request.arguments.encode(errors="surrogatepass")).hex() if about else ""
        return Call(self, request, amounts, limited, target)

    def _scaled_parameters(self, request: DecisionRequest) -> dict[str, int]:
        resource = request.resource
        try:
            values = self._parameters.extract(request.action, resource.server, resource.name, request.arguments)
        except ParameterError:
            return {}
        scaled = {name: value.scaled if isinstance(value, FixedDecimal) else value for name, value in values.items()}
        return {name: value for name, value in scaled.items() if isinstance(value, int)}

    def written(self, name: str, value: int) -> WindowValue:
        """Return a value as requests hold it.

        Args:
            name: The window.
            value: A count, 0 or more for ``seen``, or a sum: of a decimal parameter times 10,000.
        """
        match self.kind(name):
            case "bool":
                return value > 0
            case "decimal":
                return str(FixedDecimal(value))
            case _:
                return value if abs(value) <= MAX_SAFE_INTEGER else str(value)

    def read_value(self, name: str, value: JSONValue) -> WindowValue:
        """Return a value that a person has written, as requests hold it.

        Raises:
            WindowError: The bundle has no such window, or this is no value of it.
        """
        if name not in self._windows:
            raise WindowError("request_error", name)
        kind = self.kind(name)
        if kind == "bool":
            if not isinstance(value, bool):
                raise WindowError("request_error", name)
            return value
        number = read_number(value, DECIMAL_PLACES if kind == "decimal" else 0)
        if number is None:
            raise WindowError("parameter_error", name)
        return self.written(name, number)

    def stated(self, request: DecisionRequest, values: Mapping[str, WindowValue]) -> DecisionRequest:
        """Return a request with values that were measured by these declarations."""
        return with_windows(request, values, {name: self._digests[name] for name in values})

    def missing(self, request: DecisionRequest) -> tuple[str, ...]:
        """Return the windows that a request does not hold, or holds as measured by another declaration."""
        held = {} if request.state.windows is UNSET else request.state.windows
        digests = {} if request.state.measured_by is UNSET else request.state.measured_by
        return tuple(
            name
            for name in self._windows
            if name not in held or digests.get(name, self._digests[name]) != self._digests[name]
        )

    def values(self, request: DecisionRequest) -> dict[str, int | FixedDecimal | bool]:
        """Return what a request says of each window, typed for an engine; other windows that it holds are left out.

        Raises:
            WindowError: One is missing, of another kind, or no number of 64 bits.
        """
        for name in self.missing(request):
            raise WindowError("request_error", name)
        held = {} if request.state.windows is UNSET else request.state.windows
        return {name: self._typed(name, held[name]) for name in self._windows}

    def unmeasured(self) -> dict[str, int | FixedDecimal | bool]:
        """Return a value of the right kind for each window, which says nothing; for policies that read none of them."""
        return {name: self._typed(name, self.written(name, 0)) for name in self._windows}

    def _typed(self, name: str, value: WindowValue) -> int | FixedDecimal | bool:
        kind = self.kind(name)
        if (kind == "bool") != isinstance(value, bool):
            raise WindowError("request_error", name)
        if isinstance(value, bool):
            return value
        number = read_number(value, DECIMAL_PLACES if kind == "decimal" else 0)
        if number is None:
            raise WindowError("parameter_error", name)
        return FixedDecimal(number) if kind == "decimal" else number


def parse_windows(data: bytes, parameters: ParameterSet | None = None) -> WindowSet:
    """Read the declarations of a bundle.

    Args:
        data: The file.
        parameters: The bundle's parameters.

    Raises:
        PolicySyntaxError: Not JSON, an unknown member, or declarations that contradict themselves or each other.
    """
    try:
        document = msgspec.convert(parse_json(data), _Document)
    except (MalformedError, msgspec.ValidationError) as error:
        raise PolicySyntaxError(f"not window declarations: {error}") from error
    return WindowSet(document.windows, parameters)


def read_windows(bundle: Bundle) -> WindowSet:
    """Return the windows that a bundle declares; one that declares none has none.

    Raises:
        PolicySyntaxError: The declarations, or those of its parameters, cannot be used; the message names the file.
    """
    path = bundle.manifest.windows
    if path is None:
        return WindowSet()
    read_from = bundle.manifest.parameters
    try:
        parameters = ParameterSet() if read_from is None else parse_parameters(bundle.files[read_from])
    except PolicySyntaxError as error:
        raise PolicySyntaxError(f"{read_from}: {error}") from error
    try:
        return parse_windows(bundle.files[path], parameters)
    except PolicySyntaxError as error:
        raise PolicySyntaxError(f"{path}: {error}") from error
