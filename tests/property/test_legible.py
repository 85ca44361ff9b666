"""What holds of legible text for every text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger.legible import REPERTOIRE, legible_text

ANY_TEXT = st.text(st.characters(), max_size=40)
MARKS = {"\u2039", "\u203a"}


def _read_back(shown: str) -> str:
    """Undo `legible_text` for a text that was not cut."""
    text = ""
    while shown:
        plain, mark, rest = shown.partition("\u2039")
        codes, _, shown = rest.partition("\u203a")
        text += plain + ("".join(chr(int(code.removeprefix("U+"), 16)) for code in codes.split(" ")) if mark else "")
    return text


@given(ANY_TEXT)
def test_only_the_repertoire_and_the_marks_are_printed(text: str) -> None:
    assert set(legible_text(text, limit=1_000)) <= REPERTOIRE | MARKS


@given(ANY_TEXT)
def test_what_was_recorded_can_be_read_back_from_what_is_printed(text: str) -> None:
    assert _read_back(legible_text(text, limit=1_000)) == text


@given(ANY_TEXT, st.integers(1, 60))
def test_a_cut_text_prints_no_more_than_its_limit_before_the_mark(text: str, limit: int) -> None:
    shown, cut, _ = legible_text(text, limit=limit).partition(" \u2039cut: ")
    assert len(shown) <= limit
    assert cut or _read_back(shown) == text
