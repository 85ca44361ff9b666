"""Guards on Cedar text, before the Cedar parser sees it.

The parser of cedarpy recurses on the machine's stack without a bound: a thousand nested parentheses, or a few thousand
``&&`` in a row, kill the process, and a schema of forty types that each name the next one twice keeps it busy for
hours. The guards here read tokens only, as Cedar's own lexer would (the same rules for comments, strings and names),
and refuse what could do that. A character that Cedar's lexer would not take is refused here, so that the two never
disagree about where a string or comment ends.

Pure, apart from being named by an engine. The limits were measured on cedarpy 4.12.2: 600 nested parentheses or 1,000
chained operators still pass with a stack of 8 MiB.

Source: the Cedar language reference, sections on policy and schema grammar.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ledger.errors import PolicySyntaxError

__all__ = [
    "MAX_EXPANDED_SCHEMA",
    "MAX_NESTING",
    "MAX_OPERATORS",
    "MAX_TYPES",
    "Statement",
    "Token",
    "check_schema_text",
    "comments",
    "split_policies",
    "tokens_of",
]

MAX_NESTING: Final = 32
"""Deepest nesting of brackets in policy or schema."""

MAX_OPERATORS: Final = 300
"""Tokens of one policy that may each add a level to its expression."""

MAX_TYPES: Final = 200
"""Common types that one schema may declare."""

MAX_EXPANDED_SCHEMA: Final = 100_000
"""Tokens that a schema may have once its common types are written out."""

_DEEPENING: Final = frozenset({"&&", "||", "+", "-", "*", "!", ".", "[", "if"})
_OPENING: Final = {"(": ")", "[": "]", "{": "}"}
_CLOSING: Final = frozenset(_OPENING.values())
_TOKEN: Final = re.compile(
    r"""(?P<skip>[ \t\n\r\f\v]+|//[^\n\r]*)
      | (?P<string>"(?:\\[^\n]|[^"\\])*")
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[0-9]+)
      | (?P<mark>&&|\|\||==|!=|<=|>=|::|[()\[\]{}<>.,;:?@+\-*!=])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A token of Cedar.

    Attributes:
        kind: string, word, number or mark.
        text: Its text.
        start: Where it begins, in characters.
    """

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where it has ended."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy of a file.

    Attributes:
        line: Line on which it starts, from 1.
        text: Its text, the closing semicolon included.
    """

    line: int
    text: str


def _place(path: str, text: str, position: int) -> str:
    return f"{path}:{text.count(chr(10), 0, position) + 1}"


def _check_characters(path: str, text: str) -> None:
    """Refuse characters that make text look other than it is (bidirectional overrides, invisible ones)."""
    if text.isascii():
        return
    for position, char in enumerate(text):
        if not char.isascii() and unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs"}:
            raise PolicySyntaxError(f"{_place(path, text, position)}: the invisible character U+{ord(char):04X}")


def tokens_of(path: str, text: str) -> Iterator[Token]:
    """Yield the tokens of a text, comments and white space left out.

    Raises:
        PolicySyntaxError: A character that begins no token; the message names file and line.
    """
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise PolicySyntaxError(f"{_place(path, text, position)}: no token of Cedar starts here")
        if match.lastgroup != "skip":
            yield Token(match.lastgroup or "", match.group(), position)
        position = match.end()


def comments(text: str) -> tuple[str, ...]:
    """Return the comments of a text that `tokens_of` accepts, in order, without the space around them."""
    skipped = (match.group() for match in _TOKEN.finditer(text) if match.lastgroup == "skip")
    return tuple(comment.strip() for comment in skipped if comment.startswith("//"))


