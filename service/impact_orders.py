"""Impacts as orders and jobs: what somebody asked for, and how far it is, in the database.

INVARIANT: a job is changed only by the attempt that works on it. Whoever takes a job up begins a new attempt; what the
one before still wants to note, if it was paused and goes on, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Engine, Row, insert, select, update

from ledger.bodies import AccessEvent, AccessScope
from ledger.database import translated, writing
from ledger.errors import ConflictError, NotFoundError
from policies.impact import Scope, StateMode
from service import tables

__all__ = ["ImpactJob", "ImpactOrder", "ImpactStore"]

_UNFINISHED: Final = ("queued", "running")
_ANY: Final = msgspec.json.Encoder(order="sorted")


class ImpactOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody asked for.

    Attributes:
        from_ms: Start of the period, POSIX milliseconds.
        to_ms: Its end, exclusive.
        bundle: Digest of the bundle that all decisions are made again under; None for each under its own.
        scope: Which decisions of the period are counted.
        state: Whether facts are as recorded, or rebuilt under the bundle.
        warm_up_ms: How long before the period decisions are evaluated as well, to know how sessions stood.
    """

    from_ms: int
    to_ms: int
    bundle: str | None = None
    scope: Scope = Scope()
    state: StateMode = "recorded"
    warm_up_ms: int = 0

    @property
    def read_from_ms(self) -> int:
        """From when on decisions are evaluated."""
        return max(0, self.from_ms - self.warm_up_ms)

    def access_scope(self) -> AccessScope:
        """Return which decisions are opened for it, for the record; what is counted may be fewer."""
        scope = self.scope
        return AccessScope(
            from_ms=self.read_from_ms,
            to_ms=self.to_ms,
            agent=scope.agent,
            server=scope.server,
            tool=scope.tool,
            decision=scope.decision,  # type: ignore[arg-type]  # checked by whoever takes the order
            session=scope.session,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpactJob:
    """A job, as the database has it.

    Attributes:
        job_id: Its id.
        state: ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
        attempt: How often it was taken up.
        order: What was asked for.
        access: The record of the request, in whose name it is worked on.
        created_ms: When it was asked for, POSIX milliseconds.
        finished_ms: When it ended, or None.
        done_leaves: Leaves that were read.
        all_leaves: Leaves that are to be read; 0 before that is known.
        report_sha256: Digest of the report, once it is there.
        lines_sha256: Digest of the list, once it is there.
        error: Why it failed.
    """

    job_id: str
    state: str
    attempt: int
    order: ImpactOrder
    access: AccessEvent
    created_ms: int
    finished_ms: int | None
    done_leaves: int
    all_leaves: int
    report_sha256: str | None
    lines_sha256: str | None
    error: str | None


class ImpactStore:
    """Jobs of one log in the database; safe for any thread."""

    def __init__(self, engine: Engine, log_id: str) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._log_id = log_id

    def add(self, job_id: str, order: ImpactOrder, access: AccessEvent, created_ms: int) -> None:
        """Keep a new job.

        Raises:
            StorageError: The database failed.
        """
        row = {
            "log_id": self._log_id,
            "job_id": job_id,
            "state": "queued",
            "attempt": 0,
            "request": _ANY.encode(order).decode(),
            "access": _ANY.encode(access).decode(),
            "created_ms": created_ms,
            "done_leaves": 0,
            "all_leaves": 0,
        }
        with translated("store an impact job"), writing(self._engine) as connection:
            connection.execute(insert(tables.impact_jobs), row)

    def change(self, job: ImpactJob, **columns: object) -> None:
        """Note something of a job.

        Raises:
            ConflictError: It has ended, or another process has taken it up: this one is to stop.
            StorageError: The database failed.
        """
        mine = tables.impact_jobs.c
        statement = (
            update(tables.impact_jobs)
            .where(
                mine.log_id == self._log_id,
                mine.job_id == job.job_id,
                mine.attempt == job.attempt,
                mine.state.in_(_UNFINISHED),
            )
            .values(**columns)
        )
        with translated("note an impact job's progress"), writing(self._engine) as connection:
            changed = connection.execute(statement).rowcount
        if changed != 1:
            raise ConflictError(f"the impact {job.job_id} has ended, or somebody else works on it")

    def take_up(self, job: ImpactJob) -> ImpactJob:
        """Begin a new attempt, and return the job as it is then.

        Raises:
            ConflictError: It has ended, or somebody else was faster.
            StorageError: The database failed.
        """
        self.change(job, attempt=job.attempt + 1, state="running")
        return self.get(job.job_id)

    def get(self, job_id: str) -> ImpactJob:
        """Return a job.

        Raises:
            NotFoundError: There is none of that id.
            StorageError: The database failed.
        """
        found = self._select(tables.impact_jobs.c.job_id == job_id, limit=1)
        if not found:
            raise NotFoundError(f"there is no impact {job_id}")
        return found[0]

    def newest(self, limit: int = 100) -> list[ImpactJob]:
        """Return the newest jobs, newest first."""
        return self._select(limit=limit)

    def unfinished(self) -> list[ImpactJob]:
        """Return the jobs that have not ended, newest first."""
        return self._select(tables.impact_jobs.c.state.in_(_UNFINISHED), limit=None)

    def _select(self, *conditions: object, limit: int | None) -> list[ImpactJob]:
        mine = tables.impact_jobs.c
        query = select(tables.impact_jobs).where(mine.log_id == self._log_id, *conditions)  # type: ignore[arg-type]  # column expressions
        ordered = query.order_by(mine.created_ms.desc(), mine.job_id.desc()).limit(limit)
        with translated("read impact jobs"), self._engine.connect() as connection:
            return _jobs(connection.execute(ordered).all())


def _jobs(rows: Sequence[Row[tuple[object, ...]]]) -> list[ImpactJob]:
    return [
        ImpactJob(
            job_id=row.job_id,
            state=row.state,
            attempt=row.attempt,
            order=msgspec.json.decode(row.request, type=ImpactOrder),
            access=msgspec.json.decode(row.access, type=AccessEvent),
            created_ms=row.created_ms,
            finished_ms=row.finished_ms,
            done_leaves=row.done_leaves,
            all_leaves=row.all_leaves,
            report_sha256=row.report_sha256,
            lines_sha256=row.lines_sha256,
            error=row.error,
        )
        for row in rows
    ]
