"""Policy tests: the YAML cases beside the policies, and which rules they reach.

A bundle carries its tests under ``tests/``, in files that end in ``.yaml``; they are part of its revision::

    defaults:
      agent: Finance-Bot
      roles: [finance]
      at: 2026-11-17T10:00
    cases:
      - name: payroll at three in the morning
        given: {server: finance, tool: Payroll-DB, mfa: true, at: 2026-11-17T03:00}
        expect: {effect: DENY, rules: [finance-business-hours]}

``given`` takes the members of `Given`; what it leaves out comes from ``defaults``, and what those leave out from the
defaults of `Given`. The time is always given, never the machine's: a case decides the same for ever. ``arguments`` is
JSON *text*, so that a case can say ``1e0`` and mean it. ``windows`` states behaviour windows of the bundle; those that
a case does not state are as if there had been no call before. ``signals`` states what safeguards found; with an empty
mapping they found nothing and looked at nothing, and left out there are no safeguards.

YAML is read strictly: a key twice, an anchor or an alias is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import yaml

from ledger.errors import PolicySyntaxError
from policies.bundles import Bundle
from policies.evaluate import Evaluator
from policies.model import (
    REQUEST_VERSION,
    Decision,
    DecisionRequest,
    Effect,
    Environment,
    Principal,
    Resource,
    SessionState,
    Time,
    with_signals,
    with_windows,
)
from policies.signals import Signals
from policies.window_history import History
from policies.windows import WindowError, read_windows

__all__ = [
    "Case",
    "CaseResult",
    "Expected",
    "Given",
    "TestReport",
    "case_requests",
    "given_request",
    "read_cases",
    "read_given",
    "run_cases",
]

_SUFFIX: Final = ".yaml"
_FOLDER: Final = "tests/"
_STATED: Final = ("now_ms", "local_date", "hour", "minute", "weekday")


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common rules: immutable, keyword only, unknown members refused."""


class Given(_Struct, frozen=True):
    """The request of a case, flat.

    Attributes:
        agent: Who calls.
        user: For whom, or None.
        roles: Roles of the agent.
        authn: How it proved who it is.
        mfa: Whether with a second factor.
        method: MCP method.
        server: The server.
        tool: What the message names (tool, prompt or URI), or None.
        tags: Tags of server and tool.
        at: Local time, such as ``2026-11-17T10:00``.
        zone: IANA time zone.
        address: Network address.
        network: Label of the network.
        session: The session.
        calls: Its calls before.
        denied: Its denied calls before.
        started_ms: POSIX milliseconds of its first call.
        now_ms: Stated instead of what follows from ``at``, as are the next four.
        local_date: See above.
        hour: See above.
        minute: See above.
        weekday: See above.
        windows: Values of behaviour windows, by name: a whole number, a decimal as text, or a truth.
        signals: What safeguards found; None if there are none.
        arguments: JSON text of the arguments.
    """

    agent: str
    server: str
    at: datetime
    user: str | None = None
    roles: tuple[str, ...] = ()
    authn: str = "api_token"
    mfa: bool = False
    method: str = "tools/call"
    tool: str | None = None
    tags: tuple[str, ...] = ()
    zone: str = "UTC"
    address: str = "127.0.0.1"
    network: str = "office"
    session: str = "session"
    calls: int = 0
    denied: int = 0
    started_ms: int = 0
    now_ms: int | None = None
    local_date: str | None = None
    hour: int | None = None
    minute: int | None = None
    weekday: int | None = None
    windows: dict[str, int | str | bool] = {}
    signals: Signals | None = None
    arguments: str = "{}"

    def request(self) -> DecisionRequest:
        """Return the request, without its behaviour windows; `given_request` adds them.

        Raises:
            PolicySyntaxError: The time is not local, or its zone is unknown.
        """
        request = DecisionRequest(
            version=REQUEST_VERSION,
            principal=Principal(agent=self.agent, user=self.user, roles=self.roles, authn=self.authn, mfa=self.mfa),
            action=self.method,
            resource=Resource(server=self.server, name=self.tool, tags=self.tags),
            time=self._time(),
            environment=Environment(address=self.address, network=self.network),
            state=SessionState(session=self.session, calls=self.calls, denied=self.denied, started_ms=self.started_ms),
            arguments=self.arguments,
        )
        return request if self.signals is None else with_signals(request, self.signals)

    def _time(self) -> Time:
        stated = {name: getattr(self, name) for name in _STATED if getattr(self, name) is not None}
        try:
            date.fromisoformat(stated.get("local_date", "1970-01-01"))
            return msgspec.convert(msgspec.to_builtins(_time(self.at, self.zone)) | stated, Time)
        except ValueError as error:  # msgspec's own is one
            raise PolicySyntaxError(f"a case's time: {error}") from error


