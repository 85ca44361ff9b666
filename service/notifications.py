"""Telling people: what happens in the log is sent to webhooks, signed, at least once, and again until it is taken.

What is to be sent follows from the log: of each webhook a durable cursor says up to which leaf everything was taken,
and nothing else is kept. So nothing is lost over a restart; what was sent and not noted is sent again, under the same
id. Of several processes of one log one sends (a lease); should two, receivers see the same ids.

Each webhook is served by a task of its own: one that is slow or dead holds up no other, and never the log. Of more than
`MAX_BACKLOG` events that wait for it the oldest are passed over, and how many stands beside it ever after.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import structlog

from ledger.catalog import MAX_PAGE, Catalog, DecisionQuery
from ledger.clock import Clock
from ledger.errors import ConfigError, LedgerError, NotFoundError, UpstreamError, VerificationError
from ledger.ports import Lease
from ledger.reader import EntryReader
from ledger.records import Record
from ledger.tasks import Repeating, end
from service.fleet import Fleet, State
from service.notification_events import SILENT, Event, event_of, record_types, silence
from service.notification_sending import send
from service.notification_signing import WebhookSigner
from service.notification_store import Delivery, Webhook, WebhookStore

__all__ = ["LEASE_SECONDS", "MAX_BACKLOG", "WEBHOOK_LEASE", "Notifications", "Sender"]

_log = structlog.get_logger()

WEBHOOK_LEASE: Final = "webhooks"
LEASE_SECONDS: Final = 60.0
MAX_BACKLOG: Final = 1000
"""Most records that wait for one webhook."""
_TURN_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 15.0
_FIRST_MS: Final = 5_000
_LONGEST_MS: Final = 3_600_000
_GONE: Final = 410


class Sender(Protocol):
    """Posts one message; see `service.notification_sending.send`."""

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, *, internal: bool) -> Awaitable[int]:
        """Return the status of the answer.

        Raises:
            ConfigError: The address may not be sent to.
            UpstreamError: There was no answer.
        """
        ...


class Notifications:
    """The webhooks of one log. Methods belong to one event loop."""

    def __init__(
        self,
        log_id: str,
        *,
        signer: WebhookSigner | None,
        store: WebhookStore,
        size: Callable[[], int],
        catalog: Catalog,
        reader: EntryReader,
        check: Callable[[int, Record], None],
        look_at_fleet: Callable[[], Fleet],
        lease: Lease,
        clock: Clock,
        base_url: str,
        sender: Sender = send,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            signer: Signs; without one nothing is sent, and no webhook can be added.
            store: The webhooks.
            size: Returns the number of records that have an index.
            catalog: Finds records.
            reader: Reads them.
            check: Raises if a record that is for the service to write is not signed by it.
            look_at_fleet: Says which gateways are silent.
            lease: Of several processes, whose turn it is.
            clock: The service's.
            base_url: Where the service's pages are.
            sender: Posts messages.
            jitter: Returns a number of [0, 1), a random one by default, so that receivers that were down are not all
                asked at once.
        """
        self.signer = signer
        self.store = store
        self._log_id = log_id
        self._size = size
        self._catalog = catalog
        self._reader = reader
        self._check = check
        self._look_at_fleet = look_at_fleet
        self._lease = lease
        self._clock = clock
        self._base_url = base_url
        self._sender = sender
        self._jitter = jitter or (lambda: secrets.randbelow(1000) / 1000)
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._fleet_at = float("-inf")
        self._silent: dict[str, tuple[int, int]] = {}
        self.work = Repeating(
            "webhooks",
            self._turn,
            retry_seconds=_IDLE_SECONDS,
            on_failure=lambda error: _log.warning("webhooks_not_served", error=type(error).__name__),
        )

    def size(self) -> int:
        """Return the number of records that have an index: where a new webhook begins. Safe for any thread."""
        return self._size()

    async def stop(self) -> None:
        """End it; what was not noted is sent again by the next process."""
        await self.work.stop()
        await end(*self._serving.values())
        self._serving.clear()
        # Whoever goes on need not wait for the lease to end.
        with contextlib.suppress(LedgerError):
            await asyncio.to_thread(self._lease.give_up)

    async def _turn(self) -> float:
        if self.signer is None:
            return _IDLE_SECONDS
        webhooks = [one for one in await asyncio.to_thread(self.store.all) if not one.gone]
        if not webhooks or not await asyncio.to_thread(self._lease.take):
            return _IDLE_SECONDS
        await self._look_for_silence(webhooks)
        for webhook in webhooks:
            running = self._serving.get(webhook.webhook_id)
            if running is None or running.done():
                self._serving[webhook.webhook_id] = asyncio.create_task(self._serve_guarded(webhook.webhook_id))
        return _TURN_SECONDS

    async def _look_for_silence(self, webhooks: list[Webhook]) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._fleet_at < _SILENCE_SECONDS or not any(SILENT in one.events for one in webhooks):
            return
        fleet = await asyncio.to_thread(self._look_at_fleet)
        self._silent = {
            one.enforcer_id: (one.beat.leaf_index, one.beat.time_ms)
            for one in fleet.members
            if one.state is State.SILENT and one.beat is not None
        }
        self._fleet_at = now

    async def _serve_guarded(self, webhook_id: str) -> None:
        try:
            await self.serve(webhook_id)
        except NotFoundError:
            return  # it was removed meanwhile
        except LedgerError as error:
            _log.warning("webhook_not_served", webhook_id=webhook_id, error=type(error).__name__)

    async def serve(self, webhook_id: str) -> None:
        """Send a webhook everything that waits for it, until it fails or nothing waits.

        Raises:
            NotFoundError: There is no such webhook.
            LedgerError: A store failed; what was not noted is sent again.
        """
        while True:
            webhook = await asyncio.to_thread(self.store.get, webhook_id)
            if webhook.gone or webhook.next_ms > self._clock.now_ms():
                return
            waiting, seen = await asyncio.to_thread(self._waiting, webhook)
            for leaf, event in waiting:
                if not await self._deliver(webhook, event):
                    return
                # INVARIANT: only what was taken is passed. Killed before this line, the same event is sent again.
                await asyncio.to_thread(self.store.passed, webhook_id, leaf + 1)
            await asyncio.to_thread(self.store.passed, webhook_id, seen)
            if not waiting:
                await self._tell_silences(webhook)
                return

    def _waiting(self, webhook: Webhook) -> tuple[list[tuple[int, Event]], int]:
        """Return the events that wait for a webhook, in order, and up to which leaf was looked.

        INVARIANT: only what is told counts as waiting: of records that are no events, whoever may write many of them
        has nobody's alarm passed over.
        """
        size = self._size()
        leaves = sorted({leaf for leaf in self._candidates(webhook) if webhook.cursor <= leaf < size})
        found: list[tuple[int, Event]] = []
        for place in range(len(leaves) - 1, -1, -1):
            event = self._event(webhook, leaves[place])
            if event is None:
                continue
            if len(found) == MAX_BACKLOG:
                passed_over = 1 + sum(self._event(webhook, leaf) is not None for leaf in leaves[:place])
                self.store.passed(webhook.webhook_id, found[-1][0], skipped=passed_over)
                _log.warning("webhook_backlog_cut", webhook_id=webhook.webhook_id, passed_over=passed_over)
                break
            found.append((leaves[place], event))
        return found[::-1], size

    def _event(self, webhook: Webhook, leaf: int) -> Event | None:
        record = self._reader.record(leaf)
        try:
            self._check(leaf, record)
        except VerificationError as error:
            # INVARIANT: no signature of ours under what somebody wrote into the table in our name.
            _log.error("webhook_record_not_ours", leaf_index=leaf, error=type(error).__name__)
            return None
        return event_of(self._log_id, leaf, record, webhook.events, self._base_url)

    def _candidates(self, webhook: Webhook) -> list[int]:
        above = webhook.cursor - 1
        found: list[int] = []
        for record_type in record_types(webhook.events):
            if record_type != "decision":
                found += self._catalog.of_type(self._log_id, record_type, above=above)
                continue
            found += self._catalog.kills(self._log_id, above=above)
            found += self._held(above)
        return found

    def _held(self, above: int) -> list[int]:
        """Return the calls that were held, no more than may wait and one page."""
        found: list[int] = []
        before: int | None = None
        while len(found) <= MAX_BACKLOG:
            wanted = DecisionQuery(enforcement="ask", mode="enforce", before=before, limit=MAX_PAGE)
            page = self._catalog.search(self._log_id, wanted)
            new = [leaf for leaf in page if leaf > above]
            found += new
            if len(page) < MAX_PAGE or len(new) < len(page):
                break
            before = page[-1]
        return found

    async def _tell_silences(self, webhook: Webhook) -> None:
        if SILENT not in webhook.events:
            return
        told = {name: leaf for name, leaf in webhook.told.items() if name in self._silent}
        for enforcer_id, (leaf, time_ms) in self._silent.items():
            if told.get(enforcer_id) == leaf:
                continue
            event = silence(self._log_id, enforcer_id, leaf=leaf, time_ms=time_ms, base_url=self._base_url)
            if not await self._deliver(webhook, event):
                return
            told[enforcer_id] = leaf
            await asyncio.to_thread(
                lambda: self.store.delivered(webhook.webhook_id, self._clock.now_ms(), told=dict(told))
            )

    async def _deliver(self, webhook: Webhook, event: Event) -> bool:
        """Send one event; returns whether it was taken, and notes it."""
        status, error = await self.post(webhook, event)
        now_ms = self._clock.now_ms()
        if status is not None and 200 <= status < 300:  # noqa: PLR2004  # success
            await asyncio.to_thread(self.store.delivered, webhook.webhook_id, now_ms)
            return True
        failures = (await asyncio.to_thread(self.store.get, webhook.webhook_id)).failures
        longest = min(_FIRST_MS * 2 ** min(failures, 20), _LONGEST_MS)
        next_ms = now_ms + int(longest * (0.5 + self._jitter() / 2))
        gone = status == _GONE
        await asyncio.to_thread(lambda: self.store.failed(webhook.webhook_id, error, next_ms=next_ms, gone=gone))
        return False

    async def post(self, webhook: Webhook, event: Event) -> tuple[int | None, str]:
        """Send one event once; returns the status of the answer, None for none, and what was wrong, or empty.

        The attempt is noted with the webhook, whatever came of it.

        Raises:
            ConfigError: There is no key to sign with.
            StorageError: It was sent, and could not be noted.
        """
        if self.signer is None:
            raise ConfigError("there is no key for webhooks: make one, and name it in TALLYSTICK_WEBHOOK_KEY")
        headers = self.signer.headers(
            event.event_id,
            self._clock.now_ms() // 1000,
            event.body,
            symmetric_for=webhook.webhook_id if webhook.symmetric else None,
        )
        status: int | None = None
        try:
            status = await self._sender(webhook.url, headers, event.body, internal=webhook.internal)
        except (ConfigError, UpstreamError) as error:
            wrong = str(error)
        else:
            wrong = "" if 200 <= status < 300 else f"answered {status}"  # noqa: PLR2004  # success
        attempt = Delivery(
            event_id=event.event_id, event=event.name, sent_ms=self._clock.now_ms(), status=status, error=wrong
        )
        await asyncio.to_thread(self.store.tried, webhook.webhook_id, attempt)
        return status, wrong
