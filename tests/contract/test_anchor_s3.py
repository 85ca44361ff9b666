"""The S3 anchor on a real server with Object Lock: what it locks stays, and what is not locked is an error."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ledger.anchor_checks import check_copies
from ledger.anchoring import KeptCopy
from ledger.anchors.s3_object_lock import S3ObjectLockAnchor
from ledger.clock import SystemClock
from ledger.errors import (
    AnchorError,
    ConfigError,
    ConflictError,
    NotFoundError,
    RollbackError,
    StateError,
    StorageError,
)
from ledger.ports import AnchorReceipt
from ledger.publisher import Publisher
from ledger.signers.local import LocalSigner
from ledger.stores.memory import MemoryLogStore, MemoryTileStore
from ledger.stores.s3 import S3TileStore
from ledger.trust import TrustPolicy
from tests.support.checkpoints import make_checkpoint
from tests.support.ledger import LOG_ID, EmbeddedLedger, make_key
from tests.support.s3 import S3Server, s3_server
from tests.support.s3_proxy import Fault, s3_proxy


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.client().create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        running.client().create_bucket(Bucket="plain")
        yield running


@pytest.fixture
def ledger(tmp_path):
    made = EmbeddedLedger(tmp_path)
    made.introduce()
    return made


def make_anchor(server: S3Server, prefix: str, bucket: str = "locked") -> S3ObjectLockAnchor:
    return S3ObjectLockAnchor(server.bucket(bucket, AnchorError), prefix, retention_days=2, clock=SystemClock())


def checkpoints(ledger: EmbeddedLedger) -> tuple[bytes, bytes]:
    first = ledger.publish()
    ledger.decide()
    return first, ledger.publish()


def test_an_anchored_checkpoint_is_read_back_with_its_lock(server, ledger):
    anchor = make_anchor(server, "a/")
    checkpoint, _ = checkpoints(ledger)
    receipt = anchor.put(LOG_ID, 1, checkpoint)
    assert anchor.get(LOG_ID, 1) == checkpoint
    assert receipt.size == 1
    assert receipt.location.startswith("s3://locked/a/acme/checkpoint/00000000000000000001?versionId=")
    locked_for_ms = receipt.retain_until_ms - SystemClock().now_ms()
    assert timedelta(days=1) < timedelta(milliseconds=locked_for_ms) <= timedelta(days=2, seconds=1)


def test_the_same_checkpoint_again_is_success_and_adds_no_version(server, ledger):
    anchor = make_anchor(server, "b/")
    checkpoint, _ = checkpoints(ledger)
    first = anchor.put(LOG_ID, 1, checkpoint)
    assert anchor.put(LOG_ID, 1, checkpoint) == first


def test_another_tree_of_the_same_size_is_a_conflict(server, ledger, tmp_path):
    anchor = make_anchor(server, "c/")
    checkpoint, _ = checkpoints(ledger)
    anchor.put(LOG_ID, 1, checkpoint)
    (tmp_path / "other").mkdir()
    other = EmbeddedLedger(tmp_path / "other")
    other.introduce()
    with pytest.raises(ConflictError):
        anchor.put(LOG_ID, 1, other.publish())
    assert anchor.get(LOG_ID, 1) == checkpoint


def test_sizes_are_in_their_own_order_and_nothing_else_is_taken_for_one(server, ledger):
    anchor = make_anchor(server, "d/")
    assert anchor.sizes(LOG_ID) == []
    server.client().put_object(Bucket="locked", Key=f"d/{LOG_ID}/checkpoint/notes.txt", Body=b"x")
    first, second = checkpoints(ledger)
    anchor.put(LOG_ID, 2, second)
    anchor.put(LOG_ID, 1, first)
    assert anchor.sizes(LOG_ID) == [1, 2]
    assert [anchor.sizes(LOG_ID, above=size) for size in (-1, 0, 1, 2)] == [[1, 2], [1, 2], [2], []]


def test_a_checkpoint_that_was_never_anchored_is_not_found(server):
    with pytest.raises(NotFoundError):
        make_anchor(server, "e/").get(LOG_ID, 7)


def test_a_locked_version_cannot_be_deleted_even_with_the_bypass_header(server, ledger):
    anchor = make_anchor(server, "f/")
    checkpoint, _ = checkpoints(ledger)
    receipt = anchor.put(LOG_ID, 1, checkpoint)
    key, _, version = receipt.location.removeprefix("s3://locked/").partition("?versionId=")
    with pytest.raises(ClientError):
        server.client().delete_object(Bucket="locked", Key=key, VersionId=version, BypassGovernanceRetention=True)
    assert anchor.get(LOG_ID, 1) == checkpoint


def test_a_lock_cannot_be_shortened_or_weakened(server, ledger):
    anchor = make_anchor(server, "g/")
    checkpoint, _ = checkpoints(ledger)
    receipt = anchor.put(LOG_ID, 1, checkpoint)
    key, _, version = receipt.location.removeprefix("s3://locked/").partition("?versionId=")
    sooner = datetime.fromtimestamp(SystemClock().now_ms() / 1000, tz=UTC) + timedelta(hours=1)
    for mode, until in (("COMPLIANCE", sooner), ("GOVERNANCE", sooner + timedelta(days=9))):
        # A known gap of moto, which machines without Go fall back to: it takes any new retention.
        refused = nullcontext() if server.name == "moto" else pytest.raises(ClientError)
        with refused:
            server.client().put_object_retention(
                Bucket="locked", Key=key, VersionId=version, Retention={"Mode": mode, "RetainUntilDate": until}
            )


def test_a_bucket_without_object_lock_is_refused_at_the_start_and_on_writing(server, ledger):
    anchor = make_anchor(server, "h/", bucket="plain")
    with pytest.raises(ConfigError, match="without Object Lock"):
        anchor.probe()
    checkpoint, _ = checkpoints(ledger)
    with pytest.raises(AnchorError):
        anchor.put(LOG_ID, 1, checkpoint)


def test_an_unlocked_copy_that_somebody_put_there_is_an_error_not_a_receipt(server, ledger):
    anchor = make_anchor(server, "i/")
    checkpoint, _ = checkpoints(ledger)
    server.client().put_object(Bucket="locked", Key="i/acme/checkpoint/00000000000000000001", Body=checkpoint)
    with pytest.raises(AnchorError):
        anchor.put(LOG_ID, 1, checkpoint)


def test_a_retention_of_no_days_is_refused(server):
    with pytest.raises(ConfigError):
        S3ObjectLockAnchor(server.bucket("locked", AnchorError), "", retention_days=0, clock=SystemClock())


class Switchable:
    """The S3 server's client, or one of a server that is not there."""

    def __init__(self, client: Any) -> None:
        self._clients = {True: client, False: S3Server("none", "http://127.0.0.1:9").client()}
        self.up = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clients[self.up], name)


