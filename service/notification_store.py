"""Webhooks and how far each has come, in the service's database.

None of it is evidence: what is sent follows from the log, and a webhook that is lost begins anew at the log's end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from sqlalchemy import Engine, Row, delete, insert, select, update

from ledger.database import translated, writing
from ledger.errors import NotFoundError
from service import tables

__all__ = ["DEAD_FAILURES", "MAX_RECENT", "Delivery", "Webhook", "WebhookStore"]

DEAD_FAILURES: Final = 8
"""After so many failures in a row a webhook counts as dead; it is tried on, ever more rarely."""
MAX_RECENT: Final = 20
"""Attempts of which a webhook's latest are kept, for whoever asks why somebody was not told."""
_MAX_ERROR: Final = 200
_C: Final = tables.webhooks.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to tell a receiver something.

    Attributes:
        event_id: Of the event; the same however often it is sent.
        event: Its name.
        sent_ms: When.
        status: Of the answer; None if there was none.
        error: What was wrong, or empty if it was taken.
    """

    event_id: str
    event: str
    sent_ms: int
    status: int | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where something is sent to.

    Attributes:
        webhook_id: Its id.
        url: Where to.
        events: Names of events.
        symmetric: It wants the signature ``v1`` as well.
        internal: It is inside: plain HTTP and private addresses will do.
        created_ms: When it was added.
        cursor: Leaf up to which everything was sent.
        gone: The receiver said that it is gone (410): nothing is sent any more.
        failures: How often in a row it failed.
        next_ms: Before when it is not tried again.
        delivered_ms: When it took something last.
        error: What was wrong last, or empty.
        skipped: How many records were passed over, for too many waited.
        told: Of each silent enforcer the leaf of the heartbeat after which its silence was told.
        recent: The latest attempts, oldest first; `MAX_RECENT` at most.
    """

    webhook_id: str
    url: str
    events: tuple[str, ...]
    symmetric: bool
    internal: bool
    created_ms: int
    cursor: int
    gone: bool = False
    failures: int = 0
    next_ms: int = 0
    delivered_ms: int | None = None
    error: str = ""
    skipped: int = 0
    told: Mapping[str, int]
    recent: tuple[Delivery, ...] = ()

    @property
    def state(self) -> Literal["ok", "failing", "dead", "gone"]:
        """How it stands."""
        if self.gone:
            return "gone"
        if self.failures >= DEAD_FAILURES:
            return "dead"
        return "failing" if self.failures else "ok"


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        webhook_id=row.webhook_id,
        url=row.url,
        events=tuple(json.loads(row.events)),
        symmetric=bool(row.symmetric),
        internal=bool(row.internal),
        created_ms=row.created_ms,
        cursor=row.cursor_leaf,
        gone=bool(row.gone),
        failures=row.failures,
        next_ms=row.next_ms,
        delivered_ms=row.delivered_ms,
        error=row.error,
        skipped=row.skipped,
        told=json.loads(row.told),
        recent=tuple(Delivery(**one) for one in json.loads(row.recent)),
    )


class WebhookStore:
    """The webhooks of one log; safe for any thread. Every method raises StorageError if the database failed."""

    def __init__(self, engine: Engine, log_id: str) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._log_id = log_id

    def all(self) -> list[Webhook]:
        """Return every webhook, oldest first."""
        query = select(tables.webhooks).where(_C.log_id == self._log_id).order_by(_C.created_ms, _C.webhook_id)
        with translated("read webhooks"), self._engine.connect() as connection:
            return [_webhook(row) for row in connection.execute(query)]

    def get(self, webhook_id: str) -> Webhook:
        """Return one.

        Raises:
            NotFoundError: There is none of that id.
        """
        query = select(tables.webhooks).where(_C.log_id == self._log_id, _C.webhook_id == webhook_id)
        with translated("read a webhook"), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError("there is no such webhook")
        return _webhook(row)

    def add(self, webhook: Webhook) -> None:
        """Add one."""
        row = {
            "log_id": self._log_id,
            "webhook_id": webhook.webhook_id,
            "url": webhook.url,
            "events": json.dumps(webhook.events),
            "symmetric": int(webhook.symmetric),
            "internal": int(webhook.internal),
            "created_ms": webhook.created_ms,
            "cursor_leaf": webhook.cursor,
            "gone": 0,
            "failures": 0,
            "next_ms": 0,
            "delivered_ms": None,
            "error": "",
            "skipped": 0,
            "told": "{}",
            "recent": "[]",
        }
        with translated("add a webhook"), writing(self._engine) as connection:
            connection.execute(insert(tables.webhooks), row)

    def remove(self, webhook_id: str) -> None:
        """Remove one.

        Raises:
            NotFoundError: There is none of that id.
        """
        gone = delete(tables.webhooks).where(_C.log_id == self._log_id, _C.webhook_id == webhook_id)
        with translated("remove a webhook"), writing(self._engine) as connection:
            if connection.execute(gone).rowcount == 0:
                raise NotFoundError("there is no such webhook")

    def passed(self, webhook_id: str, cursor: int, *, skipped: int = 0) -> None:
        """Note that nothing below a leaf is to be sent any more; a cursor never moves back."""
        self._update(webhook_id, {"cursor_leaf": cursor, "skipped": _C.skipped + skipped}, _C.cursor_leaf < cursor)

    def delivered(self, webhook_id: str, now_ms: int, *, told: Mapping[str, int] | None = None) -> None:
        """Note that the receiver took something; and, if that was of silences, which."""
        more = {} if told is None else {"told": json.dumps(told, sort_keys=True)}
        self._update(webhook_id, {"failures": 0, "next_ms": 0, "delivered_ms": now_ms, "error": "", **more})

    def failed(self, webhook_id: str, error: str, *, next_ms: int, gone: bool = False) -> None:
        """Note that the receiver did not take something."""
        more = {"gone": 1} if gone else {}
        self._update(webhook_id, {"failures": _C.failures + 1, "next_ms": next_ms, "error": error, **more})

    def tried(self, webhook_id: str, delivery: Delivery) -> None:
        """Note an attempt, and forget the oldest beyond `MAX_RECENT`; nothing is noted of a webhook that is removed."""
        of = (_C.log_id == self._log_id, _C.webhook_id == webhook_id)
        noted = {**asdict(delivery), "error": delivery.error[:_MAX_ERROR]}
        with translated("note an attempt"), writing(self._engine) as connection:
            found = connection.execute(select(_C.recent).where(*of).with_for_update()).scalar_one_or_none()
            if found is not None:
                recent = json.dumps([*json.loads(found), noted][-MAX_RECENT:])
                connection.execute(update(tables.webhooks).where(*of).values(recent=recent))

    def _update(self, webhook_id: str, values: Mapping[str, object], *conditions: Any) -> None:  # noqa: ANN401  # SQL
        of = (_C.log_id == self._log_id, _C.webhook_id == webhook_id, *conditions)
        with translated("note a webhook"), writing(self._engine) as connection:
            connection.execute(update(tables.webhooks).where(*of).values(**values))
