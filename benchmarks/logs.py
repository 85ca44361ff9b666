"""A growing log in this process: SQLite, directory of tiles, directory anchor; signed records that pass an audit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from benchmarks.measure import BenchmarkError, Stopwatch, timed
from benchmarks.records import LOG_ID, Kind, Signed, Writer
from ledger.bodies import KeyEvent
from ledger.envelopes import ED25519, EnvelopeKey
from ledger.errors import ConflictError
from ledger.integrator import Integrator
from ledger.merkle import hash_leaf
from ledger.notes import encode_base64
from ledger.ports import PendingEntry
from ledger.publisher import Publisher
from ledger.records import encode_record
from tests.support.ledger import EmbeddedLedger

__all__ = ["GrowingLog", "growing_log"]

_GROUP = 500


@dataclass(slots=True)
class GrowingLog:
    """A log that grows by groups of 500 records and publishes after each thousand.

    Attributes:
        ledger: Its parts.
        publisher: Publishes it, without the fault injection that the tests' parts pass through.
        writer: Its enforcer.
        publish_every: Leaves between two checkpoints.
        size: Its leaves.
        entry_bytes: Bytes of its entries.
        publications: Checkpoints so far.
        unpublished: Leaves since the last one.
    """

    ledger: EmbeddedLedger
    publisher: Publisher
    writer: Writer
    publish_every: int = 1000
    size: int = 0
    entry_bytes: int = 0
    publications: int = 0
    unpublished: int = 0

    def grow(self, size: int) -> None:
        """Append records until the log has ``size`` leaves."""
        while self.size < size:
            self.append(self.signed(min(_GROUP, size - self.size)))

    def signed(self, count: int) -> list[Signed]:
        """Return the next records: decisions and outcomes by turns, as a gateway writes them."""
        kinds: Iterator[Kind] = islice(cycle(("decision", "outcome")), count)
        return [signed for kind in kinds for signed in self.writer.write(kind, 1)]

    def append(self, signed: list[Signed]) -> Stopwatch:
        """Append records, publishing when it is time; return what it took the store to make them durable."""
        group = [self._pending(one) for one in signed]
        with timed() as watch:
            (result,) = self.ledger.store.sequence(LOG_ID, [group], received_ms=self.ledger.clock.now_ms())
        if isinstance(result, ConflictError) or result[-1].index != self.size + len(group) - 1:
            raise BenchmarkError("the store did not take the records")
        self.size += len(group)
        self.unpublished += len(group)
        if self.unpublished >= self.publish_every:
            self.publish()
        return watch

    def publish(self) -> Stopwatch:
        """Publish and anchor; return what it took."""
        self.ledger.clock.advance(1000)
        with timed() as watch:
            published = self.publisher.publish()
            self.publisher.anchor_newest()
        if published is None or published.head.size != self.size:
            raise BenchmarkError("nothing was published")
        self.publications += 1
        self.unpublished = 0
        return watch

    def publish_rest(self) -> None:
        """Publish what is not published yet, if anything is not."""
        if self.unpublished:
            self.publish()

    def _pending(self, signed: Signed) -> PendingEntry:
        record, openings = signed
        entry = encode_record(record)
        self.entry_bytes += len(entry)
        payloads = self.ledger.vault.seal(record, {opening.field: opening for opening in openings})
        return PendingEntry(record, entry, hash_leaf(entry), payloads)

    def begin(self) -> None:
        """Write the leaves that introduce the registrar and the enforcer."""
        public_key = bytes(self.writer.key.verify_key)
        introduction = KeyEvent(
            action="created",
            purpose="enforcer",
            algorithm=ED25519,
            subject=self.writer.enforcer_id,
            key_id=EnvelopeKey(ED25519, public_key).key_id,
            public_key=encode_base64(public_key),
        )
        service = self.ledger.service
        self.append([(service.record(body), ()) for body in (service.introduction(), introduction)])


@contextmanager
def growing_log(folder: Path) -> Iterator[GrowingLog]:
    """Make an empty log in a folder that exists."""
    with EmbeddedLedger(folder) as ledger:
        publisher = ledger.make_publisher(
            store=ledger.store,
            tiles=ledger.tiles,
            integrator=Integrator(LOG_ID, ledger.reader, ledger.tiles),
            anchor=ledger.anchor,
        )
        publisher.load()
        log = GrowingLog(ledger, publisher, Writer("gateway-1", simulated=True))
        log.begin()
        yield log
