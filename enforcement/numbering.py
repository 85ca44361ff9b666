"""Records of one enforcer: put into its envelope, numbered, signed, and numbered anew in another epoch.

Pure, but for the clock that dates a new record. Which number is next is kept in `enforcement.spool`.
"""

from __future__ import annotations

from typing import Final

import msgspec
import nacl.signing

from enforcement.batches import Item, RecordIdentity
from ledger.bodies import Decision
from ledger.clock import Clock
from ledger.errors import MalformedError
from ledger.records import SCHEMA_VERSION, Record, commitments, decode_entry, encode_record, sign_record

__all__ = ["RecordMaker"]

_UNSIGNED: Final = "A" * 86 + "=="


class RecordMaker:
    """Makes the records of one enforcer."""

    def __init__(self, identity: RecordIdentity, signing_key: nacl.signing.SigningKey, clock: Clock) -> None:
        """Take the parts.

        Args:
            identity: What all records have in common.
            signing_key: The enforcer's Ed25519 key.
            clock: Dates the records.
        """
        self.identity = identity
        self._signing_key = signing_key
        self._clock = clock

    def make(self, item: Item, *, epoch: str, seq: int, counted: int) -> tuple[Record, bytes]:
        """Return a record and its entry.

        Args:
            item: What is recorded, under which id.
            epoch: The epoch.
            seq: Its number.
            counted: Decisions of the epoch before it.

        Raises:
            MalformedError: The ledger would refuse it for its form.
        """
        identity = self.identity
        record = Record(
            schema_version=SCHEMA_VERSION,
            record_id=item.record_id,
            log_id=identity.log_id,
            tenant=identity.tenant,
            environment=identity.environment,
            enforcer_id=identity.enforcer_id,
            epoch=epoch,
            seq=seq,
            running_count=counted + isinstance(item.draft.body, Decision),
            time_ms=self._clock.now_ms(),
            body=item.draft.body,
            signature=_UNSIGNED,
            simulated=identity.simulated,
            pseudonym_key_id=identity.pseudonym_key_id,
        )
        if {opening.field for opening in item.draft.openings} != commitments(record).keys():
            raise MalformedError("a record comes with one opening for each of its commitments")
        return self._sign(record)

    def move(self, entry: bytes, *, epoch: str, seq: int, counted: int) -> tuple[Record, bytes]:
        """Return a record that the ledger does not have yet under a number of another epoch.

        Its id, its time and what it says stay as they are.

        Raises:
            MalformedError: The entry is none.
        """
        record = decode_entry(entry)
        running_count = counted + isinstance(record.body, Decision)
        return self._sign(msgspec.structs.replace(record, epoch=epoch, seq=seq, running_count=running_count))

    def _sign(self, record: Record) -> tuple[Record, bytes]:
        entry = encode_record(sign_record(record, self._signing_key))
        # Nothing enters the spool that the ledger would refuse for its form: it would be a hole in the sequence.
        return decode_entry(entry), entry
