"""What the gateways of a fleet have counted together: windows that hold across them, in the database.

Gateways say how much each of them has counted, as totals by window, subject and slot (`policies.window_history`), and
hear what all others have. Strict caps are given out here, one decision after the other.

INVARIANT: what strict caps have given out is never given out twice: a reservation adds to the totals, and is told the
sum of all of them, inside one transaction that holds the row of the log's head. Two gateways that ask together are told
one after the other.

INVARIANT: everything can be sent again. A gateway's totals replace those that it sent before; a decision reserves
once, whatever comes of the answer, and what was released stays so, even if its reservation arrives later.

INVARIANT: a database that was put back to an earlier state is noticed by every gateway. Versions never fall below the
clock, so that none is given twice; and a gateway says at which version it was heard last: where the database has heard
less of it, the answer says so, and the gateway says all of it again.

A gateway counts under an *origin* of its own, the epoch of its state file: one that has lost its file begins another,
and what it had counted before stays.

Subjects are pseudonyms. Nothing of this is evidence: the values that a decision was made by stand in its request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, Engine, RowMapping, and_, case, delete, insert, select, tuple_, update

from ledger.clock import Clock
from ledger.database import insert_if_absent, translated, writing
from service import tables

__all__ = ["MAX_PAGE", "FleetWindows", "Page", "Part", "Total"]

MAX_PAGE: Final = 2000
"""Changed totals that a gateway is told at once, unless one change has more."""

_RESERVED: Final = "reserved"
"""Origin of what strict caps have given out; those of gateways have a slash in them."""

_CLAIMED: Final = "/"
"""In place of a subject: a claim that one gateway has made, of which the others need not be told."""

_ENDED: Final = ""
"""In place of a window: the decision has released whatever it reserves."""

_REMEMBERED_MS: Final = 86_400_000
_QUIET_MS: Final = 30 * _REMEMBERED_MS
"""For so long it is known what a decision has reserved, and a total is kept that no window asks for any more."""

_SWEEP_MS: Final = 60_000
_AT_ONCE: Final = 200

_heads, _origins = tables.fleet_heads, tables.fleet_origins
_totals, _reservations = tables.fleet_totals, tables.fleet_reservations


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What was counted of a window in one slot.

    Attributes:
        digest: What the window measures, 32 hexadecimal digits.
        subject: Whose calls, a pseudonym.
        slot: When.
        total: How much.
        forget_ms: From when on no window asks for it, POSIX milliseconds.
    """

    digest: str
    subject: str
    slot: int
    total: int
    forget_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a decision takes of a strict cap.

    Attributes:
        digest: What the window measures.
        subject: Whose calls.
        slot: When the call counts.
        first: The first slot that counts for the call.
        amount: How much it takes; 0 only asks.
        forget_ms: From when on no window asks for it.
    """

    digest: str
    subject: str
    slot: int
    first: int
    amount: int
    forget_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What others have counted.

    Attributes:
        version: Up to which change; to be named with the next question.
        more: There are later ones already.
        totals: Sums over all others, of what has changed.
        told: At which version something of the asking gateway was taken in last; to be named with the next question.
        lost: That is less than the gateway was told before.
    """

    version: int
    more: bool
    totals: tuple[Total, ...]
    told: int = 0
    lost: bool = False


