"""Filters say what they cannot mean, make the search that they say, and refresh only what was opened."""

from __future__ import annotations

import pytest

from service.web.filters import PAGE_ROWS, Filters, filters_of


def test_no_filter_restricts_nothing():
    query = Filters().query()
    assert (query.agent, query.tool, query.enforcement, query.mode, query.rule, query.before) == (None,) * 6
    assert query.limit == PAGE_ROWS + 1
    assert Filters().link() == "/"


def test_blanks_around_a_name_are_not_part_of_it():
    assert filters_of(agent=" finance-bot ", tool="\t").given == {"agent": "finance-bot"}


def test_every_filter_reaches_the_search():
    query = Filters(agent="a", tool="t", enforcement="kill", rule="r").query(before=7)
    assert (query.agent, query.tool, query.enforcement, query.rule, query.before) == ("a", "t", "kill", "r", 7)


def test_observed_asks_for_the_mode_and_no_enforcement():
    query = Filters(enforcement="observed").query()
    assert (query.mode, query.enforcement) == ("observe", None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent", "<script>"),
        ("agent", "a b"),
        ("tool", "x" * 129),
        ("tool", "a\x00b"),
        ("rule", "-starts-wrong"),
        ("rule", "ends\n"),
        ("enforcement", "allow' OR 1=1"),
        ("enforcement", "DENY"),
    ],
)
def test_what_no_record_can_hold_is_a_fault_of_its_field(field, value):
    assert set(Filters(**{field: value}).faults) == {field}


@pytest.mark.parametrize("value", ["finance-bot", "javascript:alert/1", "a@b.example:x/y+z", "x" * 128])
def test_every_name_that_a_record_can_hold_can_be_filtered_by(value):
    assert Filters(agent=value, tool=value, rule=value).faults == {}


def test_a_link_escapes_its_values_and_keeps_their_order():
    link = Filters(agent="a&b=c", rule="r/s", tool='"><x>').link(before=3)
    assert link == "/?agent=a%26b%3Dc&tool=%22%3E%3Cx%3E&rule=r%2Fs&before=3"


def test_a_view_key_is_of_one_session_and_one_view():
    view = Filters(agent="a")
    keys = {
        view.view_key("secret"),
        view.view_key("other secret"),
        Filters().view_key("secret"),
        Filters(tool="a").view_key("secret"),
        Filters(agent="a", enforcement="deny").view_key("secret"),
    }
    assert len(keys) == 5
    assert view.view_key("secret") == Filters(agent="a").view_key("secret")