def test_a_server_that_goes_down_is_lag_not_a_stop(server, ledger):
    client = Switchable(server.client())
    bucket = server.bucket("locked", AnchorError, client=client)
    anchor = S3ObjectLockAnchor(bucket, "k/", retention_days=2, clock=SystemClock())
    publisher: Publisher = ledger.make_publisher(anchor=anchor)
    publisher.load()
    client.up = False
    ledger.clock.advance(1000)
    assert publisher.publish() is not None
    publisher.anchor_newest()
    assert publisher.anchor_status.receipt is None
    assert "anchor bucket failed" in publisher.anchor_status.failure


def test_a_server_that_was_never_there_could_not_say_whether_the_log_was_put_back(server, ledger):
    client = Switchable(server.client())
    client.up = False
    publisher: Publisher = ledger.make_publisher(
        anchor=S3ObjectLockAnchor(
            server.bucket("locked", AnchorError, client=client), "l/", retention_days=2, clock=SystemClock()
        )
    )
    publisher.load()
    ledger.clock.advance(1000)
    with pytest.raises(StateError, match="anchor bucket failed to list objects"):
        publisher.publish()
    client.up = True
    publisher.load()
    assert publisher.publish() is not None


# --- what somebody with the anchor's credentials can still do ---------------------------------------------------------


