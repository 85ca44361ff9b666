"""The keys of a log, kept up with the key records that any process of the service writes.

Each process holds a keyring of its own. It reads what is new in the log when a key is not known, when a key record of
its own was written, and whenever the log says that it is behind. That it is behind is never left to chance:

INVARIANT: no record stands behind the end of the key that signed it. A record is sequenced together with the leaf of
the newest key record that it was judged by (`ledger.ports.PendingEntry.keys_leaf`); if there is a newer one, in the
same transaction, the record is refused and judged again. So a retirement at one process binds all others from its leaf
on, however long they were paused, and of two processes that introduce one enforcer the second sees the first.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ledger.catalog import Catalog
from ledger.errors import OverloadedError, StaleKeysError
from ledger.keyring import Keyring
from ledger.ports import Acknowledgement, Draft
from ledger.reader import EntryReader

if TYPE_CHECKING:
    from service.recorder import ServiceRecorder

__all__ = ["NO_KEYS", "KeyringReader", "append_on_newest_keys"]

NO_KEYS: Final = -1
"""The leaf of the newest key record of a log that has none."""

_ATTEMPTS: Final = 16


class KeyringReader:
    """Reads a log's key records into a keyring; safe for any thread."""

    def __init__(self, log_id: str, keyring: Keyring, catalog: Catalog, reader: EntryReader) -> None:
        """Keep ``keyring`` up to date; nobody else feeds it."""
        self._log_id = log_id
        self._keyring = keyring
        self._catalog = catalog
        self._reader = reader
        self._lock = threading.Lock()
        self._newest = NO_KEYS

    def refresh(self) -> int:
        """Read the key records that are new, and return the leaf of the newest, or `NO_KEYS`.

        Raises:
            VerificationError: A key record does not verify: the log is damaged.
            StorageError: A store failed.
        """
        with self._lock:
            for index in self._catalog.of_type(self._log_id, "key", above=self._newest):
                self._keyring.check(index, self._reader.record(index))
                self._newest = index
            return self._newest

    def keys_of(self, enforcer_id: str) -> tuple[int, Sequence[bytes]]:
        """Return the leaf of the newest key record known here, and the keys that count for an enforcer by it."""
        # In this order: a key record that is read in between makes the leaf too small, which is found out; never the
        # keys too old.
        newest = self._newest
        return newest, self._keyring.enforcer_keys(enforcer_id)


async def append_on_newest_keys(
    keys: KeyringReader, recorder: ServiceRecorder, drafts: Callable[[], Sequence[Draft]]
) -> list[Acknowledgement]:
    """Append records that follow from the keys as they stand, and look at the keys again if others changed them.

    Args:
        keys: The log's keys.
        recorder: Writes the records.
        drafts: What follows from the keyring, which is up to date when this is called; what it raises is raised.

    Raises:
        OverloadedError: The keys were changed by others time and again; nothing was written.
        DependencyError: Nothing of this call may be relied on.
    """
    for _ in range(_ATTEMPTS):
        newest = await asyncio.to_thread(keys.refresh)
        try:
            return await recorder.append(drafts(), keys_leaf=newest)
        except StaleKeysError:
            continue
    raise OverloadedError("others change the log's keys at this moment; try again")
