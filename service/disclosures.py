"""Who has seen what is about to be erased: packs and replays that were made of it, and payloads that somebody opened.

An erasure reaches no copy that has left the house. What can be said is which there are, as far as the log and the list
of packs know: whom to ask.

A pack holds commitments and no payload; of a subject's requests it has the decisions that were made again from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ledger.bodies import AccessEvent, AccessScope, Decision
from ledger.catalog import Catalog
from ledger.erasure import Located
from ledger.reader import EntryReader
from ledger.records import decode_entry
from service.packs import PackJob

__all__ = ["Delivery", "Disclosures", "OpenedPayload", "PackedRecords", "ReplayedRecords", "disclosures_of"]

_CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Somebody downloaded a pack, or its report.

    Attributes:
        actor: His pseudonym.
        time_ms: When, POSIX milliseconds.
        what: ``zip`` or ``pdf``.
    """

    actor: str
    time_ms: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRecords:
    """A pack for which a subject's requests were opened.

    Attributes:
        job_id: The pack's job.
        pack_id: The pack's own id.
        created_ms: When it was ordered.
        requested_by: Pseudonym of whoever ordered it.
        records: How many of the subject's records it has.
        deliveries: Who downloaded it.
    """

    job_id: str
    pack_id: str | None
    created_ms: int
    requested_by: str
    records: int
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPayload:
    """Somebody opened payloads of a record.

    Attributes:
        record_id: Which record.
        actor: His pseudonym.
        time_ms: When, POSIX milliseconds.
    """

    record_id: str
    actor: str
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedRecords:
    """Somebody had a stretch of history made again, with requests of the subject in it.

    What he was handed are decisions and names of rules; under a bundle of his own, its rules asked the requests.

    Attributes:
        actor: His pseudonym.
        time_ms: When he asked for it, POSIX milliseconds.
        bundle_revision: Under which bundle; None for each decision's own.
        records: How many of the subject's requests the stretch has, at most.
    """

    actor: str
    time_ms: int
    bundle_revision: str | None
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosures:
    """What is known of who has seen a subject's payloads."""

    packs: tuple[PackedRecords, ...] = ()
    openings: tuple[OpenedPayload, ...] = ()
    replays: tuple[ReplayedRecords, ...] = ()


def _accesses(catalog: Catalog, reader: EntryReader, log_id: str, start: int) -> Iterator[tuple[int, AccessEvent]]:
    """Yield the access records behind a leaf with their times; bundles are read once each."""
    indexes = [index for index in catalog.of_type(log_id, "access") if index >= start]
    chunk: list[bytes] = []
    first = 0
    end = indexes[-1] + 1 if indexes else 0
    for index in indexes:
        if not first <= index < first + len(chunk):
            first = index
            chunk = list(reader.entries(first, min(end, (first // _CHUNK + 1) * _CHUNK)))
        record = decode_entry(chunk[index - first])
        if isinstance(record.body, AccessEvent):
            yield record.time_ms, record.body


def _packed(job: PackJob, about: Sequence[Located]) -> int:
    leaves = job.leaves or 0
    return sum(
        isinstance(item.record.body, Decision)
        and item.record.body.request is not None
        and item.index < leaves
        and job.order.from_ms <= item.record.time_ms < job.order.to_ms
        for item in about
    )


def _replayed(scope: AccessScope, about: Sequence[Located]) -> int:
    """Return how many requests a replay of a stretch may have opened.

    Tool, server and decision do not count: other calls of the same sessions are opened along with those asked for.
    """
    return sum(
        isinstance(item.record.body, Decision)
        and item.record.body.request is not None
        and scope.from_ms <= item.record.time_ms < scope.to_ms
        and scope.agent in {None, item.record.body.agent}
        and scope.session in {None, item.record.body.session}
        for item in about
    )


def disclosures_of(
    about: Sequence[Located], jobs: Iterable[PackJob], *, catalog: Catalog, reader: EntryReader, log_id: str
) -> Disclosures:
    """Return who has seen payloads of these records.

    Args:
        about: The records.
        jobs: Packs that were made.
        catalog: Finds access records.
        reader: Reads them.
        log_id: Of which log.

    Raises:
        LedgerError: A store failed.
    """
    if not about:
        return Disclosures()
    packed = {job.job_id: (job, number) for job in jobs if (number := _packed(job, about))}
    records = {item.record.record_id for item in about}
    opened: list[OpenedPayload] = []
    replayed: list[ReplayedRecords] = []
    delivered: dict[str, list[Delivery]] = {}
    for time_ms, event in _accesses(catalog, reader, log_id, about[0].index):
        target = event.target_id or ""
        if event.action.startswith("download_") and target in packed:
            what = event.action.removeprefix("download_")
            delivered.setdefault(target, []).append(Delivery(actor=event.actor, time_ms=time_ms, what=what))
        elif target in records and event.action == "open_payload":
            opened.append(OpenedPayload(record_id=target, actor=event.actor, time_ms=time_ms))
        elif event.action == "impact" and event.scope is not None and (number := _replayed(event.scope, about)):
            replayed.append(
                ReplayedRecords(actor=event.actor, time_ms=time_ms, bundle_revision=event.target_id, records=number)
            )
    return Disclosures(
        packs=tuple(
            PackedRecords(
                job_id=job.job_id,
                pack_id=job.pack_id,
                created_ms=job.created_ms,
                requested_by=job.requested_by,
                records=number,
                deliveries=tuple(delivered.get(job.job_id, ())),
            )
            for job, number in packed.values()
        ),
        openings=tuple(opened),
        replays=tuple(replayed),
    )