def key_of(prefix: str, size: int) -> str:
    return f"{prefix}{LOG_ID}/checkpoint/{size:020d}"


def only(anchor: S3ObjectLockAnchor) -> KeptCopy:
    (copy,) = anchor.copies(LOG_ID)
    return copy


def same_copy(receipt: AnchorReceipt, first: AnchorReceipt) -> bool:
    # versitygw, over a directory, dates a version that was covered from when it was covered; the version's own name
    # says that it is the one that was put.
    return receipt == replace(first, anchored_ms=receipt.anchored_ms) and receipt.anchored_ms >= first.anchored_ms


def test_a_copy_that_was_hidden_is_still_listed_read_and_kept(server):
    anchor = make_anchor(server, "hidden/")
    receipt = anchor.put(LOG_ID, 5, make_checkpoint(5))
    server.client().delete_object(Bucket="locked", Key=key_of("hidden/", 5))
    assert anchor.sizes(LOG_ID) == [5]
    assert anchor.get(LOG_ID, 5) == make_checkpoint(5)
    assert same_copy(anchor.put(LOG_ID, 5, make_checkpoint(5)), receipt)
    with pytest.raises(ConflictError):
        anchor.put(LOG_ID, 5, make_checkpoint(5, tree="b"))
    assert only(anchor).protection.hidden


def test_a_copy_that_was_written_over_is_still_the_first(server):
    anchor = make_anchor(server, "over/")
    receipt = anchor.put(LOG_ID, 5, make_checkpoint(5))
    for body in (make_checkpoint(5, tree="b"), b"garbage"):
        server.client().put_object(Bucket="locked", Key=key_of("over/", 5), Body=body)
    assert anchor.get(LOG_ID, 5) == make_checkpoint(5)
    assert same_copy(anchor.put(LOG_ID, 5, make_checkpoint(5)), receipt)
    copy = only(anchor)
    assert (copy.data, copy.protection.mode) == (make_checkpoint(5), "COMPLIANCE")
    assert copy.protection.later_versions == 2


def test_garbage_in_the_place_of_a_copy_is_a_failing_anchor_and_not_a_second_tree(server):
    anchor = make_anchor(server, "garbage/")
    server.client().put_object(Bucket="locked", Key=key_of("garbage/", 5), Body=b"garbage")
    with pytest.raises(AnchorError, match="not a checkpoint"):
        anchor.put(LOG_ID, 5, make_checkpoint(5))


def test_a_hidden_copy_still_stops_a_store_that_was_put_back(server, ledger):
    anchor = make_anchor(server, "rollback/")
    publisher: Publisher = ledger.make_publisher(anchor=anchor)
    publisher.load()
    ledger.decide()
    ledger.clock.advance(1000)
    publisher.publish()
    publisher.anchor_newest()
    size = publisher.published.head.size
    server.client().delete_object(Bucket="locked", Key=key_of("rollback/", size))
    server.client().put_object(Bucket="locked", Key=key_of("rollback/", size), Body=b"garbage")
    earlier = MemoryLogStore(LOG_ID)
    restored = ledger.make_publisher(anchor=anchor, store=earlier, tiles=MemoryTileStore())
    with pytest.raises(RollbackError):
        restored.load()


# --- what each copy says of itself -----------------------------------------------------------------------------------


