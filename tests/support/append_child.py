"""A small process that appends to a SQLite log and says so: ``python -m tests.support.append_child DATABASE COUNT``.

After each acknowledgement it writes one line to its standard output, ``acknowledged INDEX RECORD-ID``, in one system
call and without a buffer. With ``--careless`` it turns SQLite's syncing off: the negative control.
"""

from __future__ import annotations

import os
import sys

from sqlalchemy import event

from ledger.database import open_engine
from ledger.ports import LogStore
from ledger.stores.sql import SQLLogStore
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, pending

MARKER = "acknowledged"


def append(store: LogStore, count: int) -> None:
    """Append records one by one, saying so after each."""
    enforcer = Enforcer(enforcer_id=f"gateway-{os.getpid()}")
    for _ in range(count):
        record = enforcer.record(enforcer.heartbeat())
        ((done,),) = store.sequence(LOG_ID, [[pending(record)]], received_ms=NOW_MS)
        os.write(sys.stdout.fileno(), f"{MARKER} {done.index} {done.record_id}\n".encode())


def main(database: str, count: str, *options: str) -> None:
    """Open the database, which exists and has the log, and append."""
    engine = open_engine(f"sqlite:///{database}")
    if "--careless" in options:
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    append(SQLLogStore(engine), int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
