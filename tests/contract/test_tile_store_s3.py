"""The S3 tile store on a real server, and on a wire that breaks: nothing is lost, doubled, replaced or moved back."""

from __future__ import annotations

import base64
import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.clock import SystemClock
from ledger.errors import ConfigError, ConflictError, MalformedError, NotFoundError, StorageError
from ledger.stores.s3 import S3TileStore
from ledger.tiles import CHECKPOINT_PATH
from tests.conformance.requirements import requirement
from tests.support.checkpoints import make_checkpoint
from tests.support.ledger import LOG_ID
from tests.support.s3 import S3Server, s3_server
from tests.support.s3_proxy import Fault, Wire, s3_proxy

FULL = "tile/0/000"
PARTIAL = "tile/0/001.p/17"
DATA = b"\x01\x02\x03\x04" * 64


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("locked", locks=True)
        running.make_bucket("plain")
        yield running


@pytest.fixture
def prefix() -> str:
    return f"{secrets.token_hex(8)}/"


@pytest.fixture
def wired(server):
    with s3_proxy(server) as (reached, wire):
        yield reached, wire


def make_tiles(server: S3Server, prefix: str, *, days: int = 2, bucket: str = "locked") -> S3TileStore:
    return S3TileStore(
        server.bucket(bucket, client=server.client(attempts=3)), prefix, retention_days=days, clock=SystemClock()
    )


@pytest.fixture
def tiles(wired, prefix) -> tuple[S3TileStore, Wire]:
    reached, wire = wired
    return make_tiles(reached, prefix), wire


def head(server: S3Server, key: str, bucket: str = "locked") -> dict[str, Any]:
    return server.client().head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")


def versions(server: S3Server, key: str) -> list[dict[str, Any]]:
    found = server.client().list_object_versions(Bucket="locked", Prefix=key)
    return [one for one in found.get("Versions", []) if one["Key"] == key]


# --- what stands in the bucket ---------------------------------------------------------------------------------------


@requirement("tiles-12")
def test_the_bucket_can_be_served_as_it_stands(server, prefix):
    tiles = make_tiles(server, prefix)
    for path in (FULL, PARTIAL, "tile/entries/000"):
        tiles.put(LOG_ID, path, DATA)
        told = head(server, f"{prefix}{LOG_ID}/{path}")
        assert told["ContentType"] == "application/octet-stream"
        assert told["CacheControl"] == "max-age=31536000, immutable"
        assert "ContentEncoding" not in told
    for size in (1, 2):
        tiles.expose(LOG_ID, make_checkpoint(size))
        told = head(server, f"{prefix}{LOG_ID}/checkpoint")
        assert (told["ContentType"], told["CacheControl"]) == ("text/plain; charset=utf-8", "max-age=1")


def test_every_write_carries_its_checksum(server, prefix):
    tiles = make_tiles(server, prefix)
    tiles.put(LOG_ID, FULL, DATA)
    tiles.expose(LOG_ID, make_checkpoint(1))
    tiles.expose(LOG_ID, make_checkpoint(2))
    for path, data in ((FULL, DATA), (CHECKPOINT_PATH, make_checkpoint(2))):
        named = head(server, f"{prefix}{LOG_ID}/{path}")["ChecksumSHA256"]
        assert base64.b64decode(named) == hashlib.sha256(data).digest()


@pytest.mark.parametrize("path", [FULL, "tile/entries/000", "tile/3/x001/234"])
def test_full_tiles_and_bundles_are_locked_in_compliance_mode(server, prefix, path):
    make_tiles(server, prefix, days=9).put(LOG_ID, path, DATA)
    told = head(server, f"{prefix}{LOG_ID}/{path}")
    assert told["ObjectLockMode"] == "COMPLIANCE"
    left = told["ObjectLockRetainUntilDate"] - datetime.fromtimestamp(SystemClock().now_ms() / 1000, tz=UTC)
    assert timedelta(days=8, hours=23) < left <= timedelta(days=9, seconds=1)


def test_partial_tiles_and_the_live_checkpoint_are_not_locked(server, prefix):
    tiles = make_tiles(server, prefix)
    tiles.put(LOG_ID, PARTIAL, DATA)
    tiles.expose(LOG_ID, make_checkpoint(1))
    for path in (PARTIAL, CHECKPOINT_PATH):
        assert "ObjectLockMode" not in head(server, f"{prefix}{LOG_ID}/{path}")


def test_without_a_retention_nothing_is_locked(server, prefix):
    make_tiles(server, prefix, days=0).put(LOG_ID, FULL, DATA)
    assert "ObjectLockMode" not in head(server, f"{prefix}{LOG_ID}/{FULL}")


