"""What is stopped here: the set that the service hands to every gateway, followed, kept on disk, asked twice a call.

What a set is and what it covers is in `ledger.restrictions`; asking the service in `enforcement.ledger_client`. Kills
that this gateway decides hold by its own blocks (`enforcement.sessions`) before the service has heard of them.

The question is held by the service until there is another set. The next question names the set that was taken up and so
is the acknowledgement: a set is in force here when it is acknowledged, and kept on disk where the disk takes it.

INVARIANT: a set holds until there is another one. No failure lifts it: not of the service, of the way there, of the
disk, nor a restart, which goes on with the set that was kept.

INVARIANT: staleness is known. Without an answer for ``max_stale_seconds``, or without any since the start, nobody can
say here what was stopped elsewhere meanwhile: strict calls are denied, available ones go on, and `/readyz` and the
metrics say so. While the set is stale a containment ends by this gateway's own clock at the time that it names; as long
as the service answers, it is the service that says that it has ended, and clocks do not matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from enforcement.config_restrictions import RestrictionSettings
from enforcement.facts import Pseudonyms
from enforcement.identity import Identity
from enforcement.ports import NewRestrictions, RestrictionChannel, Unavailable
from ledger.clock import Clock
from ledger.errors import MalformedError
from ledger.files import replace_durably
from ledger.restrictions import MAX_DOCUMENT_BYTES, Restriction, RestrictionSet, parse_restrictions
from ledger.tasks import end

__all__ = ["Restrictions", "kept_restrictions"]

_LOG: Final = structlog.get_logger(__name__)
_FILE: Final = "restrictions.json"
_SOON_SECONDS: Final = 0.05
"""Between two questions that are held; an acknowledgement waits no longer."""


def kept_restrictions(directory: Path) -> RestrictionSet:
    """Return the set that was last kept in a state directory; an empty one if none was, or none that can be read."""
    try:
        with (directory / _FILE).open("rb") as file:
            return parse_restrictions(file.read(MAX_DOCUMENT_BYTES + 1))
    except FileNotFoundError:
        return RestrictionSet()
    except (OSError, MalformedError) as error:
        _LOG.error("kept_restrictions_unusable", error=type(error).__name__)
        return RestrictionSet()


class Restrictions:
    """The restrictions in force at this gateway. Owned by the event loop."""

    def __init__(
        self,
        channel: RestrictionChannel | None,
        directory: Path,
        settings: RestrictionSettings,
        clock: Clock,
        pseudonyms: Pseudonyms,
        *,
        released_here: Callable[[str], bool] = lambda _: False,
        on_lifted: Callable[[tuple[str, ...]], Awaitable[None]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take up what was kept.

        Args:
            channel: Where sets come from; None if nobody hands out any, and then nothing is ever stale.
            directory: The state directory.
            settings: How often to ask, and how old an answer may be.
            clock: Ends containments while the set is stale.
            pseudonyms: Make the names by which restrictions know users and sessions.
            released_here: Whether a kill was released by this gateway's operator, though the service may not know yet.
            on_lifted: Told of the kills that were released anywhere, whenever there is another set.
            monotonic: Tells how long ago an answer was, in seconds; no clock that can be set.
        """
        self._channel = channel
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._pseudonyms = pseudonyms
        self._key_id = pseudonyms.key_id
        self._released_here = released_here
        self._on_lifted = on_lifted
        self._monotonic = monotonic
        self._current = kept_restrictions(directory)
        self._kept = self._current.digest
        self._answered: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def current(self) -> RestrictionSet:
        """The set in force."""
        return self._current

    @property
    def age_seconds(self) -> float | None:
        """How long ago the service confirmed the set; None if it never did since the start."""
        return None if self._answered is None else self._monotonic() - self._answered

    @property
    def stale(self) -> bool:
        """Whether nobody can say that nothing else is stopped by now."""
        if self._channel is None:
            return False
        age = self.age_seconds
        return age is None or age > self._settings.max_stale_seconds

    def readiness(self) -> dict[str, object]:
        """Return what is said of it to whoever looks after the gateway: counts, nobody's name."""
        age = self.age_seconds
        return {
            "restrictions": len(self._current.restrictions),
            "restrictions_version": self._current.version,
            "restrictions_age_seconds": None if age is None else round(age, 1),
            "restrictions_stale": self.stale,
        }

    def standing_against(
        self, identity: Identity, *, session: str, server: str | None, tool: str | None, named: bool = True
    ) -> Restriction | None:
        """Return what stops a call, if anything does.

        Args:
            identity: Who calls.
            session: The session's name, or its pseudonym.
            server: The server, if it is known.
            tool: The tool, for a call of one.
            named: ``session`` is a name.

        Raises:
            StorageError: A kill stands against it, and whether that was released here could not be read.
        """
        if not self._current:
            return None
        names = self._pseudonyms
        covering = self._current.covering(
            agent=identity.agent,
            server=server,
            tool=tool,
            user=lambda: names.user(identity.user),
            session=lambda: names.session(session) if named else session,
            key_id=self._key_id,
        )
        return next((found for found in covering if self._counts(found)), None)

    def stops_tool(self, server: str, tool: str) -> bool:
        """Whether this one tool of a server is stopped, whoever calls."""
        return any(self._counts(found) for found in self._current.of_tool(server, tool))

    def _counts(self, restriction: Restriction) -> bool:
        # Only a principal can be released here; where many became one restriction, it is about others as well.
        if restriction.kind == "kill" and restriction.scope == "principal":
            return not self._released_here(restriction.restriction_id)
        until_ms = restriction.until_ms
        return until_ms is None or until_ms > self._clock.now_ms() or not self.stale

    async def start(self) -> None:
        """Ask once, then keep asking."""
        if self._channel is None:
            return
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name="restrictions")

    async def stop(self) -> None:
        """Ask no more."""
        await end(self._task)
        self._task = None

    async def refresh(self, *, wait_seconds: float = 0.0) -> bool:
        """Ask the service what is stopped, and say which set is in force here.

        Args:
            wait_seconds: How long it may wait for another set.

        Returns:
            Whether the next question may follow at once.
        """
        if self._channel is None:
            return False
        known = self._current
        answer = await self._channel.restrictions(known.version, known.digest, wait_seconds=wait_seconds)
        if isinstance(answer, Unavailable):
            _LOG.warning("restrictions_unavailable", reason=answer.reason)
            return False
        another, first = False, self._answered is None
        if isinstance(answer, NewRestrictions):
            try:
                found = parse_restrictions(answer.document)
            except MalformedError:
                _LOG.error("restrictions_unreadable", version=known.version)
                return False
            another = found.digest != known.digest
            # In force from here on; whatever is judged or waits to go on is held against it.
            self._current = found
        self._answered = self._monotonic()
        await self._keep()
        if another:
            current = self._current
            _LOG.info("restrictions_adopted", version=current.version, restrictions=len(current.restrictions))
        if another or first:
            await self._tell_lifted()
        return another or answer.may_ask_again

    async def _keep(self) -> None:
        """Have the set in force survive a restart; what the disk does not take now is tried again with every answer."""
        current = self._current
        if self._kept == current.digest:
            return
        try:
            await asyncio.to_thread(replace_durably, self._directory / _FILE, current.document, mode=0o600)
        except OSError as error:
            _LOG.error("restrictions_not_kept", error=type(error).__name__)
            return
        self._kept = current.digest

    async def _tell_lifted(self) -> None:
        if self._on_lifted is None or not self._current.lifted:
            return
        try:
            await self._on_lifted(self._current.lifted)
        except Exception as error:  # noqa: BLE001  # a block that is not lifted goes on to hold; the set is in force
            _LOG.error("blocks_not_lifted", error=type(error).__name__)

    async def _follow(self) -> None:
        again = True
        while True:
            # Never at once: a service that answers without holding, and says it had, would be asked without end.
            await asyncio.sleep(
                min(_SOON_SECONDS, self._settings.poll_seconds) if again else self._settings.poll_seconds
            )
            try:
                again = await self.refresh(wait_seconds=self._settings.wait_seconds)
            except Exception as error:  # noqa: BLE001  # a fault here must not end it: the set ages and says so
                again = False
                _LOG.error("restrictions_not_followed", error=type(error).__name__)
