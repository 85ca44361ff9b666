"""Which gateways have which set of restrictions in force, by their own word: each question for news names it.

A gateway asks again as soon as it has taken a set up, so that its next question is the acknowledgement. One row for
each enforcer, written when it names another version and now and then besides; no evidence: the log says what was
ordered, this says how far it has come.

Known is who is introduced in the log and not retired. Of those a gateway is *reached* if it has the set in force or a
later one, *stopped* if the last that it wrote is the heartbeat that closes its stream, *never started* if it wrote
nothing and never asked. All others are *unreached*: those that are cut off and may work on, and what does not follow
restrictions at all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sqlalchemy import Engine, select, update

from ledger.bodies import Heartbeat
from ledger.catalog import Catalog
from ledger.database import insert_if_absent, translated, writing
from ledger.keyring import Keyring
from ledger.reader import EntryReader
from service import tables

__all__ = ["Acknowledged", "Acknowledgements", "Gateway", "GatewayState", "reach"]

_REWRITE_MS: Final = 15_000
"""How much later than in memory the last sign of life may stand in the table."""

GatewayState: TypeAlias = Literal["reached", "unreached", "stopped", "never_started"]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a gateway said last.

    Attributes:
        version: Version of the set that it has in force.
        seen_ms: When it said so, by the service's clock.
    """

    version: int
    seen_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """How far a restriction has come at one gateway.

    Attributes:
        enforcer_id: Which.
        state: See the module.
        version: Version of the set that it has in force, if it ever said.
        seen_ms: When it last said so.
    """

    enforcer_id: str
    state: GatewayState
    version: int | None = None
    seen_ms: int | None = None


class Acknowledgements:
    """The table of what gateways said, for one log; safe for any thread."""

    def __init__(self, engine: Engine, log_id: str) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._log_id = log_id
        self._lock = threading.Lock()
        self._written: dict[str, Acknowledged] = {}

    def note(self, enforcer_id: str, version: int, now_ms: int) -> None:
        """Note which version a gateway has in force.

        Raises:
            StorageError: The database failed.
        """
        said = Acknowledged(version, now_ms)
        with self._lock:
            before = self._written.get(enforcer_id)
        if before is not None and before.version == version and 0 <= now_ms - before.seen_ms < _REWRITE_MS:
            return
        row = {"log_id": self._log_id, "enforcer_id": enforcer_id, "version": version, "seen_ms": now_ms}
        columns = tables.restriction_acknowledgements.c
        change = (
            update(tables.restriction_acknowledgements)
            .where(columns.log_id == self._log_id, columns.enforcer_id == enforcer_id)
            .values(version=version, seen_ms=now_ms)
        )
        with translated("note an acknowledgement"), writing(self._engine) as connection:
            # A row that another process inserts in between is that gateway's as well, and no older than ours by much.
            if connection.execute(change).rowcount == 0:
                insert_if_absent(connection, tables.restriction_acknowledgements, row)
        with self._lock:
            self._written[enforcer_id] = said

    def all(self) -> Mapping[str, Acknowledged]:
        """Return what each gateway said last, by enforcer id.

        Raises:
            StorageError: The database failed.
        """
        columns = tables.restriction_acknowledgements.c
        query = select(columns.enforcer_id, columns.version, columns.seen_ms).where(columns.log_id == self._log_id)
        with translated("read acknowledgements"), self._engine.connect() as connection:
            return {name: Acknowledged(int(version), int(seen)) for name, version, seen in connection.execute(query)}


def reach(
    leaf: int, log_id: str, *, keyring: Keyring, catalog: Catalog, reader: EntryReader, said: Mapping[str, Acknowledged]
) -> list[Gateway]:
    """Return how far a restriction has come, by gateway, sorted by name.

    Args:
        leaf: Leaf of the record that began it: a set of that version or a later one has it.
        log_id: Which log.
        keyring: Who is introduced.
        catalog: Finds what each wrote last.
        reader: Reads it.
        said: What each said last.

    Raises:
        LedgerError: A store failed.
    """
    found = []
    for enforcer_id in sorted(_known(keyring)):
        last = said.get(enforcer_id)
        if last is not None and last.version >= leaf:
            state: GatewayState = "reached"
        else:
            state = _silent(log_id, enforcer_id, last, catalog, reader)
        found.append(
            Gateway(
                enforcer_id=enforcer_id,
                state=state,
                version=None if last is None else last.version,
                seen_ms=None if last is None else last.seen_ms,
            )
        )
    return found


def _known(keyring: Keyring) -> Iterable[str]:
    """Return who may write to the log now, the service itself aside."""
    standing = {key.subject for key in keyring.keys if key.purpose == "enforcer" and key.last_leaf is None}
    return standing - {keyring.registrar or ""}


def _silent(
    log_id: str, enforcer_id: str, last: Acknowledged | None, catalog: Catalog, reader: EntryReader
) -> GatewayState:
    position = catalog.last_position(log_id, enforcer_id)
    if position is None:
        return "never_started" if last is None else "unreached"
    # The catalogue only finds; what a leaf is, the leaf says (invariant 3).
    record = reader.record(position.leaf_index)
    closed = isinstance(record.body, Heartbeat) and record.body.kind == "stop" and record.enforcer_id == enforcer_id
    # It may have begun again without having reached the ledger with a record yet.
    began_again = last is not None and last.seen_ms > record.time_ms
    return "stopped" if closed and not began_again else "unreached"
