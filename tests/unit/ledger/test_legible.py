"""Text of others cannot deceive a reader: what is not plainly legible is written by code point."""

from __future__ import annotations

import pytest

from ledger.legible import IDENTIFIER_LIMIT, legible_text

OPEN, CLOSE = "\u2039", "\u203a"


@pytest.mark.parametrize(
    "text", ["transfer_funds", "payroll-db/list invoices", "Müller & Söhne: £5 → €6", "<b>{{ x }}</b>", "a b c", ""]
)
def test_plain_text_is_printed_as_it_is(text: str) -> None:
    assert legible_text(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("invoice\u202egpj.exe", "invoice{U+202E}gpj.exe", id="right-to-left override"),
        pytest.param("pa\u0443roll", "pa{U+0443}roll", id="Cyrillic homograph"),
        pytest.param("a\u200bb\ufeff", "a{U+200B}b{U+FEFF}", id="zero width"),
        pytest.param("送金", "{U+9001 U+91D1}", id="another script, one pair of marks for a run"),
        pytest.param("cafe\u0301", "cafe{U+0301}", id="combining mark"),
        pytest.param("a\u00a0b\u00adc", "a{U+00A0}b{U+00AD}c", id="no-break space and soft hyphen"),
        pytest.param("a  b", "a {U+0020}b", id="second of two spaces"),
        pytest.param(" a ", "{U+0020}a{U+0020}", id="spaces at both ends"),
        pytest.param("a\tb\nc\x00", "a{U+0009}b{U+000A}c{U+0000}", id="control characters"),
        pytest.param("\U0001f600", "{U+1F600}", id="beyond the basic plane"),
        pytest.param("\ud800", "{U+D800}", id="lone surrogate"),
        pytest.param("\u2039U+0041\u203a", "{U+2039}U+0041{U+203A}", id="imitation of the marks themselves"),
    ],
)
def test_what_is_not_plainly_legible_is_written_by_code_point(text: str, shown: str) -> None:
    assert legible_text(text) == shown.replace("{", OPEN).replace("}", CLOSE)


def test_a_long_name_is_cut_openly_and_says_by_how_much() -> None:
    shown = legible_text("T" * 300, limit=200)
    assert shown.startswith("T" * 200 + " " + OPEN + "cut: 100 of 300 characters; SHA-256 ")


def test_two_long_names_with_one_beginning_differ() -> None:
    assert legible_text("T" * 300 + "a") != legible_text("T" * 300 + "b")


def test_a_name_of_code_points_is_cut_by_what_is_printed() -> None:
    shown = legible_text("送" * 257)
    head, _, tail = shown.partition(f" {OPEN}cut:")
    assert tail
    assert len(head) <= IDENTIFIER_LIMIT


def test_the_longest_recorded_tool_of_the_longest_recorded_server_is_not_cut() -> None:
    name = "s" * 128 + "/" + "t" * 128
    assert legible_text(name) == name
