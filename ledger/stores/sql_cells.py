"""Cells that may be damaged, read so that whoever compares them sees what differs, and goes on.

SQLite keeps whatever it is given in any column, and refuses a text that is no UTF-8 together with all that was asked
for beside it. What comes out of here for such a cell is something that no record says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

__all__ = ["any_bytes", "any_text"]


@contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Read every text as far as it is one, for the block."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name != "sqlite":
        yield
        return
    strict = driver.text_factory
    driver.text_factory = _text
    try:
        yield
    finally:
        driver.text_factory = strict


def _text(cell: bytes) -> str:
    return cell.decode(errors="replace")


def any_bytes(cell: object) -> bytes:
    """Return a cell as bytes."""
    return bytes(cell) if isinstance(cell, bytes | memoryview) else str(cell).encode(errors="surrogatepass")
