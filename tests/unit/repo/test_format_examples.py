"""docs/formats.md says what the code does."""

from __future__ import annotations

import re

import pytest

from scripts.format_examples import DOCUMENT, EXAMPLES, with_examples


def test_the_examples_of_the_formats_page_are_those_that_the_code_makes():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_examples(text) == text


def test_every_example_stands_on_the_page_once():
    named = re.findall(r"<!-- example: ([a-z0-9-]+) -->", DOCUMENT.read_text(encoding="utf-8"))
    assert sorted(named) == sorted(EXAMPLES)


def test_an_example_that_was_edited_by_hand_is_put_right():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_examples(text.replace("tile/2/000.p/1", "tile/2/000.p/2")) == text


def test_an_example_that_nobody_makes_is_an_error():
    with pytest.raises(KeyError):
        with_examples("<!-- example: imaginary -->\n```text\n```\n")
