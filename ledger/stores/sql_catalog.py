"""Searching the projection of a log.

What a search returns is leaf indexes; the caller reads the records themselves from the log, because the tables are a
convenience and prove nothing (invariant 3). How rows are stored, and why they are not what they say, is in `tables` and
`sql_rows`; the rows that `rows` returns are those of `ledger.projection` again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    func,
    literal_column,
    select,
    union_all,
)

from ledger.catalog import MAX_PAGE, MINUTE_MS, DecisionQuery, StreamPosition, Tally
from ledger.database import translated
from ledger.errors import NotFoundError
from ledger.projection import PROJECTED_TABLES, Row
from ledger.stores import tables
from ledger.stores.sql_cells import any_bytes, any_text
from ledger.stores.sql_conditions import holds, is_type, name_number
from ledger.stores.sql_dictionary import chunks, log_number
from ledger.stores.sql_rows import CODES, NAMED_COLUMNS, content_row, id_bytes, record_row, rule_row, word_of

__all__ = ["SQLCatalog"]


class SQLCatalog:
    """`ledger.catalog.Catalog` over SQL; safe for any thread."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine

    def _indexes(self, action: str, query: Select[int]) -> list[int]:
        with translated(action), self._engine.connect() as connection:
            return [int(index) for (index,) in connection.execute(query)]

    def index_of(self, log_id: str, record_id: str) -> int:
        """See `Catalog.index_of`."""
        columns = tables.records.c
        query = select(columns.leaf_index).where(
            columns.log_no == log_number(log_id), columns.record_id == id_bytes(record_id)
        )
        found = self._indexes("look a record up", query)
        if not found:
            raise NotFoundError(f"there is no record {record_id}")
        return found[0]

    def search(self, log_id: str, wanted: DecisionQuery) -> list[int]:
        """See `Catalog.search`."""
        columns = tables.records.c
        conditions = [columns.log_no == log_number(log_id), columns.agent.is_not(None), *_conditions(log_id, wanted)]
        query = select(columns.leaf_index).where(and_(*conditions)).order_by(columns.leaf_index.desc())
        return self._indexes("search decisions", query.limit(min(wanted.limit, MAX_PAGE)))

    def stretch(self, log_id: str, from_ms: int, to_ms: int) -> range:
        """See `Catalog.stretch`."""
        columns = tables.records.c
        query = select(func.min(columns.leaf_index), func.max(columns.leaf_index)).where(
            columns.log_no == log_number(log_id), columns.time_ms >= from_ms, columns.time_ms < to_ms
        )
        with translated("find a period"), self._engine.connect() as connection:
            first, last = connection.execute(query).one()
        return range(0) if first is None else range(int(first), int(last) + 1)

    def session(self, log_id: str, session: str) -> list[int]:
        """See `Catalog.session`."""
        columns = tables.records.c
        query = select(columns.leaf_index).where(columns.log_no == log_number(log_id), holds("session", [session]))
        return sorted(self._indexes("read a session", query))

    def outcomes_of(self, log_id: str, decision_id: str) -> list[int]:
        """See `Catalog.outcomes_of`."""
        columns = tables.records.c
        query = select(columns.leaf_index).where(
            columns.log_no == log_number(log_id), columns.decision_id == id_bytes(decision_id)
        )
        return sorted(self._indexes("read outcomes", query))

    def kills(self, log_id: str, *, above: int = -1) -> list[int]:
        """See `Catalog.kills`."""
        columns = tables.records.c
        query = select(columns.leaf_index).where(
            columns.log_no == log_number(log_id),
            *_coded(columns.enforcement, "kill"),
            *_coded(columns.mode, "enforce"),
            columns.leaf_index > above,
        )
        return self._indexes("read kills", query.order_by(columns.leaf_index))

    def of_type(self, log_id: str, record_type: str, *, above: int = -1, not_by: str | None = None) -> list[int]:
        """See `Catalog.of_type`."""
        columns, streams = tables.records.c, tables.streams.c
        query = select(columns.leaf_index).where(
            columns.log_no == log_number(log_id), is_type(log_id, record_type), columns.leaf_index > above
        )
        if not_by is not None:
            own = select(streams.stream_no).where(streams.log_no == log_number(log_id), streams.enforcer_id == not_by)
            query = query.where(columns.stream_no.not_in(own))
        return self._indexes("read records of a type", query.order_by(columns.leaf_index))

    def last_of_type(self, log_id: str, record_type: str) -> list[int]:
        """See `Catalog.last_of_type`."""
        streams, newest = tables.streams.c, tables.records.alias("newest")
        # From the end of each stream backwards: between two heartbeats stand few records, while a log has millions.
        last = (
            select(newest.c.leaf_index)
            .where(
                newest.c.log_no == streams.log_no,
                newest.c.stream_no == streams.stream_no,
                newest.c.record_type == name_number(log_id, record_type),
            )
            .order_by(newest.c.seq.desc())
            .limit(1)
            .correlate(tables.streams)
            .scalar_subquery()
        )
        query = select(last).where(streams.log_no == log_number(log_id))
        with translated("read the last records of a type"), self._engine.connect() as connection:
            return [int(index) for (index,) in connection.execute(query) if index is not None]

    def last_position(self, log_id: str, enforcer_id: str) -> StreamPosition | None:
        """See `Catalog.last_position`."""
        columns, streams = tables.records.c, tables.streams.c
        # The last number of each epoch, and of those the one that stands last: an enforcer has few epochs, while any
        # number of records of others may stand behind its last one.
        newest = tables.records.alias("newest")
        last = select(func.max(newest.c.seq)).where(
            newest.c.log_no == streams.log_no, newest.c.stream_no == streams.stream_no
        )
        query = (
            select(streams.epoch, columns.seq, columns.leaf_index)
            .join(tables.streams, and_(streams.log_no == columns.log_no, streams.stream_no == columns.stream_no))
            .where(
                streams.log_no == log_number(log_id),
                streams.enforcer_id == enforcer_id,
                columns.seq == last.correlate(tables.streams).scalar_subquery(),
            )
        )
        with translated("read an enforcer's position"), self._engine.connect() as connection:
            found = connection.execute(query).all()
        if not found:
            return None
        epoch, seq, index = max(found, key=itemgetter(2))
        return StreamPosition(bytes(epoch).hex(), int(seq), int(index))

    def count_between(self, log_id: str, enforcer_id: str, epoch: str, first: int, last: int) -> int:
        """See `Catalog.count_between`."""
        columns, streams = tables.records.c, tables.streams.c
        log_no = log_number(log_id)
        stream = select(streams.stream_no).where(
            streams.log_no == log_no, streams.enforcer_id == enforcer_id, streams.epoch == _hex_bytes(epoch)
        )
        query = select(func.count()).where(
            columns.log_no == log_no, columns.stream_no == stream.scalar_subquery(), columns.seq.between(first, last)
        )
        with translated("count an enforcer's records"), self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def counts(self, log_id: str) -> Mapping[str, int]:
        """See `Catalog.counts`."""
        columns, names = tables.records.c, tables.names.c
        log_no = log_number(log_id)
        others = (
            select(names.name, func.count())
            .join(tables.names, and_(names.log_no == columns.log_no, names.name_no == columns.record_type))
            .where(columns.log_no == log_no, columns.agent.is_(None), columns.decision_id.is_(None))
            .group_by(names.name)
        )
        outcomes = select(func.count()).where(columns.log_no == log_no, columns.decision_id.is_not(None))
        everything = select(func.max(columns.leaf_index)).where(columns.log_no == log_no)
        with translated("count records"), self._engine.connect() as connection:
            found = {name: int(count) for name, count in connection.execute(others)}
            found["outcome"] = int(connection.scalar(outcomes) or 0)
            last = connection.scalar(everything)
        # Indexes have no gaps: what is left are the decisions, which need not be counted one by one.
        found["decision"] = (0 if last is None else int(last) + 1) - sum(found.values())
        return {kind: count for kind, count in found.items() if count > 0}

    def tally(self, log_id: str, *, from_ms: int | None = None, from_index: int | None = None) -> list[Tally]:
        """See `Catalog.tally`."""
        columns = tables.records.c
        minute = (columns.time_ms // MINUTE_MS).label("minute")
        query = select(
            minute, columns.enforcement, columns.mode, func.count().label("decisions"), func.max(columns.leaf_index)
        ).where(
            columns.log_no == log_number(log_id),
            columns.agent.is_not(None),
            # Of every decision; but a table that somebody bent must not stop whoever counts.
            columns.enforcement.is_not(None),
            columns.mode.is_not(None),
        )
        if from_ms is not None:
            query = query.where(columns.time_ms >= from_ms)
        if from_index is not None:
            query = query.where(columns.leaf_index >= from_index)
        with translated("count decisions"), self._engine.connect() as connection:
            return [
                Tally(
                    minute_ms=int(minute) * MINUTE_MS,
                    enforcement=word_of("enforcement", enforcement),
                    mode=word_of("mode", mode),
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
        with translated("read the projection"), self._engine.connect() as connection, any_text(connection):
            result = connection.execute(_range(tables.records, log_id, start, end))
            columns = list(result.keys())
            # An audit reads every row of a log here: a mapping for each by SQLAlchemy takes twice as long.
            stored = [dict(zip(columns, row, strict=True)) for row in result.all()]
            rules = connection.execute(_range(tables.decision_rules, log_id, start, end)).all()
            contents = connection.execute(_range(tables.contents, log_id, start, end)).all()
            numbers = {row[column] for row in stored for column in NAMED_COLUMNS} | {rule.rule for rule in rules}
            # Read each time: what was numbered once may have been changed since, which an audit must see.
            names = _names(connection, log_id, numbers)
            streams = _streams(connection, log_id, {row["stream_no"] for row in stored})
        for row in stored:
            found[int(row["leaf_index"])]["records"].append(record_row(row, log_id, names, streams))
        for rule in rules:
            found[rule.leaf_index]["decision_rules"].append(rule_row(log_id, rule.leaf_index, rule.rule, names))
        for content in contents:
            one = content_row(log_id, content.leaf_index, content.fingerprint_key, content.fingerprint_rest)
            found[content.leaf_index]["contents"].append(one)
        # Sorted here, as the projection sorts: the database sorts by number.
        for tables_of_leaf in found.values():
            tables_of_leaf["decision_rules"].sort(key=itemgetter("rule"))
            tables_of_leaf["contents"].sort(key=itemgetter("fingerprint"))
        return found


def _range(table: Table, log_id: str, start: int, end: int) -> Select[object]:
    columns = table.c
    return select(table).where(
        columns.log_no == log_number(log_id), columns.leaf_index >= start, columns.leaf_index < end
    )


def _names(connection: Connection, log_id: str, numbers: set[int | None]) -> dict[int, str]:
    columns = tables.names.c
    found: dict[int, str] = {}
    for chunk in chunks(_integers(numbers)):
        query = select(columns.name_no, columns.name).where(
            columns.log_no == log_number(log_id), columns.name_no.in_(chunk)
        )
        found.update({int(number): str(name) for number, name in connection.execute(query)})
    return found


def _streams(connection: Connection, log_id: str, numbers: set[int]) -> dict[int, tuple[str, str]]:
    columns = tables.streams.c
    found: dict[int, tuple[str, str]] = {}
    for chunk in chunks(_integers(numbers)):
        query = select(columns.stream_no, columns.enforcer_id, columns.epoch).where(
            columns.log_no == log_number(log_id), columns.stream_no.in_(chunk)
        )
        for number, enforcer_id, epoch in connection.execute(query):
            found[int(number)] = (str(enforcer_id), any_bytes(epoch).hex())
    return found


def _integers(cells: Iterable[object]) -> Iterator[int]:
    return (cell for cell in cells if isinstance(cell, int))


def _hex_bytes(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _coded(column: Column[int], word: str | None) -> list[ColumnElement[bool]]:
    if word is None:
        return []
    words = CODES[column.name]
    code = words.index(word) if word in words else None
    conditions = [column == code]
    if code and column.name == "enforcement":
        # Said as the index says it, so that the database sees that it may use it.
        conditions.append(column != literal_column("0"))
    return conditions


def _conditions(log_id: str, wanted: DecisionQuery) -> list[ColumnElement[bool]]:
    columns = tables.records.c
    named = {
        columns.agent: wanted.agent,
        columns.server: wanted.server,
        columns.tool: wanted.tool,
        columns.reason: wanted.reason,
        columns.bundle_revision: wanted.bundle_revision,
    }
    conditions: list[ColumnElement[bool]] = [
        column == name_number(log_id, name) for column, name in named.items() if name is not None
    ]
    conditions += _coded(columns.decision, wanted.decision)
    conditions += _coded(columns.enforcement, wanted.enforcement)
    conditions += _coded(columns.mode, wanted.mode)
    if wanted.session is not None:
        conditions.append(holds("session", [wanted.session]))
    if wanted.users is not None:
        conditions.append(holds("user", wanted.users))
    if wanted.trace_id is not None:
        conditions.append(columns.trace_id == _hex_bytes(wanted.trace_id))
    if wanted.from_ms is not None:
        conditions.append(columns.time_ms >= wanted.from_ms)
    if wanted.to_ms is not None:
        conditions.append(columns.time_ms < wanted.to_ms)
    if wanted.before is not None:
        conditions.append(columns.leaf_index < wanted.before)
    if wanted.rule is not None:
        rules = tables.decision_rules.c
        matching = select(rules.leaf_index).where(
            rules.log_no == log_number(log_id), rules.rule == name_number(log_id, wanted.rule)
        )
        conditions.append(columns.leaf_index.in_(matching))
    if wanted.fingerprints is not None:
        # One list of leaves and no alternative of conditions: of two ways in, a planner may take neither.
        sent = select(columns.leaf_index).where(
            columns.log_no == log_number(log_id), holds("fingerprint", wanted.fingerprints)
        )
        whole, inside = _received(log_id, wanted.fingerprints), _held(log_id, wanted.fingerprints)
        conditions.append(columns.leaf_index.in_(union_all(sent, whole, inside)))
    return conditions


def _received(log_id: str, fingerprints: Sequence[str]) -> Select[int]:
    """Select the leaf indexes of decisions whose outcome carries one of the fingerprints."""
    decided, received = tables.records.alias("decided"), tables.records.alias("received")
    return (
        select(decided.c.leaf_index)
        .join(received, and_(received.c.log_no == decided.c.log_no, received.c.decision_id == decided.c.record_id))
        .where(decided.c.log_no == log_number(log_id), holds("fingerprint", fingerprints, received))
    )


def _held(log_id: str, fingerprints: Sequence[str]) -> Select[int]:
    """Select the leaf indexes of decisions whose outcome's answer holds one of the fingerprints among others."""
    decided, received, inside = (
        tables.records.alias("asked"),
        tables.records.alias("answered"),
        tables.contents.alias("inside"),
    )
    return (
        select(decided.c.leaf_index)
        .join(received, and_(received.c.log_no == decided.c.log_no, received.c.decision_id == decided.c.record_id))
        .join(inside, and_(inside.c.log_no == received.c.log_no, inside.c.leaf_index == received.c.leaf_index))
        .where(decided.c.log_no == log_number(log_id), holds("fingerprint", fingerprints, inside))
    )
