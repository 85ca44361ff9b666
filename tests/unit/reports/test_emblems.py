"""The strip of controls names every status in words; the tally of the cover is a function of the root."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from evidence.summary import ControlStatus
from reports.emblems import MARKS, control_strip, status_sentence, tally_stick
from tests.support import summaries

CONTROLS = summaries.demo().frameworks[0].controls


def _one_of_each() -> list[str]:
    controls = [replace(CONTROLS[0], control_id=f"C{i}", status=status) for i, status in enumerate(ControlStatus)]
    root = ET.fromstring(control_strip("A framework", controls))
    return [text.text or "" for text in root.iter("text")]


def test_each_tile_has_the_id_a_sign_and_the_word() -> None:
    assert _one_of_each() == [
        *("C0", "✓ satisfied", "C1", "\u00d7 not satisfied"),
        *("C2", "? not tested", "C3", "\u2013 not applicable"),
    ]
    assert len(set(MARKS.values())) == len(ControlStatus)


def test_the_strip_says_in_words_how_many_have_which_status() -> None:
    sentence = "7 of 12 satisfied, 3 of 12 not satisfied, 2 of 12 not tested, 0 of 12 not applicable."
    assert status_sentence(CONTROLS) == sentence
    assert (ET.fromstring(control_strip("X", CONTROLS))[0].text or "").endswith(sentence)


def test_a_framework_without_controls_is_an_empty_strip() -> None:
    assert [part.tag for part in ET.fromstring(control_strip("X", []))] == ["title"]


def test_a_long_control_id_is_shortened_in_its_tile() -> None:
    strip = control_strip("X", [replace(CONTROLS[0], control_id="9" * 80)])
    assert max(len(text.text or "") for text in ET.fromstring(strip).iter("text")) <= 18


def test_two_roots_have_two_tallies_and_one_root_has_one() -> None:
    root, other = bytes(range(32)), bytes([1, *range(1, 32)])
    assert tally_stick(root) == tally_stick(bytes(root))
    assert tally_stick(root) != tally_stick(other)


def test_both_halves_of_the_tally_have_a_notch_for_each_byte() -> None:
    halves = [path.get("d", "") for path in ET.fromstring(tally_stick(bytes(32))).iter("path")]
    assert [half.count("L") for half in halves] == [64, 64]
