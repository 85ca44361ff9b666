"""The quick way through a text finds what the whole way finds, on texts that are made of what detectors look for."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.inspection import (
    Inspector,
    characters,
    encodings,
    json_text,
    links,
    personal,
    secrets,
    sieve,
    squeezed,
    terminal,
)
from enforcement.inspection.patterns import Pattern
from enforcement.inspection.sieve import EVERYWHERE, sieved
from tests.detection import made, written

BY_LINE: dict[str, Pattern] = {
    "personal": personal._SHAPE,
    "number": personal._NAMED,
    "birth": personal._BIRTH,
    "named": secrets._NAMED,
    **{sort.name: sort.stretch for sort in encodings._SORTS},
}
ANYWHERE: dict[str, Pattern] = {
    "link": links._LINK,
    "control": terminal._CONTROL,
    "moved": encodings._MOVED,
    "backwards": encodings._BACKWARDS,
    "hiding": characters._HIDING,
    "mixing": characters._MIXING,
}
INSPECTOR = Inspector()

_PIECES = (
    *made.personal(),
    *made.secrets(),
    *(text for _, text in made.unicode_and_terminal()),
    *written.EXFILTRATION,
    *written.INJECTION[:20],
    *written.CLEAN[:20],
)
_SIGNS = st.sampled_from(
    [*"\n\r\t \"'\\%&;:=.,@+-_/()[]{}<>!#|0123456789aexANé", "\u200b", "\x1b", "\n\n", "%41", "\\u0042"]
)


def a_match(pattern: Pattern) -> st.SearchStrategy[bytes]:
    """Return what a pattern may match, by its own source."""
    # In one case, and then in both: the strategy does not know a case's other letters in bytes.
    text = st.from_regex(re.compile(pattern.source.replace(b"(?i)", b"")), fullmatch=True)
    return st.one_of(text, text.map(bytes.upper)) if b"(?i)" in pattern.source else text


@st.composite
def a_hostile_text(draw: st.DrawFn) -> str:
    """Return pieces of what is looked for, cut anywhere and put behind one another with signs between."""
    parts: list[str] = []
    for _ in range(draw(st.integers(1, 8))):
        piece = draw(st.sampled_from(_PIECES))
        start = draw(st.integers(0, 6))
        parts.append(piece[start : len(piece) - draw(st.integers(0, 6))] if draw(st.booleans()) else piece)
        parts.append("".join(draw(st.lists(_SIGNS, max_size=6))))
    return "".join(parts)


def test_every_core_is_of_a_detector_that_is_held_against_it() -> None:
    assert set(sieve._BY_LINE) == set(BY_LINE)
    assert set(sieve._ANYWHERE) == set(ANYWHERE)


@pytest.mark.parametrize("name", BY_LINE)
@settings(max_examples=60)
@given(data=st.data())
def test_what_a_line_can_match_is_found_where_the_sieve_says(name: str, data: st.DataObject) -> None:
    pattern = BY_LINE[name]
    text = data.draw(a_match(pattern))
    text = (
        data.draw(st.sampled_from([b"", b"x ", b"\n", b'{"a": "']))
        + text
        + data.draw(st.sampled_from([b"", b" y", b"\nz"]))
    )
    for block in (1, 16, 4096):
        within = sieved(text, block).within(name)
        assert [match.span() for match in pattern.finditer(text, within)] == [m.span() for m in pattern.finditer(text)]


@pytest.mark.parametrize("name", ANYWHERE)
@settings(max_examples=60)
@given(data=st.data())
def test_what_may_reach_over_lines_is_never_held_to_be_absent(name: str, data: st.DataObject) -> None:
    text = data.draw(a_match(ANYWHERE[name]))
    text = data.draw(st.sampled_from([b"", b"x ", b"\n"])) + text + data.draw(st.sampled_from([b"", b" y", b"\nz"]))
    for block in (1, 16, 4096):
        assert sieved(text, block).has(name) or not ANYWHERE[name].matches(text)


@settings(max_examples=150)
@given(a_hostile_text(), st.sampled_from([1, 40, 2048]))
def test_detectors_find_the_same_in_hostile_texts(text: str, block: int) -> None:
    data = text.encode(errors="replace")
    where = sieved(data, block)
    for name, pattern in BY_LINE.items():
        whole = [match.span() for match in pattern.finditer(data)]
        assert [match.span() for match in pattern.finditer(data, where.within(name))] == whole
        assert where.has(name) or not whole
    for name, pattern in ANYWHERE.items():
        assert where.has(name) or not pattern.matches(data)


@settings(max_examples=40, deadline=None)
@given(a_hostile_text())
def test_an_inspection_tells_the_same_with_the_sieve_and_without(text: str) -> None:
    quick = INSPECTOR.text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("enforcement.inspection.engine.sieved", lambda _data: EVERYWHERE)
        assert INSPECTOR.text(text) == quick


def test_a_core_counts_for_the_whole_line_and_for_no_other() -> None:
    text = b"nothing here\n" * 300 + b"mail jane@example.org now\n" + b"nothing here\n" * 300
    ((start, end),) = sieved(text).within("personal") or ()
    assert start < text.index(b"jane") < end
    assert end - start < len(text) // 2
    assert not sieved(text).has("named")


def test_a_set_that_could_not_look_is_taken_for_one_that_found_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed:
        def Match(self, _data: bytes) -> None:  # noqa: N802  # the library's name
            return None  # what the library says when its memory did not do

    monkeypatch.setattr(sieve._CORES, "_set", Failed())
    assert all(sieved(b"plain").has(name) for name in (*BY_LINE, *ANYWHERE))


# --- squeezed orders, and the parts of JSON that are read in another way than they were


@settings(max_examples=60)
@given(st.data(), st.sampled_from([squeezed._APART, squeezed._SPOKEN]))
def test_squeezed_orders_hold_what_is_looked_for_first(data: st.DataObject, pattern: Pattern) -> None:
    text = data.draw(a_match(pattern))
    assert squeezed._EITHER.matches(text) or not pattern.matches(text)


_JSON_SIGNS = st.lists(
    st.sampled_from(['"', "\\", '"text"', '"delta"', ":", " ", "{", "}", "[", "]", ",", "a", "\\u00e9", "\n"])
)
_TEXT_VALUE = re.compile(rb'(?<!\\)"(?:text|delta)"[ \t\r\n]*:[ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)


@settings(max_examples=400)
@given(_JSON_SIGNS)
def test_values_that_are_read_behind_one_another_are_those_of_the_definition(signs: list[str]) -> None:
    data = "".join(signs).encode()
    if json_text._SPELT_NAME.search(data):
        return  # names that are written with escapes are read in the other way
    assert json_text.text_values(data) == [match.span(1) for match in _TEXT_VALUE.finditer(data)]


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


_VALUES = st.recursive(
    st.text('{}[]"\\a', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('{}[]"\\a', max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300)
@given(_VALUES, st.integers(0, 5))
def test_json_is_as_deep_as_its_lists_and_objects(value: object, limit: int) -> None:
    data = json.dumps(value).encode()
    assert json_text.exceeds_depth(data, limit) == (_depth(value) > limit)
