"""What a network does to a write: the request is lost, or the answer is, between a real client and a real server.

The same rows as the fault table (`test_fault_table`), with nothing injected into our own code: psycopg finds its
connection cut at the commit of the very transaction. Whether the transaction persisted is the server's truth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from ledger.errors import StorageError
from tests.support.fault_scene import REACHED, Scene, begin
from tests.support.faults import Faults, Write
from tests.support.wire import Cut, Wire

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
"""The message as it stands on the wire: the isolation level also has the word in it."""
PERSISTED = {Cut.LOST: False, Cut.UNANSWERED: True}
ON_THE_DATABASE = (Write.SEQUENCE, Write.SWAP, Write.RELEASE)


@pytest.fixture
def wired(postgres, tmp_path: Path) -> Iterator[tuple[Scene, Wire]]:
    """A log in a real PostgreSQL at the other end of a wire."""
    url = postgres.new_schema()
    server = next(postgres.folder.glob(".s.PGSQL.*[0-9]"))
    # A socket's path has at most 107 bytes; pytest's folders may be longer.
    with tempfile.TemporaryDirectory(prefix="tally-wire-") as folder, Wire(str(server), Path(folder)) as wire:
        # The base is made on a connection of its own; from then on everything passes the wire.
        scene = begin(tmp_path / "log", url)
        scene.database_url = url.replace(str(postgres.folder), folder)
        yield scene, wire


def strike(scene: Scene, wire: Wire, write: Write, how: Cut) -> None:
    """Let the commit of one write be cut, as the sequencer or publisher meets it."""
    faults = Faults()

    def arm(kind: Write) -> None:
        if kind is write:
            faults.on_write = None
            wire.cut(COMMIT, how)

    with scene.open(faults) as ledger:
        # A new process numbers the names that it meets in a transaction of its own, whose commit is not the one.
        ledger.append(scene.sent[-1])
        scene.new_batch()
        faults.on_write = arm
        struck = wire.struck
        with pytest.raises(StorageError):
            scene.work(ledger)
        assert wire.struck == struck + 1, "the wire was never cut"


@pytest.mark.parametrize(("write", "how"), list(product(ON_THE_DATABASE, PERSISTED)), ids=str)
def test_a_commit_that_the_network_cuts_off_on_postgresql(wired, write, how):
    scene, wire = wired
    strike(scene, wire, write, how)
    assert scene.look() == REACHED[write][PERSISTED[how]]
    scene.recover()


@pytest.mark.parametrize(("write", "how"), list(product(ON_THE_DATABASE, PERSISTED)), ids=str)
def test_a_commit_that_the_network_cuts_off_twice_in_a_row_on_postgresql(wired, write, how):
    scene, wire = wired
    for _ in range(2):
        strike(scene, wire, write, how)
        assert scene.look() == REACHED[write][PERSISTED[how]]
    scene.recover()


def test_a_server_that_dies_in_the_middle_of_a_log_keeps_what_it_acknowledged(postgres, tmp_path):
    cluster = type(postgres)()
    try:
        scene = begin(tmp_path / "log", cluster.new_schema())
        scene.new_batch()
        with scene.open() as ledger:
            scene.work(ledger)
            cluster.crash()
            scene.new_batch()
            with pytest.raises(StorageError):
                scene.work(ledger)
            cluster.start()
            ledger.publisher.load()
            scene.work(ledger)
        scene.recover()
    finally:
        cluster.stop()
