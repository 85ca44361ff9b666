"""What becomes of an OPA's events: each is one record, once, however often it is handed in.

An OPA sends an upload again whenever it does not hear that it was taken, to whichever process answers; so the record's
id follows from the OPA's own id and its decision id, and the log's rule that an id is given once does the rest. The
same event again is known by its keyed fingerprint. Another event under an id that is taken is recorded beside it as a
conflict, and what cannot be read is recorded as it is: an upload is never refused for one of its events, for the OPA
would send it again for ever, and nothing of it is dropped.

INVARIANT 1: what is acknowledged is durable. INVARIANT 5 and 6: events are compared by a keyed fingerprint, never by an
unsalted digest, and the payloads are in the vault.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from ledger.bodies import OPADecision, OPALoss
from ledger.catalog import Catalog
from ledger.commitments import SALT_BYTES, fingerprint, pseudonym
from ledger.errors import ConflictError, NotFoundError
from ledger.ports import Draft, Opening, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import derived_record_id
from policies.registry import Registry
from service.keyset import KeySet
from service.opa_events import Event, Loss

__all__ = ["OPAIntake", "Taken"]

_LABEL: Final = b"tallystick/opa/v1\n"
_BATCH: Final = 256
"""Events of one transaction."""
_ATTEMPTS: Final = 16

_Kind = Literal["taken", "conflict", "unreadable"]

_record_id: Final = partial(derived_record_id, _LABEL)


@dataclass(slots=True)
class Taken:
    """What became of an upload.

    Attributes:
        taken: Events that are new.
        duplicates: Events that the log had already.
        conflicts: New records of events under an id that another one has.
        unreadable: New records of events that cannot be read.
    """

    taken: int = 0
    duplicates: int = 0
    conflicts: int = 0
    unreadable: int = 0

    def count(self, kinds: Counter[str]) -> None:
        """Add what was written of each kind."""
        self.taken += kinds["taken"]
        self.conflicts += kinds["conflict"]
        self.unreadable += kinds["unreadable"]


@dataclass(frozen=True, slots=True)
class _Item:
    """An event on its way: under which id it is to be recorded, and as what."""

    event: Event
    record_id: str
    kind: _Kind
    conflicts_with: str | None = None


@dataclass(frozen=True, slots=True)
class _Sender:
    """What all records of one upload have in common."""

    client: str
    keys: KeySet
    published: frozenset[str]
    fingerprints: dict[bytes, tuple[str, ...]] = field(default_factory=dict)

    def fingerprints_of(self, event: Event) -> tuple[str, ...]:
        """Return an event's fingerprint under every key that the service has; the present one's comes first."""
        if event.sha256 not in self.fingerprints:
            seeds = dict.fromkeys((self.keys.pseudonym.seed, *self.keys.pseudonym_seeds))
            self.fingerprints[event.sha256] = tuple(fingerprint(seed, event.sha256) for seed in seeds)
        return self.fingerprints[event.sha256]


class OPAIntake:
    """Records the events of OPAs. One event loop owns it."""

    def __init__(
        self,
        log_id: str,
        *,
        sink: RecordSink,
        catalog: Catalog,
        reader: EntryReader,
        registry: Registry,
        keys: Callable[[], KeySet],
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            sink: Records.
            catalog: Finds an event that was handed in before.
            reader: Reads it.
            registry: Knows which bundles were published here.
            keys: The keys that are used now.
        """
        self._log_id = log_id
        self._sink = sink
        self._catalog = catalog
        self._reader = reader
        self._registry = registry
        self._keys = keys

    async def take(self, events: Sequence[Event], client: str) -> Taken:
        """Record events; when this returns, each is in the log, once.

        Args:
            events: As read, in order.
            client: Pseudonym of whoever handed them in.

        Raises:
            DependencyError: Not all are known to be recorded; what is handed in again is not recorded twice.
        """
        sender = _Sender(client, self._keys(), frozenset((await self._registry.state()).published))
        done = Taken()
        for start in range(0, len(events), _BATCH):
            await self._take_batch(events[start : start + _BATCH], sender, done)
        return done

    async def take_loss(self, loss: Loss, client: str) -> bool:
        """Record what an OPA counted as lost; returns whether these counts are new.

        Raises:
            DependencyError: It is not known to be recorded.
        """
        record_id = _record_id("loss", self._log_id, loss.instance, *map(str, loss.counts))
        body = OPALoss(
            client=client,
            instance=loss.instance,
            rate_limited=loss.rate_limited,
            buffer_full=loss.buffer_full,
            not_encoded=loss.not_encoded,
            nd_caches=loss.nd_caches,
            version=loss.version,
        )
        if await asyncio.to_thread(self._holds, record_id):
            return False
        try:
            await self._sink.append([Draft(body=body, record_id=record_id)])
        except ConflictError:
            if not await asyncio.to_thread(self._holds, record_id):
                raise
            return False
        return True

    def _item(self, event: Event, sender: _Sender) -> _Item:
        if event.fault is not None:
            return _Item(event, _record_id("unreadable", self._log_id, sender.fingerprints_of(event)[0]), "unreadable")
        assert event.instance is not None
        assert event.decision_id is not None
        return _Item(event, _record_id("event", self._log_id, event.instance, event.decision_id), "taken")

    async def _take_batch(self, events: Sequence[Event], sender: _Sender, done: Taken) -> None:
        """Record a batch; of several events under one id, each once the one before it is in the log."""
        while events:
            fresh, events = await asyncio.to_thread(self._round, events, sender, done)
            await self._take_round(fresh, sender, done)

    async def _take_round(self, fresh: Sequence[_Item], sender: _Sender, done: Taken) -> None:
        """Record what the log does not have; another process may be at the same upload."""
        for _ in range(_ATTEMPTS):
            if not fresh:
                return
            drafts = await asyncio.to_thread(lambda items: [_draft(item, sender) for item in items], fresh)
            try:
                await self._sink.append(drafts)
            except ConflictError:
                known = await asyncio.to_thread(self._known, fresh)
                if not known:
                    raise
                fresh = list(self._unknown(fresh, known, sender, done))
            else:
                done.count(Counter(item.kind for item in fresh))
                return
        raise ConflictError("the same events are handed in many times at once; try again")

    def _round(self, events: Sequence[Event], sender: _Sender, done: Taken) -> tuple[list[_Item], list[Event]]:
        """Return the first event of each id, and the others that say something else."""
        first: dict[str, _Item] = {}
        others: list[Event] = []
        for event in events:
            item = self._item(event, sender)
            earlier = first.setdefault(item.record_id, item)
            if earlier is item:
                continue
            if earlier.event.sha256 == event.sha256:
                done.duplicates += 1
            else:
                others.append(event)
        return list(first.values()), others

    def _conflict(self, item: _Item, record_id: str, sender: _Sender) -> _Item:
        name = _record_id("conflict", self._log_id, record_id, sender.fingerprints_of(item.event)[0])
        return _Item(item.event, name, "conflict", record_id)

    def _unknown(self, items: Sequence[_Item], known: dict[str, str], sender: _Sender, done: Taken) -> Iterator[_Item]:
        """Yield what is left to be recorded, given the fingerprints of what the log has."""
        for item in items:
            there = known.get(item.record_id)
            if there is None:
                yield item
            elif there in sender.fingerprints_of(item.event):
                done.duplicates += 1
            else:
                yield self._conflict(item, item.record_id, sender)

    def _known(self, items: Sequence[_Item]) -> dict[str, str]:
        """Return the fingerprints of the records that are in the log already, by id."""
        found: dict[str, str] = {}
        for item in items:
            with suppress(NotFoundError):
                body = self._reader.record(self._catalog.index_of(self._log_id, item.record_id)).body
                # Ids can be foreseen: where somebody else took this one, the event is in conflict with that record.
                found[item.record_id] = body.fingerprint if isinstance(body, OPADecision) else ""
        return found

    def _holds(self, record_id: str) -> bool:
        with suppress(NotFoundError):
            self._catalog.index_of(self._log_id, record_id)
            return True
        return False