class _Brackets:
    """Open brackets at a place of a text."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text
        self._expected: list[str] = []

    def __len__(self) -> int:
        return len(self._expected)

    def read(self, token: Token) -> None:
        """Follow one token.

        Raises:
            PolicySyntaxError: Nested too deep, or a bracket that closes none.
        """
        if token.text in _OPENING:
            self._expected.append(_OPENING[token.text])
            if len(self._expected) > MAX_NESTING:
                self._fail(token, f"nested more than {MAX_NESTING} deep")
        elif token.text in _CLOSING and (not self._expected or self._expected.pop() != token.text):
            self._fail(token, "a bracket that closes none")

    def _fail(self, token: Token, message: str) -> None:
        raise PolicySyntaxError(f"{_place(self._path, self._text, token.start)}: {message}")


def split_policies(path: str, text: str) -> tuple[Statement, ...]:
    """Check policy text against the limits, and return its policies.

    Args:
        path: Its path in the bundle, for messages.
        text: The file.

    Raises:
        PolicySyntaxError: Beyond a limit, or no text of Cedar; the message names file and line.
    """
    _check_characters(path, text)
    brackets = _Brackets(path, text)
    statements: list[Statement] = []
    start: int | None = None
    operators = 0
    for token in tokens_of(path, text):
        if start is None:
            start = token.start
        brackets.read(token)
        operators += token.text in _DEEPENING
        if operators > MAX_OPERATORS:
            raise PolicySyntaxError(f"{_place(path, text, start)}: a policy with more than {MAX_OPERATORS} operators")
        if token.text == ";" and not len(brackets):
            line = text.count("\n", 0, start) + 1
            statements.append(Statement(line, text[start : token.start + 1]))
            start, operators = None, 0
    if start is not None:
        raise PolicySyntaxError(f"{_place(path, text, start)}: a policy that does not end")
    return tuple(statements)


def _attributes(tokens: list[Token]) -> dict[int, str]:
    """Return the attribute names that a schema declares, by their place among its tokens."""
    return {
        place: token.text.strip('"')
        for place, (token, after) in enumerate(pairwise(tokens))
        if token.kind in {"word", "string"} and after.text in {":", "?"}
    }


def _expanded_size(path: str, tokens: list[Token]) -> int:
    """Return how many tokens a schema has once its common types are written out.

    Types of one name in two namespaces count as one type with the tokens of both, which can only overrate.
    """
    bodies: dict[str, list[str]] = {}
    rest: list[str] = []
    attributes = _attributes(tokens)
    words = ["" if place in attributes or token.kind != "word" else token.text for place, token in enumerate(tokens)]
    position = 0
    while position < len(tokens):
        texts = [token.text for token in tokens[position : position + 3]]
        if texts[:1] == ["type"] and texts[2:] == ["="]:
            body = bodies.setdefault(texts[1], [])
            position += 3
            while position < len(tokens) and tokens[position].text != ";":
                body.append(words[position])
                position += 1
        else:
            rest.append(words[position])
            position += 1
    if len(bodies) > MAX_TYPES:
        raise PolicySyntaxError(f"{path}: a schema declares at most {MAX_TYPES} types, not {len(bodies)}")
    sizes: dict[str, int] = {}

    def size(name: str, above: frozenset[str]) -> int:
        if name not in bodies:
            return 1
        if name in above:
            raise PolicySyntaxError(f"{path}: the type {name} contains itself")
        if name not in sizes:
            sizes[name] = 1 + sum(size(word, above | {name}) for word in bodies[name])
        return sizes[name]

    return sum(size(word, frozenset()) for word in [*rest, *bodies])


def check_schema_text(path: str, text: str) -> frozenset[str]:
    """Check schema text against the limits, and return the names of the attributes that it declares.

    Args:
        path: Its path in the bundle, for messages.
        text: The file.

    Raises:
        PolicySyntaxError: Beyond a limit, or no text of a Cedar schema; the message names the file.
    """
    _check_characters(path, text)
    brackets = _Brackets(path, text)
    tokens = list(tokens_of(path, text))
    angles = 0
    for token in tokens:
        brackets.read(token)
        # Set<Set<…>>: an angle bracket is a bracket in a schema; it cannot be an operator there.
        angles += (token.text == "<") - (token.text == ">")
        if angles > MAX_NESTING:
            raise PolicySyntaxError(f"{_place(path, text, token.start)}: nested more than {MAX_NESTING} deep")
    if _expanded_size(path, tokens) > MAX_EXPANDED_SCHEMA:
        raise PolicySyntaxError(f"{path}: more than {MAX_EXPANDED_SCHEMA} tokens once its types are written out")
    return frozenset(_attributes(tokens).values())
