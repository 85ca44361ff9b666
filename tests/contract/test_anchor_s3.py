"""The S3 anchor on a real server with Object Lock: what it locks stays, and what is not locked is an error."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ledger.anchors.s3_object_lock import S3ObjectLockAnchor
from ledger.clock import SystemClock
from ledger.errors import AnchorError, ConfigError, ConflictError, NotFoundError, StateError
from ledger.publisher import Publisher
from tests.support.ledger import LOG_ID, EmbeddedLedger
from tests.support.s3 import S3Server, s3_server


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
