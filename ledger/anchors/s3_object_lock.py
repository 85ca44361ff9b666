"""The S3 anchor: copies of checkpoints that nobody, not even the bucket's owner, can change or delete until a date.

Each copy is written create-only (``If-None-Match: *``) with a checksum, in COMPLIANCE mode with an explicit
retain-until date, and read back: a bucket that takes the write without the lock is an error, never a silent weakening.
There is no default retention: locking needs a decision.

Use an account, and credentials, that the log's operator does not hold for anything else.

Source: Amazon S3 API reference, PutObject, HeadObject (Object Lock); the same subset as MinIO and versitygw.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.clock import Clock
from ledger.errors import AnchorError, ConfigError, ConflictError, MalformedError, NotFoundError
from ledger.ports import AnchorReceipt

__all__ = ["S3ObjectLockAnchor", "open_anchor"]

_MODE: Final = "COMPLIANCE"
_CONTENT_TYPE: Final = "text/plain; charset=utf-8"
_EXISTS: Final = ("PreconditionFailed", "ConditionalRequestConflict")
_MISSING: Final = ("NoSuchKey", "404", "NotFound")
_TIMEOUT_SECONDS: Final = 20
_SIZE: Final = re.compile(r"[0-9]{20}")


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise AnchorError(f"the anchor bucket failed to {action} ({code})") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


class S3ObjectLockAnchor:
    """`ledger.ports.Anchor` in an S3 bucket with Object Lock: ``<prefix><log id>/checkpoint/<size>``."""

    def __init__(self, client: Any, bucket: str, prefix: str, *, retention_days: int, clock: Clock) -> None:  # noqa: ANN401  # boto3 makes its clients at run time
        """Anchor into ``bucket``.

        Args:
            client: A boto3 S3 client.
            bucket: A bucket that was created with Object Lock.
            prefix: What stands before every key; empty, or ending in ``/``.
            retention_days: How long each copy is locked.
            clock: For the retain-until date.

        Raises:
            ConfigError: No retention was decided.
        """
        if retention_days < 1:
            raise ConfigError("Object Lock needs a retention of at least one day")
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._retention = timedelta(days=retention_days)
        self._clock = clock

    def _key(self, log_id: str, size: int) -> str:
        # Twenty digits, so that the order of keys is the order of sizes.
        return f"{self._prefix}{log_id}/checkpoint/{size:020d}"

    def put(self, log_id: str, size: int, checkpoint: bytes) -> AnchorReceipt:
        """See `Anchor.put`."""
        key = self._key(log_id, size)
        until = datetime.fromtimestamp(self._clock.now_ms() / 1000, tz=UTC) + self._retention
        with _translated("lock a checkpoint"):
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=checkpoint,
                    ContentType=_CONTENT_TYPE,
                    ChecksumAlgorithm="SHA256",
                    IfNoneMatch="*",
                    ObjectLockMode=_MODE,
                    ObjectLockRetainUntilDate=until.replace(microsecond=0),
                )
            except ClientError as error:
                if _code(error) not in _EXISTS:
                    raise
        return self._confirm(key, size, checkpoint)

    def _confirm(self, key: str, size: int, checkpoint: bytes) -> AnchorReceipt:
        """Read a copy back: its bytes must be ours, or of the same tree, and it must be locked."""
        stored, answer = self._read(key)
        if stored != checkpoint:
            try:
                same_tree = parse_unverified_checkpoint(stored).claim == parse_unverified_checkpoint(checkpoint).claim
            except MalformedError:
                same_tree = False
            if not same_tree:
                raise ConflictError(f"the anchor holds another checkpoint of size {size}")
        return self._receipt(key, answer)

    def _read(self, key: str) -> tuple[bytes, Mapping[str, Any]]:
        with _translated("read a checkpoint"):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
            except ClientError as error:
                if _code(error) in _MISSING:
                    raise NotFoundError("that checkpoint is not anchored") from error
                raise
            return answer["Body"].read(), answer

    def _receipt(self, key: str, answer: Mapping[str, Any]) -> AnchorReceipt:
        version = answer.get("VersionId", "")
        with _translated("describe a lock"):
            # Asked of the very version that was read; some servers tell of the lock here and not with the bytes.
            lock = self._client.head_object(Bucket=self._bucket, Key=key, VersionId=version)
        until = lock.get("ObjectLockRetainUntilDate")
        if lock.get("ObjectLockMode") != _MODE or until is None:
            raise AnchorError(f"the bucket keeps {key} without a {_MODE} lock")
        return AnchorReceipt(
            size=int(key.rpartition("/")[2]),
            location=f"s3://{self._bucket}/{key}?versionId={version}",
            anchored_ms=int(answer["LastModified"].timestamp() * 1000),
            retain_until_ms=int(until.timestamp() * 1000),
        )

    def get(self, log_id: str, size: int) -> bytes:
        """See `Anchor.get`. Signatures vouch for the bytes, locked or not; `put` alone asks for the lock."""
        return self._read(self._key(log_id, size))[0]

    def sizes(self, log_id: str, *, above: int = -1) -> list[int]:
        """See `Anchor.sizes`."""
        prefix = f"{self._prefix}{log_id}/checkpoint/"
        after = self._key(log_id, above) if above >= 0 else prefix
        with _translated("list checkpoints"):
            paginator = self._client.get_paginator("list_objects_v2")
            pages = paginator.paginate(Bucket=self._bucket, Prefix=prefix, StartAfter=after)
            names = [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", ())]
        return sorted(int(name) for name in names if _SIZE.fullmatch(name))

    def check(self) -> None:
        """Confirm that the bucket has Object Lock.

        Raises:
            ConfigError: It has not.
            AnchorError: It could not be asked.
        """
        with _translated("describe its Object Lock"):
            try:
                answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
            except ClientError as error:
                if _code(error) == "ObjectLockConfigurationNotFoundError":
                    raise ConfigError(f"the bucket {self._bucket} was created without Object Lock") from error
                raise
        if answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
            raise ConfigError(f"the bucket {self._bucket} was created without Object Lock")


def open_anchor(
    bucket: str, prefix: str, *, endpoint: str | None, retention_days: int, clock: Clock
) -> S3ObjectLockAnchor:
    """Return an anchor with credentials from the environment, as boto3 finds them.

    Raises:
        ConfigError: The client cannot be made, or no retention was decided.
    """
    config = Config(  # type: ignore[no-untyped-call]  # botocore has no types
        connect_timeout=_TIMEOUT_SECONDS,
        read_timeout=_TIMEOUT_SECONDS,
        retries={"max_attempts": 3, "mode": "standard"},
        s3={"addressing_style": "path"} if endpoint else {},
    )
    try:
        client = boto3.client("s3", endpoint_url=endpoint, config=config)  # type: ignore[no-untyped-call]  # as above
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the S3 client cannot be made ({type(error).__name__})") from error
    return S3ObjectLockAnchor(client, bucket, prefix, retention_days=retention_days, clock=clock)
