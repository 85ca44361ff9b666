"""Newline-delimited JSON: however the pipe cuts it, and whatever else might be taken for the end of a line."""

from __future__ import annotations

import json

import pytest

from enforcement.lines import Line, LineSplitter, one_line


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_lines_are_the_same_however_they_are_cut(size: int) -> None:
    text = b'{"a":1}\n\n  \n{"b":2}\r\n{"c"'
    splitter = LineSplitter(100)
    lines = [line for start in range(0, len(text), size) for line in splitter.feed(text[start : start + size])]
    assert lines == [Line(b'{"a":1}'), Line(b'{"b":2}\r')]
    assert splitter.end() == [Line(b'{"c"', whole=False)]
    assert splitter.end() == []


def test_of_a_line_that_is_too_long_one_byte_more_is_kept_and_the_next_is_whole() -> None:
    splitter = LineSplitter(4)
    assert splitter.feed(b"123456789") == []
    assert splitter.feed(b"0\nabcd\nabcde\n") == [Line(b"12345"), Line(b"abcd"), Line(b"abcde")]


@pytest.mark.parametrize("between", ["\r", "\n", "\r\n"])
def test_an_end_of_line_between_values_becomes_a_space(between: str) -> None:
    text = f'{{"x":{between}{{"jsonrpc":"2.0"}}{between}}}'.encode()
    line = one_line(text)
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert json.loads(line) == json.loads(text)


def test_what_some_readers_take_for_the_end_of_a_line_is_escaped_within_a_text() -> None:
    text = json.dumps({"note": "a\u2028b\u2029c\u0085d"}, ensure_ascii=False).encode()
    line = one_line(text)
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == json.loads(text)
