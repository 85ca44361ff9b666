"""Taking up the list of servers: at the start, and again whenever its file has become another one.

A list that cannot be read, or is not sound, changes nothing: the one before goes on, and it is said until there is a
sound one. What a new list would loosen waits for its approval (`enforcement.modes`), and the rest of it does not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

import structlog

from enforcement.batches import Batch, Item
from enforcement.config import ServerSettings
from enforcement.config_files import parse_servers, read_text
from enforcement.modes import ApprovedMode, ModeChange, changes_between, kept_enforced, recorded_tool
from enforcement.ports import Unavailable
from enforcement.recorder import Recorder
from enforcement.server_list import HeldModes, Servers
from ledger.bodies import ModeEvent
from ledger.errors import ConfigError, LedgerError
from ledger.ports import Draft
from ledger.tasks import Repeating

__all__ = ["ModeApprovals", "NoApprovals", "ServerReload"]

_LOG: Final = structlog.get_logger(__name__)
# How often the service is asked whether what waits was approved, however often the file is looked at.
_ASK_SECONDS: Final = 5.0

FileState: TypeAlias = Literal["none", "sound", "broken"]


@runtime_checkable
class ModeApprovals(Protocol):
    """Knows which changes of modes two people have agreed upon."""

    async def approved_modes(self) -> Sequence[ApprovedMode] | Unavailable:
        """Return those that this enforcer may take up now. Nothing is raised but cancellation."""
        ...


class NoApprovals:
    """Nobody approves anything."""

    async def approved_modes(self) -> Sequence[ApprovedMode] | Unavailable:
        """See `ModeApprovals.approved_modes`."""
        return ()


class ServerReload:
    """Keeps `Servers` as the configuration says. Owned by the event loop.

    Attributes:
        file: Whether servers are listed in a file, and whether what it holds now is sound.
        waiting: Changes that wait for their approval; what they are about stays enforced.
        passed_over: Names of servers in the file that have no address, where calls go out over HTTP alone.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        path: Path | None,
        inline: Sequence[ServerSettings],
        held: HeldModes,
        approvals: ModeApprovals,
        recorder: Recorder,
        interval_seconds: float,
        check: Callable[[Sequence[ServerSettings]], object] = lambda _: None,
        over_http: bool = False,
    ) -> None:
        """Take the parts; nothing is read before `start`.

        Args:
            servers: What is kept up to date.
            path: The file that lists servers; None if they are listed in the configuration itself.
            inline: Then these.
            held: The modes in force.
            approvals: Knows what may be loosened.
            recorder: Records changes of modes.
            interval_seconds: The file is looked at this often.
            check: Raises `ConfigError` for a list that cannot be used here, such as one that names a missing secret.
            over_http: Calls go out over HTTP alone: what a file lists without an address, for ``tallystick wrap``, is
                passed over, and is no server here.
        """
        self._servers = servers
        self._path = path
        self._wanted = tuple(inline)
        self._held = held
        self._approvals = approvals
        self._recorder = recorder
        self._check = check
        self._over_http = over_http
        self._interval = interval_seconds
        self._digest = b""
        self._taken = False
        self._asked: tuple[ApprovedMode, ...] = ()
        self._until_asking = 0.0
        self._looking = asyncio.Lock()
        self.file: FileState = "none" if path is None else "sound"
        self.waiting: tuple[ModeChange, ...] = ()
        self.passed_over: tuple[str, ...] = ()
        self._work = Repeating(
            "list of servers",
            self._turn,
            first_seconds=interval_seconds,
            retry_seconds=interval_seconds,
            on_failure=lambda error: _LOG.warning("servers_not_taken_up", error=type(error).__name__),
        )

    async def start(self) -> None:
        """Take up the list; here, one that is not sound is an error.

        Raises:
            ConfigError: The file is missing, or is no sound list.
            StorageError: The state file failed.
        """
        if self._path is not None:
            self._digest, listed = await asyncio.to_thread(_read, self._path)
            self._wanted = self._reachable(listed)
        self._check(self._wanted)
        await self._take_up()
        self._work.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._work.stop()

    async def look(self) -> None:
        """Look at the file now, and ask for approvals if changes wait for one.

        Raises:
            LedgerError: The list cannot be taken up now; the one before goes on.
        """
        async with self._looking:  # or each of two would record what it changes
            changed = self._path is not None and await self._reread(self._path)
            if changed or not self._taken or self.waiting:
                await self._take_up()

    async def _turn(self) -> float:
        self._until_asking -= self._interval
        await self.look()
        return self._interval

    async def _reread(self, path: Path) -> bool:
        try:
            digest, listed = await asyncio.to_thread(_read, path, self._digest)
            if digest == self._digest:
                self.file = "sound"
                return False
            wanted = self._reachable(listed)
            self._check(wanted)
        except ConfigError as error:
            if self.file != "broken":
                _LOG.error("servers_file_broken", faults=str(error).count("\n") + 1, first=str(error).split("\n")[0])
            self.file = "broken"
            return False
        self.file, self._digest, self._wanted, self._taken = "sound", digest, wanted, False
        self._until_asking = 0.0
        return True

    def _reachable(self, listed: Sequence[ServerSettings]) -> tuple[ServerSettings, ...]:
        """Return those of a file's servers that calls can go to from here.

        Raises:
            ConfigError: There is none.
        """
        found = tuple(one for one in listed if one.url is not None or not self._over_http)
        if not found:
            raise ConfigError("servers: none has a url, and a gateway needs the address of at least one")
        passed_over = tuple(one.name for one in listed if one not in found)
        if passed_over and passed_over != self.passed_over:
            _LOG.warning("servers_passed_over", servers=list(passed_over), reason="no url: for tallystick wrap")
        self.passed_over = passed_over
        return found

    async def _take_up(self) -> None:
        held = self._held.read()
        changes = changes_between(held, self._wanted)
        approved = await self._approved([change for change in changes if change.loosens])
        waiting = [change for change in changes if change.loosens and change.key not in approved]
        if self._taken and not approved:
            self.waiting = tuple(waiting)
            return
        made = [change for change in changes if change not in waiting]
        try:
            await self._put_in_force(kept_enforced(self._wanted, waiting), made, approved)
        except LedgerError as error:
            if self._servers.all:
                raise
            # At the start there is no list to go on with: what would be observed is enforced until it can be recorded.
            _LOG.error("modes_not_recorded", error=type(error).__name__)
            waiting = [change for change in changes if change.mode == "observe"]
            self._servers.replace(kept_enforced(self._wanted, waiting))
        else:
            self._taken = True
        self.waiting = tuple(waiting)
        for change in waiting:
            _LOG.warning("mode_waits_for_approval", server=change.server, tool=recorded_tool(change.tool))

    async def _put_in_force(
        self,
        servers: Sequence[ServerSettings],
        made: Sequence[ModeChange],
        approved: dict[tuple[str, str | None], ApprovedMode],
    ) -> None:
        recorder = self._recorder
        items: list[Item] = []
        for change in made:
            if not change.recorded:
                continue
            record_id = recorder.new_record_id()
            by = approved.get(change.key)
            body = ModeEvent(
                change_id=record_id if by is None else by.change_id,
                action="in_force",
                server=change.server,
                tool=recorded_tool(change.tool),
                mode=change.mode,
                previous=change.previous,
            )
            items.append(Item(record_id, Draft(body=body)))
        used = [one.change_id for one in approved.values()]
        # INVARIANT: the record first, then the mode.
        await recorder.record(Batch(items=tuple(items), changes=(HeldModes.saving(servers, used),)), strict=False)
        self._servers.replace(servers)
        _LOG.info("servers_taken_up", servers=len(servers), modes_changed=len(items))

    async def _approved(self, loosened: Sequence[ModeChange]) -> dict[tuple[str, str | None], ApprovedMode]:
        if not loosened:
            return {}
        if self._until_asking <= 0:
            self._until_asking = _ASK_SECONDS
            answer = await self._approvals.approved_modes()
            if isinstance(answer, Unavailable):
                _LOG.warning("approvals_not_read", reason=answer.reason)
                return {}
            self._asked = tuple(answer)
        used = self._held.used()
        found: dict[tuple[str, str | None], ApprovedMode] = {}
        for change in loosened:
            for one in self._asked:
                if one.allows(change) and one.change_id not in used:
                    found[change.key] = one
        return found


def _read(path: Path, known: bytes = b"") -> tuple[bytes, tuple[ServerSettings, ...]]:
    """Return a file's digest and what it lists; nothing if it is the known one."""
    text = read_text(path)
    digest = hashlib.sha256(text.encode()).digest()
    return digest, (() if digest == known else parse_servers(text))
