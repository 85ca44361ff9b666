"""The servers that a gateway stands before, as they are now: the list, and the modes that are in force.

What is elsewhere: what another list would change (`enforcement.modes`), when one is read (`enforcement.server_reload`).

INVARIANT: a list is taken up as a whole, and only once every change of a mode in it is durable as a record: from the
record on, and not before, a server is only observed. What cannot be recorded stays enforced.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from enforcement.capture import strictest, strictest_of
from enforcement.config import ServerSettings
from enforcement.config_capture import Capture
from enforcement.config_types import Mode
from enforcement.modes import Key, declared_modes
from enforcement.state import Change, StateDatabase

__all__ = ["HeldModes", "Servers"]


class Servers:
    """The servers by name. Owned by the event loop.

    Attributes:
        strictest_capture: How much may be captured of a message of which nobody can say which of them it is for.
    """

    def __init__(self, servers: Sequence[ServerSettings] = ()) -> None:
        """Begin with a list."""
        self._by_name: Mapping[str, ServerSettings] = {}
        self.strictest_capture: Capture = "full"
        self._watchers: list[Callable[[Sequence[ServerSettings]], None]] = []
        self.replace(servers)

    def get(self, name: str) -> ServerSettings | None:
        """Return a server; None if there is none of that name."""
        return self._by_name.get(name)

    @property
    def all(self) -> tuple[ServerSettings, ...]:
        """Every server, in the order of the list."""
        return tuple(self._by_name.values())

    def watch(self, watcher: Callable[[Sequence[ServerSettings]], None]) -> None:
        """Tell somebody of every list from now on, and of the present one at once."""
        self._watchers.append(watcher)
        watcher(self.all)

    def replace(self, servers: Sequence[ServerSettings]) -> None:
        """Put another list in the place of the one before; calls that are under way keep what they began with."""
        self._by_name = {server.name: server for server in servers}
        self.strictest_capture = strictest(strictest_of(server) for server in servers)
        for watcher in self._watchers:
            watcher(self.all)


@dataclass(frozen=True, slots=True)
class _SaveModes:
    """Stores the modes of some servers, and which approvals are used up by that."""

    servers: tuple[str, ...]
    modes: tuple[tuple[str, str, str], ...]
    used: tuple[str, ...]

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.executemany("DELETE FROM modes WHERE server = ?", [(name,) for name in self.servers])
        connection.executemany("INSERT INTO modes (server, tool, mode) VALUES (?, ?, ?)", self.modes)
        connection.executemany("INSERT OR IGNORE INTO used_changes VALUES (?)", [(one,) for one in self.used])


class HeldModes:
    """The modes in the state file: what is in force, over restarts, and what was for servers that were taken off."""

    def __init__(self, state: StateDatabase) -> None:
        """Read the file, on a connection that is read here and never written.

        Raises:
            StorageError: The file failed.
        """
        self._state = state

    def read(self) -> dict[Key, Mode]:
        """Return the modes by server and tool.

        Raises:
            StorageError: The file failed.
        """
        rows = self._state.read("SELECT server, tool, mode FROM modes")
        return {(server, tool or None): "observe" if mode == "observe" else "enforce" for server, tool, mode in rows}

    def used(self) -> frozenset[str]:
        """Return the approvals that were taken up before: each holds once.

        Raises:
            StorageError: The file failed.
        """
        return frozenset(row[0] for row in self._state.read("SELECT change_id FROM used_changes"))

    @staticmethod
    def saving(servers: Sequence[ServerSettings], used: Sequence[str]) -> Change:
        """Return what makes the modes of a list durable, with the approvals that it used up."""
        modes = declared_modes(servers)
        rows = tuple((name, tool or "", mode) for (name, tool), mode in modes.items())
        return _SaveModes(tuple(server.name for server in servers), rows, tuple(used))
