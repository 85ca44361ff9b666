"""SQL databases for tests: one fixture that runs a test on both kinds, and one that closes what was opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from ledger.database import open_engine
from migrations.schema import upgrade


@pytest.fixture(autouse=True)
def _databases_are_closed() -> Iterator[None]:
    """Close what a test opened: from Python 3.13 on, a SQLite connection left open is a warning, and so a failure.

    The warning would come whenever the garbage collector does, and so be pinned on another test.
    """
    opened: dict[int, Engine] = {}

    def remember(connection: Connection) -> None:
        opened[id(connection.engine)] = connection.engine

    event.listen(Engine, "engine_connect", remember)
    yield
    event.remove(Engine, "engine_connect", remember)
    for engine in opened.values():
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgres").new_schema()
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Return an engine on a database of each kind, with the newest schema."""
    opened = open_engine(database_url)
    upgrade(opened)
    yield opened
    opened.dispose()