class Expected(_Struct, frozen=True):
    """The decision that a case expects; what is None is not compared.

    Attributes:
        effect: The effect.
        rules: All determining rules.
        failed_condition: First rule that stood against the call.
        obligations: All obligations.
        reason: The machine-readable cause.
    """

    effect: Effect
    rules: tuple[str, ...]
    failed_condition: str | None = None
    obligations: tuple[str, ...] | None = None
    reason: str | None = None

    def differences(self, decision: Decision) -> tuple[str, ...]:
        """Return one line for each member in which the decision is another."""
        lines = []
        for name in self.__struct_fields__:
            expected, actual = getattr(self, name), getattr(decision, name)
            if isinstance(expected, tuple):
                expected = tuple(sorted(expected))
            if expected is not None and expected != actual:
                lines.append(f"{name}: expected {_shown(expected)}, got {_shown(actual)}")
        return tuple(lines)


class Case(_Struct, frozen=True):
    """One case, complete.

    Attributes:
        file: The file that it stands in.
        name: Its name.
        given: The request.
        expect: The decision that must come of it.
    """

    file: str
    name: str
    given: Given
    expect: Expected


class _RawCase(_Struct, frozen=True):
    name: str
    given: dict[str, Any]
    expect: Expected


class _Document(_Struct, frozen=True):
    cases: tuple[_RawCase, ...]
    defaults: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of a case.

    Attributes:
        case: The case.
        decision: The decision that was made.
        differences: One line for each member that differs from what was expected; empty if the case passed.
    """

    case: Case
    decision: Decision
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TestReport:
    """What became of a bundle's tests.

    Attributes:
        results: Of each case, in order.
        covered: Rules that some case's decision names, in bundle order.
        uncovered: The other rules.
    """

    __test__ = False  # pytest: not a test class

    results: tuple[CaseResult, ...]
    covered: tuple[str, ...]
    uncovered: tuple[str, ...]

    @property
    def failures(self) -> tuple[CaseResult, ...]:
        """The cases that did not come out as expected."""
        return tuple(result for result in self.results if result.differences)

    @property
    def passed(self) -> bool:
        """Whether there are cases and all of them passed; a bundle without tests has not passed any."""
        return bool(self.results) and not self.failures


class _Loader(yaml.SafeLoader):
    """Reads YAML as `msgspec` may trust it: no key twice, nothing by reference."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401  # PyYAML's own type
        event = self.peek_event()  # type: ignore[no-untyped-call]  # untyped in types-PyYAML
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("anchors and aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # PyYAML's signature
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a key is there twice")
        return mapping


def _shown(value: object) -> str:
    return "none" if value in (None, ()) else ", ".join(value) if isinstance(value, tuple) else str(value)


def _time(local: datetime, zone: str) -> Time:
    if local.tzinfo is not None:
        raise PolicySyntaxError("a case's time is local: it has a zone, and no offset")
    try:
        moment = local.replace(tzinfo=ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise PolicySyntaxError(f"no time zone named {zone[:64]!a}") from error
    return Time(
        now_ms=int(moment.astimezone(UTC).timestamp() * 1000),
        zone=zone,
        local_date=moment.date().isoformat(),
        hour=moment.hour,
        minute=moment.minute,
        weekday=moment.isoweekday(),
    )


def _read_file(path: str, text: str) -> list[Case]:
    try:
        document = msgspec.convert(yaml.load(text, _Loader), _Document)  # noqa: S506  # a subclass of SafeLoader
        return [
            Case(
                file=path,
                name=case.name,
                given=msgspec.convert({**document.defaults, **case.given}, Given),
                expect=case.expect,
            )
            for case in document.cases
        ]
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError, ValueError) as error:
        raise PolicySyntaxError(f"{path}: {error}") from error


def read_given(text: str) -> Given:
    """Return one request that somebody wrote as a case's ``given``.

    Raises:
        PolicySyntaxError: Not YAML as the module's text says, or not the members of `Given`.
    """
    try:
        return msgspec.convert(yaml.load(text, _Loader), Given)  # noqa: S506  # a subclass of SafeLoader
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError, ValueError) as error:
        raise PolicySyntaxError(f"the request: {error}") from error


