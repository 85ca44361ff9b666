"""Which definitions of tools stand here: looked after whenever a server lists its tools, asked before each call.

What a listing means is in `enforcement.pin_rules`; the rows in `enforcement.pin_store`; how the gateway asks servers by
itself in `enforcement.pin_fetching`. What people say comes from the service as one set for all gateways
(`ledger.tool_verdicts`), and where there is none from the operator of this one (`enforcement.pin_store.said_of`).

INVARIANT: a quarantined tool goes no further, in either mode, like what is contained: it is in no list, and no call of
it passes, under any spelling that a careless server could take for its name.

INVARIANT: a quarantine is in force before anything of the listing is released, whether or not it can be recorded; a
definition stands only once the record that says so is durable. What could not be recorded is neither listed nor called.

INVARIANT: a quarantine that any gateway of the log has seen holds at all of them. No failure lifts it, nor what a
person said: not of the service, of the way there, of the disk, nor a restart, which goes on with the verdicts that were
kept. If those cannot be read, no tool of a server with pins passes until the service has said them again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import structlog

from enforcement.answers import MAX_TOOLS
from enforcement.batches import Batch, Item
from enforcement.config import ServerSettings
from enforcement.config_pins import PinningSettings
from enforcement.drafts import Case
from enforcement.json_slices import object_members
from enforcement.modes import recorded_tool
from enforcement.offload import off_loop
from enforcement.pin_rules import Judged, Neighbours, Pin, PinMode, judge, settled
from enforcement.pin_store import KeptVerdicts, PinStore
from enforcement.ports import NewToolVerdicts, ToolVerdictChannel, Unavailable
from enforcement.recorder import Recorder
from enforcement.skeletons import skeleton
from enforcement.tool_definitions import Definition, read_definitions
from ledger.bodies_tools import ToolEvent
from ledger.commitments import SALT_BYTES
from ledger.errors import LedgerError, MalformedError
from ledger.ports import Draft, commit
from ledger.tasks import Repeating
from ledger.tool_verdicts import ToolVerdict, ToolVerdicts, parse_tool_verdicts
from policies.signals import Signals, ToolState

__all__ = ["PinnedTools", "ToolPins", "tool_draft"]

_LOG: Final = structlog.get_logger(__name__)
_TOOL_METHOD: Final = "tools/call"


def tool_draft(server: str, judged: Judged) -> Draft:
    """Return the record of what became of a tool; salts are made here."""
    pin = judged.pin
    assert judged.step is not None
    payload = pin.seen_definition.encode(errors="surrogatepass")
    definition, opening = commit("definition", secrets.token_bytes(SALT_BYTES), payload)
    gone = judged.step == "gone"
    other = f"{server}{pin.other}" if pin.other.startswith("/") else pin.other
    body = ToolEvent(
        action=judged.step,
        server=server,
        tool=recorded_tool(pin.tool) or "",
        digest=pin.seen or None,
        previous=judged.previous or None,
        reasons=pin.reasons if not gone else (),
        changes=pin.changes if not gone else (),
        other=recorded_tool(other) if other and not gone else None,
        definition=None if gone else definition,
    )
    return Draft(body=body, openings=() if gone else (opening,))


class ToolPins:
    """What is known of the tools of all servers. Owned by the event loop."""

    def __init__(
        self,
        store: PinStore,
        recorder: Recorder,
        settings: PinningSettings,
        *,
        channel: ToolVerdictChannel | None = None,
        kept: KeptVerdicts | None = None,
        manifests: Callable[[ServerSettings], Mapping[str, str]] = lambda _: {},
    ) -> None:
        """Take the parts; nothing is read before `start`.

        Args:
            store: The rows.
            recorder: Makes records and rows durable.
            settings: How often what.
            channel: Where people's verdicts come from; None if only this gateway's operator says any.
            kept: Keeps them over a restart.
            manifests: Returns what the signed manifest of a server names: tool → digest. Raises `ConfigError`.
        """
        self._store = store
        self._recorder = recorder
        self._settings = settings
        self._channel = channel
        self._kept = kept
        self._read_manifest = manifests
        self._modes: dict[str, PinMode] = {}
        self._manifests: dict[str, Mapping[str, str]] = {}
        self._prepared: dict[str, Mapping[str, str]] = {}
        self._pins: dict[str, dict[str, Pin]] = {}
        self._words = 0
        self._verdicts = ToolVerdicts()
        self._lost = False
        self._heard = True
        self._wake: Callable[[], None] | None = None
        self._awaited: dict[str, asyncio.Event] = {}
        self._elsewhere: dict[str, dict[str, ToolVerdict]] = {}
        self._spellings: dict[str, frozenset[str]] = {}
        self._neighbours: dict[str, Neighbours] = {}
        self._texts: dict[str, dict[str, Definition]] = {}
        self._last_read: dict[str, tuple[bytes, Sequence[Definition]]] = {}
        self._judged: dict[str, frozenset[str]] = {}
        self._pages: dict[str, dict[str, Definition]] = {}
        self._judging = asyncio.Lock()
        self._work = Repeating(
            "verdicts on tools",
            self._follow,
            first_seconds=settings.poll_seconds,
            retry_seconds=settings.poll_seconds,
            on_failure=lambda error: _LOG.warning("tool_verdicts_not_followed", error=type(error).__name__),
        )

    # --- servers

    def prepare(self, servers: Sequence[ServerSettings]) -> None:
        """Read the manifests of a list of servers that is about to be taken up.

        Raises:
            ConfigError: One cannot be read, or is not signed by everybody who must have.
        """
        self._prepared = {one.name: self._read_manifest(one) for one in servers if one.pins.manifest is not None}

    def take_up(self, servers: Sequence[ServerSettings]) -> None:
        """Look after these servers from now on."""
        self._modes = {one.name: one.pins.mode for one in servers if one.pins.mode != "off"}
        self._manifests = self._prepared
        self._neighbours.clear()
        self._spellings.clear()
        # What was judged under other settings is judged again with the next listing.
        self._texts.clear()

    @property
    def pinned_servers(self) -> tuple[str, ...]:
        """The servers with pins."""
        return tuple(self._modes)

    # --- lists that are on their way

    def follow(self, wake: Callable[[], None] | None) -> None:
        """Have lists fetched from now on: all at once, and then each that is stale. None: no more."""
        self._wake = wake
        for name in self.pinned_servers:
            self.stale(name)
        if wake is None:
            for name in tuple(self._awaited):
                self.fetched(name)

    def stale(self, server: str) -> None:
        """Note that a server's list is another one by now; calls of it wait until it is known."""
        if self._wake is not None and server in self._modes:
            self._awaited.setdefault(server, asyncio.Event())
            self._wake()

    def stale_servers(self) -> tuple[str, ...]:
        """Return the servers whose list is awaited."""
        return tuple(self._awaited)

    def fetched(self, server: str) -> None:
        """Let the calls of a server go on: its list is known, or cannot be had."""
        if (awaited := self._awaited.pop(server, None)) is not None:
            awaited.set()

    async def known(self, server: str) -> None:
        """Wait until a server's list is known, if it is on its way, for as long as fetching one may take."""
        if (awaited := self._awaited.get(server)) is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.fetch_timeout_seconds):
                    await awaited.wait()

    # --- asked before each call, and of each entry of a list

    def state_of(self, server: str, tool: str) -> ToolState:
        """Return what is known of a tool."""
        if server not in self._modes:
            return "none"
        # What was kept cannot be read: any tool may be one that somebody has quarantined, or rejected.
        if self._lost or self._quarantined_elsewhere(server, tool):
            return "quarantined"
        pin = self._pins.get(server, {}).get(tool)
        if pin is None:
            return "quarantined" if skeleton(tool) in self._spellings_of(server) else "unpinned"
        if pin.state == "quarantined":
            return "quarantined"
        if not pin.listed:
            return "unpinned"
        return "first_use" if pin.trust == "first_use" else "pinned"

    def objection(self, server: str, tool: str) -> str | None:
        """Return why a tool may not be called, whatever a policy says; None if nothing stands against it."""
        state = self.state_of(server, tool)
        if state == "quarantined":
            return "tool_quarantined"
        return "tool_unpinned" if state == "unpinned" and self._modes.get(server) == "listed" else None

    def hides(self, server: str, tool: str) -> bool:
        """Whether a tool must be in no list: it is quarantined, or its definition does not stand yet."""
        return self.state_of(server, tool) in ("quarantined", "unpinned")

    def quarantined(self) -> int:
        """Return how many tools are quarantined here or elsewhere."""
        found = [self.state_of(server, tool) for server in self._modes for tool in self._pins.get(server, {})]
        return found.count("quarantined")

    def _quarantined_elsewhere(self, server: str, tool: str) -> bool:
        verdict = self._elsewhere.get(server, {}).get(recorded_tool(tool) or "")
        if verdict is None or verdict.state == "approved":
            return False
        # What a signed manifest names here is no news to those who signed it; what a person refused is.
        pin = self._pins.get(server, {}).get(tool)
        vouched = pin is not None and pin.state == "pinned" and pin.trust == "manifest"
        return not (vouched and verdict.state == "quarantined")

    def _spellings_of(self, server: str) -> frozenset[str]:
        """Return the skeletons of a server's quarantined tools."""
        if (known := self._spellings.get(server)) is None:
            names = {name for name, pin in self._pins.get(server, {}).items() if pin.state == "quarantined"}
            names |= {one.tool for one in self._elsewhere.get(server, {}).values() if one.state != "approved"}
            known = self._spellings[server] = frozenset(map(skeleton, names))
        return known

    # --- what servers list

    async def learn(self, server: str, result: bytes, *, continues: bool, alone: bool = False) -> None:
        """Take note of what a server lists, before anything of it is released. Not to be cancelled.

        Args:
            server: The server.
            result: The result of ``tools/list``.
            continues: It is a further page.
            alone: This gateway asked for it, page by page, and nobody else's pages lie between.

        Raises:
            LedgerError: The list cannot be read, has too many tools, or what became of them could not be recorded.
        """
        mode = self._modes.get(server)
        if mode is None:
            return
        async with self._judging:
            texts = self._judged.get(server, frozenset())
            definitions = await self.read(server, result)
            page = {definition.text: definition for definition in definitions}
            last = not _more(result)
            # A list in several pages is whole if the pages of one asker came one after the other.
            pages = self._pages.pop(server, {}) if continues and alone else {}
            together = [*pages.values(), *definitions]
            if not last and alone:
                self._pages[server] = {**pages, **page}
            fresh_bytes = sum(len(text) for text in page if text not in texts)
            self._judged[server] = frozenset(page)
            await self._judge(server, mode, together, fresh_bytes=fresh_bytes, whole=last and (alone or not continues))

    async def read(self, server: str, result: bytes) -> Sequence[Definition]:
        """Return the definitions in a list; those that stood in one before are not read again.

        Raises:
            MalformedError: It is no list of tools, or holds too many values.
        """
        if (last := self._last_read.get(server)) is not None and last[0] is result:
            return last[1]
        texts = self._texts.get(server, {})
        definitions = await off_loop(len(result), read_definitions, result, texts)
        page = {definition.text: definition for definition in definitions}
        self._texts[server] = {**texts, **page} if len(texts) + len(page) <= 2 * MAX_TOOLS else page
        self._last_read[server] = result, definitions
        return definitions

    async def _judge(
        self, server: str, mode: PinMode, listing: Sequence[Definition], *, fresh_bytes: int, whole: bool
    ) -> None:
        pins = self._pins.setdefault(server, {})
        if len({*pins, *(one.name for one in listing)}) > 2 * MAX_TOOLS or len(listing) > MAX_TOOLS:
            raise MalformedError(f"a server lists more than {MAX_TOOLS} tools, or many others each time")
        if self._neighbours.get(server) is None:
            self._neighbours[server] = Neighbours.of(self._tools_of_others(server))
        found = await off_loop(
            fresh_bytes,
            judge,
            mode,
            listing,
            dict(pins),
            whole=whole,
            manifest=self._manifests.get(server, {}),
            verdicts=self._said_of(server),
            neighbours=self._neighbours[server],
            version=self._verdicts.version,
        )
        if found:
            await self._keep(server, pins, found)

    async def _keep(self, server: str, pins: dict[str, Pin], found: Sequence[Judged]) -> None:
        # What does not stand any more does not from here on; what is to stand does once that is durable.
        for judged in found:
            if judged.pin.state == "quarantined":
                pins[judged.pin.tool] = judged.pin
        self._spellings.pop(server, None)
        items = [Item(self._recorder.new_record_id(), tool_draft(server, one)) for one in found if one.step is not None]
        change = PinStore.saving(server, [one.pin for one in found])
        try:
            await self._recorder.record(Batch(items=tuple(items), changes=(change,)), strict=False)
        except LedgerError:
            self._texts.pop(server, None)
            raise
        for judged in found:
            pins[judged.pin.tool] = judged.pin
            if judged.step in ("quarantined", "changed"):
                _LOG.warning(
                    "tool_quarantined",
                    server=server,
                    tool=recorded_tool(judged.pin.tool),
                    reasons=list(judged.pin.reasons),
                )
        self._neighbours = {name: one for name, one in self._neighbours.items() if name == server}
        self._spellings.pop(server, None)

    def _tools_of_others(self, server: str) -> list[tuple[str, str]]:
        return [
            (name, pin.tool)
            for name in self._modes
            if name != server
            for pin in self._pins.get(name, {}).values()
            if pin.state == "pinned" and pin.listed
        ]

    def _said_of(self, server: str) -> dict[str, ToolVerdict]:
        """Return the verdicts on a server's tools, by the names that the server gives them."""
        said = self._elsewhere.get(server, {})
        if not said:
            return {}
        names = {*self._pins.get(server, {}), *(one.name for one in self._texts.get(server, {}).values() if one.name)}
        return {name: said[key] for name in names if (key := recorded_tool(name) or "") in said}

    # --- what people say

    async def start(self) -> None:
        """Read what is known, ask what was said, then keep asking.

        Raises:
            StorageError: The state file failed.
        """
        self._words = self._store.words()
        self._pins = self._store.read()
        if self._channel is not None and self._kept is not None:
            kept = await asyncio.to_thread(self._kept.read)
            self._lost = kept is None
            if kept is not None:
                await self._adopt(kept)
        await self.refresh()
        self._work.start()

    async def stop(self) -> None:
        """Ask no more."""
        await self._work.stop()

    async def refresh(self) -> None:
        """Ask now what people have said, and take it up.

        Raises:
            StorageError: The state file failed.
        """
        async with self._judging:
            if (words := self._store.words()) != self._words:
                self._pins, self._words = self._store.read(), words
                self._forget()
            if self._channel is not None and (self._modes or self._pins):
                answer = await self._channel.tool_verdicts(self._verdicts.digest)
                if isinstance(answer, Unavailable) and self._heard:
                    _LOG.warning("tool_verdicts_unavailable", reason=answer.reason)
                self._heard = not isinstance(answer, Unavailable)
                if isinstance(answer, NewToolVerdicts):
                    await self._take(answer.document)
                elif self._heard:
                    await self._keep_verdicts()

    async def _take(self, document: bytes) -> None:
        try:
            verdicts = parse_tool_verdicts(document)
        except MalformedError:
            _LOG.error("tool_verdicts_unreadable", version=self._verdicts.version)
            return
        await self._adopt(verdicts)
        await self._keep_verdicts()
        _LOG.info("tool_verdicts_adopted", version=self._verdicts.version, tools=len(self._verdicts.tools))

    async def _adopt(self, verdicts: ToolVerdicts) -> None:
        """Put a set in force, and let go on what a person approved in it."""
        self._verdicts = verdicts
        self._elsewhere = {}
        for (server, tool), verdict in verdicts.tools.items():
            self._elsewhere.setdefault(server, {})[tool] = verdict
        self._forget()
        for server, pins in self._pins.items():
            said = self._said_of(server)
            released = [after for name, pin in pins.items() if (after := settled(pin, said.get(name))) is not pin]
            if released:
                # The verdicts are in the ledger already.
                change = PinStore.saving(server, released)
                await self._recorder.record(Batch(items=(), changes=(change,)), strict=False)
                pins.update({pin.tool: pin for pin in released})
                self._forget()

    async def _keep_verdicts(self) -> None:
        """Have the service's answer survive a restart; what the disk does not take is tried again with the next one."""
        self._lost = False
        if self._kept is not None:
            await asyncio.to_thread(self._kept.keep, self._verdicts)

    def _forget(self) -> None:
        self._spellings.clear()
        self._neighbours.clear()

    async def _follow(self) -> float:
        await self.refresh()
        return self._settings.poll_seconds


def _more(result: bytes) -> bool:
    """Whether further pages follow."""
    return object_members(result.decode()).get("nextCursor", "null") != "null"


class PinnedTools:
    """Tells policies the state of a tool's definition: `enforcement.signals.SignalSource`, and `ToolStates`."""

    name: Final = "tool_state"
    fills: Final = frozenset({"tool_state"})

    def __init__(self, pins: ToolPins) -> None:
        """Tell what is known."""
        self._pins = pins

    def concerns(self, case: Case) -> bool:
        """See `SignalSource.concerns`: calls of tools of servers with pins."""
        message, server = case.message, case.server
        if message is None or server is None or message.method != _TOOL_METHOD or message.name is None:
            return False
        return server.pins.mode != "off"

    async def signals(self, case: Case) -> Signals:
        """See `SignalSource.signals`."""
        message, server = case.message, case.server
        assert message is not None
        assert server is not None
        return Signals(tool_state=self._pins.state_of(server.name, message.name or ""))

    def state_of(self, server: ServerSettings, tool: str) -> ToolState:
        """See `ToolStates.state_of`."""
        return self._pins.state_of(server.name, tool)
