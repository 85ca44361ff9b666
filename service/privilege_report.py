"""What an agent can reach, set against what it used: the worklist of least privilege.

Pure. *Reachable* is what the policy in force would permit with some arguments, in some circumstance that is asked about
(`service.privilege_contexts`): the engines err to the side of reachable alone (`policies.listing`), so that what is
called refused here is refused. *Used* is what was let through, by the decisions of the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ledger.usage import DAY_MS
from policies.listing import Visibility, classify
from policies.model import Decision, Obligation
from service.exposure import Impact, impact_of
from service.inventory_usage import WINDOW_DAYS, Use
from service.inventory_view import ToolLine, UseLine, use_line
from service.privilege_contexts import Circumstance

__all__ = ["Grant", "PrivilegeLine", "PrivilegeReport", "PrivilegeTotals", "report_of"]

Reach = Literal["allowed", "approval", "refused", "unknown"]

_LONGEST: Final = WINDOW_DAYS[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivilegeLine:
    """One tool, as the agent stands to it.

    Attributes:
        server: Its server.
        tool: Its name.
        tags: Its tags in force.
        reach: allowed: in some circumstance a call may pass; approval: in some, and in all of these a person must
            agree; refused: in none; unknown: nobody could say.
        circumstances: How many of those asked about permit it.
        asked: How many were asked about.
        rules: Which rules permit it, sorted.
        unused: It is reachable, and no call was let through in the longest window.
        within: Calls that were let through in each window: that many would have been refused without the grant.
        use: All of its calls.
        impact: What harm it could do.
        unapproved: Share of the circumstances asked about that permit it without a person, in percent.
    """

    server: str
    tool: str
    tags: tuple[str, ...]
    reach: Reach
    circumstances: int
    asked: int
    rules: tuple[str, ...]
    unused: bool
    within: tuple[int, ...]
    use: UseLine
    impact: Impact
    unapproved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One rule, by what it grants to the agent.

    Attributes:
        rule: Its name.
        tools: Tools that it helps to reach.
        unused: Those of them that were not used in the longest window.
        calls: Calls of the longest window to tools that it alone grants: these would break without it.
    """

    rule: str
    tools: int
    unused: int
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivilegeTotals:
    """How many tools.

    Attributes:
        tools: That were asked about.
        reachable: That the agent can reach, approvals included.
        approval: Of these, with a person's approval alone.
        unused: Of the reachable, not used in the longest window.
        lost: Used in the longest window, and refused now.
        unknown: Of which nobody could say.
        left_out: That were not asked about, for there are too many.
    """

    tools: int
    reachable: int
    approval: int
    unused: int
    lost: int
    unknown: int
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivilegeReport:
    """What an agent can reach, and what it used.

    Attributes:
        agent: The agent.
        now_ms: When.
        bundle: Revision of the policy in force; None if there is none, and nothing is reachable.
        size: The leaves below this index were counted.
        complete: These were all.
        days: The windows, days.
        circumstances: What was asked about.
        lines: The tools: what is granted and unused first, the greatest impact first.
        grants: The rules that grant, by how much of it is unused.
        totals: How many tools.
    """

    agent: str
    now_ms: int
    bundle: str | None
    size: int
    complete: bool
    days: tuple[int, ...]
    circumstances: tuple[Circumstance, ...]
    lines: tuple[PrivilegeLine, ...]
    grants: tuple[Grant, ...]
    totals: PrivilegeTotals


def report_of(
    agent: str,
    *,
    now_ms: int,
    bundle: str | None,
    size: int,
    complete: bool,
    circumstances: Sequence[Circumstance],
    tools: Sequence[ToolLine],
    answers: Mapping[tuple[str, str], Sequence[Decision]],
    uses: Mapping[tuple[str, str], Use],
    left_out: int,
) -> PrivilegeReport:
    """Return the report.

    Args:
        agent: The agent.
        now_ms: The time.
        bundle: Revision of the policy in force.
        size: How many leaves were counted.
        complete: Whether that were all.
        circumstances: What was asked about.
        tools: The tools, of the inventory.
        answers: By server and tool, what the policy says in each circumstance; nothing for what could not be asked.
        uses: By server and tool, what the agent did.
        left_out: How many tools were not asked about.
    """
    today = now_ms // DAY_MS
    lines = [
        _line(one, answers.get((one.server, one.tool), ()), uses.get((one.server, one.tool)), today, bundle is not None)
        for one in tools
    ]
    lines.sort(key=lambda line: (not line.unused, -line.impact.points, line.server, line.tool))
    reachable = [line for line in lines if line.reach in ("allowed", "approval")]
    return PrivilegeReport(
        agent=agent,
        now_ms=now_ms,
        bundle=bundle,
        size=size,
        complete=complete,
        days=WINDOW_DAYS,
        circumstances=tuple(circumstances),
        lines=tuple(lines),
        grants=tuple(_grants(reachable)),
        totals=PrivilegeTotals(
            tools=len(lines),
            reachable=len(reachable),
            approval=sum(line.reach == "approval" for line in reachable),
            unused=sum(line.unused for line in lines),
            lost=sum(line.reach == "refused" and bool(line.within[-1]) for line in lines),
            unknown=sum(line.reach == "unknown" for line in lines),
            left_out=left_out,
        ),
    )


def _line(tool: ToolLine, answers: Sequence[Decision], use: Use | None, today: int, has_policy: bool) -> PrivilegeLine:  # noqa: FBT001  # called here alone
    shown = [answer for answer in answers if classify(answer) is Visibility.SHOWN]
    free = [answer for answer in shown if not answer.obligations]
    held = [answer for answer in shown if set(answer.obligations) == {Obligation.APPROVAL}]
    # What ends the session, or asks for what no enforcement point here knows, lets no call through for certain; but
    # obligations depend on arguments too, so that it is not said to be refused either.
    reach: Reach = "refused"
    if free:
        reach = "allowed"
    elif held:
        reach = "approval"
    elif shown or any(classify(answer) is Visibility.FAILED for answer in answers) or (has_policy and not answers):
        reach = "unknown"
    within = tuple(0 if use is None else use.within(days, today) for days in WINDOW_DAYS)
    suggested = [term.tag for term in tool.terms if term.state in ("suggested", "confirmed")]
    return PrivilegeLine(
        server=tool.server,
        tool=tool.tool,
        tags=tool.tags,
        reach=reach,
        circumstances=len(shown),
        asked=len(answers),
        rules=tuple(sorted({rule for answer in shown for rule in answer.rules})),
        unused=reach in ("allowed", "approval") and not within[-1],
        within=within,
        use=use_line([] if use is None else [use]),
        impact=impact_of(tool.tags, suggested),
        unapproved=100 * len(free) // len(answers) if answers else 0,
    )


def _grants(reachable: Sequence[PrivilegeLine]) -> list[Grant]:
    by_rule: dict[str, list[PrivilegeLine]] = {}
    for line in reachable:
        for rule in line.rules:
            by_rule.setdefault(rule, []).append(line)
    grants = [
        Grant(
            rule=rule,
            tools=len(lines),
            unused=sum(line.unused for line in lines),
            calls=sum(line.within[-1] for line in lines if line.rules == (rule,)),
        )
        for rule, lines in by_rule.items()
    ]
    return sorted(grants, key=lambda grant: (-grant.unused, grant.calls, grant.rule))