def test_each_copy_names_its_date_and_the_one_before_it_also_after_a_restart(server):
    for size in (5, 9, 300):
        make_anchor(server, "chain/").put(LOG_ID, size, make_checkpoint(size))
    anchor = make_anchor(server, "chain/")
    for size in (70_000, 70_001):
        anchor.put(LOG_ID, size, make_checkpoint(size))
    copies = list(anchor.copies(LOG_ID))
    assert [(copy.size, copy.previous_size) for copy in copies] == [
        (5, -1),
        (9, 5),
        (300, 9),
        (70_000, 300),
        (70_001, 70_000),
    ]
    assert all(copy.protection.promised_until_ms == copy.protection.retain_until_ms for copy in copies)


def test_two_processes_in_turn_name_what_the_other_anchored(server):
    one, other = make_anchor(server, "turns/"), make_anchor(server, "turns/")
    for anchor, size in ((one, 1), (one, 2), (other, 3), (other, 4), (one, 5)):
        anchor.put(LOG_ID, size, make_checkpoint(size))
    assert [copy.previous_size for copy in one.copies(LOG_ID)] == [-1, 1, 2, 3, 4]


def test_a_bucket_that_gave_way_is_found_out_by_its_copies(tmp_path):
    """moto lets a lock be weakened and a copy be deleted then, which no real bucket does."""
    with s3_server(tmp_path, imitated=True) as moto:
        moto.make_bucket("locked", locks=True)
        anchor = make_anchor(moto, "")
        for size in (1, 2, 3, 4):
            anchor.put(LOG_ID, size, make_checkpoint(size))
        versions = {copy.size: copy.location.partition("?versionId=")[2] for copy in anchor.copies(LOG_ID)}
        soon = datetime.fromtimestamp(SystemClock().now_ms() / 1000, tz=UTC) + timedelta(hours=1)
        for size, mode in ((1, "COMPLIANCE"), (2, "GOVERNANCE"), (3, "GOVERNANCE")):
            moto.client().put_object_retention(
                Bucket="locked",
                Key=key_of("", size),
                VersionId=versions[size],
                Retention={"Mode": mode, "RetainUntilDate": soon},
            )
        moto.client().delete_object(
            Bucket="locked", Key=key_of("", 3), VersionId=versions[3], BypassGovernanceRetention=True
        )
        policy = TrustPolicy(logs=(LocalSigner(make_key("log")).verifier_key,))
        check = check_copies(anchor.copies(LOG_ID), policy, now_ms=SystemClock().now_ms())
    assert [(drift.kind, drift.place) for drift in check.drift] == [
        ("shortened", "checkpoint 1"),
        ("unlocked", "checkpoint 2"),
        ("shortened", "checkpoint 2"),
        ("missing", "checkpoint 3"),
    ]


# --- a wire that breaks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.KEPT, Fault.KEPT_503])
def test_an_anchoring_whose_answer_is_lost_is_repeated_and_kept_once(server, fault):
    prefix = f"wire-{fault.name}/"
    with s3_proxy(server) as (reached, wire):
        bucket = reached.bucket("locked", AnchorError, client=reached.client(attempts=3))
        anchor = S3ObjectLockAnchor(bucket, prefix, retention_days=2, clock=SystemClock())
        wire.arm(fault, "PUT")
        receipt = anchor.put(LOG_ID, 5, make_checkpoint(5))
    assert receipt.retain_until_ms is not None
    assert only(make_anchor(server, prefix)).protection.later_versions == 0


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_an_anchoring_that_is_never_answered_is_no_receipt(server, method):
    with s3_proxy(server) as (reached, wire):
        anchor = make_anchor(reached, f"never-{method}/")
        wire.arm(Fault.KEPT, method, times=99)
        with pytest.raises(AnchorError):
            anchor.put(LOG_ID, 5, make_checkpoint(5))


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.CHANGED])
def test_a_copy_that_cannot_be_read_whole_is_an_error_and_not_another_tree(server, fault):
    prefix = f"read-{fault.name}/"
    make_anchor(server, prefix).put(LOG_ID, 5, make_checkpoint(5))
    with s3_proxy(server) as (reached, wire):
        wire.arm(fault, "GET", "versionId=", times=99)
        anchor = make_anchor(reached, prefix)
        for failing in (lambda: anchor.get(LOG_ID, 5), lambda: anchor.put(LOG_ID, 5, make_checkpoint(5))):
            with pytest.raises(AnchorError, match="failed to read"):
                failing()


