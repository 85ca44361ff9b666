"""Every chart says in words and in a table what it draws, and leaves nothing out without saying so."""

from __future__ import annotations

from datetime import date
from xml.etree import ElementTree as ET

import pytest

from ledger.errors import EvidenceError
from reports.charts import Chart, decisions_over_time, denials_by_rule, tools
from reports.drawing import ENFORCEMENTS, Canvas, elide, figure, segment

MONDAY = date(2025, 11, 17)


def _parts(chart: Chart, tag: str) -> list[ET.Element]:
    return list(ET.fromstring(chart.svg).iter(tag))


def _texts(chart: Chart) -> list[str]:
    return [element.text or "" for element in _parts(chart, "text")]


def _days(chart: Chart) -> list[tuple[str, str]]:
    return [(row[0], row[-1]) for row in chart.table.rows]


# --- decisions over time -------------------------------------------------------------------------------------------


def test_a_week_is_drawn_by_day_and_its_silent_days_are_counted() -> None:
    chart = decisions_over_time(
        {"2025-11-17": {"allow": 3, "deny": 1}, "2025-11-20": {"kill": 2}}, MONDAY, date(2025, 11, 23)
    )
    assert _days(chart) == [("2025-11-17", "4 of 6"), ("2025-11-20", "2 of 6")]
    assert chart.table.columns == ("Day (UTC)", *ENFORCEMENTS, "decisions")
    assert chart.table.note == "5 days without a decision left out."
    assert chart.summary == (
        "6 decisions in 7 days; most of them, 4 of 6, in the day 2025-11-17. 5 of 7 days had none."
    )
    assert {"11-17", "11-23", "4", "2"} <= set(_texts(chart))


def test_two_months_are_drawn_by_week_and_nothing_is_lost() -> None:
    by_day = {f"2025-10-{day:02}": {"allow": 1} for day in range(1, 32)}
    chart = decisions_over_time(by_day, date(2025, 10, 1), date(2025, 11, 30))
    assert chart.table.columns[0] == "Week from (UTC)"
    assert _days(chart)[0] == ("2025-09-29", "5 of 31")
    assert sum(int(row[1]) for row in chart.table.rows) == 31


def test_two_years_are_drawn_by_month() -> None:
    chart = decisions_over_time({"2024-02-29": {"allow": 1}}, date(2024, 1, 1), date(2025, 12, 31))
    assert _days(chart) == [("2024-02", "1 of 1")]
    assert chart.table.note == "23 months without a decision left out."


def test_a_period_without_a_decision_says_so() -> None:
    chart = decisions_over_time({}, MONDAY, MONDAY)
    assert chart.summary == "No decision in any of 1 day."
    assert chart.table.rows == ()


def test_a_decision_outside_the_days_of_the_period_is_drawn_too() -> None:
    chart = decisions_over_time({"2025-11-10": {"allow": 1}}, MONDAY, MONDAY)
    assert _days(chart) == [("2025-11-10", "1 of 1")]


@pytest.mark.parametrize("day", ["yesterday", "2025-02-30", ""])
def test_a_day_that_is_no_date_is_refused(day: str) -> None:
    with pytest.raises(EvidenceError, match="no date"):
        decisions_over_time({day: {"allow": 1}}, MONDAY, MONDAY)


def test_an_unknown_enforcement_is_refused_rather_than_left_out() -> None:
    with pytest.raises(EvidenceError, match="unknown kind of enforcement"):
        decisions_over_time({"2025-11-17": {"shrug": 1}}, MONDAY, MONDAY)
    with pytest.raises(EvidenceError, match="unknown kind of enforcement"):
        tools({"a/b": {"shrug": 1}}, 5)


@pytest.mark.parametrize("highest", [1, 2, 3, 4, 5, 9, 10, 40, 41, 99, 100, 12_345, 10**9])
def test_no_bar_is_higher_than_the_axis(highest: int) -> None:
    chart = decisions_over_time({"2025-11-17": {"deny": highest}}, MONDAY, MONDAY)
    bar = max(_parts(chart, "rect"), key=lambda rect: float(rect.get("height", "0")))
    assert float(bar.get("y", "0")) > 28
    assert float(bar.get("y", "0")) + float(bar.get("height", "0")) == pytest.approx(118, abs=0.02)


# --- rules and tools -----------------------------------------------------------------------------------------------


def test_rules_are_drawn_with_the_most_frequent_first_and_ties_by_name() -> None:
    chart = denials_by_rule({"b": 2, "a": 2, "c": 5}, 10)
    assert chart.table.rows == (
        ("c", "5 of 9", "55.6\u00a0%"),
        ("a", "2 of 9", "22.2\u00a0%"),
        ("b", "2 of 9", "22.2\u00a0%"),
    )
    assert chart.summary == "9 calls did not pass, for 3 rules or reasons; the most frequent, c, stopped 5 of 9."


