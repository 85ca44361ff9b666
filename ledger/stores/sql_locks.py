"""The lock of a log's row: whoever numbers records or swaps a checkpoint has it, for one short transaction.

On PostgreSQL a process can be paused, or vanish with its machine, while it holds the lock. Between two statements the
server ends such a transaction by itself (`idle_in_transaction_session_timeout`). In the middle of a COPY it does not:
it waits for more rows, and no time-out of its own applies. Whoever has waited for the lock in vain therefore ends what
holds it and says nothing. That loses nothing: what was not committed was acknowledged to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, bindparam, select, text
from sqlalchemy.exc import OperationalError

from ledger.errors import NotFoundError
from ledger.stores import tables

__all__ = ["lock_log"]

_SILENT_SECONDS: Final = 10.0
"""A statement whose client has kept the server waiting may be ended so long after it began."""

_LOCK_NOT_AVAILABLE: Final = "55P03"
"""What PostgreSQL answers whoever has waited for `lock_timeout`."""

_END_SILENT: Final = text(
    "SELECT pg_terminate_backend(activity.pid) FROM pg_stat_activity AS activity "
    "JOIN pg_locks AS held ON held.pid = activity.pid "
    "WHERE held.relation = 'logs'::regclass AND held.mode = 'RowShareLock' AND held.granted "
    "AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND activity.usename = current_user AND activity.pid <> pg_backend_pid() "
    "AND activity.state = 'active' AND activity.wait_event_type = 'Client' "
    "AND activity.query_start < clock_timestamp() - make_interval(secs => :seconds)"
)
"""Ends the connections of ours that hold rows of `logs` and wait for their client in the middle of a statement."""


# Made once: SQLAlchemy takes longer to put a statement together than a database to answer it.
_LOCKED: Final = select(tables.logs.c.log_no).where(tables.logs.c.log_id == bindparam("log_id")).with_for_update()


def lock_log(connection: Connection, log_id: str) -> int:
    """Take the lock of a log's row until the transaction ends, and return the log's number.

    Raises:
        NotFoundError: No such log.
        OperationalError: The lock could not be had for long; a holder that says nothing was ended meanwhile.
    """
    with _ending_the_silent(connection.engine):
        log_no = connection.scalar(_LOCKED, {"log_id": log_id})
    if log_no is None:
        raise NotFoundError(f"there is no log {log_id}")
    return int(log_no)


@contextmanager
def _ending_the_silent(engine: Engine) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            with engine.begin() as connection:
                connection.execute(_END_SILENT, {"seconds": _SILENT_SECONDS})
        raise
