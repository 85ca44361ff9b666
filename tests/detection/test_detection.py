"""The page is what the measurement gives, and the measurement is above its floors."""

from __future__ import annotations

import pytest

from tests.detection import made, written
from tests.detection.measure import FLOORS, measured, page
from tests.support.repository import ROOT

RESULTS = measured()


@pytest.mark.parametrize("kind", FLOORS)
def test_recall_and_precision_are_above_their_floors(kind):
    recall, precision = FLOORS[kind]
    assert RESULTS[kind].texts >= 10
    assert RESULTS[kind].recall >= recall, RESULTS[kind].missed
    assert RESULTS[kind].precision >= precision, RESULTS[kind].elsewhere


def test_the_page_is_what_the_measurement_gives():
    assert (ROOT / "docs/detection.md").read_text(encoding="utf-8") == page()


def test_no_text_stands_in_the_sets_twice():
    texts = [*made.secrets(), *made.personal(), *(text for _, text in made.unicode_and_terminal())]
    texts += [*written.INJECTION, *written.EXFILTRATION, *written.ASKED, *written.ORDINARY_CALLS, *written.CLEAN]
    assert len(set(texts)) == len(texts)


def test_what_is_made_is_made_alike_every_time():
    assert list(made.secrets()) == list(made.secrets())
    assert list(made.personal()) == list(made.personal())


def test_the_page_says_what_is_missed():
    missed = sum(len(one.missed) for one in RESULTS.values())
    assert missed > 0
    assert page().count("\n- ") >= missed
