"""Regular expressions in linear time, over bytes.

Pure. All that meets a whole text goes through here or through YARA-X: neither ever tries again what it has read, so
that no text makes them slow.

Source: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import re2

from ledger.errors import ConfigError

__all__ = ["Match", "Pattern", "escaped", "linear"]

_MEMORY_BYTES: Final = 64 << 20


class Match:
    """One match of a pattern."""

    __slots__ = ("_data", "_match", "_numbers")

    def __init__(self, data: bytes, match: Any, numbers: dict[str, int]) -> None:  # noqa: ANN401  # the library's, untyped
        self._data = data
        self._match = match
        self._numbers = numbers

    @property
    def name(self) -> str:
        """Return the name of the outermost group that matched; empty if none did."""
        last = self._match.lastindex
        return next((name for name, number in self._numbers.items() if number == last), "")

    def span(self, name: str = "") -> tuple[int, int]:
        """Return where a group matched, or the whole; (-1, -1) if it did not."""
        start, end = self._match.span(self._numbers[name] if name else 0)
        return start, end

    def group(self, name: str = "") -> bytes:
        """Return what a group matched, or the whole; empty if it did not."""
        start, end = self.span(name)
        return self._data[start:end] if start >= 0 else b""


class Pattern:
    """A compiled pattern."""

    __slots__ = ("_compiled", "_numbers")

    def __init__(self, compiled: Any) -> None:  # noqa: ANN401  # the library's, untyped
        self._compiled = compiled
        self._numbers: dict[str, int] = {
            name.decode() if isinstance(name, bytes) else name: number for name, number in compiled.groupindex.items()
        }

    def matches(self, data: bytes) -> bool:
        """Whether it matches anywhere."""
        return self._compiled.search(data) is not None

    def finditer(self, data: bytes) -> Iterator[Match]:
        """Yield the matches from left to right, none inside another."""
        for match in self._compiled.finditer(data):
            yield Match(data, match, self._numbers)


def escaped(text: str) -> bytes:
    """Return a pattern that matches a text as it is."""
    made: bytes = re2.escape(text.encode())  # type: ignore[no-untyped-call]
    return made


def linear(pattern: bytes) -> Pattern:
    """Compile a pattern over bytes, in RE2's syntax.

    Raises:
        ConfigError: It is no pattern, or takes too much memory.
    """
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    try:
        return Pattern(re2.compile(pattern, options=options))  # type: ignore[no-untyped-call]
    except re2.error as error:
        raise ConfigError(f"not a pattern: {error}") from None