def test_a_full_tile_from_before_locking_was_decided_is_locked_when_it_is_written_again(server, prefix):
    make_tiles(server, prefix, days=0).put(LOG_ID, FULL, DATA)
    make_tiles(server, prefix, days=2).put(LOG_ID, FULL, DATA)
    assert head(server, f"{prefix}{LOG_ID}/{FULL}")["ObjectLockMode"] == "COMPLIANCE"
    assert len(versions(server, f"{prefix}{LOG_ID}/{FULL}")) == 1


def test_the_same_tile_again_adds_no_version(server, prefix):
    tiles = make_tiles(server, prefix)
    for _ in range(3):
        tiles.put(LOG_ID, FULL, DATA)
    assert len(versions(server, f"{prefix}{LOG_ID}/{FULL}")) == 1


def test_a_collected_partial_leaves_neither_versions_nor_markers(server, prefix):
    tiles = make_tiles(server, prefix)
    tiles.put(LOG_ID, PARTIAL, DATA)
    server.client().delete_object(Bucket="locked", Key=f"{prefix}{LOG_ID}/{PARTIAL}")
    tiles.discard_partials(LOG_ID, 0, 1)
    left = server.client().list_object_versions(Bucket="locked", Prefix=f"{prefix}{LOG_ID}/tile/0/001.p/")
    assert left.get("Versions", []) == left.get("DeleteMarkers", []) == []


def test_old_versions_of_the_live_checkpoint_are_collected(server, prefix):
    tiles = make_tiles(server, prefix)
    for size in range(1, 6):
        tiles.expose(LOG_ID, make_checkpoint(size))
    key = f"{prefix}{LOG_ID}/checkpoint"
    assert len(versions(server, key)) == 5
    tiles.discard_superseded(LOG_ID)
    (left,) = versions(server, key)
    assert left["IsLatest"]
    assert tiles.get(LOG_ID, CHECKPOINT_PATH) == make_checkpoint(5)


# --- refusals at the start -------------------------------------------------------------------------------------------


def test_a_bucket_that_locks_by_default_is_refused_because_partials_would_stay_for_good(server):
    server.make_bucket("default-retention", locks=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    server.client().put_object_lock_configuration(
        Bucket="default-retention", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    for days in (0, 2):
        with pytest.raises(ConfigError, match="default retention"):
            make_tiles(server, "", days=days, bucket="default-retention").check()


def test_locks_in_a_bucket_without_object_lock_are_refused(server):
    with pytest.raises(ConfigError, match="without Object Lock"):
        make_tiles(server, "", bucket="plain").check()
    make_tiles(server, "", days=0, bucket="plain").check()


def test_a_bucket_with_object_lock_passes_with_and_without_a_retention(server):
    make_tiles(server, "", days=2).check()
    make_tiles(server, "", days=0).check()


def test_a_bucket_that_is_not_there_is_no_answer(server):
    with pytest.raises(StorageError):
        make_tiles(server, "", bucket="nowhere").check()


def test_a_negative_retention_is_refused(server):
    with pytest.raises(ConfigError):
        make_tiles(server, "", days=-1)


# --- a wire that breaks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.KEPT, Fault.KEPT_503])
@pytest.mark.parametrize("times", [1, 2])
def test_a_write_that_fails_is_repeated_and_stands_there_once(tiles, server, prefix, fault, times):
    store, wire = tiles
    wire.arm(fault, "PUT", times=times)
    store.put(LOG_ID, FULL, DATA)
    assert store.get(LOG_ID, FULL) == DATA
    (only,) = versions(server, f"{prefix}{LOG_ID}/{FULL}")
    assert only["IsLatest"]
    assert head(server, f"{prefix}{LOG_ID}/{FULL}")["ObjectLockMode"] == "COMPLIANCE"


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.KEPT, Fault.KEPT_503])
def test_a_write_of_which_no_answer_ever_comes_is_no_success(tiles, fault):
    store, wire = tiles
    wire.arm(fault, "PUT", times=3)
    with pytest.raises(StorageError, match="failed to write an object"):
        store.put(LOG_ID, FULL, DATA)
    # Whatever became of it: the next attempt succeeds with the same bytes, and only with them.
    store.put(LOG_ID, FULL, DATA)
    with pytest.raises(ConflictError):
        store.put(LOG_ID, FULL, DATA[:-1])


