"""Figures are summed up honestly and written so that they can be read."""

from __future__ import annotations

import pytest

from benchmarks.measure import BenchmarkError, Plan, Section, Table, figure, percentile, ratios, spread, timed


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (1, "1.00"),
        (-1.145, "-1.15"),
        (0.0093822, "0.00938"),
        (0.28449, "0.284"),
        (9.996, "10.0"),
        (59.04, "59.0"),
        (99.94, "99.9"),
        (99.96, "100"),
        (713.4, "713"),
        (14_837.2, "14,837"),
        (-1_234.5, "-1,234"),
    ],
)
def test_a_figure_has_three_digits_or_all_before_the_point(value, written):
    assert figure(value) == written


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (25, 1), (26, 2), (50, 2), (75, 3), (99, 4), (100, 4)]
)
def test_a_percentile_is_a_value_that_was_measured(percent, expected):
    assert percentile([4, 1, 3, 2], percent) == expected


def test_there_is_no_percentile_of_nothing():
    with pytest.raises(BenchmarkError):
        percentile([], 50)


def test_ratios_are_formed_between_neighbours_not_between_medians():
    assert ratios([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == [2.0, 3.0, 1.0]


def test_a_round_without_its_floor_has_no_ratio():
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([3.0, 1.0, 2.0], "1.00 · **2.00** · 3.00"),
        ([4.0, 1.0, 2.0, 3.0], "1.00 · **2.50** · 4.00"),
        ([5.0], "5.00 · **5.00** · 5.00"),
        ([1.0, 1.0, 1.0], "1"),
    ],
)
def test_rounds_are_summed_up_as_min_median_and_max(values, written):
    assert spread(values) == written


def test_a_table_is_markdown_with_figures_to_the_right():
    table = Table(("what", "÷ floor"), [("append", "2.00")])
    assert list(table.lines()) == ["| what | ÷ floor |", "|---|---:|", "| append | 2.00 |"]


def test_a_row_that_does_not_fit_its_table_is_an_error():
    with pytest.raises(BenchmarkError):
        list(Table(("what", "÷ floor"), [("append", "2.00", "3.00")]).lines())


def test_a_section_keeps_its_parts_apart_by_empty_lines():
    section = Section(title="Title", method="How.", tables=[Table(("what",), [("row",)])], notes=["one\nmore", "two"])
    assert list(section.lines()) == [
        *("## Title", "", "How.", ""),
        *("| what |", "|---|", "| row |", ""),
        *("- one\n  more", "- two", ""),
    ]


def test_a_block_is_measured_from_beginning_to_end():
    with timed() as watch:
        sum(range(100_000))
    assert watch.seconds > 0
    assert watch.cpu_seconds > 0


@pytest.mark.parametrize(("full", "expected"), [(False, 3), (True, 20)])
def test_a_full_run_measures_more(tmp_path, full, expected):
    plan = Plan(full=full, rounds=1, work=tmp_path, say=print)
    assert plan.choose(3, 20) == expected
