"""The service's own recorder: how bundle, key, access and heartbeat records of the service enter the log.

The service is an enforcer like any other: it numbers and signs its records, and counts the decisions among them, which
are those that it was asked for (`service.deciding`). It needs no spool, because the ledger is in the same process: its
position is read from the log itself.

All processes of a service write one stream, under one id and in one epoch. Each assumes that it was the last to write;
where another was, the store refuses the number that is taken, the position is read anew, and the records are numbered
and signed again. A refused batch took nothing, so that no number is ever left out.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

import nacl.signing

from ledger.bodies import Decision
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.errors import ConflictError, DependencyError, NotFoundError, StaleKeysError, StateError
from ledger.merkle import hash_leaf
from ledger.ports import Acknowledgement, Draft, PendingEntry
from ledger.records import Record, decode_entry, encode_record, new_record_id, sign_record
from ledger.sequencer import Sequencer
from ledger.vault import Vault
from service.ingest import LogIdentity

__all__ = ["ServiceRecorder"]

_NO_SIGNATURE = "A" * 86 + "=="

_ATTEMPTS = 64
"""Each lost attempt is a number that another process won; so many in a row are another fault."""
_LONGEST_PAUSE_MS = 20


class ServiceRecorder:
    """`ledger.ports.RecordSink` for the service itself. Methods belong to one event loop."""

    def __init__(
        self,
        identity: LogIdentity,
        enforcer_id: str,
        *,
        key: Callable[[], nacl.signing.SigningKey],
        pseudonym_key_id: Callable[[], str],
        sequencer: Sequencer,
        catalog: Catalog,
        read: Callable[[int], Record],
        vault: Vault,
        clock: Clock,
        on_record: Callable[[int, Record], None] | None = None,
        refresh_keys: Callable[[], object] | None = None,
    ) -> None:
        """Record as ``enforcer_id``.

        Args:
            identity: What every record of the log says of itself.
            enforcer_id: The service's own enforcer id.
            key: Returns its Ed25519 key; asked anew for each batch, since keys are replaced.
            pseudonym_key_id: Returns the id of the key that makes the service's pseudonyms.
            sequencer: Where records are sequenced.
            catalog: Where the position is found.
            read: Reads the record at a leaf index: what the stream's last one says is where the next one goes on.
            vault: Where openings are sealed.
            clock: For the records' time.
            on_record: Called with leaf index and record once it is durable, off the event loop.
            refresh_keys: Takes up what other processes have recorded of keys; called off the event loop whenever the
                position was read, since whoever replaced the service's key has written since.
        """
        self._identity = identity
        self._enforcer_id = enforcer_id
        self._key = key
        self._pseudonym_key_id = pseudonym_key_id
        self._sequencer = sequencer
        self._catalog = catalog
        self._read = read
        self._vault = vault
        self._clock = clock
        self._on_record = on_record
        self._refresh_keys = refresh_keys
        self._lock = asyncio.Lock()
        self._epoch: str | None = None
        self._seq = 0
        self._counted = 0

    async def _find_position(self) -> str:
        """Read where the stream stands; after an unclear failure only the log knows."""
        position = await asyncio.to_thread(self._catalog.last_position, self._identity.log_id, self._enforcer_id)
        # In this order: a key record behind the position that was read is another's, and has the next number.
        if self._refresh_keys is not None:
            await asyncio.to_thread(self._refresh_keys)
        if position is None:
            self._epoch, self._seq, self._counted = secrets.token_hex(16), 0, 0
        else:
            last = await asyncio.to_thread(self._read, position.leaf_index)
            self._epoch, self._seq, self._counted = position.epoch, position.seq, last.running_count
        return self._epoch

    def _record(
        self,
        draft: Draft,
        epoch: str,
        numbers: tuple[int, int],
        now_ms: int,
        key: nacl.signing.SigningKey,
        pseudonym_key_id: str,
    ) -> Record:
        seq, counted = numbers
        unsigned = Record(
            schema_version=1,
            record_id=draft.record_id or new_record_id(now_ms, secrets.token_bytes(10)),
            log_id=self._identity.log_id,
            tenant=self._identity.tenant,
            environment=self._identity.environment,
            enforcer_id=self._enforcer_id,
            epoch=epoch,
            seq=seq,
            running_count=counted,
            time_ms=now_ms,
            body=draft.body,
            signature=_NO_SIGNATURE,
            simulated=self._identity.simulated,
            pseudonym_key_id=pseudonym_key_id,
        )
        return sign_record(unsigned, key)

    def _prepare(
        self, drafts: Sequence[Draft], epoch: str, first_seq: int, now_ms: int, keys_leaf: int | None
    ) -> list[PendingEntry]:
        entries = []
        # INVARIANT: the key is chosen after the position was known. Whoever retired it has written a record of ours
        # since, so that what is signed with it has a number that is taken, and never stands behind its end.
        key, pseudonym_key_id = self._key(), self._pseudonym_key_id()
        counted = self._counted
        for seq, draft in enumerate(drafts, first_seq):
            counted += isinstance(draft.body, Decision)
            record = self._record(draft, epoch, (seq, counted), now_ms, key, pseudonym_key_id)
            entry = encode_record(record)
            # INVARIANT 1: what is acknowledged stands for ever; nothing is written that could not be read again.
            decode_entry(entry)
            payloads = self._vault.seal(record, {opening.field: opening for opening in draft.openings})
            entries.append(PendingEntry(record, entry, hash_leaf(entry), payloads, keys_leaf))
        return entries

    async def append(self, drafts: Sequence[Draft], *, keys_leaf: int | None = None) -> list[Acknowledgement]:
        """See `RecordSink.append`.

        Args:
            drafts: What is recorded.
            keys_leaf: Where the records follow from the log's keys: the leaf of the newest key record that was known.

        Raises:
            StaleKeysError: There is a newer key record; nothing was taken.
            ConflictError: A draft names the id of a record that is in the log already; nothing was taken.
        """
        # A caller that goes away must not leave the position unknown: what was begun is finished.
        return await asyncio.shield(asyncio.create_task(self._append(drafts, keys_leaf)))

    async def _append(self, drafts: Sequence[Draft], keys_leaf: int | None) -> list[Acknowledgement]:
        async with self._lock:
            entries, done = await self._append_in_turn(drafts, keys_leaf)
            # Before the next batch is signed: a record may end the key that it would be signed with.
            if self._on_record is not None:
                await asyncio.to_thread(self._tell, entries, done, self._on_record)
        return done

    async def _append_in_turn(
        self, drafts: Sequence[Draft], keys_leaf: int | None
    ) -> tuple[list[PendingEntry], list[Acknowledgement]]:
        """Append behind whatever other processes of this service have written; the lock is held."""
        for attempt in range(_ATTEMPTS):
            epoch = self._epoch or await self._find_position()
            now_ms = self._clock.now_ms()
            entries = await asyncio.to_thread(self._prepare, drafts, epoch, self._seq + 1, now_ms, keys_leaf)
            try:
                done = await self._sequencer.append(entries)
            except StaleKeysError:
                self._epoch = None
                raise
            except ConflictError:
                # Another process has written since we looked: it has our number, and we took nothing.
                self._epoch = None
                if attempt + 1 == _ATTEMPTS or await asyncio.to_thread(self._is_there, drafts):
                    raise
                await asyncio.sleep(secrets.randbelow(min(attempt, _LONGEST_PAUSE_MS) + 1) / 1000)
            except (DependencyError, StateError):
                # Whether it persisted is unknown: ask the log next time.
                self._epoch = None
                raise
            else:
                self._seq += len(entries)
                self._counted = entries[-1].record.running_count if entries else self._counted
                return entries, done
        raise AssertionError  # the loop returns or raises

    def _is_there(self, drafts: Sequence[Draft]) -> bool:
        """Whether the log has a record under an id that a draft names: no number of ours would help then."""
        for draft in drafts:
            if draft.record_id is not None:
                with suppress(NotFoundError):
                    self._catalog.index_of(self._identity.log_id, draft.record_id)
                    return True
        return False

    @staticmethod
    def _tell(
        entries: Sequence[PendingEntry], done: Sequence[Acknowledgement], listener: Callable[[int, Record], None]
    ) -> None:
        for entry, acknowledgement in zip(entries, done, strict=True):
            listener(acknowledgement.index, entry.record)
