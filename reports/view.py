"""What the templates print: the legible summary and the few things that are worked out from it.

Pure. Nothing here is a new fact: counts are added up, lists are cut at their caps, sections are numbered. The templates
decide how it looks; they calculate nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from evidence.summary import ControlSheet, ControlStatus, ControlTestResult, DeniedCall, Deviation, PackSummary
from ledger.errors import EvidenceError
from reports.charts import Chart, decisions_over_time, denials_by_rule, tools
from reports.emblems import control_strip, status_sentence, tally_stick
from reports.legible import legible
from reports.listing import Listing, make_listing
from reports.settings import ListCaps
from reports.wording import Times, quantity

__all__ = ["ExceptionRow", "ReportView", "Section", "Strip", "make_view"]

_SECTIONS: Final = (
    ("verify", "How to verify this report"),
    ("scope", "Scope and system description"),
    ("claims", "What is proved, and what is not"),
    ("population", "Completeness and accuracy"),
    ("matrix", "Control matrix"),
    ("sheets", "Control sheets"),
    ("denied", "Calls that did not pass"),
    ("exceptions", "Exceptions and gaps"),
    ("policies", "Policy bundles and change history"),
    ("reperformance", "Re-performance"),
    ("access", "Access to the evidence"),
    ("custody", "Chain of custody"),
    ("appendix", "Glossary and cryptographic appendix"),
)

_RUN_ON: Final = frozenset({"policies", "reperformance", "access", "custody"})

_TITLE_SIZES: Final = ((60, "large"), (120, "medium"))
"""Longest title of the cover, in characters, and the size in which it is set; longer ones are small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A numbered section; its template has the name of its id.

    Attributes:
        number: From 1.
        id: Name of its template and place in the document.
        title: Heading.
        runs_on: It is short, and begins on the page of the section before it.
    """

    number: int
    id: str
    title: str
    runs_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """The tiles of one framework and what they say."""

    svg: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionRow:
    """A failed item with the control and test that it failed."""

    control: ControlSheet
    result: ControlTestResult
    deviation: Deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """Everything that a template may use.

    Attributes:
        summary: The summary, legible.
        caps: Longest lists.
        times: Writes times.
        sections: In order.
        controls: The controls of all frameworks.
        statuses: Controls by status, every status present.
        enforced: Decisions by enforcement, the four kinds present.
        stopped: Decisions that were not allowed.
        replayed: Decisions that re-performance looked at.
        exact: Of these, those that could be replayed exactly.
        exceptions: Failed items that are listed, at most `ListCaps.exceptions`.
        failed: Failed items of all tests.
        tested: Items of all tests.
        strips: Tiles, one strip for each framework.
        over_time: Chart.
        by_rule: Chart.
        by_tool: Chart.
        listing: Denied calls as pages of text, if they are too many for a table.
        denied_table: Denied calls for the table, otherwise.
        anchors: Framework and control id to the place of the control's sheet in the document.
        revisions: Name and full digest of every policy bundle that the report names.
        title_size: Class of the title on the cover.
        no_denied: Why there is no denied call to list.
        tally: Picture of the cover.
    """

    summary: PackSummary
    caps: ListCaps
    times: Times
    sections: tuple[Section, ...]
    controls: tuple[ControlSheet, ...]
    statuses: dict[str, int]
    enforced: dict[str, int]
    stopped: int
    replayed: int
    exact: int
    exceptions: tuple[ExceptionRow, ...]
    failed: int
    tested: int
    strips: tuple[Strip, ...]
    over_time: Chart
    by_rule: Chart
    by_tool: Chart
    listing: Listing | None
    denied_table: tuple[DeniedCall, ...]
    anchors: dict[tuple[str, str], str]
    revisions: tuple[tuple[str, str], ...]
    title_size: str
    no_denied: str
    tally: str


def _utc_day(time_ms: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).date()


def _root_bytes(root: str) -> bytes:
    try:
        value = bytes.fromhex(root)
    except ValueError as error:
        raise EvidenceError("the root of the summary is not hexadecimal") from error
    if len(value) != 32:  # noqa: PLR2004 - SHA-256
        raise EvidenceError("the root of the summary is not 32 bytes")
    return value


def _exceptions(controls: tuple[ControlSheet, ...]) -> tuple[ExceptionRow, ...]:
    return tuple(
        ExceptionRow(control=control, result=result, deviation=deviation)
        for control in controls
        for result in control.tests
        for deviation in result.deviations
    )


def _sections(summary: PackSummary) -> tuple[Section, ...]:
    """Number the sections; those that are short or have nothing to show begin on the page of the one before."""
    nothing = {"matrix": not summary.frameworks, "sheets": not summary.frameworks, "denied": not summary.denied}
    return tuple(
        Section(number=i, id=name, title=title, runs_on=name in _RUN_ON or nothing.get(name, False))
        for i, (name, title) in enumerate(_SECTIONS, 1)
    )


def _anchors(controls: tuple[ControlSheet, ...]) -> dict[tuple[str, str], str]:
    anchors = {(control.framework, control.control_id): f"control-{i}" for i, control in enumerate(controls, 1)}
    if len(anchors) != len(controls):
        raise EvidenceError("the summary holds two sheets for one control")
    return anchors


def _revisions(summary: PackSummary) -> tuple[tuple[str, str], ...]:
    """Return each revision once, under the first name that it is met with."""
    named: dict[str, str] = {}
    for bundle in summary.bundles:
        named.setdefault(bundle.revision, bundle.name)
    for change in summary.policy_changes:
        named.setdefault(change.revision, change.name)
        if change.previous_revision is not None:
            named.setdefault(change.previous_revision, f"{change.name}, before")
    for call in summary.denied:
        if call.bundle_revision is not None:
            named.setdefault(call.bundle_revision, "of a denied call")
    return tuple(sorted((name, revision) for revision, name in named.items()))


def _no_denied(decisions: int) -> str:
    if decisions == 0:
        return "There is no decision in the period, so none that stopped a call."
    return f"None of {quantity(decisions, 'decision')} of the period is listed as having stopped its call."


def make_view(summary: PackSummary, caps: ListCaps) -> ReportView:
    """Work out what the report prints of a summary.

    Raises:
        EvidenceError: The summary contradicts itself or cannot be printed: an empty period, an unknown time zone, a
            root that is no digest, an unknown enforcement, two sheets for one control.
    """
    if summary.to_ms <= summary.from_ms:
        raise EvidenceError("the period of the report ends before it begins")
    root = _root_bytes(summary.root)
    summary = legible(summary)
    population = summary.population
    controls = tuple(control for framework in summary.frameworks for control in framework.controls)
    statuses = Counter(control.status for control in controls)
    times = Times(summary.zone)
    long = len(summary.denied) > caps.denied_table
    return ReportView(
        summary=summary,
        caps=caps,
        times=times,
        sections=_sections(summary),
        controls=controls,
        statuses={status.value: statuses[status] for status in ControlStatus},
        enforced={kind: population.by_enforcement.get(kind, 0) for kind in ("allow", "ask", "deny", "kill")},
        stopped=population.decisions - population.by_enforcement.get("allow", 0),
        replayed=sum(summary.reperformance.by_class.values()),
        exact=summary.reperformance.by_class.get("exact", 0),
        exceptions=_exceptions(controls)[: caps.exceptions],
        failed=sum(result.failed for control in controls for result in control.tests),
        tested=sum(result.population for control in controls for result in control.tests),
        strips=tuple(
            Strip(svg=control_strip(sheet.title, sheet.controls), summary=status_sentence(sheet.controls))
            for sheet in summary.frameworks
        ),
        over_time=decisions_over_time(population.by_day, _utc_day(summary.from_ms), _utc_day(summary.to_ms - 1)),
        by_rule=denials_by_rule(population.by_rule, caps.chart_bars),
        by_tool=tools(population.by_tool, caps.chart_bars),
        listing=make_listing(summary.denied, times, caps.denied_listing) if long else None,
        denied_table=() if long else summary.denied,
        anchors=_anchors(controls),
        revisions=_revisions(summary),
        title_size=next((name for most, name in _TITLE_SIZES if len(summary.title) <= most), "small"),
        no_denied=_no_denied(population.decisions),
        tally=tally_stick(root),
    )
