"""Regular expressions in linear time, over bytes.

Pure. All that meets a whole text goes through here or through YARA-X: neither ever tries again what it has read, so
that no text makes them slow.

Source: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import re2

from ledger.errors import ConfigError

__all__ = ["Match", "Pattern", "Several", "Stretches", "escaped", "linear"]

_MEMORY_BYTES: Final = 64 << 20

Stretches: TypeAlias = Sequence[tuple[int, int]]
"""Starts and ends of parts of a text, in order, none in another."""


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

    @property
    def source(self) -> bytes:
        """Return what it was compiled of."""
        pattern: bytes = self._compiled.pattern
        return pattern

    def matches(self, data: bytes) -> bool:
        """Whether it matches anywhere."""
        return self._compiled.search(data) is not None

    def finditer(self, data: bytes, within: Stretches | None = None) -> Iterator[Match]:
        """Yield the matches from left to right, none inside another.

        Args:
            data: The text.
            within: Where alone to look; a match may depend on what stands around a stretch, and not reach out of it.
        """
        for start, end in ((0, len(data)),) if within is None else within:
            for match in self._compiled.finditer(data, start, end):
                yield Match(data, match, self._numbers)


class Several:
    """Patterns that are looked for at once, in one pass: only which of them match, not where."""

    __slots__ = ("_all", "_end", "_set")

    def __init__(self, patterns: Sequence[bytes]) -> None:
        """Compile them.

        Raises:
            ConfigError: One is no pattern, or all together take too much memory.
        """
        self._set = re2.Set.SearchSet(_options())  # type: ignore[no-untyped-call]
        try:
            for pattern in patterns:
                self._set.Add(pattern)
            # The library says of what it could not look through that nothing matched; this one always does.
            self._end = self._set.Add(rb"\z")
            self._set.Compile()
        except re2.error as error:
            raise ConfigError(f"not patterns: {error}") from None
        self._all = frozenset(range(self._end))

    def which(self, data: bytes) -> frozenset[int]:
        """Return the places of those that match, in the order in which they were given."""
        found = frozenset(self._set.Match(data) or ())
        return found - {self._end} if self._end in found else self._all


def escaped(text: str) -> bytes:
    """Return a pattern that matches a text as it is."""
    made: bytes = re2.escape(text.encode())  # type: ignore[no-untyped-call]
    return made


def linear(pattern: bytes) -> Pattern:
    """Compile a pattern over bytes, in RE2's syntax.

    Raises:
        ConfigError: It is no pattern, or takes too much memory.
    """
    try:
        return Pattern(re2.compile(pattern, options=_options()))  # type: ignore[no-untyped-call]
    except re2.error as error:
        raise ConfigError(f"not a pattern: {error}") from None


def _options() -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    return options
