"""The files of an impact: the list as it grows, what a walk needs to go on, and the report.

::

    <directory>/<log id>/<job id>.<attempt>.ndjson   a line for each decision that did not come out exactly as recorded
    <directory>/<log id>/<job id>.<attempt>.state    where the walk stands
    <directory>/<log id>/<job id>.json               the report

INVARIANT: the state names how long the list was when it was written, and is written after the list is durable. What
stands behind that length is cut off before the walk goes on, so that no decision is listed twice and none is lost.

Each attempt has files of its own: a process that was paused and goes on writes where nobody looks any more.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from ledger.errors import EvidenceError
from ledger.files import replace_durably
from policies.impact import Impact, ImpactLine
from policies.impact_coverage import Coverage
from policies.impact_report import ImpactReport, Stretch

__all__ = ["MAX_LISTED_BYTES", "ImpactFiles", "Snapshot"]

MAX_LISTED_BYTES: Final = 2 * 1024**3
"""Longest list; a walk that would need more fails, and says to ask for less."""
_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_CHUNK_BYTES: Final = 1024 * 1024


class Snapshot(msgspec.Struct, kw_only=True):
    """Where a walk stands.

    Attributes:
        impact: The counts.
        coverage: What was read.
        stretch: What is to be read.
        next_leaf: The leaf to go on with.
        opened: Requests that were opened.
        listed_bytes: How long the list is.
    """

    impact: Impact
    coverage: Coverage
    stretch: Stretch
    next_leaf: int
    opened: int = 0
    listed_bytes: int = 0


@contextmanager
def _file_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EvidenceError(f"{what}: {error.strerror}") from error


class ImpactFiles:
    """Files of the impacts of one log. Used off the event loop; one attempt is written by one task."""

    def __init__(self, directory: Path, log_id: str) -> None:
        """Keep them in a directory; it is made by `make_directory`."""
        self._directory = directory / log_id

    def make_directory(self) -> None:
        """Make the directory.

        Raises:
            EvidenceError: It cannot be made.
        """
        with _file_errors("the directory of the impacts cannot be made"):
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)

    def lines_path(self, job_id: str, attempt: int) -> Path:
        """Return where an attempt's list is."""
        return self._directory / f"{job_id}.{attempt}.ndjson"

    def report_path(self, job_id: str) -> Path:
        """Return where a job's report is."""
        return self._directory / f"{job_id}.json"

    def _state_path(self, job_id: str, attempt: int) -> Path:
        return self._directory / f"{job_id}.{attempt}.state"

    def begin(self, job_id: str, attempt: int) -> Snapshot | None:
        """Take over what the attempt before has left, and return where the walk stands; None if it begins anew.

        Raises:
            EvidenceError: A file cannot be written.
        """
        before = attempt - 1
        with _file_errors("the files of the impact cannot be written"):
            snapshot = self._read_state(job_id, before)
            lines = self.lines_path(job_id, attempt)
            if snapshot is None:
                lines.write_bytes(b"")
                return None
            shutil.copyfile(self.lines_path(job_id, before), lines)
            os.truncate(lines, snapshot.listed_bytes)
            return snapshot

    def _read_state(self, job_id: str, attempt: int) -> Snapshot | None:
        """Return a state if it is whole and the list as long as it says; otherwise the walk begins anew."""
        try:
            snapshot = msgspec.msgpack.decode(self._state_path(job_id, attempt).read_bytes(), type=Snapshot)
            listed = self.lines_path(job_id, attempt).stat().st_size
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return snapshot if listed >= snapshot.listed_bytes else None

    def append(self, job_id: str, attempt: int, snapshot: Snapshot, lines: Sequence[ImpactLine]) -> None:
        """Put lines behind the list; they count once `keep` has noted them.

        Raises:
            EvidenceError: The list cannot be written, or would be too long.
        """
        if not lines:
            return
        data = b"".join(_ENCODER.encode(line) + b"\n" for line in lines)
        if snapshot.listed_bytes + len(data) > MAX_LISTED_BYTES:
            raise EvidenceError(
                "the list would be longer than 2 GiB: ask for a shorter period, or for one agent or tool"
            )
        with (
            _file_errors("the list of the impact cannot be written"),
            self.lines_path(job_id, attempt).open("ab") as file,
        ):
            file.write(data)
        snapshot.listed_bytes += len(data)

    def keep(self, job_id: str, attempt: int, snapshot: Snapshot) -> None:
        """Note where the walk stands; durable when the call returns.

        Raises:
            EvidenceError: It cannot be written.
        """
        with _file_errors("the state of the impact cannot be written"):
            with self.lines_path(job_id, attempt).open("rb+") as file:
                os.fsync(file.fileno())
            replace_durably(self._state_path(job_id, attempt), msgspec.msgpack.encode(snapshot), mode=0o640)

    def lines_sha256(self, job_id: str, attempt: int) -> str:
        """Return the digest of a list, hexadecimal.

        Raises:
            EvidenceError: It cannot be read.
        """
        found = hashlib.sha256()
        with _file_errors("the list of the impact cannot be read"), self.lines_path(job_id, attempt).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                found.update(chunk)
        return found.hexdigest()

    def write_report(self, job_id: str, report: ImpactReport) -> str:
        """Write the report; returns its digest, hexadecimal.

        Raises:
            EvidenceError: It cannot be written.
        """
        data = _ENCODER.encode(report)
        with _file_errors("the report of the impact cannot be written"):
            replace_durably(self.report_path(job_id), data, mode=0o640)
        return hashlib.sha256(data).hexdigest()

    def report(self, job_id: str) -> ImpactReport:
        """Read a report.

        Raises:
            EvidenceError: It is not there, or damaged.
        """
        with _file_errors("the report of the impact cannot be read"):
            data = self.report_path(job_id).read_bytes()
        try:
            return msgspec.json.decode(data, type=ImpactReport)
        except msgspec.MsgspecError as error:
            raise EvidenceError("the report of the impact is damaged") from error

    def lines(self, job_id: str, attempt: int) -> Iterator[ImpactLine]:
        """Yield a list's lines, in log order.

        Raises:
            EvidenceError: It cannot be read, or is damaged.
        """
        with _file_errors("the list of the impact cannot be read"), self.lines_path(job_id, attempt).open("rb") as file:
            for line in file:
                try:
                    yield msgspec.json.decode(line, type=ImpactLine)
                except msgspec.MsgspecError as error:
                    raise EvidenceError("the list of the impact is damaged") from error

    def forget(self, job_id: str, attempt: int, *, whole: bool) -> None:
        """Remove what nobody needs any more: states and earlier lists, or the whole of what came to nothing."""
        with suppress(OSError):
            for path in self._directory.glob(f"{job_id}.*"):
                needed = path in (self.lines_path(job_id, attempt), self.report_path(job_id))
                if whole or not needed:
                    path.unlink(missing_ok=True)