def case_requests(bundle: Bundle, cases: Sequence[Case]) -> list[DecisionRequest]:
    """Return the request of each case, with the windows that the bundle declares.

    Raises:
        PolicySyntaxError: The bundle's windows, or a time or window of a case, cannot be used.
    """
    nothing_before = History(read_windows(bundle))
    requests = []
    for case in cases:
        try:
            requests.append(_given_request(case.given, nothing_before))
        except PolicySyntaxError as error:
            raise PolicySyntaxError(f"{case.file}: {case.name}: {error}") from error
    return requests


def given_request(bundle: Bundle, given: Given) -> DecisionRequest:
    """Return a request that somebody wrote, with the windows that the bundle declares.

    Raises:
        PolicySyntaxError: The bundle's windows, or a time or window of the request, cannot be used.
    """
    return _given_request(given, History(read_windows(bundle)))


def _given_request(given: Given, nothing_before: History) -> DecisionRequest:
    request, windows = given.request(), nothing_before.windows
    try:
        stated = {name: windows.read_value(name, value) for name, value in given.windows.items()}
    except WindowError as error:
        raise PolicySyntaxError(f"the bundle has no window {error.window!a} of which this is a value") from error
    if not windows.windows:
        return request
    return with_windows(request, {**nothing_before.facts(nothing_before.read_call(request)), **stated})


def read_cases(bundle: Bundle) -> tuple[Case, ...]:
    """Return the cases that a bundle carries, by file and then in order.

    Raises:
        PolicySyntaxError: A test file is not as the module's text says, or two cases of a file share a name.
    """
    cases: list[Case] = []
    for path in bundle.files:
        if path.startswith(_FOLDER) and path.endswith(_SUFFIX):
            found = _read_file(path, bundle.text(path))
            if len({case.name for case in found}) != len(found):
                raise PolicySyntaxError(f"{path}: two cases share a name")
            cases += found
    return tuple(cases)


async def run_cases(bundle: Bundle, evaluator: Evaluator, cases: Sequence[Case] | None = None) -> TestReport:
    """Run a bundle's cases.

    Args:
        bundle: The bundle under test.
        evaluator: Evaluates it.
        cases: Other cases than its own, such as those of an earlier revision.

    Raises:
        PolicySyntaxError: The bundle or its tests cannot be used.
    """
    rules = await evaluator.check(bundle)
    chosen = read_cases(bundle) if cases is None else tuple(cases)
    evaluations = await evaluator.evaluate_many(bundle, case_requests(bundle, chosen))
    results = tuple(
        CaseResult(case, evaluation.decision, case.expect.differences(evaluation.decision))
        for case, evaluation in zip(chosen, evaluations, strict=True)
    )
    reached = {rule for result in results for rule in result.decision.rules}
    return TestReport(
        results=results,
        covered=tuple(rule for rule in rules if rule in reached),
        uncovered=tuple(rule for rule in rules if rule not in reached),
    )
