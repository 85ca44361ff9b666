"""How each database answers what is asked often, or of a long log: by an index, and never by walking through the log.

The plans are those of the statements that the stores really send. On PostgreSQL whatever reads a whole table is made
dear, so that a log of a size that a test can fill is planned as a long one is.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from sqlalchemy import event

from ledger.bodies import Decision, Outcome
from ledger.catalog import DecisionQuery
from ledger.ports import SealedPayload
from ledger.records import Record, new_record_id
from ledger.stores import tables
from ledger.stores.sql_payloads import SQLPayloadArchive
from ledger.stores.sql_usage import SQLUsage
from ledger.subjects import Bucket
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, Enforcer, make_decision, pending

DECISIONS: Final = 1500
RARE: Final = 300
"""Each value that is looked for stands in one decision of so many."""

HOUR_MS: Final = 3_600_000

LARGE: Final = {table.name: table for table in (tables.records, tables.decision_rules, tables.pending_entries)}
LARGE |= {table.name: table for table in (tables.contents, tables.vault_payloads)}
ALIASES: Final = {
    **dict.fromkeys(("received", "decided", "newest", "asked", "answered"), "records"),
    "inside": "contents",
}
_SQLITE: Final = re.compile(r"(?:SEARCH|SCAN) (\w+)(?: USING .*\((.*)\))?")

Access = tuple[str, frozenset[str]]
"""A table, and the columns by which an index led into it."""


def pseudonym(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind} {number}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Filled:
    """A log, one of its decisions, and what is asked of it."""

    ledger: EmbeddedLedger
    decision: Record

    @property
    def body(self) -> Decision:
        assert isinstance(self.decision.body, Decision)
        return self.decision.body

    def search(self, **wanted: Any) -> list[int]:
        return self.ledger.catalog.search(LOG_ID, DecisionQuery(**wanted))

    def statements(self, ask: Callable[[Filled], object]) -> list[tuple[str, Any]]:
        """Return every query that something sends, with its parameters."""
        sent: list[tuple[str, Any]] = []

        def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
            sent.append((statement, parameters))

        event.listen(self.ledger.engine, "before_cursor_execute", note)
        try:
            assert ask(self) is not None
        finally:
            event.remove(self.ledger.engine, "before_cursor_execute", note)
        return [one for one in sent if one[0].startswith("SELECT") and "FOR UPDATE" not in one[0]]

    def plan(self, statement: str, parameters: Any) -> list[Access]:
        """Return how the database would get at the large tables."""
        on_sqlite = self.ledger.engine.dialect.name == "sqlite"
        explain = "EXPLAIN QUERY PLAN " if on_sqlite else "EXPLAIN (FORMAT JSON) "
        with self.ledger.engine.connect() as connection:
            if not on_sqlite:
                for dear in ("seqscan", "hashjoin", "mergejoin"):
                    connection.exec_driver_sql(f"SET LOCAL enable_{dear} = off")
            rows = connection.exec_driver_sql(explain + statement, parameters).all()
        found = _of_sqlite([row[3] for row in rows]) if on_sqlite else _of_postgresql(rows[0][0][0]["Plan"], "")
        return [access for access in found if access[0] in LARGE]


def _of_sqlite(lines: list[str]) -> Iterator[Access]:
    for line in lines:
        if match := _SQLITE.match(line):
            yield ALIASES.get(match[1], match[1]), frozenset(re.findall(r"(\w+)[=<>]", match[2] or ""))


def _of_postgresql(node: dict[str, Any], above: str) -> Iterator[Access]:
    table = node.get("Relation Name", above)
    if node["Node Type"] in ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"):
        columns = {column.name for column in LARGE[table].columns} if table in LARGE else set()
        yield table, frozenset(columns & set(re.findall(r"\w+", node.get("Index Cond", ""))))
    for child in node.get("Plans", ()):
        yield from _of_postgresql(child, table)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    folder: Path = tmp_path_factory.mktemp("plans")
    url = request.getfixturevalue("postgres").new_schema() if request.param == "postgresql" else None
    with EmbeddedLedger(folder, database_url=url) as ledger:
        gateway = Enforcer(enforcer_id="gateway-1")
        ledger.append(*map(pending, [ledger.service.record(ledger.service.introduction(gateway))]))
        batch = []
        for number in range(DECISIONS):
            body, _ = make_decision(
                agent=f"agent-{number % RARE}",
                session=pseudonym("session", number // 4),
                user=pseudonym("user", number % RARE),
                rules=(f"rule-{number % RARE}",),
                enforcement="kill" if number % RARE == 0 else "allow",
                arguments_fingerprint=pseudonym("fingerprint", number),
            )
            gateway.time_ms += HOUR_MS
            decision = gateway.record(body)
            sealed = (SealedPayload(decision.record_id, "message", pseudonym("user", number % RARE), b"x" * 100),)
            batch.append(replace(pending(decision), payloads=sealed))
            outcome = Outcome(
                decision_id=decision.record_id,
                status="completed",
                session=body.session,
                contents=tuple(sorted(pseudonym("content", 2 * number + one) for one in range(2))),
            )
            batch.append(pending(gateway.record(outcome)))
        ledger.append(*batch)
        if request.param == "postgresql":  # does so by itself; nobody does on SQLite
            with ledger.engine.begin() as connection:
                # Of this log alone: the cluster has the schemas of other tests, and a lock for each table is too many.
                for table in tables.metadata.sorted_tables:
                    connection.exec_driver_sql(f"ANALYZE {table.name}")
        yield Filled(ledger, batch[DECISIONS].record)


def append_another(log: Filled) -> object:
    size = log.ledger.store.sequenced_size(LOG_ID)
    another = msgspec.structs.replace(log.decision, record_id=new_record_id(LATE_MS, bytes(10)), seq=10 * DECISIONS)
    return log.ledger.append(replace(pending(another), keys_leaf=size))


LATE_MS: Final = NOW_MS + DECISIONS * HOUR_MS
DAY: Final = dt.datetime.fromtimestamp(LATE_MS / 1000, dt.UTC).date()

ASKED: Final[dict[str, tuple[str, Callable[[Filled], object]]]] = {
    "entries": ("leaf_index", lambda log: log.ledger.store.read_sequenced(LOG_ID, 1000, 1256)),
    "rows": ("leaf_index", lambda log: log.ledger.catalog.rows(LOG_ID, 1000, 1256)),
    "record": ("record_id", lambda log: log.ledger.catalog.index_of(LOG_ID, log.decision.record_id)),
    "new record": ("record_type", append_another),
    "repeated record": ("record_id", lambda log: log.ledger.append(pending(log.decision))),
    "agent": ("agent", lambda log: log.search(agent=log.body.agent)),
    "user": ("user_key", lambda log: log.search(users=(log.body.user,))),
    "users": ("user_key", lambda log: log.search(users=(log.body.user, pseudonym("user", 1)))),
    "session": ("session_key", lambda log: log.search(session=log.body.session)),
    "rule": ("rule", lambda log: log.search(rule=log.body.rules[0])),
    "enforcement": ("enforcement", lambda log: log.search(enforcement="kill")),
    "time": ("time_ms", lambda log: log.search(from_ms=log.decision.time_ms, to_ms=log.decision.time_ms + 1)),
    "page": ("leaf_index", lambda log: log.search(before=1000)),
    "fingerprint": ("fingerprint_key", lambda log: log.search(fingerprints=(log.body.arguments_fingerprint,))),
    "whole session": ("session_key", lambda log: log.ledger.catalog.session(LOG_ID, log.body.session)),
    "outcomes": ("decision_id", lambda log: log.ledger.catalog.outcomes_of(LOG_ID, log.decision.record_id)),
    "keys": ("record_type", lambda log: log.ledger.catalog.of_type(LOG_ID, "key")),
    "new keys": ("record_type", lambda log: log.ledger.catalog.of_type(LOG_ID, "key", above=1000)),
    "keys of others": ("record_type", lambda log: log.ledger.catalog.of_type(LOG_ID, "key", not_by="gateway-1")),
    "kills": ("enforcement", lambda log: log.ledger.catalog.kills(LOG_ID)),
    "new kills": ("enforcement", lambda log: log.ledger.catalog.kills(LOG_ID, above=1000)),
    "last of a type": ("stream_no", lambda log: log.ledger.catalog.last_of_type(LOG_ID, "key")),
    "position": ("seq", lambda log: log.ledger.catalog.last_position(LOG_ID, "service")),
    "stream": ("seq", lambda log: log.ledger.catalog.count_between(LOG_ID, "gateway-1", log.decision.epoch, 1, 9)),
    "tally": ("leaf_index", lambda log: log.ledger.catalog.tally(LOG_ID, from_index=2900)),
    "usage": ("leaf_index", lambda log: SQLUsage(log.ledger.engine).usage(LOG_ID, 2900, 2950)),
    "tally of a time": ("time_ms", lambda log: log.ledger.catalog.tally(LOG_ID, from_ms=LATE_MS)),
    "payload": ("record_id", lambda log: archive(log).payload(LOG_ID, log.decision.record_id, "message")),
    "payloads of a subject": ("subject", lambda log: archive(log).of_subject(LOG_ID, log.body.user)),
    "payloads of a day": ("time_ms", lambda log: archive(log).of_bucket(LOG_ID, Bucket("decision", DAY))),
}
"""What is asked, and the column by which the log has to be entered."""


def archive(log: Filled) -> SQLPayloadArchive:
    return SQLPayloadArchive(log.ledger.engine)


@pytest.mark.parametrize("asked", ASKED)
def test_no_question_is_answered_by_walking_through_the_log(log: Filled, asked: str) -> None:
    column, ask = ASKED[asked]
    plans = {statement: log.plan(statement, parameters) for statement, parameters in log.statements(ask)}
    assert column in {name for plan in plans.values() for _, columns in plan for name in columns}
    for statement, plan in plans.items():
        # The newest leaf is the last entry of its index, of which nothing else is read; the newest of a type is not.
        ends = statement.count("max(records.leaf_index)") - statement.count("record_type")
        walks = [columns for _, columns in plan if not columns - {"log_no"}]
        assert len(walks) <= max(0, ends), f"{statement}\n{plan}"


@pytest.mark.parametrize("wanted", ["tool", "server", "reason", "bundle_revision", "trace_id", "decision", "mode"])
def test_what_has_no_index_is_said_in_the_documents(wanted: str) -> None:
    """Whatever is sought by these alone is looked for from the newest record on: an index would cost each append."""
    indexed = {column.name for index in tables.records.indexes for column in index.columns}
    assert wanted not in indexed
    document = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    (told,) = [part for part in document.split("\n\n") if part.startswith("Searches by ")]
    assert f"`{wanted.removesuffix('_id')}`" in told
