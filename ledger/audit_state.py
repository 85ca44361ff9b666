"""What an audit remembers, so that the next one reads only what is new, and one that was stopped goes on.

A directory holds two files for each log and depth: ``<log id>-<depth>.json``, replaced whole, and the list of record
ids beside it (`audit_ids`). The file::

    {"format":"tallystick/audit-state/v1","sha256":"…","state":{"log_id":"acme","depth":"full","size":70656,…}}

The digest finds damage, not intent: whoever may write the file may write its digest. Nothing that the file says is
believed of the tree: it has to be part of the one that is signed now, by a consistency proof and by the root that is
calculated onward from its edge. What it is believed for is that the leaves below were read, and found to be in order.
Only what was clean is remembered; after a finding everything is read anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from ledger.audit_chunks import Segment
from ledger.audit_ids import RecordIds
from ledger.audit_report import Depth
from ledger.errors import ConflictError, MalformedError, StorageError
from ledger.files import log_directory, make_directory_durably, replace_durably
from ledger.streams import StreamSummary

__all__ = ["AuditMemory", "AuditState", "KeptSegment"]

_FORMAT: Final = "tallystick/audit-state/v1"


class KeptSegment(msgspec.Struct):
    """Who wrote between two key records; see `ledger.audit_chunks.Segment`."""

    leaf: int | None
    wrote: list[tuple[str, str]]

    @classmethod
    def of(cls, segment: Segment) -> KeptSegment:
        """Return a segment as it is kept."""
        return cls(segment.leaf, list(segment.wrote))

    def segment(self) -> Segment:
        """Return it as it is used."""
        return Segment(self.leaf, dict.fromkeys(self.wrote))


class AuditState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How far an audit has come.

    Attributes:
        log_id: Which log.
        depth: How deep every leaf below was looked at.
        begun_ms: When leaf 0 was read, POSIX milliseconds.
        audited_ms: When the newest part was read.
        size: Leaves of the signed tree that was audited.
        root: Its root.
        finished: Whether all of that tree was read.
        bundles: Full bundles that were read.
        rows: The edge of the tree over them; see `ledger.audit_tree.BundleTree.rows`.
        key_leaves: Leaves of key records among them.
        buried: Leaf of the last tombstone of each subject.
        segments: Who wrote between which key records.
        summaries: The enforcers' streams.
        named_epochs: Epochs that were named as the ones before.
        signed: By leaf of the declaration of a compromise: records that the key signed afterwards, and the first leaf.
        records: Records among the leaves.
        simulated: Simulated ones among them.
    """

    log_id: str
    depth: Depth
    begun_ms: int
    audited_ms: int
    size: int
    root: bytes
    finished: bool
    bundles: int
    rows: list[list[bytes]]
    key_leaves: list[int]
    buried: dict[str, int]
    segments: list[KeptSegment]
    summaries: list[StreamSummary]
    named_epochs: list[tuple[str, str]]
    signed: dict[int, tuple[int, int]]
    records: int
    simulated: int


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["tallystick/audit-state/v1"]
    sha256: str
    state: msgspec.Raw


class AuditMemory:
    """Where the audits of one log and depth remember how far they came; one audit at a time uses it."""

    def __init__(self, directory: Path, log_id: str, depth: Depth) -> None:
        """Use a directory, which is created when first needed.

        Raises:
            MalformedError: Not a log id.
        """
        self._directory = directory
        self._log_id = log_id
        self._depth = depth
        self._stem = log_directory(directory, f"{log_id}").with_name(f"{log_id}-{depth}")

    @property
    def path(self) -> Path:
        """The state's file."""
        return self._stem.with_name(f"{self._stem.name}.json")

    @property
    def ids_path(self) -> Path:
        """The file of the record ids."""
        return self._stem.with_name(f"{self._stem.name}.ids")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other audit of this log and depth away.

        Raises:
            ConflictError: Another one is at work.
            StorageError: The directory cannot be used.
        """
        try:
            make_directory_durably(self._directory, mode=0o750)
            descriptor = os.open(self._stem.with_name(f".{self._stem.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"the audit's notes cannot be kept: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(f"another audit of {self._log_id} is at work, of depth {self._depth}") from None
            yield
        finally:
            os.close(descriptor)

    def load(self) -> AuditState | None:
        """Return what is remembered, or None.

        Raises:
            MalformedError: The file is damaged, or of another log or depth.
            StorageError: It cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"the audit's notes cannot be read: {error.strerror}") from error
        try:
            file = msgspec.json.decode(data, type=_File)
            state = msgspec.json.decode(file.state, type=AuditState)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedError("the audit's notes are damaged") from error
        if hashlib.sha256(file.state).hexdigest() != file.sha256:
            raise MalformedError("the audit's notes are damaged: their digest is another")
        if (state.log_id, state.depth) != (self._log_id, self._depth):
            raise MalformedError("the audit's notes are of another log or depth")
        return state

    def save(self, state: AuditState) -> None:
        """Remember, durably, in place of what was remembered before.

        Raises:
            StorageError: The file cannot be written.
        """
        encoded = msgspec.json.encode(state)
        file = _File(_FORMAT, hashlib.sha256(encoded).hexdigest(), msgspec.Raw(encoded))
        try:
            replace_durably(self.path, msgspec.json.encode(file), mode=0o600)
        except OSError as error:
            raise StorageError(f"the audit's notes cannot be kept: {error.strerror}") from error

    def forget(self) -> None:
        """Forget everything: the next audit reads the whole log.

        Raises:
            StorageError: The files cannot be removed.
        """
        try:
            for path in (self.path, self.ids_path, self.ids_path.with_name(f"{self.ids_path.name}-journal")):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"the audit's notes cannot be removed: {error.strerror}") from error

    def record_ids(self) -> RecordIds:
        """Open the list of record ids.

        Raises:
            StorageError: It cannot be opened.
        """
        return RecordIds(self.ids_path)
