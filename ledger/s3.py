"""The little of S3 that the tile store and the Object Lock anchor share: conditional writes, checked reads, versions.

Every write is conditional and carries a SHA-256 checksum; every read checks it. A write whose answer was lost is sent
again by the client; the second attempt then meets the first one's object, and the caller finds out by reading it back.
Attempts and waits are bounded: what could not be decided within them is the role's own error (`StorageError` or
`AnchorError`), never a guess.

What is put where, and what a conflict means, is in `ledger.stores.s3` and `ledger.anchors.s3_object_lock`.

Source: Amazon S3 API reference (PutObject, GetObject, HeadObject, PutObjectRetention, ListObjectVersions,
DeleteObjects), the subset that versitygw and MinIO have as well.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ledger.errors import ConfigError, DependencyError, NotFoundError

__all__ = ["COMPLIANCE", "ObjectLock", "S3Bucket", "S3Object", "S3Version", "open_bucket"]

COMPLIANCE: Final = "COMPLIANCE"
"""The mode that nobody, the account's root user included, can shorten or lift."""

_LOST: Final = ("PreconditionFailed", "ConditionalRequestConflict")
_MISSING: Final = ("NoSuchKey", "NoSuchVersion", "404", "NotFound")
_NO_LOCK: Final = ("NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest")
_SERVER_ERROR: Final = 500
_NOT_IMPLEMENTED: Final = 501
_TIMEOUT_SECONDS: Final = 20
_ATTEMPTS: Final = 3
_CONNECTIONS: Final = 32
"""Ample for tiles that are put while others are read: a connection beyond them is made, and thrown away."""
_MOST_AT_ONCE: Final = 1000
_PROMISE: Final = "retain-until-ms"
_CREDENTIALS: Final = {
    "aws_access_key_id": "ACCESS_KEY_ID",
    "aws_secret_access_key": "SECRET_ACCESS_KEY",
    "aws_session_token": "SESSION_TOKEN",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLock:
    """The lock of one version.

    Attributes:
        mode: ``COMPLIANCE``, or ``GOVERNANCE``, which a permission lifts.
        until_ms: Until when, POSIX milliseconds.
    """

    mode: str
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Version:
    """One version of a key, or a marker that hides them.

    Attributes:
        key: Of which key.
        version: The server's name for it; ``null`` where a bucket keeps no versions.
        latest: It is what a reader of the key meets.
        modified_ms: When its write began, by the server's clock; POSIX milliseconds.
        marker: It is a delete marker.
    """

    key: str
    version: str
    latest: bool
    modified_ms: int
    marker: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Object:
    """An object as it was read.

    Attributes:
        data: Its bytes; they are those that its checksum names.
        etag: The server's tag for a conditional write.
        version: The server's name for this version; empty where a bucket keeps none.
        modified_ms: When the server took it, POSIX milliseconds.
        promised_until_ms: Until when its writer locked it, or None; as immutable as its bytes.
        metadata: What else its writer said of it; the same.
    """

    data: bytes
    etag: str
    version: str
    modified_ms: int
    promised_until_ms: int | None = None
    metadata: Mapping[str, str]


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment(milliseconds: int) -> datetime:
    # Rounded up to S3's whole seconds: a lock is never shorter than was asked for.
    return datetime.fromtimestamp(-(-milliseconds // 1000), tz=UTC)


def _lock(mode: str | None, until: datetime | None) -> ObjectLock | None:
    return None if mode is None or until is None else ObjectLock(mode=mode, until_ms=_milliseconds(until))


def _of_version(version: str) -> dict[str, str]:
    return {"VersionId": version} if version else {}


def _code(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "")) or type(error).__name__
    return type(error).__name__


def _version(item: Mapping[str, Any], *, marker: bool) -> S3Version:
    return S3Version(
        key=item["Key"],
        version=item["VersionId"],
        latest=bool(item["IsLatest"]),
        modified_ms=_milliseconds(item["LastModified"]),
        marker=marker,
    )


class S3Bucket:
    """One bucket, in one role; safe for any thread."""

    def __init__(self, client: Any, name: str, *, role: str, failure: type[DependencyError]) -> None:  # noqa: ANN401  # boto3 makes its clients at run time
        """Use a bucket.

        Args:
            client: A boto3 S3 client.
            name: The bucket's.
            role: How errors call it, such as ``the anchor bucket``.
            failure: What is raised where the server failed or did not answer.
        """
        self._client = client
        self.name = name
        self._role = role
        self._failure = failure

    def failed(self, action: str) -> DependencyError:
        """Return the role's error for something that the bucket failed to do."""
        return self._failure(f"{self._role} failed to {action}")

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise self._failure(f"{self._role} failed to {action} ({_code(error)})") from error

    # --- writes ------------------------------------------------------------------------------------------------------

    def _put(
        self,
        key: str,
        data: bytes,
        *,
        lock_until_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
        **arguments: object,
    ) -> str | None:
        told = dict(metadata or {})
        if lock_until_ms is not None:
            until = _moment(lock_until_ms)
            # The promise stands with the bytes, where nobody can shorten it: whoever compares needs no other record.
            told[_PROMISE] = str(_milliseconds(until))
            arguments.update(ObjectLockMode=COMPLIANCE, ObjectLockRetainUntilDate=until)
        with self._translated("write an object"):
            try:
                written = self._client.put_object(
                    Bucket=self.name, Key=key, Body=data, ChecksumAlgorithm="SHA256", Metadata=told, **arguments
                )
            except ClientError as error:
                # A conditional write on a key that was deleted meanwhile is told as a missing key.
                if _code(error) in _LOST or ("IfMatch" in arguments and _code(error) in _MISSING):
                    return None
                raise
        return str(written.get("VersionId", ""))

    def create(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str = "",
        lock_until_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str | None:
        """Write an object that was not there.

        Durability: as S3 gives it when the call returns.

        Args:
            key: Where.
            data: Its bytes.
            content_type: For readers of the bucket.
            cache_control: For readers of the bucket.
            lock_until_ms: Lock this version in COMPLIANCE mode until then.
            metadata: Kept with the bytes, as immutable as they are.

        Returns:
            The version that was written, empty where a bucket keeps none; None if something stands there, which may be
            what an earlier attempt of this very call wrote: read it.

        Raises:
            DependencyError: Nobody knows whether it was written.
        """
        return self._put(
            key,
            data,
            lock_until_ms=lock_until_ms,
            metadata=metadata,
            IfNoneMatch="*",
            ContentType=content_type,
            CacheControl=cache_control,
        )

    def replace(self, key: str, data: bytes, *, etag: str, content_type: str, cache_control: str = "") -> bool:
        """Write an object in the place of the one that was read with ``etag``; False if that is there no more."""
        written = self._put(key, data, IfMatch=etag, ContentType=content_type, CacheControl=cache_control)
        return written is not None

    def lock(self, key: str, version: str, until_ms: int) -> None:
        """Lock a version in COMPLIANCE mode until then."""
        retention = {"Mode": COMPLIANCE, "RetainUntilDate": _moment(until_ms)}
        with self._translated("lock an object"):
            self._client.put_object_retention(Bucket=self.name, Key=key, VersionId=version, Retention=retention)

    def hold(self, key: str, version: str, *, on: bool) -> None:
        """Put a legal hold over a version, or end it; a hold keeps it whatever its retention says."""
        status = {"Status": "ON" if on else "OFF"}
        with self._translated("put an object on hold"):
            self._client.put_object_legal_hold(Bucket=self.name, Key=key, VersionId=version, LegalHold=status)

    def delete(self, versions: Sequence[S3Version]) -> None:
        """Delete versions for good.

        Raises:
            DependencyError: One of them is still there.
        """
        for start in range(0, len(versions), _MOST_AT_ONCE):
            named = [{"Key": one.key, "VersionId": one.version} for one in versions[start : start + _MOST_AT_ONCE]]
            with self._translated("delete objects"):
                answer = self._client.delete_objects(Bucket=self.name, Delete={"Objects": named, "Quiet": True})
            for error in answer.get("Errors", ()):
                raise self._failure(f"{self._role} failed to delete objects ({error.get('Code')})")

    def attempt(self, operation: str, **arguments: object) -> str | None:
        """Try something that ought to be refused.

        Returns:
            The server's code for the refusal, or None if it said yes.

        Raises:
            DependencyError: It failed or did not answer, which is no refusal.
        """
        with self._translated(f"answer to {operation}"):
            try:
                getattr(self._client, operation)(Bucket=self.name, **arguments)
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERROR)
                if status >= _SERVER_ERROR and status != _NOT_IMPLEMENTED:
                    raise
                return _code(error)
        return None

    # --- reads -------------------------------------------------------------------------------------------------------

    def read(self, key: str, version: str = "") -> S3Object:
        """Return an object, or one version of it.

        Raises:
            NotFoundError: There is none.
            DependencyError: It could not be read, or what came is not what its checksum names.
        """
        arguments = _of_version(version)
        for left in reversed(range(_ATTEMPTS)):
            try:
                return self._read_once(key, arguments)
            except BotoCoreError as error:
                # The client repeats requests, and not bodies that broke off or did not fit their checksum.
                if not left:
                    raise self._failure(f"{self._role} failed to read an object ({_code(error)})") from error
        raise AssertionError  # the loop returns or raises

    def _read_once(self, key: str, arguments: Mapping[str, str]) -> S3Object:
        try:
            answer = self._client.get_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED", **arguments)
        except ClientError as error:
            if _code(error) in _MISSING:
                raise NotFoundError(f"{self._role} has no such object") from error
            raise self._failure(f"{self._role} failed to read an object ({_code(error)})") from error
        data = answer["Body"].read()
        named = answer.get("ChecksumSHA256")
        if named is not None and base64.b64decode(named) != hashlib.sha256(data).digest():
            raise self.failed("read an object: its bytes are not those that its checksum names")
        metadata = answer.get("Metadata", {})
        promise = metadata.get(_PROMISE, "")
        return S3Object(
            data=data,
            etag=answer["ETag"],
            version=answer.get("VersionId", ""),
            modified_ms=_milliseconds(answer["LastModified"]),
            promised_until_ms=int(promise) if promise.isdecimal() else None,
            metadata=metadata,
        )

    def object_lock(self, key: str, version: str) -> ObjectLock | None:
        """Return a version's lock, or None if it has none.

        Raises:
            NotFoundError: There is no such version.
            DependencyError: It could not be asked.
        """
        # Some servers tell of the lock with the head of the latest version alone, and of an older one if asked for it.
        latest = self._head(key, {})
        if latest is not None and latest.get("VersionId", "") == version:
            return _lock(latest.get("ObjectLockMode"), latest.get("ObjectLockRetainUntilDate"))
        told = self._head(key, _of_version(version))
        if told is None:
            raise NotFoundError(f"{self._role} has no such version")
        lock = _lock(told.get("ObjectLockMode"), told.get("ObjectLockRetainUntilDate"))
        return lock or self._retention(key, version)

    def _head(self, key: str, version: Mapping[str, str]) -> Mapping[str, Any] | None:
        with self._translated("describe a lock"):
            try:
                told: Mapping[str, Any] = self._client.head_object(Bucket=self.name, Key=key, **version)
            except ClientError as error:
                # A head has no body that could say more; 405 is how a delete marker answers.
                if _code(error) in (*_MISSING, "405", "MethodNotAllowed"):
                    return None
                raise
        return told

    def _retention(self, key: str, version: str) -> ObjectLock | None:
        with self._translated("describe a lock"):
            try:
                told = self._client.get_object_retention(Bucket=self.name, Key=key, VersionId=version)
            except ClientError as error:
                if _code(error) in _NO_LOCK:
                    return None
                raise
        retention = told.get("Retention", {})
        return _lock(retention.get("Mode"), retention.get("RetainUntilDate"))

    def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """Yield the keys under a prefix, in order.

        Args:
            prefix: What they begin with.
            after: Only those beyond this one.
        """
        for page in self._pages("list_objects_v2", Prefix=prefix, StartAfter=after or prefix):
            for item in page.get("Contents", ()):
                yield item["Key"]

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield, without the prefix, the folders directly below a prefix that ends in a slash."""
        for page in self._pages("list_objects_v2", Prefix=prefix, Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].removeprefix(prefix).rstrip("/")

    def versions(self, prefix: str, *, after: str = "") -> Iterator[S3Version]:
        """Yield every version, and every delete marker, of the keys under a prefix; versions newest first for a key.

        Args:
            prefix: What the keys begin with.
            after: Only keys beyond this one.
        """
        marker = {"KeyMarker": after} if after else {}
        for page in self._pages("list_object_versions", Prefix=prefix, **marker):
            for name in ("Versions", "DeleteMarkers"):
                for item in page.get(name, ()):
                    # Some servers begin with the marker itself.
                    if item["Key"] > after:
                        yield _version(item, marker=name == "DeleteMarkers")

    def first_version(self, key: str) -> S3Version:
        """Return the oldest version of a key, whatever was put over it or hides it.

        Raises:
            NotFoundError: There is none.
        """
        found = [one for one in self.versions(key) if one.key == key and not one.marker]
        if not found:
            raise NotFoundError(f"{self._role} has no such object")
        return found[-1]

    def _pages(self, operation: str, **arguments: object) -> Iterator[Mapping[str, Any]]:
        with self._translated("list objects"):
            yield from self._client.get_paginator(operation).paginate(Bucket=self.name, **arguments)

    # --- the bucket itself -------------------------------------------------------------------------------------------

    def locks(self) -> tuple[bool, bool]:
        """Return whether the bucket has Object Lock, and whether it locks by default what is put into it."""
        with self._translated("describe its Object Lock"):
            try:
                answer = self._client.get_object_lock_configuration(Bucket=self.name)
            except ClientError as error:
                if _code(error) in _NO_LOCK:
                    return False, False
                raise
        told = answer.get("ObjectLockConfiguration", {})
        return told.get("ObjectLockEnabled") == "Enabled", bool(told.get("Rule", {}).get("DefaultRetention"))

    def versioned(self) -> bool:
        """Return whether the bucket keeps every version."""
        with self._translated("describe its versioning"):
            return bool(self._client.get_bucket_versioning(Bucket=self.name).get("Status") == "Enabled")

    def now_ms(self) -> int | None:
        """Return the time by the server's clock, or None if it does not say."""
        with self._translated("answer"):
            headers = self._client.head_bucket(Bucket=self.name)["ResponseMetadata"]["HTTPHeaders"]
        try:
            return _milliseconds(parsedate_to_datetime(headers["date"]))
        except (KeyError, ValueError):
            return None


def _from_file(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        section = parser["default"]
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        raise ConfigError("the file of S3 credentials cannot be read, or has no [default] in it") from error
    return {name: section[name] for name in _CREDENTIALS if name in section}


def _from_environment(prefix: str) -> dict[str, str]:
    names = {name: f"{prefix}_{suffix}" for name, suffix in _CREDENTIALS.items()}
    return {name: os.environ[variable] for name, variable in names.items() if variable in os.environ}


def _session(credentials: str) -> Any:  # noqa: ANN401  # boto3 makes its sessions without types
    kind, _, place = credentials.partition(":")
    if kind == "profile":
        return Session(profile_name=place)  # type: ignore[no-untyped-call]  # boto3 has no types
    readers: dict[str, Callable[[], dict[str, str]]] = {
        "": dict,
        "file": lambda: _from_file(Path(place)),
        "env": lambda: _from_environment(place),
    }
    if kind not in readers or bool(kind) != bool(place):
        raise ConfigError("S3 credentials are profile:NAME, file:PATH or env:PREFIX")
    keys = readers[kind]()
    if kind and not keys.keys() >= {"aws_access_key_id", "aws_secret_access_key"}:
        raise ConfigError(f"the S3 credentials in {kind}: lack an access key or its secret")
    return Session(**keys)  # type: ignore[no-untyped-call]  # as above


def open_bucket(
    name: str, *, role: str, failure: type[DependencyError], endpoint: str | None, credentials: str = ""
) -> S3Bucket:
    """Return a bucket.

    Args:
        name: The bucket's.
        role: How errors call it.
        failure: What is raised where the server failed or did not answer.
        endpoint: Another S3 server than Amazon's.
        credentials: ``profile:NAME`` of AWS's configuration; ``file:PATH`` of a file in the form of AWS's credentials
            file, of which ``[default]`` is read; ``env:PREFIX`` for PREFIX_ACCESS_KEY_ID, PREFIX_SECRET_ACCESS_KEY and
            PREFIX_SESSION_TOKEN; empty for what boto3 finds by itself.

    Raises:
        ConfigError: The client cannot be made.
    """
    config = Config(  # type: ignore[no-untyped-call]  # botocore has no types
        connect_timeout=_TIMEOUT_SECONDS,
        read_timeout=_TIMEOUT_SECONDS,
        max_pool_connections=_CONNECTIONS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        s3={"addressing_style": "path"} if endpoint else {},
    )
    try:
        client = _session(credentials).client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the S3 client cannot be made ({type(error).__name__})") from error
    return S3Bucket(client, name, role=role, failure=failure)