class FleetWindows:
    """The windows of one log's gateways; safe for any thread."""

    def __init__(self, engine: Engine, log_id: str, clock: Clock) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._log_id = log_id
        self._clock = clock
        self._swept_ms = 0

    # --- strict caps

    def reserve(self, enforcer_id: str, decision_id: str, parts: Sequence[Part]) -> list[int]:
        """Take something of strict caps, and return the sum of each, what is taken included.

        Durability: what was taken is committed when this returns. Idempotence: a decision takes once.

        Raises:
            StorageError: The database failed.
        """
        with translated("reserve what a call adds to windows"):
            if not any(part.amount for part in parts):
                with self._engine.connect() as connection:
                    return [self._sum(connection, part) for part in parts]
            with writing(self._engine) as connection:
                version = self._advance(connection)
                self._keep(connection, enforcer_id, decision_id, parts, version)
                return [self._sum(connection, part) for part in parts]

    def _keep(
        self, connection: Connection, enforcer_id: str, decision_id: str, parts: Iterable[Part], version: int
    ) -> None:
        key = {"log_id": self._log_id, "enforcer_id": enforcer_id, "decision_id": decision_id}
        ended = select(_reservations.c.digest).filter_by(**key, digest=_ENDED)
        if connection.execute(ended).first() is not None:
            return
        for part in parts:
            row = {
                **key,
                "digest": part.digest,
                "subject": part.subject,
                "slot": part.slot,
                "amount": str(part.amount),
                "forget_ms": part.forget_ms,
                "released": 0,
                "created_ms": self._clock.now_ms(),
            }
            if part.amount and insert_if_absent(connection, _reservations, row):
                self._add(connection, row, part.amount, version)

    def _release(self, connection: Connection, enforcer_id: str, decision_id: str, version: int) -> None:
        key = {"log_id": self._log_id, "enforcer_id": enforcer_id, "decision_id": decision_id}
        ended = {
            **key,
            "digest": _ENDED,
            "subject": "",
            "slot": 0,
            "amount": "0",
            "forget_ms": 0,
            "released": 1,
            "created_ms": self._clock.now_ms(),
        }
        if not insert_if_absent(connection, _reservations, ended):
            return
        for row in connection.execute(select(_reservations).filter_by(**key, released=0)).mappings().all():
            self._add(connection, row, -int(row["amount"]), version)
        connection.execute(update(_reservations).filter_by(**key).values(released=1))

    def _add(self, connection: Connection, place: RowMapping | dict[str, object], amount: int, version: int) -> None:
        at = {name: place[name] for name in ("log_id", "digest", "subject", "slot")}
        found = connection.execute(select(_totals.c.total).filter_by(**at, origin=_RESERVED)).scalar()
        changed = {"total": str(int(found or 0) + amount), "version": version}
        if found is None:
            row = {**at, "origin": _RESERVED, "forget_ms": place["forget_ms"], **changed}
            connection.execute(insert(_totals), row)
        else:
            connection.execute(update(_totals).filter_by(**at, origin=_RESERVED).values(changed))

    def _sum(self, connection: Connection, part: Part) -> int:
        totals = select(_totals.c.total).filter_by(log_id=self._log_id, digest=part.digest, subject=part.subject)
        # Added up here: a total may be beyond what the database's integers hold.
        return sum(int(total) for total in connection.execute(totals.where(_totals.c.slot >= part.first)).scalars())

    # --- what is told from gateway to gateway

    def exchange(
        self,
        enforcer_id: str,
        origin: str,
        *,
        totals: Sequence[Total] = (),
        keep: Sequence[tuple[str, Sequence[Part]]] = (),
        release: Sequence[str] = (),
        since: int,
        told: int = 0,
    ) -> Page:
        """Take in what a gateway has counted, and return what the others have.

        Args:
            enforcer_id: Which gateway.
            origin: Under which it counts.
            totals: What it has counted, instead of what it said of the same slots before.
            keep: Decisions that were let through, and what they take of strict caps, whether or not they had it.
            release: Decisions that take nothing after all.
            since: The version up to which it knows what others have; 0 for nothing.
            told: The version at which, by the last answer, something of it was taken in; 0 for none.

        Raises:
            StorageError: The database failed.
        """
        mine = f"{enforcer_id}/{origin}"
        with translated("exchange what windows have counted"):
            heard: int | None = None
            if totals or keep or release:
                with writing(self._engine) as connection:
                    version = self._advance(connection)
                    heard = self._note(connection, mine, version)
                    for total in totals:
                        self._put(connection, mine, total, version)
                    for decision_id, parts in keep:
                        self._keep(connection, enforcer_id, decision_id, parts, version)
                    for decision_id in release:
                        self._release(connection, enforcer_id, decision_id, version)
                    self._sweep(connection)
            with self._engine.connect() as connection:
                page = self._page(connection, mine, since)
                now = self._heard(connection, mine)
        return replace(page, told=now, lost=(now if heard is None else heard) < told)

    def _heard(self, connection: Connection, mine: str) -> int:
        return connection.execute(select(_origins.c.version).filter_by(log_id=self._log_id, origin=mine)).scalar() or 0

    def _note(self, connection: Connection, mine: str, version: int) -> int:
        """Note that something of a gateway is taken in, and return the version at which it was before."""
        before, key = self._heard(connection, mine), {"log_id": self._log_id, "origin": mine}
        if not insert_if_absent(connection, _origins, {**key, "version": version}):
            connection.execute(update(_origins).filter_by(**key).values(version=version))
        return before

    def _advance(self, connection: Connection) -> int:
        """Lock the head, and return the version of what is changed in this transaction."""
        now_ms, next_one = self._clock.now_ms(), _heads.c.version + 1
        # Never below the clock: after a restore no version is given again that stood for something else before.
        later = case((next_one < now_ms, now_ms), else_=next_one)
        further = update(_heads).filter_by(log_id=self._log_id).values(version=later)
        if not connection.execute(further).rowcount:
            insert_if_absent(connection, _heads, {"log_id": self._log_id, "version": 0})
            connection.execute(further)
        return self._version(connection)

    def _version(self, connection: Connection) -> int:
        return connection.execute(select(_heads.c.version).filter_by(log_id=self._log_id)).scalar() or 0

    def _put(self, connection: Connection, mine: str, total: Total, version: int) -> None:
        at = {"log_id": self._log_id, "digest": total.digest, "subject": total.subject, "slot": total.slot}
        found = connection.execute(select(_totals.c.total).filter_by(**at, origin=mine)).scalar()
        if found == str(total.total) or (found is None and not total.total):
            return
        changed = {"total": str(total.total), "forget_ms": total.forget_ms, "version": version}
        if found is None:
            connection.execute(insert(_totals), {**at, "origin": mine, **changed})
        else:
            connection.execute(update(_totals).filter_by(**at, origin=mine).values(changed))

    def _page(self, connection: Connection, mine: str, since: int) -> Page:
        # Read first: what changes between these two statements has a later version, and is told with the next page.
        version = self._version(connection)
        columns = (_totals.c.digest, _totals.c.subject, _totals.c.slot)
        changed = (
            select(*columns, _totals.c.version)
            .filter_by(log_id=self._log_id)
            .where(_totals.c.version > since, _totals.c.version <= version)
            .where(_totals.c.origin != mine, _totals.c.subject != _CLAIMED)
            .order_by(_totals.c.version)
        )
        rows = connection.execute(changed.limit(MAX_PAGE + 1)).all()
        more = len(rows) > MAX_PAGE
        if more:
            # A page ends with a version: of the next one nothing may be told, or the rest of it never would.
            before = [row for row in rows if row[3] < rows[-1][3]]
            rows = before or list(connection.execute(changed.where(_totals.c.version == rows[-1][3])).all())
            version = rows[-1][3]
        keys = sorted({(row[0], row[1], row[2]) for row in rows})
        found: dict[tuple[str, str, int], Total] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = select(_totals).where(
                and_(_totals.c.log_id == self._log_id, tuple_(*columns).in_(keys[start : start + _AT_ONCE])),
                _totals.c.origin != mine,
            )
            for row in connection.execute(some).mappings():
                _sum_up(found, row)
        return Page(version=version, more=more, totals=tuple(found.values()))

    def _sweep(self, connection: Connection) -> None:
        """Forget, now and then, what no window can ask for any more."""
        now_ms = self._clock.now_ms()
        if now_ms - self._swept_ms < _SWEEP_MS:
            return
        self._swept_ms = now_ms
        before = now_ms - _REMEMBERED_MS
        connection.execute(delete(_totals).where(_totals.c.log_id == self._log_id, _totals.c.forget_ms <= before))
        connection.execute(
            delete(_reservations).where(_reservations.c.log_id == self._log_id, _reservations.c.created_ms <= before)
        )
        # A version is a time at least; a gateway that was quiet for so long has all of it to say again, no more.
        quiet = now_ms - _QUIET_MS
        connection.execute(delete(_origins).where(_origins.c.log_id == self._log_id, _origins.c.version <= quiet))


def _sum_up(found: dict[tuple[str, str, int], Total], row: RowMapping) -> None:
    key = (row["digest"], row["subject"], row["slot"])
    known = found.get(key)
    found[key] = Total(
        digest=row["digest"],
        subject=row["subject"],
        slot=row["slot"],
        total=int(row["total"]) + (0 if known is None else known.total),
        forget_ms=max(row["forget_ms"], 0 if known is None else known.forget_ms),
    )
