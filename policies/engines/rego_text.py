"""Guards on Rego text, before the parser of regorus sees it.

That parser tries several readings of what a bracket opens, one inside the other, so that each level of nested lists or
objects doubles its work: sixteen of them take seconds, a hundred do not end. Long chains of operators make syntax trees
whose description grows with the square of their length. The guards here read tokens only, as Rego's own lexer would
(the same rules for comments, strings and names), and refuse what could do that. A character that begins no token is
refused here, so that the two never disagree about where a string or comment ends.

Pure, apart from being named by an engine. The limits were measured on regorus 0.13: a file that spends all of
`MAX_NESTING_WORK` takes it about three seconds.

Source: the Rego language reference, section on grammar.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ledger.errors import PolicySyntaxError

__all__ = ["MAX_CHAIN", "MAX_NESTING", "MAX_NESTING_WORK", "MAX_TOKENS", "check_text", "has_package"]

MAX_NESTING: Final = 12
"""Deepest nesting of brackets and braces; a rule's body is one level."""

MAX_NESTING_WORK: Final = 1 << 16
"""Sum, over the brackets and braces of a file, of two to the power of their depth."""

MAX_CHAIN: Final = 200
"""Tokens of one expression that may each add a level to its syntax tree."""

MAX_TOKENS: Final = 60_000
"""Tokens of one file."""

_DEEPENING: Final = frozenset({"+", "-", "*", "/", "%", "&", "|", ".", "[", "not", "==", "!=", "<", "<=", ">", ">="})
_CONTINUING: Final = _DEEPENING | {":=", "=", "in"}
_OPENING: Final = {"(": ")", "[": "]", "{": "}"}
_CLOSING: Final = frozenset(_OPENING.values())
_TOKEN: Final = re.compile(
    r"""(?P<newline>\n)
      | (?P<skip>[ \t\r]+|\#[^\n]*)
      | (?P<string>"(?:\\[^\n]|[^"\\\n])*"|`[^`]*`)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
      | (?P<mark>:=|==|!=|<=|>=|[()\[\]{}<>.,;:+\-*/%=&|])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


def _place(path: str, text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"{path}:{line}:{position - text.rfind(chr(10), 0, position)}"


def _check_characters(path: str, text: str) -> None:
    """Refuse characters that make text look other than it is (bidirectional overrides, invisible ones)."""
    for position, char in enumerate(text):
        if char not in "\t\n\r" and unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}:
            raise PolicySyntaxError(f"{_place(path, text, position)}: the invisible character U+{ord(char):04X}")


def _tokens(path: str, text: str) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise PolicySyntaxError(f"{_place(path, text, position)}: no token of Rego starts here")
        if match.lastgroup != "skip":
            yield _Token(match.lastgroup or "", match.group(), position)
        position = match.end()


class _Shape:
    """Nesting and chains at a place of a text."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text
        self._expected: list[str] = []
        # Links of the expression that is being read, for each level of brackets.
        self._chains = [0]
        self._work = 0
        self._previous = ""

    def read(self, token: _Token) -> None:
        """Follow one token.

        Raises:
            PolicySyntaxError: Beyond a limit, or a bracket that closes none.
        """
        if token.kind == "newline":
            # A line break ends an expression unless an operator stands before it; one that stands after it is counted
            # to the next expression, which begins with few links.
            if self._previous not in _CONTINUING:
                self._chains[-1] = 0
            return
        if token.text in {",", ";"}:
            self._chains[-1] = 0
        if token.text in _DEEPENING:
            self._chains[-1] += 1
            if sum(self._chains) > MAX_CHAIN:
                self._fail(token, f"an expression of more than {MAX_CHAIN} operators and members")
        if token.text in _OPENING:
            self._open(token)
        elif token.text in _CLOSING:
            if not self._expected or self._expected.pop() != token.text:
                self._fail(token, "a bracket that closes none")
            self._chains.pop()
        self._previous = token.text

    def _open(self, token: _Token) -> None:
        self._expected.append(_OPENING[token.text])
        self._chains.append(0)
        depth = sum(mark != ")" for mark in self._expected)
        if depth > MAX_NESTING or len(self._expected) > 2 * MAX_NESTING:
            self._fail(token, f"nested more than {MAX_NESTING} deep")
        if token.text != "(":
            self._work += 1 << depth
            if self._work > MAX_NESTING_WORK:
                self._fail(token, "too much nesting in one file; tables of values belong into the bundle's data")

    def _fail(self, token: _Token, message: str) -> None:
        raise PolicySyntaxError(f"{_place(self._path, self._text, token.start)}: {message}")


def check_text(path: str, text: str) -> None:
    """Check policy text against the limits.

    Args:
        path: Its path in the bundle, for messages.
        text: The file.

    Raises:
        PolicySyntaxError: Beyond a limit, or no text of Rego; the message names file, line and column.
    """
    _check_characters(path, text)
    shape = _Shape(path, text)
    for count, token in enumerate(_tokens(path, text), start=1):
        if count > MAX_TOKENS:
            raise PolicySyntaxError(f"{path}: a file of more than {MAX_TOKENS} words and marks")
        shape.read(token)


def has_package(path: str, text: str) -> bool:
    """Tell whether a file says which package it belongs to.

    Raises:
        PolicySyntaxError: No text of Rego.
    """
    return next((token.text for token in _tokens(path, text) if token.kind != "newline"), "") == "package"