def test_bytes_that_another_writer_put_there_meanwhile_are_a_conflict(tiles, server, prefix):
    store, wire = tiles
    key = f"{prefix}{LOG_ID}/{FULL}"
    wire.arm(Fault.LOST, "PUT")

    def meanwhile(_method: str, _path: str) -> None:
        wire.before = None
        server.client().put_object(Bucket="locked", Key=key, Body=b"his")

    wire.before = meanwhile
    with pytest.raises(ConflictError):
        store.put(LOG_ID, FULL, DATA)
    assert store.get(LOG_ID, FULL) == b"his"


def test_a_tile_that_was_deleted_between_refusal_and_look_is_written_again(tiles, server, prefix):
    store, wire = tiles
    key = f"{prefix}{LOG_ID}/{PARTIAL}"
    store.put(LOG_ID, PARTIAL, DATA)

    def delete(method: str, _: str) -> None:
        if method == "GET":
            wire.before = None
            store.discard_partials(LOG_ID, 0, 1)

    wire.before = delete
    store.put(LOG_ID, PARTIAL, DATA)
    assert len(versions(server, key)) == 1


def test_a_tile_under_a_delete_marker_is_neither_success_nor_endless(tiles, server, prefix):
    store, wire = tiles
    store.put(LOG_ID, FULL, DATA)
    server.client().delete_object(Bucket="locked", Key=f"{prefix}{LOG_ID}/{FULL}")
    with pytest.raises(NotFoundError):
        store.get(LOG_ID, FULL)
    before = len(wire.requests)
    try:
        store.put(LOG_ID, FULL, DATA)
    except StorageError:
        assert len(wire.requests) - before <= 16  # this server refuses to create over a marker; Amazon's creates
    else:
        assert store.get(LOG_ID, FULL) == DATA


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.CHANGED, Fault.KEPT, Fault.LOST])
def test_a_read_that_breaks_off_or_was_changed_is_read_again(tiles, fault):
    store, wire = tiles
    store.put(LOG_ID, FULL, DATA)
    wire.arm(fault, "GET")
    assert store.get(LOG_ID, FULL) == DATA


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.CHANGED])
def test_bytes_that_never_fit_their_checksum_are_an_error_and_never_returned(tiles, fault):
    store, wire = tiles
    store.put(LOG_ID, FULL, DATA)
    wire.arm(fault, "GET", times=20)
    with pytest.raises(StorageError, match="failed to read an object"):
        store.get(LOG_ID, FULL)


def test_a_clock_that_is_off_is_named_as_the_reason(tiles):
    store, wire = tiles
    wire.arm(Fault.SKEWED, "PUT", times=9)
    with pytest.raises(StorageError, match="RequestTimeTooSkewed"):
        store.put(LOG_ID, FULL, DATA)


def test_a_server_that_does_not_answer_is_waited_for_a_bounded_time(wired, prefix):
    reached, wire = wired
    bucket = reached.bucket("locked", client=reached.client(attempts=2, read_seconds=0.3))
    store = S3TileStore(bucket, prefix, retention_days=2, clock=SystemClock())
    wire.arm(Fault.SLOW, "PUT", times=2)
    with pytest.raises(StorageError, match="ReadTimeoutError"):
        store.put(LOG_ID, FULL, DATA)
    assert sum(method == "PUT" for method, _ in wire.requests) == 2


# --- the live checkpoint ---------------------------------------------------------------------------------------------


def exposed(tiles: S3TileStore) -> int:
    return parse_unverified_checkpoint(tiles.get(LOG_ID, CHECKPOINT_PATH)).claim.size


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.KEPT, Fault.KEPT_503])
@pytest.mark.parametrize("first", [True, False])
def test_an_exposure_whose_answer_is_lost_is_exposed_once(tiles, server, prefix, fault, first):
    store, wire = tiles
    if not first:
        store.expose(LOG_ID, make_checkpoint(1))
    wire.arm(fault, "PUT", "checkpoint")
    store.expose(LOG_ID, make_checkpoint(5))
    assert exposed(store) == 5
    assert len(versions(server, f"{prefix}{LOG_ID}/checkpoint")) == (1 if first else 2)


@pytest.mark.parametrize(("other", "stays"), [(7, 7), (3, 5)])
def test_a_checkpoint_that_somebody_exposes_between_our_look_and_our_write_is_compared_anew(
    tiles, server, prefix, other, stays
):
    store, wire = tiles
    rival = make_tiles(server, prefix)
    store.expose(LOG_ID, make_checkpoint(1))

    def race(method: str, _: str) -> None:
        if method == "PUT":
            wire.before = None
            rival.expose(LOG_ID, make_checkpoint(other))

    wire.before = race
    store.expose(LOG_ID, make_checkpoint(5))
    assert exposed(store) == stays


