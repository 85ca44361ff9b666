"""``tallystick``, but SQLite is told not to sync: ``python -m tests.support.careless_service serve``.

The negative control of the test that watches syncs. The product has no such switch, so that it is thrown from outside.
"""

from __future__ import annotations

from sqlalchemy import Engine, event

import ledger.database
import service.wiring.services
from service.cli import main


def open_carelessly(url: str, **options: int) -> Engine:
    """Open a database as the service does, and turn its syncing off."""
    engine = ledger.database.open_engine(url, **options)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    return engine


if __name__ == "__main__":
    service.wiring.services.open_engine = open_carelessly
    main()