def _replay(event: Event, published: frozenset[str]) -> Literal["exact", "masked", "missing_fact"]:
    if {"input", "nd_builtin_cache"} & set(event.withheld):
        return "masked"
    if "input" not in event.payloads:
        return "missing_fact"
    ours = not event.unrevised and published.issuperset(event.revisions)
    return "exact" if ours or "nd_builtin_cache" in event.payloads else "missing_fact"


def _draft(item: _Item, sender: _Sender) -> Draft:
    event, key = item.event, sender.keys.pseudonym.seed
    openings: list[Opening] = []

    def committed(name: str, payload: bytes) -> object:
        commitment, opening = commit(name, secrets.token_bytes(SALT_BYTES), payload)
        openings.append(opening)
        return commitment

    def named(kind: str, value: str | None) -> str | None:
        return None if value is None else pseudonym(key, kind, value)

    payloads = {name: committed(name, payload) for name, payload in event.payloads.items()}
    body = OPADecision(
        kind=item.kind,
        client=sender.client,
        fingerprint=sender.fingerprints_of(event)[0],
        event=committed("event", event.rest),  # type: ignore[arg-type]  # a commitment
        replay=None if item.kind == "unreadable" else _replay(event, sender.published),
        fault=event.fault,
        conflicts_with=item.conflicts_with,
        instance=event.instance,
        version=event.version,
        opa_decision_id=event.decision_id,
        path=event.path,
        bundles=event.bundles,
        bundle_revisions=event.revisions,
        answer=None if item.kind == "unreadable" else event.answer,
        error=event.error,
        decided_ms=event.decided_ms,
        evaluation_us=event.evaluation_us,
        request_number=event.request_number,
        trace_id=event.trace_id,
        erased=event.erased,
        masked=event.masked,
        withheld=event.withheld,
        user=named("user", event.user),
        session=named("session", event.session),
        requested_by=named("address", event.address),
        **payloads,  # type: ignore[arg-type]  # commitments
    )
    return Draft(body=body, openings=tuple(openings), record_id=item.record_id)
