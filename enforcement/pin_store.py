"""What is known of tools, in the gateway's state file; and what its own operator says of them.

A row is a pin (`enforcement.pin_rules`); its definitions stand in it, so that a difference can be shown without the
service. What the operator says changes rows in one transaction with the record that tells of it, and leaves a word in
``tool_words``, by which a gateway that runs sees that it must read them again.

What the service says of tools is kept beside it (`KeptVerdicts`): a restart while the service is away lifts nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from enforcement.pin_rules import Pin, standing
from enforcement.state import Change, StateDatabase
from ledger.errors import ConflictError, MalformedError, NotFoundError, StorageError
from ledger.files import replace_durably
from ledger.tool_verdicts import MAX_TOOL_DOCUMENT_BYTES, ToolVerdicts, parse_tool_verdicts

__all__ = ["KeptVerdicts", "PinStore", "said_of"]

_LOG: Final = structlog.get_logger(__name__)
_FILE: Final = "tool_verdicts.json"


@dataclass(frozen=True, slots=True)
class _SavePins:
    rows: tuple[tuple[str, str, bytes], ...]
    word: int | None = None

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT OR REPLACE INTO tool_pins (server, tool, pin) VALUES (?, ?, ?)", self.rows)
        if self.word is not None:
            connection.execute("INSERT INTO tool_words (said_ms) VALUES (?)", (self.word,))


class PinStore:
    """The pins in a state file."""

    def __init__(self, state: StateDatabase) -> None:
        """Read the file, on a connection that is read here and never written."""
        self._state = state

    def read(self) -> dict[str, dict[str, Pin]]:
        """Return all pins, by server and tool.

        Raises:
            StorageError: The file failed, or a row cannot be read.
        """
        found: dict[str, dict[str, Pin]] = {}
        for server, tool, data in self._state.read("SELECT server, tool, pin FROM tool_pins ORDER BY server, tool"):
            try:
                found.setdefault(server, {})[tool] = msgspec.json.decode(data, type=Pin)
            except msgspec.MsgspecError as error:
                raise StorageError("the state file holds a tool's pin that cannot be read") from error
        return found

    def words(self) -> int:
        """Return how often the operator has said something.

        Raises:
            StorageError: The file failed.
        """
        (row,) = self._state.read("SELECT COALESCE(MAX(word), 0) FROM tool_words")
        return int(row[0])

    @staticmethod
    def saving(server: str, pins: Iterable[Pin]) -> Change:
        """Return what makes pins of a server durable."""
        return _SavePins(tuple((server, pin.tool, msgspec.json.encode(pin)) for pin in pins))


class KeptVerdicts:
    """The set of verdicts that was in force last, in a file of the state directory."""

    def __init__(self, directory: Path) -> None:
        """Keep it there; nothing is read yet."""
        self._path = directory / _FILE
        self._digest = ""

    def read(self) -> ToolVerdicts | None:
        """Return it; an empty one if none was kept, None if one was and cannot be read."""
        try:
            with self._path.open("rb") as file:
                kept = parse_tool_verdicts(file.read(MAX_TOOL_DOCUMENT_BYTES + 1))
        except FileNotFoundError:
            return ToolVerdicts()
        except (OSError, MalformedError) as error:
            _LOG.error("kept_tool_verdicts_unusable", error=type(error).__name__)
            return None
        self._digest = kept.digest
        return kept

    def keep(self, verdicts: ToolVerdicts) -> None:
        """Have a set survive a restart; what the disk does not take is tried again when this is called again."""
        if self._digest == verdicts.digest:
            return
        try:
            replace_durably(self._path, verdicts.document, mode=0o600)
        except OSError as error:
            _LOG.error("tool_verdicts_not_kept", error=type(error).__name__)
            return
        self._digest = verdicts.digest


def said_of(
    store: PinStore, server: str, tool: str, digest: str, verdict: Literal["approved", "rejected"], now_ms: int
) -> tuple[Pin, Change]:
    """Return a pin before its operator's verdict, and what makes that durable.

    Args:
        store: The pins.
        server: Its server.
        tool: Its name.
        digest: Of the definition that the verdict is about.
        verdict: What he says.
        now_ms: When.

    Raises:
        NotFoundError: No such tool is known.
        ConflictError: Another definition is listed by now, or there is nothing to say of it.
        StorageError: The file failed.
    """
    pin = store.read().get(server, {}).get(tool)
    if pin is None:
        raise NotFoundError(f"no tool {tool} of a server {server} is known here")
    if pin.seen != digest or not digest:
        raise ConflictError(f"{server} lists another definition of {tool} by now: look at it again")
    if verdict == "approved":
        if pin.state == "pinned" and pin.trust == "approved":
            raise ConflictError(f"{tool} of {server} is approved already")
        after = standing(pin, "approved")
    else:
        reasons = tuple(sorted({*pin.reasons, "rejected"}))
        after = msgspec.structs.replace(pin, state="quarantined", reasons=reasons)
    return pin, _SavePins(((server, tool, msgspec.json.encode(after)),), now_ms)
