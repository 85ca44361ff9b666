"""From the bytes of a description to its value: JSON or YAML, strictly, within bounds.

Pure. JSON is read by `ledger.canonical.parse_json`. YAML is read by the events of libyaml, never as objects: scalars
are those of YAML 1.2's core schema (``no`` is text, ``2026-01-01`` is text), keys are text, a key twice is refused, and
what aliases add up to is counted, so that a bomb of them is refused rather than unfolded. Numbers stay exact.

Source: RFC 8259; YAML 1.2.2, section 10.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import yaml

from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError

__all__ = ["MAX_DEPTH", "MAX_DOCUMENT_BYTES", "MAX_VALUES", "read_document"]

MAX_DOCUMENT_BYTES: Final = 16 << 20

MAX_DEPTH: Final = 100
"""Deepest nesting of a description."""

MAX_VALUES: Final = 2_000_000
"""Values of a YAML description, each alias counted with all that it stands for."""

_MAX_NUMBER_CHARS: Final = 300
_MAX_EXPONENT: Final = 300
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE: Final = "<<"


def _scalar(event: Any) -> JSONValue:  # noqa: ANN401  # PyYAML's events are not typed
    # Quoted text is text, and so is what a tag of its own declares to be something else.
    plain = event.style in {None, ""} and event.implicit[0]
    return _plain_scalar(event.value) if plain else str(event.value)


def _plain_scalar(text: str) -> JSONValue:
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) <= _MAX_NUMBER_CHARS and _INTEGER.fullmatch(text):
        return int(text)
    if len(text) <= _MAX_NUMBER_CHARS and _FLOAT.fullmatch(text):
        number = Decimal(text)
        if abs(number.adjusted()) <= _MAX_EXPONENT:
            return number
    return text


def _line(event: Any) -> int:  # noqa: ANN401  # as above
    return int(event.start_mark.line) + 1


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being read."""

    value: dict[str, JSONValue] | list[JSONValue]
    anchor: str | None
    line: int
    size: int = 1
    key: str | None = None
    merged: list[JSONValue] | None = None

    def add(self, value: JSONValue, size: int) -> None:
        self.size += size
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.key is None:
            self.key = self._key(value)
        elif self.key == _MERGE:
            self.merged = [*(self.merged or []), *(value if isinstance(value, list) else [value])]
            self.key = None
        elif self.key in self.value:
            raise MalformedError(f"line {self.line}: the mapping that starts here has a key twice")
        else:
            self.value[self.key] = value
            self.key = None

    def _key(self, value: JSONValue) -> str:
        if isinstance(value, str):
            return value
        if value is None or isinstance(value, dict | list):
            raise MalformedError(f"line {self.line}: the mapping that starts here has a key that is no text")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def whole(self) -> JSONValue:
        """Return the value, with what ``<<`` takes over."""
        if isinstance(self.value, dict) and self.merged is not None:
            for other in self.merged:
                if not isinstance(other, dict):
                    raise MalformedError(f"line {self.line}: << takes over mappings only")
                self.value = {**other, **self.value}
        return self.value


class _Builder:
    """Builds a value from events; nesting is a list here, so that depth costs no recursion."""

    def __init__(self) -> None:
        self.roots: list[JSONValue] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[JSONValue, int, int]] = {}

    def take(self, event: Any) -> None:  # noqa: ANN401  # PyYAML's events are not typed
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = (value, 1, 0)
            self._add(value, 1)
        elif isinstance(event, yaml.AliasEvent):
            self._add(*self._known(event))
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            empty: dict[str, JSONValue] | list[JSONValue] = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._open.append(_Open(empty, event.anchor, _line(event)))
            if len(self._open) > MAX_DEPTH:
                raise MalformedError(f"line {_line(event)}: nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            done = self._open.pop()
            value = done.whole()
            if done.anchor is not None:
                self._anchors[done.anchor] = (value, done.size, _depth(value))
            self._add(value, done.size)

    def _known(self, event: Any) -> tuple[JSONValue, int]:  # noqa: ANN401  # as above
        # An anchor is known once its value is whole, so that nothing can hold itself.
        if event.anchor not in self._anchors:
            raise MalformedError(f"line {_line(event)}: an alias of nothing that came before")
        value, size, depth = self._anchors[event.anchor]
        if len(self._open) + depth > MAX_DEPTH:
            raise MalformedError(f"line {_line(event)}: nested more than {MAX_DEPTH} deep")
        return value, size

    def _add(self, value: JSONValue, size: int) -> None:
        if size > MAX_VALUES or (self._open and self._open[-1].size + size > MAX_VALUES):
            raise MalformedError(f"more than {MAX_VALUES} values")
        if self._open:
            self._open[-1].add(value, size)
        else:
            self.roots.append(value)


def _depth(value: JSONValue) -> int:
    level: list[JSONValue] = [value]
    deepest = 0
    while level:
        inner = [
            item
            for node in level
            for item in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
            if isinstance(item, dict | list)
        ]
        deepest += bool(level)
        level = [*inner]
    return deepest


def _events(text: str) -> Iterator[Any]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MalformedError(f"not YAML: {' '.join(str(error).split())[:300]}") from error


def _read_yaml(text: str) -> JSONValue:
    builder = _Builder()
    for event in _events(text):
        builder.take(event)
    if len(builder.roots) != 1:
        raise MalformedError(f"a description is one YAML document, not {len(builder.roots)}")
    return builder.roots[0]


def read_document(data: bytes) -> JSONValue:
    """Return the value of a description.

    Args:
        data: JSON if it starts with ``{`` or ``[``, else YAML; UTF-8.

    Raises:
        MalformedError: Neither, beyond a limit, or ambiguous (a key twice).
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise MalformedError(f"a description has at most {MAX_DOCUMENT_BYTES} bytes, not {len(data)}")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.lstrip()[:1] in {b"{", b"["}:
        return parse_json(data, max_depth=MAX_DEPTH)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}") from error
    return _read_yaml(text)
