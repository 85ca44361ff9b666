"""Which windows a gateway measures: those of the bundle in force, and for a while those that were in force before.

A bundle that is rolled back, or put in force again, finds what its windows would have counted meanwhile: else an
activation in between would lift their caps. What is no longer declared is measured for as long as calls of now could
count in it.

Declarations are kept by digest, each with the parameter that it sums, so that they outlast their bundle and a restart.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from enforcement.state import StateDatabase
from ledger.errors import PolicySyntaxError, StorageError
from policies.parameters import Parameter, ParameterSet
from policies.window_declarations import Window, volumes_of
from policies.windows import WindowSet

__all__ = ["MAX_FORMER", "MeasuredWindows"]

MAX_FORMER: Final = 32
"""Windows that are measured although the bundle in force does not declare them; those to be dropped last, if more."""

_MS_PER_SECOND: Final = 1000
_DAYS_MS: Final = 3 * 86_400_000
"""For so long a former window of a day, of sessions, or of a job with volumes, is measured."""


@dataclass(frozen=True, slots=True)
class _Declaration:
    """A window that is measured.

    Attributes:
        window: The declaration, named by its digest.
        parameters: The declarations of its parameter.
        until_ms: For how long, POSIX milliseconds; None while a bundle that declares it is in force.
    """

    window: Window
    parameters: tuple[Parameter, ...]
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class _Save:
    rows: tuple[tuple[str, bytes, bytes, int | None], ...]

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM declarations")
        connection.executemany("INSERT INTO declarations VALUES (?, ?, ?, ?)", self.rows)


class MeasuredWindows:
    """The declarations that a gateway knows; owned by the event loop."""

    def __init__(self, state: StateDatabase) -> None:
        """Read what was measured before a restart.

        Raises:
            StorageError: The file failed, or what it holds is no declaration.
        """
        self._known = _stored(state)
        self._former: tuple[WindowSet, ...] = ()
        self._shared: frozenset[str] = frozenset()
        try:
            self._group()
        except PolicySyntaxError as error:
            raise StorageError("the state file holds a declaration of a window that makes no sense") from error

    @property
    def former(self) -> tuple[WindowSet, ...]:
        """The windows that are measured although the bundle in force does not declare them."""
        return self._former

    @property
    def shared(self) -> frozenset[str]:
        """The digests of those that are across the fleet."""
        return self._shared

    def adopt(self, windows: WindowSet, now_ms: int) -> None:
        """Put a bundle's windows in force, in place of the last one's.

        Args:
            windows: The windows.
            now_ms: The time, POSIX milliseconds.
        """
        for digest, known in self._known.items():
            if known.until_ms is None:
                self._known[digest] = _Declaration(known.window, known.parameters, _until_ms(known.window, now_ms))
        for name, window in windows.windows.items():
            digest = windows.digests[name]
            named = msgspec.structs.replace(window, name=f"w{digest}")
            self._known[digest] = _Declaration(named, windows.parameters_of(name), None)
        self.sweep(now_ms)

    def sweep(self, now_ms: int) -> None:
        """Drop the former windows in which no call of now could count any more."""
        former = [
            (known.until_ms, digest)
            for digest, known in self._known.items()
            if known.until_ms is not None and known.until_ms > now_ms
        ]
        kept = {digest for _, digest in sorted(former, reverse=True)[:MAX_FORMER]}
        self._known = {
            digest: known for digest, known in self._known.items() if known.until_ms is None or digest in kept
        }
        self._group()

    def save(self) -> _Save:
        """Return what makes the declarations durable."""
        return _Save(
            tuple(
                (digest, msgspec.json.encode(known.window), msgspec.json.encode(known.parameters), known.until_ms)
                for digest, known in self._known.items()
            )
        )

    def _group(self) -> None:
        """Put those together that read the same parameter, so that it is read once."""
        self._shared = frozenset(digest for digest, known in self._known.items() if known.window.across == "fleet")
        groups: dict[bytes, list[_Declaration]] = {}
        for known in self._known.values():
            if known.until_ms is not None:
                groups.setdefault(msgspec.json.encode(known.parameters), []).append(known)
        self._former = tuple(
            WindowSet([known.window for known in group], ParameterSet(group[0].parameters)) for group in groups.values()
        )


def _until_ms(window: Window, now_ms: int) -> int:
    seconds = window.over_seconds
    rolling_ms = 0 if seconds is None else 2 * seconds * _MS_PER_SECOND
    return now_ms + (max(_DAYS_MS, rolling_ms) if seconds is None or volumes_of(window) else rolling_ms)


def _stored(state: StateDatabase) -> dict[str, _Declaration]:
    rows = state.read("SELECT digest, window, parameters, until_ms FROM declarations")
    try:
        return {
            digest: _Declaration(
                msgspec.json.decode(window, type=Window),
                msgspec.json.decode(parameters, type=tuple[Parameter, ...]),
                until_ms,
            )
            for digest, window, parameters, until_ms in rows
        }
    except msgspec.MsgspecError as error:
        raise StorageError("the state file holds a declaration of a window that is none") from error
