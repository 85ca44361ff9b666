"""The rows of the fault table with tiles and anchor in a real S3 server, at the other end of a wire that breaks.

Requests are lost, done and answered with an error, done and not answered at all, or met with silence until the client's
own time-out. Nothing is injected into our own code, and the client does not try again by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from ledger.anchors.s3_object_lock import S3ObjectLockAnchor
from ledger.clock import SystemClock
from ledger.errors import AnchorError, DependencyError
from ledger.stores.s3 import S3TileStore
from tests.support.fault_scene import REACHED, Scene, begin
from tests.support.faults import Write
from tests.support.s3 import S3Server, s3_server
from tests.support.s3_proxy import Fault, Wire, s3_proxy

PATHS = {
    Write.PUT_BUNDLE: "/tiles/{prefix}acme/tile/entries/",
    Write.PUT_TILE: "/tiles/{prefix}acme/tile/0/",
    Write.EXPOSE: "/tiles/{prefix}acme/checkpoint",
    Write.ANCHOR: "/anchor/{prefix}acme/checkpoint/",
}
"""What the path of each write contains."""

PERSISTED = {Fault.LOST: False, Fault.KEPT: True, Fault.KEPT_503: True, Fault.SLOW: True}
READ_SECONDS = 1.5
"""After so long the client gives a silent server up."""

EVERY = list(product(PATHS, PERSISTED))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("tiles", locks=True)
        running.make_bucket("anchor", locks=True)
        yield running


class InS3:
    """A log whose tiles and anchor are in S3, and the wire between."""

    def __init__(self, root: Path, reached: S3Server, wire: Wire) -> None:
        self.prefix = f"{secrets.token_hex(8)}/"
        self.wire = wire
        client = reached.client(read_seconds=READ_SECONDS)
        tiles = reached.bucket("tiles", client=client)
        anchor = reached.bucket("anchor", AnchorError, client=client)
        clock = SystemClock()
        self.scene: Scene = begin(
            root,
            tiles=S3TileStore(tiles, self.prefix, retention_days=1, clock=clock),
            anchor=S3ObjectLockAnchor(anchor, self.prefix, retention_days=1, clock=clock),
        )

    def strike(self, write: Write, fault: Fault) -> None:
        """Let one write meet a fault on its way."""
        self.scene.new_batch()
        path = PATHS[write].format(prefix=self.prefix)
        with self.scene.open() as ledger:
            before = len(self.wire.requests)
            self.wire.arm(fault, "PUT", path)
            with pytest.raises(DependencyError):
                self.scene.work(ledger)
        met = [request for request in self.wire.requests[before:] if request[0] == "PUT" and path in request[1]]
        assert len(met) == 1, "the write was tried again, or never came"


@pytest.fixture
def in_s3(server: S3Server, tmp_path: Path) -> Iterator[InS3]:
    with s3_proxy(server) as (reached, wire):
        yield InS3(tmp_path / "log", reached, wire)


@pytest.mark.parametrize(("write", "fault"), EVERY, ids=lambda value: getattr(value, "name", str(value)).lower())
def test_once_in_s3(in_s3, write, fault):
    in_s3.strike(write, fault)
    assert in_s3.scene.look() == REACHED[write][PERSISTED[fault]]
    in_s3.scene.recover()


@pytest.mark.parametrize("write", PATHS, ids=lambda write: write.name.lower())
def test_twice_in_a_row_in_s3(in_s3, write):
    for fault in (Fault.LOST, Fault.KEPT_503):
        in_s3.strike(write, fault)
        assert in_s3.scene.look() == REACHED[write][PERSISTED[fault]]
    in_s3.scene.recover()


def test_one_failure_after_another_in_s3(in_s3):
    for write in (*PATHS, *reversed(PATHS)):
        in_s3.strike(write, Fault.KEPT_503)
        in_s3.scene.look()
    in_s3.scene.recover()
