"""Copies of trusted timestamps in a real bucket with Object Lock: create-only, locked, and never overlooked."""

from __future__ import annotations

import pytest

from ledger.anchors.timestamp_copies import S3TimestampCopies
from ledger.clock import SystemClock
from ledger.errors import AnchorError, ConfigError
from ledger.ports import KeptTimestamp
from ledger.s3 import COMPLIANCE
from tests.support.ledger import LOG_ID, NOW_MS
from tests.support.s3 import S3Server, s3_server

STAMP = KeptTimestamp(size=7, checkpoint=b"checkpoint\n", token=b"\x30\x00", time_ms=NOW_MS, kept_ms=NOW_MS)
NAME = "acme/timestamp/00000000000000000007"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.client().create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        yield running


def copies(server: S3Server, prefix: str, *, days: int = 2) -> S3TimestampCopies:
    return S3TimestampCopies(server.bucket("locked", AnchorError), prefix, retention_days=days, clock=SystemClock())


def test_token_and_dated_bytes_are_locked_side_by_side(server):
    copies(server, "a/").copy(LOG_ID, STAMP)
    bucket = server.bucket("locked", AnchorError)
    for suffix, data in ((".checkpoint", STAMP.checkpoint), (".tsr", STAMP.token)):
        stored = bucket.read(f"a/{NAME}{suffix}")
        lock = bucket.object_lock(f"a/{NAME}{suffix}", stored.version)
        assert stored.data == data
        assert lock is not None
        assert lock.mode == COMPLIANCE


def test_the_same_again_is_success_and_adds_no_version(server):
    for _ in range(2):
        copies(server, "b/").copy(LOG_ID, STAMP)
    assert len(list(server.bucket("locked", AnchorError).versions(f"b/{NAME}"))) == 2


def test_another_token_of_that_size_is_refused_and_what_is_hidden_is_seen(server):
    copies(server, "c/").copy(LOG_ID, STAMP)
    other = KeptTimestamp(size=7, checkpoint=STAMP.checkpoint, token=b"other", time_ms=1, kept_ms=1)
    with pytest.raises(AnchorError, match="other bytes"):
        copies(server, "c/").copy(LOG_ID, other)
    server.client().delete_object(Bucket="locked", Key=f"c/{NAME}.tsr")
    with pytest.raises(AnchorError, match="other bytes"):
        copies(server, "c/").copy(LOG_ID, other)
    copies(server, "c/").copy(LOG_ID, STAMP)


def test_locking_needs_a_decision(server):
    with pytest.raises(ConfigError):
        copies(server, "d/", days=0)


def test_a_bucket_that_is_away_is_an_anchor_error(server):
    away = S3TimestampCopies(server.bucket("nowhere", AnchorError), "", retention_days=1, clock=SystemClock())
    with pytest.raises(AnchorError):
        away.copy(LOG_ID, STAMP)
