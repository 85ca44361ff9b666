"""Many denied calls become lines that keep leaf, time and proof whole."""

from __future__ import annotations

from dataclasses import replace

from reports.listing import make_listing, stopped_by
from reports.wording import Times
from tests.support import summaries

CALLS = summaries.demo().denied
TIMES = Times("Europe/Berlin")


def _lines(listing_pages: tuple[str, ...]) -> list[str]:
    return [line for page in listing_pages for line in page.split("\n")]


def test_every_call_has_one_line_with_its_leaf_time_rule_and_proof() -> None:
    listing = make_listing(CALLS, TIMES, 1_000)
    lines = _lines(listing.pages)
    assert (listing.shown, listing.total, len(lines)) == (38, 38, 38)
    for line, call in zip(lines, CALLS, strict=True):
        assert line.split()[0] == str(call.leaf)
        assert TIMES.stamp(call.time_ms) in line
        assert call.proof in line
        assert call.agent in line


def test_the_columns_stand_under_their_headings() -> None:
    listing = make_listing(CALLS, TIMES, 1_000)
    column = listing.heading.index("agent")
    assert all(line[column - 1] == " " != line[column] for line in _lines(listing.pages))


def test_the_listing_ends_at_its_cap_and_knows_how_many_there_are() -> None:
    listing = make_listing(CALLS, TIMES, 5)
    assert (listing.shown, listing.total) == (5, 38)
    assert len(_lines(listing.pages)) == 5


def test_long_names_are_shortened_and_do_not_push_the_columns() -> None:
    hostile = replace(CALLS[0], agent="a" * 200, server="s" * 200, tool="t" * 200, failed_condition="r" * 200)
    long, short = _lines(make_listing([hostile, CALLS[0]], TIMES, 9).pages)
    assert long.index(hostile.proof) == short.index(CALLS[0].proof)


def test_no_line_is_wider_than_a_landscape_page() -> None:
    hostile = replace(CALLS[0], leaf=99_999_999, agent="a" * 200, proof="proofs/99999999.tlog-proof")
    widest = max(len(line) for line in _lines(make_listing([hostile], TIMES, 9).pages))
    letter_mm = 6.75 * 0.6 * 25.4 / 72  # the width of a letter of IBM Plex Mono at the size of the listing
    assert widest * letter_mm <= 297 - 2 * 15


def test_a_call_without_a_proof_file_says_what_proves_it() -> None:
    (line,) = _lines(make_listing([replace(CALLS[0], proof="")], TIMES, 9).pages)
    assert line.endswith("(root)")


def test_no_call_is_no_page() -> None:
    assert make_listing([], TIMES, 9).pages == ()


def test_a_call_was_stopped_by_the_condition_else_the_rule_else_the_reason() -> None:
    call = replace(CALLS[0], failed_condition="condition", rules=("rule",), reason="reason")
    assert stopped_by(call) == "condition"
    assert stopped_by(replace(call, failed_condition=None)) == "rule"
    assert stopped_by(replace(call, failed_condition=None, rules=())) == "reason"