def test_rules_beyond_the_cap_are_added_up_and_named_by_their_number() -> None:
    chart = denials_by_rule({f"rule-{n:02}": 20 - n for n in range(20)}, 3)
    assert chart.table.rows[-1][:2] == ("17 other rules", f"{sum(range(1, 18))} of {sum(range(1, 21))}")
    assert len(chart.table.rows) == 4


def test_one_name_beyond_the_cap_is_shown_rather_than_called_another() -> None:
    assert [row[0] for row in denials_by_rule({"a": 3, "b": 2, "c": 1}, 2).table.rows] == ["a", "b", "c"]
    assert [row[0] for row in tools({"a/x": {"allow": 2}, "b/y": {"deny": 1}}, 1).table.rows] == ["a/x", "b/y"]


def test_no_denial_is_no_chart_of_rules() -> None:
    assert denials_by_rule({}, 5).summary == "No call was stopped."
    assert tools({}, 5).summary == "No target was called."


def test_tools_are_drawn_by_calls_with_what_did_not_pass() -> None:
    chart = tools({"crm/export": {"kill": 3}, "crm/search": {"allow": 9, "ask": 1}}, 5)
    assert chart.table.rows == (
        ("crm/search", "9", "1", "0", "0", "1 of 10", "10 of 13"),
        ("crm/export", "0", "0", "0", "3", "3 of 3", "3 of 13"),
    )
    assert chart.summary == (
        "2 targets in 13 decisions; the most called, crm/search, in 10 of 13. 4 of 13 calls did not pass."
    )


def test_targets_beyond_the_cap_are_added_up() -> None:
    chart = tools({f"s/t{n}": {"allow": n, "deny": 1} for n in range(1, 7)}, 2)
    assert chart.table.rows[-1] == ("4 other targets", "10", "0", "4", "0", "4 of 14", "14 of 27")
    assert sum(int(row[1]) for row in chart.table.rows) == sum(range(1, 7))


# --- what holds of every chart -------------------------------------------------------------------------------------

CHARTS = {
    "time": decisions_over_time({"2025-11-17": dict.fromkeys(ENFORCEMENTS, 9)}, MONDAY, date(2025, 11, 23)),
    "rules": denials_by_rule({"<b>&": 1, "x" * 300: 2}, 5),
    "tools": tools({"<b>&/": {"deny": 7}, "y" * 300: dict.fromkeys(ENFORCEMENTS, 5)}, 5),
}


@pytest.mark.parametrize("name", CHARTS)
def test_the_first_thing_in_a_chart_is_its_alternative_text_with_the_summary(name: str) -> None:
    chart = CHARTS[name]
    first = next(iter(ET.fromstring(chart.svg)))
    assert first.tag == "title"
    assert (first.text or "").endswith(chart.summary)


@pytest.mark.parametrize("name", CHARTS)
def test_hostile_names_stay_text_and_long_ones_are_shortened_in_the_picture_only(name: str) -> None:
    chart = CHARTS[name]
    assert {element.tag for element in ET.fromstring(chart.svg).iter()} <= {"svg", "title", "rect", "path", "text"}
    assert all(len(text) <= 60 for text in _texts(chart))
    if name != "time":
        assert any(len(row[0]) == 300 for row in chart.table.rows)


@pytest.mark.parametrize("name", CHARTS)
def test_charts_name_only_fonts_that_the_report_brings(name: str) -> None:
    families = {text.get("font-family") for text in _parts(CHARTS[name], "text")}
    assert families <= {"IBM Plex Sans", "IBM Plex Mono"}


def test_the_four_kinds_differ_by_more_than_their_colour() -> None:
    def shape(kind: str) -> list[tuple[str, tuple[str, ...]]]:
        canvas = Canvas(100, 100, "")
        segment(canvas, kind, 0, 0, 40, 12, upright=False)
        return [(part.tag, tuple(sorted(set(part.keys()) - {"fill"}))) for part in canvas.root if part.tag != "title"]

    def lightness(kind: str) -> float:
        canvas = Canvas(100, 100, "")
        segment(canvas, kind, 0, 0, 40, 12, upright=False)
        colour = canvas.root[1].get("fill", "")
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    plain = [kind for kind in ENFORCEMENTS if shape(kind) == shape("allow")]
    assert plain == ["allow", "deny"]
    assert lightness("allow") - lightness("deny") > 100  # the two without texture are told apart in grey
    assert shape("ask") != shape("kill")


def test_an_empty_segment_leaves_no_trace() -> None:
    canvas = Canvas(10, 10, "")
    for kind in ENFORCEMENTS:
        segment(canvas, kind, 0, 0, 0, 10, upright=True)
    assert len(canvas.root) == 1


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (0.1 + 0.2, "0.3"), (1 / 3, "0.33"), (100.0, "100")])
def test_coordinates_have_two_decimals_at_most(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_label_is_shortened_in_its_middle() -> None:
    assert elide("abcdefghij", 10) == "abcdefghij"
    assert elide("abcdefghijk", 10) == "abcdef…ijk"
    assert len(elide("x" * 99, 24)) == 24
