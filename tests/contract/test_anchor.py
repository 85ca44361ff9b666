"""What every `Anchor` promises (`ledger.ports`): directory, S3 with Object Lock on two servers.

Durability is in `tests/fault`; what is S3's own, in `test_anchor_s3.py`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

import pytest

from ledger.anchoring import InspectableAnchor
from ledger.anchors.directory import DirectoryAnchor
from ledger.anchors.s3_object_lock import S3ObjectLockAnchor
from ledger.clock import SystemClock
from ledger.errors import AnchorError, ConflictError, MalformedError, NotFoundError
from tests.support.checkpoints import make_checkpoint
from tests.support.ledger import LOG_ID
from tests.support.s3 import S3Server, s3_server


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Start each server at its first use: the machine's best, and moto."""
    with ExitStack() as stack:

        @lru_cache
        def start(name: str) -> S3Server:
            folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
            server = stack.enter_context(s3_server(folder, imitated="moto" in name))
            server.make_bucket("locked", locks=True)
            return server

        yield start


@pytest.fixture(params=["directory", "s3", "s3 moto"])
def anchor(request: pytest.FixtureRequest, tmp_path: Path, servers: Callable[[str], S3Server]) -> InspectableAnchor:
    if request.param == "directory":
        return DirectoryAnchor(tmp_path / "not" / "made" / "yet")
    bucket = servers(request.param).bucket("locked", AnchorError)
    return S3ObjectLockAnchor(bucket, f"{secrets.token_hex(8)}/", retention_days=1, clock=SystemClock())


def test_an_empty_anchor_has_no_checkpoints(anchor):
    assert anchor.sizes(LOG_ID) == []
    with pytest.raises(NotFoundError):
        anchor.get(LOG_ID, 5)


def test_a_copy_is_read_back_byte_for_byte(anchor):
    receipt = anchor.put(LOG_ID, 5, make_checkpoint(5))
    assert receipt.size == 5
    assert receipt.location
    assert anchor.get(LOG_ID, 5) == make_checkpoint(5)


def test_sizes_are_in_the_order_of_numbers_and_not_of_texts_or_of_writing(anchor):
    for size in (10, 9, 100, 1, 2**62):
        anchor.put(LOG_ID, size, make_checkpoint(size))
    assert anchor.sizes(LOG_ID) == [1, 9, 10, 100, 2**62]


@pytest.mark.parametrize(("above", "sizes"), [(-1, [0, 9, 10]), (0, [9, 10]), (9, [10]), (10, []), (2**62, [])])
def test_only_sizes_beyond_one_are_listed_if_so_asked(anchor, above, sizes):
    for size in (9, 10, 0):
        anchor.put(LOG_ID, size, make_checkpoint(size))
    assert anchor.sizes(LOG_ID, above=above) == sizes


def test_every_size_that_was_anchored_stays_readable(anchor):
    sizes = (1, 5, 256, 70_000)
    for size in sizes:
        anchor.put(LOG_ID, size, make_checkpoint(size))
    assert [anchor.get(LOG_ID, size) for size in sizes] == [make_checkpoint(size) for size in sizes]


def test_the_same_bytes_again_are_success_and_give_the_same_receipt(anchor):
    assert anchor.put(LOG_ID, 5, make_checkpoint(5)) == anchor.put(LOG_ID, 5, make_checkpoint(5))


def test_the_same_tree_signed_anew_keeps_the_first_copy(anchor):
    anchor.put(LOG_ID, 5, make_checkpoint(5))
    anchor.put(LOG_ID, 5, make_checkpoint(5, seed=2))
    assert anchor.get(LOG_ID, 5) == make_checkpoint(5)


def test_another_tree_of_the_same_size_is_a_conflict_and_changes_nothing(anchor):
    anchor.put(LOG_ID, 5, make_checkpoint(5))
    with pytest.raises(ConflictError):
        anchor.put(LOG_ID, 5, make_checkpoint(5, tree="b"))
    assert anchor.get(LOG_ID, 5) == make_checkpoint(5)


def test_logs_have_copies_of_their_own(anchor):
    anchor.put(LOG_ID, 5, make_checkpoint(5))
    assert anchor.sizes("other") == []
    anchor.put("other", 5, make_checkpoint(5, tree="b"))
    assert anchor.get(LOG_ID, 5) == make_checkpoint(5)


def test_of_two_trees_anchored_at_once_one_is_kept(anchor):
    start = threading.Barrier(6)

    def put(number: int) -> str | None:
        start.wait()
        try:
            anchor.put(LOG_ID, 5, make_checkpoint(5, tree=str(number)))
        except ConflictError:
            return None
        return str(number)

    with ThreadPoolExecutor(6) as threads:
        (won,) = [tree for tree in threads.map(put, range(6)) if tree is not None]
    assert anchor.get(LOG_ID, 5) == make_checkpoint(5, tree=won)


def test_every_copy_can_be_looked_at_with_what_protects_it(anchor):
    for size in (10, 9, 300):
        anchor.put(LOG_ID, size, make_checkpoint(size))
    copies = list(anchor.copies(LOG_ID))
    assert [(copy.size, copy.data) for copy in copies] == [(size, make_checkpoint(size)) for size in (9, 10, 300)]
    assert {copy.protection.mode for copy in copies} <= {"COMPLIANCE", "read-only"}
    assert [(copy.protection.later_versions, copy.protection.hidden) for copy in copies] == [(0, False)] * 3
    assert [copy.size for copy in anchor.copies(LOG_ID, above=9)] == [10, 300]
    assert list(anchor.copies("other")) == []


@pytest.mark.parametrize("log_id", ["", "..", "a/b", "A", ".probe", "a" * 64])
def test_no_log_id_leads_out_of_the_anchor(anchor, log_id):
    for refused in (
        lambda: anchor.put(log_id, 5, make_checkpoint(5)),
        lambda: anchor.get(log_id, 5),
        lambda: anchor.sizes(log_id),
        lambda: list(anchor.copies(log_id)),
    ):
        with pytest.raises(MalformedError):
            refused()