def test_two_first_exposures_at_once_leave_the_larger(tiles, server, prefix):
    store, wire = tiles
    rival = make_tiles(server, prefix)

    def race(method: str, _: str) -> None:
        if method == "PUT":
            wire.before = None
            rival.expose(LOG_ID, make_checkpoint(4))

    wire.before = race
    store.expose(LOG_ID, make_checkpoint(2))
    assert exposed(store) == 4


def test_another_root_of_the_same_size_in_that_race_is_a_conflict(tiles, server, prefix):
    store, wire = tiles
    rival = make_tiles(server, prefix)

    def race(method: str, _: str) -> None:
        if method == "PUT":
            wire.before = None
            rival.expose(LOG_ID, make_checkpoint(5, tree="b"))

    wire.before = race
    with pytest.raises(ConflictError):
        store.expose(LOG_ID, make_checkpoint(5))
    assert rival.get(LOG_ID, CHECKPOINT_PATH) == make_checkpoint(5, tree="b")


def test_a_race_that_is_lost_again_and_again_ends_in_an_error(tiles, server, prefix):
    store, wire = tiles
    store.expose(LOG_ID, make_checkpoint(1))
    rounds = iter(range(1000))

    def race(method: str, path: str) -> None:
        if method == "PUT":
            key = f"{prefix}{LOG_ID}/checkpoint"
            server.client().put_object(Bucket="locked", Key=key, Body=make_checkpoint(1, seed=next(rounds) % 90 + 2))

    wire.before = race
    with pytest.raises(StorageError, match="changed under"):
        store.expose(LOG_ID, make_checkpoint(5))
    assert next(rounds) < 20


def test_a_deletion_that_the_bucket_refuses_is_an_error(server, prefix):
    tiles = make_tiles(server, prefix)
    until = datetime.fromtimestamp(SystemClock().now_ms() / 1000, tz=UTC) + timedelta(minutes=1)
    server.client().put_object(
        Bucket="locked",
        Key=f"{prefix}{LOG_ID}/{PARTIAL}",
        Body=DATA,
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=until,
    )
    with pytest.raises(StorageError, match="failed to delete"):
        tiles.discard_partials(LOG_ID, 0, 1)
    assert tiles.get(LOG_ID, PARTIAL) == DATA


def test_a_locked_full_tile_cannot_be_deleted_with_the_stores_own_credentials(server, prefix):
    tiles = make_tiles(server, prefix)
    tiles.put(LOG_ID, FULL, DATA)
    (only,) = versions(server, f"{prefix}{LOG_ID}/{FULL}")
    with pytest.raises(ClientError):
        server.client().delete_object(Bucket="locked", Key=only["Key"], VersionId=only["VersionId"])
    assert tiles.get(LOG_ID, FULL) == DATA


# --- putting tiles right ---------------------------------------------------------------------------------------------


def overwrite(server: S3Server, key: str, data: bytes) -> None:
    """Put other bytes over a tile, as somebody with the store's credentials could."""
    server.client().put_object(Bucket="locked", Key=key, Body=data)


@pytest.mark.parametrize("path", [FULL, PARTIAL])
@pytest.mark.parametrize("damage", ["overwritten", "hidden", "missing"])
def test_a_hash_tile_is_put_right_whatever_stands_in_its_place(server, prefix, path, damage):
    tiles = make_tiles(server, prefix)
    right, key = bytes(range(32)) * (256 if path == FULL else 17), f"{prefix}{LOG_ID}/{path}"
    if damage != "missing":
        tiles.put(LOG_ID, path, right)
    if damage == "overwritten":
        overwrite(server, key, b"x" * len(right))
    if damage == "hidden":
        server.client().delete_object(Bucket="locked", Key=key)
    tiles.repair(LOG_ID, path, right)
    assert tiles.get(LOG_ID, path) == right
    kept = len(versions(server, key))
    tiles.repair(LOG_ID, path, right)
    assert len(versions(server, key)) == kept
    if path == FULL:
        assert tiles.protection(LOG_ID, path).mode == "COMPLIANCE"


@pytest.mark.parametrize("path", ["tile/entries/000", "tile/entries/000.p/3", CHECKPOINT_PATH])
def test_no_entries_and_no_checkpoint_are_put_right(server, prefix, path):
    tiles = make_tiles(server, prefix)
    with pytest.raises(MalformedError):
        tiles.repair(LOG_ID, path, b"x")
    with pytest.raises(NotFoundError):
        tiles.get(LOG_ID, path)
