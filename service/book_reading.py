"""How books are kept that follow from the log alone: modes, inventory, tools, discoveries, behaviour.

A process reads each record once, when somebody next asks, for none ever changes. Safe for any thread.

INVARIANT: nobody but the service says what people said, whoever could write the table: a record in its name is read
only if it is signed by a key of the service.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ledger.catalog import Catalog
from ledger.reader import EntryReader
from ledger.records import Record

__all__ = ["Book", "BookReading"]

_T = TypeVar("_T")


class Book(Protocol):
    """What follows from records."""

    def take(self, index: int, record: Record, /) -> None:
        """Read one record; those of a type come in the order of the log."""
        ...


_B = TypeVar("_B", bound=Book)


class BookReading(Generic[_B]):
    """A book of one log, and how far it was read."""

    def __init__(
        self,
        book: _B,
        *types: str,
        log_id: str,
        service_id: str,
        catalog: Catalog,
        reader: EntryReader,
        check: Callable[[int, Record], None],
    ) -> None:
        """Begin with an empty book.

        Args:
            book: The book.
            types: The types of its records.
            log_id: Which log.
            service_id: The service's own enforcer id.
            catalog: Finds records.
            reader: Reads them.
            check: Checks that a record is signed by the service; raises if not.
        """
        self._log_id = log_id
        self._service_id = service_id
        self._catalog = catalog
        self._reader = reader
        self._check = check
        self._lock = threading.Lock()
        # Under the lock. Each type for itself: one leaf for all would pass over what is written between two questions.
        self._book = book
        self._last = dict.fromkeys(types, -1)

    def read(self) -> _B:
        """Return the book as the log is now.

        Raises:
            VerificationError: A record in the service's name is not signed by it.
            LedgerError: A store failed.
        """
        return self.seen(lambda book: book)

    def seen(self, look: Callable[[_B], _T]) -> _T:
        """Return what somebody sees in the book as the log is now, while nobody else reads on; raises as `read` does.

        Args:
            look: Looks.
        """
        with self._lock:
            for record_type, last in self._last.items():
                for index in self._catalog.of_type(self._log_id, record_type, above=last):
                    # The catalogue only finds; what a leaf is, the leaf says (invariant 3).
                    record = self._reader.record(index)
                    if record.enforcer_id == self._service_id:
                        self._check(index, record)
                    self._book.take(index, record)
                    self._last[record_type] = index
            return look(self._book)
