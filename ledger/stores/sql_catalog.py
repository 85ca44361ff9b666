"""Searching the projection of a log.

What a search returns is leaf indexes; the caller reads the records themselves from the log, because the tables are a
convenience and prove nothing (invariant 3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter

from sqlalchemy import ColumnElement, Engine, Select, and_, func, or_, select

from ledger.catalog import MAX_PAGE, MINUTE_MS, DecisionQuery, StreamPosition, Tally
from ledger.database import translated
from ledger.errors import NotFoundError
from ledger.projection import PROJECTED_TABLES, Row
from ledger.stores import tables

__all__ = ["SQLCatalog"]


class SQLCatalog:
    """`ledger.catalog.Catalog` over SQL; safe for any thread."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine

    def index_of(self, log_id: str, record_id: str) -> int:
        """See `Catalog.index_of`."""
        columns = tables.records.c
        query = select(columns.leaf_index).where(columns.log_id == log_id, columns.record_id == record_id)
        with translated("look a record up"), self._engine.connect() as connection:
            index = connection.scalar(query)
        if index is None:
            raise NotFoundError(f"there is no record {record_id}")
        return int(index)

    def search(self, log_id: str, wanted: DecisionQuery) -> list[int]:
        """See `Catalog.search`."""
        columns = tables.decisions.c
        conditions = [columns.log_id == log_id, *_conditions(log_id, wanted)]
        query = select(columns.leaf_index).where(and_(*conditions)).order_by(columns.leaf_index.desc())
        with translated("search decisions"), self._engine.connect() as connection:
            return [int(index) for (index,) in connection.execute(query.limit(min(wanted.limit, MAX_PAGE)))]

    def session(self, log_id: str, session: str) -> list[int]:
        """See `Catalog.session`."""
        found: list[int] = []
        with translated("read a session"), self._engine.connect() as connection:
            for table in (tables.decisions, tables.outcomes):
                query = select(table.c.leaf_index).where(table.c.log_id == log_id, table.c.session == session)
                found.extend(int(index) for (index,) in connection.execute(query))
        return sorted(found)

    def outcomes_of(self, log_id: str, decision_id: str) -> list[int]:
        """See `Catalog.outcomes_of`."""
        columns = tables.outcomes.c
        query = select(columns.leaf_index).where(columns.log_id == log_id, columns.decision_id == decision_id)
        with translated("read outcomes"), self._engine.connect() as connection:
            return sorted(int(index) for (index,) in connection.execute(query))

    def of_type(self, log_id: str, record_type: str, *, above: int = -1) -> list[int]:
        """See `Catalog.of_type`."""
        columns = tables.records.c
        query = select(columns.leaf_index).where(
            columns.log_id == log_id, columns.record_type == record_type, columns.leaf_index > above
        )
        with translated("read records of a type"), self._engine.connect() as connection:
            return [int(index) for (index,) in connection.execute(query.order_by(columns.leaf_index))]

    def last_position(self, log_id: str, enforcer_id: str) -> StreamPosition | None:
        """See `Catalog.last_position`."""
        columns = tables.records.c
        query = (
            select(columns.epoch, columns.seq)
            .where(columns.log_id == log_id, columns.enforcer_id == enforcer_id)
            .order_by(columns.leaf_index.desc())
            .limit(1)
        )
        with translated("read an enforcer's position"), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else StreamPosition(row[0], int(row[1]))

    def count_between(self, log_id: str, enforcer_id: str, epoch: str, first: int, last: int) -> int:
        """See `Catalog.count_between`."""
        columns = tables.records.c
        query = select(func.count()).where(
            columns.log_id == log_id,
            columns.enforcer_id == enforcer_id,
            columns.epoch == epoch,
            columns.seq.between(first, last),
        )
        with translated("count an enforcer's records"), self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def counts(self, log_id: str) -> Mapping[str, int]:
        """See `Catalog.counts`."""
        columns = tables.records.c
        query = select(columns.record_type, func.count()).where(columns.log_id == log_id).group_by(columns.record_type)
        with translated("count records"), self._engine.connect() as connection:
            return {kind: int(count) for kind, count in connection.execute(query)}

    def tally(self, log_id: str, *, from_ms: int | None = None, from_index: int | None = None) -> list[Tally]:
        """See `Catalog.tally`."""
        columns = tables.decisions.c
        minute = (columns.time_ms // MINUTE_MS).label("minute")
        query = select(
            minute, columns.enforcement, columns.mode, func.count().label("decisions"), func.max(columns.leaf_index)
        ).where(columns.log_id == log_id)
        if from_ms is not None:
            query = query.where(columns.time_ms >= from_ms)
        if from_index is not None:
            query = query.where(columns.leaf_index >= from_index)
        with translated("count decisions"), self._engine.connect() as connection:
            return [
                Tally(
                    minute_ms=int(minute) * MINUTE_MS,
                    enforcement=enforcement,
                    mode=mode,
                    decisions=int(decisions),
                    last_index=int(last),
                )
                for minute, enforcement, mode, decisions, last in connection.execute(
                    query.group_by(minute, columns.enforcement, columns.mode)
                )
            ]

    def rows(self, log_id: str, start: int, end: int) -> Mapping[int, Mapping[str, Sequence[Row]]]:
        """See `Catalog.rows`."""
        found: defaultdict[int, dict[str, list[Row]]] = defaultdict(lambda: {name: [] for name in PROJECTED_TABLES})
        with translated("read the projection"), self._engine.connect() as connection:
            for name in PROJECTED_TABLES:
                table = tables.metadata.tables[name]
                key = table.c
                query = select(*[column for column in key if column.name != "received_ms"]).where(
                    key.log_id == log_id, key.leaf_index >= start, key.leaf_index < end
                )
                for row in connection.execute(query):
                    found[row.leaf_index][name].append(dict(row._mapping))  # noqa: SLF001  # SQLAlchemy's public name
        # Sorted here, as the projection sorts: a database sorts text by its own collation.
        for tables_of_leaf in found.values():
            tables_of_leaf["decision_rules"].sort(key=itemgetter("rule"))
        return found


def _conditions(log_id: str, wanted: DecisionQuery) -> list[ColumnElement[bool]]:
    columns = tables.decisions.c
    equal = {
        columns.agent: wanted.agent,
        columns.session: wanted.session,
        columns.server: wanted.server,
        columns.tool: wanted.tool,
        columns.decision: wanted.decision,
        columns.enforcement: wanted.enforcement,
        columns.mode: wanted.mode,
        columns.reason: wanted.reason,
        columns.bundle_revision: wanted.bundle_revision,
        columns.trace_id: wanted.trace_id,
    }
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if wanted.users is not None:
        conditions.append(columns.user.in_(wanted.users))
    if wanted.from_ms is not None:
        conditions.append(columns.time_ms >= wanted.from_ms)
    if wanted.to_ms is not None:
        conditions.append(columns.time_ms < wanted.to_ms)
    if wanted.before is not None:
        conditions.append(columns.leaf_index < wanted.before)
    if wanted.rule is not None:
        rules = tables.decision_rules.c
        matching = select(rules.leaf_index).where(rules.log_id == log_id, rules.rule == wanted.rule)
        conditions.append(columns.leaf_index.in_(matching))
    if wanted.fingerprints is not None:
        conditions.append(
            or_(
                columns.arguments_fingerprint.in_(wanted.fingerprints),
                columns.leaf_index.in_(_received(log_id, wanted.fingerprints)),
            )
        )
    return conditions


def _received(log_id: str, fingerprints: Sequence[str]) -> Select[int]:
    """Select the leaf indexes of decisions whose outcome carries one of the fingerprints."""
    records, outcomes = tables.records.c, tables.outcomes.c
    return (
        select(records.leaf_index)
        .join(tables.outcomes, and_(outcomes.log_id == records.log_id, outcomes.decision_id == records.record_id))
        .where(records.log_id == log_id, outcomes.result_fingerprint.in_(fingerprints))
    )
