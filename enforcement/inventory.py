"""What an enforcement point says of its servers and tools, as records: who answers for them, which tags they have.

From them the service knows what there is (`service.inventory_book`), also what nobody has called yet, and since when.
Two things are told: what the *list* of servers says, whenever that has changed; and which tags the *definition* of a
tool suggests (`enforcement.tag_rules`), with its digest, whenever a server lists a tool with another definition.

What was told is kept in the state file, so that nothing is told twice, restarts included: the same transaction takes
the record and notes it.

INVARIANT: nothing here holds a message up or lets one through. Records are written beside the calls; what cannot be
recorded now is tried again.

A server can list whatever it likes. So no more than `MAX_TOOLS` of its tools are told of, a tool's suggestion is told
again `AGAIN_MS` after the last time at the earliest, and of what waits to be read no more than `_MAX_WAITING_BYTES` are
kept: what is left out then is seen when the server is asked for its list again.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from enforcement.answers import MAX_TOOLS, tool_digests
from enforcement.batches import Batch, Item
from enforcement.config import ServerSettings
from enforcement.json_slices import MAX_JSON_NODES, exceeds_nodes
from enforcement.modes import recorded_tool
from enforcement.recorder import Recorder
from enforcement.state import StateDatabase
from enforcement.tag_rules import advise
from ledger.bodies_inventory import InventoryEvent
from ledger.canonical import canonical_bytes, parse_json
from ledger.clock import Clock
from ledger.errors import LedgerError, MalformedError
from ledger.ports import Draft
from ledger.tasks import Repeating

__all__ = ["AGAIN_MS", "InventoryReport", "Told", "listed_events", "suggested_events"]

AGAIN_MS: Final = 3_600_000
"""A tool whose definition changes all the time is told of no more often than this."""

_LOG: Final = structlog.get_logger(__name__)
_AT_ONCE: Final = 100
_MAX_WAITING_BYTES: Final = 16 << 20
_RETRY_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 3600.0

_Key = tuple[str, str]
"""A server's name, and a tool's as records have it; empty for the server itself."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was told last of a server or tool.

    Attributes:
        digest: Of what was told.
        time_ms: When.
    """

    digest: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class _Note:
    """Notes what was told; nothing is left of what the list has no more."""

    kind: str
    key: _Key
    told: Told | None

    def apply(self, connection: sqlite3.Connection) -> None:
        server, tool = self.key
        if self.told is None:
            connection.execute(
                "DELETE FROM inventory WHERE kind = ? AND server = ? AND tool = ?", (self.kind, *self.key)
            )
            if not tool:
                connection.execute("DELETE FROM inventory WHERE kind = 'advice' AND server = ?", (server,))
            return
        row = (self.kind, server, tool, self.told.digest, self.told.time_ms)
        connection.execute(
            "INSERT OR REPLACE INTO inventory (kind, server, tool, digest, time_ms) VALUES (?,?,?,?,?)", row
        )


def _digest_of(event: InventoryEvent) -> str:
    """Return the digest of what an event says."""
    said = [event.owner, list(event.tags), list(event.rules), list(event.disagreements), event.definition]
    return hashlib.sha256(canonical_bytes(said)).hexdigest()


def listed_events(
    told: Mapping[_Key, Told], servers: Sequence[ServerSettings]
) -> Iterator[tuple[_Key, InventoryEvent]]:
    """Yield what is to be told of a list of servers: what is new on it, what is otherwise, what is gone.

    Args:
        told: What was told of lists before.
        servers: The list.
    """
    listed: dict[_Key, InventoryEvent] = {}
    for server in servers:
        listed[server.name, ""] = InventoryEvent(
            action="registered", server=server.name, owner=server.owner, tags=tuple(sorted(set(server.tags)))
        )
        for tool in server.tools:
            own, name = tuple(sorted(set(tool.tags) - set(server.tags))), recorded_tool(tool.name)
            if own and name is not None:
                listed[server.name, name] = InventoryEvent(action="registered", server=server.name, tool=name, tags=own)
    for key, event in listed.items():
        before = told.get(key)
        if before is None:
            yield key, event
        elif before.digest != _digest_of(event):
            yield (
                key,
                InventoryEvent(
                    action="changed", server=event.server, tool=event.tool, owner=event.owner, tags=event.tags
                ),
            )
    for server_name, tool_name in sorted(told.keys() - listed.keys(), reverse=True):  # tools before their server
        yield (
            (server_name, tool_name),
            InventoryEvent(action="removed", server=server_name, tool=tool_name or None),
        )


def suggested_events(
    told: Mapping[_Key, Told], server: str, result: bytes, now_ms: int
) -> Iterator[tuple[_Key, InventoryEvent]]:
    """Yield what the definitions in a list of tools suggest, as far as it was not told yet.

    Args:
        told: What was told of definitions before.
        server: Whose list.
        result: The result of ``tools/list``. One that cannot be read suggests nothing.
        now_ms: The time.
    """
    if exceeds_nodes(result, MAX_JSON_NODES):
        return
    try:
        value = parse_json(result)
    except MalformedError:
        return
    tools = value.get("tools") if isinstance(value, dict) else None
    digests = tool_digests(result)
    known = sum(name == server for name, _ in told)
    for tool in tools if isinstance(tools, list) else ():
        name = tool.get("name") if isinstance(tool, dict) else None
        # An ambiguous definition has no digest: nobody could say which of the two was meant.
        if not isinstance(tool, dict) or not isinstance(name, str) or name not in digests:
            continue
        advice, recorded = advise(tool), recorded_tool(name)
        if recorded is None:
            continue
        event = InventoryEvent(
            action="suggested",
            server=server,
            tool=recorded,
            tags=advice.tags,
            rules=advice.rules,
            disagreements=advice.disagreements,
            definition=digests[name],
        )
        before = told.get((server, recorded))
        if before is None:
            known += 1
            if known > MAX_TOOLS:
                return
        elif before.digest == _digest_of(event) or now_ms - before.time_ms < AGAIN_MS:
            continue
        digests.pop(name)  # a tool that stands twice is told of once
        yield (server, recorded), event


class InventoryReport:
    """Tells the ledger of servers and tools. Owned by the event loop; nothing is told before `start`."""

    def __init__(self, state: StateDatabase, recorder: Recorder, clock: Clock) -> None:
        """Take the parts.

        Args:
            state: The state file, on a connection that is read here and never written.
            recorder: Records.
            clock: Says when.
        """
        self._state = state
        self._recorder = recorder
        self._clock = clock
        self._listed: tuple[ServerSettings, ...] | None = None
        self._answers: dict[tuple[str, bytes], bytes] = {}
        self._waiting_bytes = 0
        self._recording = asyncio.Lock()
        self._work = Repeating(
            "inventory",
            self._turn,
            first_seconds=_IDLE_SECONDS,
            retry_seconds=_RETRY_SECONDS,
            on_failure=self._refused,
        )

    @staticmethod
    def _refused(error: Exception) -> None:
        _LOG.warning("inventory_not_recorded", error=type(error).__name__)

    async def start(self) -> None:
        """Tell what was noted before anything is called, if that is possible now; and go on telling."""
        try:
            await self.record()
        except LedgerError as error:
            self._refused(error)
            self._work.wake()
        self._work.start()

    async def stop(self) -> None:
        """Tell what is noted, if that is possible now, and stop."""
        await self._work.stop()
        with suppress(LedgerError):
            await self.record()

    def note_servers(self, servers: Sequence[ServerSettings]) -> None:
        """Have a list of servers told; the one before, if it still waits, is none any more."""
        self._listed = tuple(servers)
        self._work.wake()

    def note_tools(self, server: str, result: bytes) -> None:
        """Have told what the definitions in an answer suggest.

        Args:
            server: Whose answer.
            result: The result of ``tools/list``.
        """
        key = (server, hashlib.sha256(result).digest())
        if key in self._answers or self._waiting_bytes + len(result) > _MAX_WAITING_BYTES:
            return
        self._answers[key] = result
        self._waiting_bytes += len(result)
        self._work.wake()

    async def record(self) -> int:
        """Record what is noted and was not told yet, and return how many records that were.

        Raises:
            LedgerError: It could not be recorded; it is tried again.
        """
        async with self._recording:
            return await self._record_list() + await self._record_answers()

    async def _turn(self) -> float:
        await self.record()
        return _IDLE_SECONDS

    async def _record_list(self) -> int:
        listed = self._listed
        if not listed:  # before the first list is taken up there is none, and a gateway without servers does not run
            return 0
        done = await self._tell("list", list(listed_events(self._told("list"), listed)))
        if self._listed is listed:
            self._listed = None
        return done

    async def _record_answers(self) -> int:
        done = 0
        for key, result in list(self._answers.items()):
            told, now_ms = self._told("advice"), self._clock.now_ms()
            events = await asyncio.to_thread(lambda: list(suggested_events(told, key[0], result, now_ms)))  # noqa: B023
            done += await self._tell("advice", events)
            self._waiting_bytes -= len(self._answers.pop(key))
        return done

    def _told(self, kind: str) -> dict[_Key, Told]:
        rows = self._state.read("SELECT server, tool, digest, time_ms FROM inventory WHERE kind = ?", (kind,))
        return {(server, tool): Told(digest, time_ms) for server, tool, digest, time_ms in rows}

    async def _tell(self, kind: str, events: Sequence[tuple[_Key, InventoryEvent]]) -> int:
        now_ms = self._clock.now_ms()
        for start in range(0, len(events), _AT_ONCE):
            part = events[start : start + _AT_ONCE]
            items = tuple(Item(self._recorder.new_record_id(), Draft(body=event)) for _, event in part)
            notes = tuple(
                _Note(kind, key, None if event.action == "removed" else Told(_digest_of(event), now_ms))
                for key, event in part
            )
            # What is noted goes with its own records: a batch that fails is told again as a whole, and no other.
            await self._recorder.record(Batch(items=items, changes=notes), strict=False)
        return len(events)