# --- legal holds -----------------------------------------------------------------------------------------------------


def holds_of(server: S3Server, prefix: str) -> dict[str, str]:
    client = server.client()
    found = {}
    for one in client.list_object_versions(Bucket="locked", Prefix=prefix).get("Versions", []):
        try:
            told = client.get_object_legal_hold(Bucket="locked", Key=one["Key"], VersionId=one["VersionId"])
        except ClientError:
            found[one["Key"]] = "OFF"
        else:
            found[one["Key"]] = told["LegalHold"]["Status"]
    return found


def test_a_hold_covers_every_copy_and_those_that_come_later_until_it_ends(server, ledger):
    anchor = make_anchor(server, "held/")
    first, second = checkpoints(ledger)
    anchor.put(LOG_ID, 1, first)
    assert anchor.hold(LOG_ID, on=True) == 1
    assert anchor.hold(LOG_ID, on=True) == 0
    anchor.put(LOG_ID, 2, second)
    assert sorted(holds_of(server, "held/").values()) == ["OFF", "ON"]
    assert anchor.hold(LOG_ID, on=True) == 1
    assert set(holds_of(server, "held/").values()) == {"ON"}
    # Another process, which remembers nothing.
    assert make_anchor(server, "held/").hold(LOG_ID, on=False) == 2
    assert set(holds_of(server, "held/").values()) == {"OFF"}
    assert anchor.get(LOG_ID, 1) == first


def test_a_hold_that_another_process_ended_is_put_there_again_by_whoever_is_told_so(server, ledger):
    ours, theirs = make_anchor(server, "again/"), make_anchor(server, "again/")
    ours.put(LOG_ID, 1, checkpoints(ledger)[0])
    assert ours.hold(LOG_ID, on=True) == 1
    assert theirs.hold(LOG_ID, on=False) == 1
    assert ours.hold(LOG_ID, on=True) == 0
    assert ours.hold(LOG_ID, on=True, anew=True) == 1
    assert set(holds_of(server, "again/").values()) == {"ON"}


def test_a_hold_on_one_log_leaves_another_alone(server, ledger):
    anchor = make_anchor(server, "two/")
    first, _ = checkpoints(ledger)
    anchor.put(LOG_ID, 1, first)
    anchor.put(f"{LOG_ID}-2", 1, first)
    assert anchor.hold(LOG_ID, on=True) == 1
    assert sorted(holds_of(server, "two/").values()) == ["OFF", "ON"]


@pytest.mark.parametrize(("retention_days", "held"), [(2, 1), (0, 0)])
def test_a_hold_covers_full_tiles_that_are_locked_and_none_that_are_to_be_collected(server, retention_days, held):
    prefix = f"tiles-{retention_days}/"
    bucket = server.bucket("locked", StorageError)
    tiles = S3TileStore(bucket, prefix, retention_days=retention_days, clock=SystemClock())
    tiles.put(LOG_ID, "tile/0/000", bytes(32 * 256))
    tiles.put(LOG_ID, "tile/0/001.p/3", bytes(32 * 3))
    assert tiles.hold(LOG_ID, on=True) == held
    assert {key: status for key, status in holds_of(server, prefix).items() if status == "ON"} == (
        {f"{prefix}{LOG_ID}/tile/0/000": "ON"} if held else {}
    )


def test_a_bucket_that_takes_no_hold_says_so(server, ledger):
    anchor = S3ObjectLockAnchor(server.bucket("plain", AnchorError), "h/", retention_days=2, clock=SystemClock())
    server.client().put_object(Bucket="plain", Key=f"h/{LOG_ID}/checkpoint/{1:020d}", Body=b"x")
    with pytest.raises(AnchorError):
        anchor.hold(LOG_ID, on=True)
