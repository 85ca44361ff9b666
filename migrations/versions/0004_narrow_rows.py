"""One wide, narrowly stored row for each record instead of three, and numbers instead of names.

`records`, `decisions` and `outcomes` become one table; names, enforcers' streams and logs become numbers, digests and
ids bytes. Nothing is lost on the way up or down: each row is read, turned and written, a chunk at a time.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CHUNK = 2_000
"""Leaves that are turned at a time."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

CODES = {
    "decision": ("PERMIT", "DENY", "INDETERMINATE", "NOT_APPLICABLE"),
    "enforcement": ("allow", "deny", "ask", "kill"),
    "mode": ("enforce", "observe"),
    "status": ("completed", "failed", "cancelled", "not_forwarded", "unknown"),
}
NAMED = ("agent", "server", "method", "tool", "reason", "bundle_revision")

TURNED = ("records", "decision_rules", "pending_entries", "vault_payloads")
"""Tables that have another form afterwards under the same name."""

APPEND_ONLY = ("logs", "names", "streams", "records", "decision_rules")
APPEND_ONLY_BEFORE = ("records", "decisions", "decision_rules", "outcomes")

SQLITE_TRIGGER = """
CREATE TRIGGER {table}_refuse_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END
"""

POSTGRESQL_TRIGGER = """
CREATE TRIGGER {table}_refuse_{verb} BEFORE {verb} ON {table} EXECUTE FUNCTION tallystick_refuse()
"""

Row = Mapping[str, object]


def on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


# --- triggers and tables that make room ------------------------------------------------------------------------------


def refused(tables: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is refused: of the pending entries, which are released, only a change."""
    found = [(table, verb) for table in tables for verb in ("UPDATE", "DELETE", "TRUNCATE")]
    found += [("pending_entries", "UPDATE"), ("pending_entries", "TRUNCATE")]
    return [(table, verb) for table, verb in found if not (on_sqlite() and verb == "TRUNCATE")]


def refuse_changes(tables: Sequence[str]) -> None:
    for table, verb in refused(tables):
        op.execute((SQLITE_TRIGGER if on_sqlite() else POSTGRESQL_TRIGGER).format(table=table, verb=verb))


def allow_changes(tables: Sequence[str]) -> None:
    for table, verb in refused(tables):
        op.execute(f"DROP TRIGGER {table}_refuse_{verb}" + ("" if on_sqlite() else f" ON {table}"))


def set_aside(table: str) -> None:
    """Rename a table so that another may have its name, and the name of its primary key."""
    op.rename_table(table, f"old_{table}")
    if not on_sqlite():
        op.execute(f"ALTER TABLE old_{table} RENAME CONSTRAINT pk_{table} TO pk_old_{table}")


def between(table: str, log: str) -> sa.Select[tuple[object, ...]]:
    """Return the query for a log's rows from one leaf to another."""
    name: sa.ColumnClause[object] = sa.column(log)
    leaf: sa.ColumnClause[int] = sa.column("leaf_index")
    bounds = (name == sa.bindparam(log), leaf >= sa.bindparam("first"), leaf < sa.bindparam("end"))
    return sa.select(sa.literal_column("*")).select_from(sa.table(table)).where(*bounds)


def where(condition: str) -> dict[str, sa.TextClause]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


# --- up --------------------------------------------------------------------------------------------------------------


def make_dictionaries() -> None:
    with op.batch_alter_table("logs", recreate="never") as logs:
        logs.add_column(sa.Column("log_no", sa.Integer(), server_default=sa.text("0"), nullable=False))
    logs_table = sa.table("logs", sa.column("log_id"), sa.column("log_no"))
    bind = op.get_bind()
    found = bind.execute(sa.select(logs_table.c.log_id).order_by(logs_table.c.log_id)).scalars().all()
    for number, log_id in enumerate(found, 1):
        bind.execute(logs_table.update().where(logs_table.c.log_id == log_id).values(log_no=number))
    op.create_index(op.f("ix_logs_log_no"), "logs", ["log_no"], unique=True)
    op.create_table(
        "names",
        sa.Column("log_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["log_no"], ["logs.log_no"], name=op.f("fk_names_log_no_logs")),
        sa.PrimaryKeyConstraint("log_no", "name_no", name=op.f("pk_names")),
        sa.UniqueConstraint("log_no", "name", name=op.f("uq_names_log_no_name")),
    )
    op.create_table(
        "streams",
        sa.Column("log_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stream_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("enforcer_id", sa.String(length=128), nullable=False),
        sa.Column("epoch", sa.LargeBinary(length=16), nullable=False),
        sa.ForeignKeyConstraint(["log_no"], ["logs.log_no"], name=op.f("fk_streams_log_no_logs")),
        sa.PrimaryKeyConstraint("log_no", "stream_no", name=op.f("pk_streams")),
        sa.UniqueConstraint("log_no", "enforcer_id", "epoch", name=op.f("uq_streams_log_no_enforcer_id_epoch")),
    )


def make_narrow_tables() -> None:
    op.create_table(
        "records",
        sa.Column("leaf_index", BIG, nullable=False),
        sa.Column("time_ms", BIG, nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("received_ms", BIG, nullable=False),
        sa.Column("session_key", BIG, nullable=True),
        sa.Column("session_rest", BIG, nullable=True),
        sa.Column("fingerprint_key", BIG, nullable=True),
        sa.Column("fingerprint_rest", BIG, nullable=True),
        sa.Column("user_key", BIG, nullable=True),
        sa.Column("user_rest", BIG, nullable=True),
        sa.Column("log_no", sa.Integer(), nullable=False),
        sa.Column("stream_no", sa.Integer(), nullable=False),
        sa.Column("record_type", sa.Integer(), nullable=False),
        sa.Column("agent", sa.Integer(), nullable=True),
        sa.Column("server", sa.Integer(), nullable=True),
        sa.Column("method", sa.Integer(), nullable=True),
        sa.Column("tool", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Integer(), nullable=True),
        sa.Column("bundle_revision", sa.Integer(), nullable=True),
        sa.Column("decision", sa.SmallInteger(), nullable=True),
        sa.Column("enforcement", sa.SmallInteger(), nullable=True),
        sa.Column("mode", sa.SmallInteger(), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("record_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("decision_id", sa.LargeBinary(length=16), nullable=True),
        sa.Column("trace_id", sa.LargeBinary(length=16), nullable=True),
        sa.PrimaryKeyConstraint("log_no", "leaf_index", name=op.f("pk_records")),
        sa.UniqueConstraint("log_no", "record_id", name=op.f("uq_records_log_no_record_id")),
        sa.UniqueConstraint("log_no", "stream_no", "seq", name=op.f("uq_records_log_no_stream_no_seq")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "decision_rules",
        sa.Column("leaf_index", BIG, nullable=False),
        sa.Column("log_no", sa.Integer(), nullable=False),
        sa.Column("rule", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("log_no", "leaf_index", "rule", name=op.f("pk_decision_rules")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pending_entries",
        sa.Column("leaf_index", BIG, nullable=False),
        sa.Column("log_no", sa.Integer(), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("log_no", "leaf_index", name=op.f("pk_pending_entries")),
    )


def make_narrow_payloads() -> None:
    op.create_table(
        "vault_payloads",
        sa.Column("leaf_index", BIG, nullable=False),
        sa.Column("log_no", sa.Integer(), nullable=False),
        sa.Column("field", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("log_no", "leaf_index", "field", name=op.f("pk_vault_payloads")),
    )


def make_narrow_indexes() -> None:
    """After the rows, which is quicker than with each of them."""
    for columns, condition in (
        (["time_ms"], "agent IS NOT NULL"),
        (["agent", "leaf_index"], "agent IS NOT NULL"),
        (["user_key", "leaf_index"], "user_key IS NOT NULL"),
        (["session_key"], "session_key IS NOT NULL"),
        (["fingerprint_key"], "fingerprint_key IS NOT NULL"),
        (["decision_id"], "decision_id IS NOT NULL"),
        (["enforcement", "leaf_index"], "enforcement <> 0"),
        (["record_type", "leaf_index"], "agent IS NULL AND decision_id IS NULL"),
    ):
        name = "_".join(["ix_records_log_no", *columns])
        op.create_index(op.f(name), "records", ["log_no", *columns], unique=False, **where(condition))  # type: ignore[arg-type]  # options of the dialects
    op.create_index(
        op.f("ix_decision_rules_log_no_rule_leaf_index"),
        "decision_rules",
        ["log_no", "rule", "leaf_index"],
        unique=False,
    )
    op.create_index(op.f("ix_vault_payloads_log_no_subject"), "vault_payloads", ["log_no", "subject"], unique=False)


def read_chunks(log_id: str) -> Iterator[tuple[list[Row], dict[str, dict[int, Row]], list[Row]]]:
    """Yield a log's rows of version 0001, `CHUNK` leaves at a time: records, bodies by table and leaf, rules."""
    bind = op.get_bind()
    last = bind.scalar(sa.text("SELECT max(leaf_index) FROM old_records WHERE log_id = :log_id"), {"log_id": log_id})
    for start in range(0, 0 if last is None else int(last) + 1, CHUNK):
        bounds = {"log_id": log_id, "first": start, "end": start + CHUNK}

        def read(table: str, bounds: Mapping[str, object] = bounds) -> list[Row]:
            return [dict(row) for row in bind.execute(between(table, "log_id"), bounds).mappings()]

        bodies = {name: {int(str(row["leaf_index"])): row for row in read(name)} for name in ("decisions", "outcomes")}
        yield read("old_records"), bodies, read("old_decision_rules")


class Numbers:
    """Gives numbers, from 1, in the order of appearance."""

    def __init__(self) -> None:
        """Begin."""
        self.of: dict[object, int] = {}

    def __call__(self, value: object) -> int | None:
        """Return the number of a value; nothing has none."""
        return None if value is None else self.of.setdefault(value, len(self.of) + 1)


def id_bytes(value: object) -> bytes | None:
    return None if value is None else bytes.fromhex(str(value).replace("-", ""))


def halves(column: str, value: object) -> dict[str, int | None]:
    key, rest = (None, None) if value is None else struct.unpack(">qq", bytes.fromhex(str(value)))
    return {f"{column}_key": key, f"{column}_rest": rest}


def narrowed(log_no: int, record: Row, decision: Row, outcome: Row, names: Numbers, streams: Numbers) -> Row:
    """Return a row of the new table."""
    leaf = record["leaf_hash"]
    assert isinstance(leaf, bytes | memoryview)
    said = {**decision, **outcome}
    return {
        **{column: record[column] for column in ("leaf_index", "time_ms", "seq", "received_ms")},
        **halves("session", said.get("session")),
        **halves("fingerprint", said.get("arguments_fingerprint") or said.get("result_fingerprint")),
        **halves("user", said.get("user")),
        "log_no": log_no,
        "stream_no": streams((record["enforcer_id"], record["epoch"])),
        "record_type": names(record["record_type"]),
        **{column: names(said.get(column)) for column in NAMED},
        **{column: words.index(said[column]) if column in said else None for column, words in CODES.items()},
        "record_id": id_bytes(record["record_id"]),
        "leaf_hash": bytes(leaf),
        "decision_id": id_bytes(said.get("decision_id")),
        "trace_id": id_bytes(said.get("trace_id")),
    }


def narrow_log(log_id: str, log_no: int) -> None:
    bind = op.get_bind()
    records, rules_table = reflected("records"), reflected("decision_rules")
    names, streams = Numbers(), Numbers()
    for rows, bodies, rules in read_chunks(log_id):
        narrow = [
            narrowed(
                log_no,
                row,
                bodies["decisions"].get(int(str(row["leaf_index"])), {}),
                bodies["outcomes"].get(int(str(row["leaf_index"])), {}),
                names,
                streams,
            )
            for row in rows
        ]
        if narrow:
            bind.execute(records.insert(), narrow)
        if rules:
            told = [{"leaf_index": row["leaf_index"], "log_no": log_no, "rule": names(row["rule"])} for row in rules]
            bind.execute(rules_table.insert(), told)
    if names.of:
        told = [{"log_no": log_no, "name_no": number, "name": name} for name, number in names.of.items()]
        bind.execute(reflected("names").insert(), told)
    if streams.of:
        told = [
            {"log_no": log_no, "stream_no": number, "enforcer_id": stream[0], "epoch": bytes.fromhex(stream[1])}  # type: ignore[index]  # a pair
            for stream, number in streams.of.items()
        ]
        bind.execute(reflected("streams").insert(), told)


def reflected(name: str) -> sa.Table:
    return sa.Table(name, sa.MetaData(), autoload_with=op.get_bind())


def numbered_logs() -> list[tuple[str, int]]:
    return [(row[0], int(row[1])) for row in op.get_bind().execute(sa.text("SELECT log_id, log_no FROM logs"))]


def upgrade() -> None:
    allow_changes(APPEND_ONLY_BEFORE)
    make_dictionaries()
    for table in TURNED:
        set_aside(table)
    make_narrow_tables()
    make_narrow_payloads()
    for log_id, log_no in numbered_logs():
        narrow_log(log_id, log_no)
    op.execute(
        "INSERT INTO pending_entries (leaf_index, log_no, entry) SELECT leaf_index, log_no, entry "
        "FROM old_pending_entries JOIN logs ON logs.log_id = old_pending_entries.log_id"
    )
    op.execute(
        "INSERT INTO vault_payloads (leaf_index, log_no, field, subject, ciphertext) "
        "SELECT r.leaf_index, log_no, field, subject, ciphertext FROM old_vault_payloads AS v "
        "JOIN logs ON logs.log_id = v.log_id "
        "JOIN old_records AS r ON r.log_id = v.log_id AND r.record_id = v.record_id"
    )
    for table in (*(f"old_{table}" for table in TURNED), "decisions", "outcomes"):
        op.drop_table(table)
    make_narrow_indexes()
    refuse_changes(APPEND_ONLY)
    if not on_sqlite():
        op.execute("ANALYZE records")


# --- down ------------------------------------------------------------------------------------------------------------


def make_wide_tables() -> None:
    """Make the tables as 0001 did."""

    def table(name: str, *columns: sa.Column[object] | sa.Constraint, key: Sequence[str] = ()) -> None:
        op.create_table(
            name,
            sa.Column("log_id", sa.String(length=63), nullable=False),
            sa.Column("leaf_index", BIG, autoincrement=False, nullable=False),
            *columns,
            sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f(f"fk_{name}_log_id_logs")),
            sa.PrimaryKeyConstraint("log_id", "leaf_index", *key, name=op.f(f"pk_{name}")),
        )

    def text(name: str, length: int, *, nullable: bool = False) -> sa.Column[object]:
        return sa.Column(name, sa.String(length=length), nullable=nullable)

    def number(name: str) -> sa.Column[object]:
        return sa.Column(name, BIG, nullable=False)

    table("decision_rules", text("rule", 128), key=["rule"])
    table(
        "decisions",
        number("time_ms"),
        text("agent", 128),
        text("user", 32, nullable=True),
        text("session", 32),
        text("server", 128),
        text("method", 128, nullable=True),
        text("tool", 128, nullable=True),
        text("decision", 16),
        text("enforcement", 8),
        text("mode", 8),
        text("reason", 128),
        text("bundle_revision", 64, nullable=True),
        text("trace_id", 32, nullable=True),
        text("arguments_fingerprint", 32, nullable=True),
    )
    table(
        "outcomes",
        number("time_ms"),
        text("decision_id", 36),
        text("status", 16),
        text("session", 32),
        text("result_fingerprint", 32, nullable=True),
    )
    table("pending_entries", sa.Column("entry", sa.LargeBinary(), nullable=False))
    table(
        "records",
        text("record_id", 36),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        text("record_type", 16),
        number("time_ms"),
        text("enforcer_id", 128),
        text("epoch", 32),
        number("seq"),
        number("received_ms"),
        sa.UniqueConstraint(
            "log_id", "enforcer_id", "epoch", "seq", name=op.f("uq_records_log_id_enforcer_id_epoch_seq")
        ),
        sa.UniqueConstraint("log_id", "record_id", name=op.f("uq_records_log_id_record_id")),
    )


def make_wide_payloads() -> None:
    op.create_table(
        "vault_payloads",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("record_id", sa.String(length=36), nullable=False),
        sa.Column("field", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f("fk_vault_payloads_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "record_id", "field", name=op.f("pk_vault_payloads")),
    )


def make_wide_indexes() -> None:
    for table, *columns in (
        ("decision_rules", "rule", "leaf_index"),
        ("decisions", "agent", "leaf_index"),
        ("decisions", "arguments_fingerprint"),
        ("decisions", "enforcement", "leaf_index"),
        ("decisions", "session", "leaf_index"),
        ("decisions", "time_ms"),
        ("decisions", "user", "leaf_index"),
        ("outcomes", "decision_id"),
        ("outcomes", "result_fingerprint"),
        ("outcomes", "session", "leaf_index"),
        ("records", "record_type", "leaf_index"),
        ("vault_payloads", "subject"),
    ):
        name = "_".join(["ix", table, "log_id", *columns])
        op.create_index(op.f(name), table, ["log_id", *columns], unique=False)


def id_text(value: object) -> str | None:
    if value is None:
        return None
    assert isinstance(value, bytes | memoryview)
    text = bytes(value).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def whole(row: Row, column: str) -> str | None:
    key, rest = row[f"{column}_key"], row[f"{column}_rest"]
    return None if key is None else struct.pack(">qq", key, rest).hex()


def hexed(value: object) -> str | None:
    return None if value is None else bytes(value).hex()  # type: ignore[call-overload]  # bytes or memoryview


def widened(
    log_id: str, row: Row, names: Mapping[object, str], streams: Mapping[object, tuple[str, str]]
) -> dict[str, Row]:
    """Return the rows that 0001 had for a record, by table."""
    enforcer_id, epoch = streams[row["stream_no"]]
    key = {"log_id": log_id, "leaf_index": row["leaf_index"]}
    kind = names[row["record_type"]]
    found: dict[str, Row] = {
        "records": {
            **key,
            "record_id": id_text(row["record_id"]),
            "leaf_hash": bytes(row["leaf_hash"]),  # type: ignore[call-overload]  # bytes or memoryview
            "record_type": kind,
            **{column: row[column] for column in ("time_ms", "seq", "received_ms")},
            "enforcer_id": enforcer_id,
            "epoch": epoch,
        }
    }
    words = {column: row[column] if row[column] is None else CODES[column][int(str(row[column]))] for column in CODES}
    if kind == "decision":
        found["decisions"] = {
            **key,
            "time_ms": row["time_ms"],
            **{column: names.get(row[column]) for column in NAMED},
            **{column: words[column] for column in ("decision", "enforcement", "mode")},
            "user": whole(row, "user"),
            "session": whole(row, "session"),
            "trace_id": hexed(row["trace_id"]),
            "arguments_fingerprint": whole(row, "fingerprint"),
        }
    elif kind == "outcome":
        found["outcomes"] = {
            **key,
            "time_ms": row["time_ms"],
            "decision_id": id_text(row["decision_id"]),
            "status": words["status"],
            "session": whole(row, "session"),
            "result_fingerprint": whole(row, "fingerprint"),
        }
    return found


def widen_log(log_id: str, log_no: int) -> None:
    bind = op.get_bind()
    number = {"log_no": log_no}
    found = bind.execute(sa.text("SELECT name_no, name FROM names WHERE log_no = :log_no"), number)
    names: dict[object, str] = {row[0]: row[1] for row in found}
    found = bind.execute(sa.text("SELECT stream_no, enforcer_id, epoch FROM streams WHERE log_no = :log_no"), number)
    streams: dict[object, tuple[str, str]] = {row[0]: (row[1], bytes(row[2]).hex()) for row in found}
    last = bind.scalar(sa.text("SELECT max(leaf_index) FROM old_records WHERE log_no = :log_no"), number)
    into = {name: reflected(name) for name in ("records", "decisions", "outcomes", "decision_rules")}
    for start in range(0, 0 if last is None else int(last) + 1, CHUNK):
        bounds = {**number, "first": start, "end": start + CHUNK}
        rows: defaultdict[str, list[Row]] = defaultdict(list)
        for row in bind.execute(between("old_records", "log_no"), bounds).mappings():
            for table, wide in widened(log_id, dict(row), names, streams).items():
                rows[table].append(wide)
        for row in bind.execute(between("old_decision_rules", "log_no"), bounds).mappings():
            rows["decision_rules"].append(
                {"log_id": log_id, "leaf_index": row["leaf_index"], "rule": names[row["rule"]]}
            )
        for table, wide_rows in rows.items():
            bind.execute(into[table].insert(), wide_rows)


def downgrade() -> None:
    allow_changes(APPEND_ONLY)
    for table in TURNED:
        set_aside(table)
    make_wide_tables()
    make_wide_payloads()
    for log_id, log_no in numbered_logs():
        widen_log(log_id, log_no)
    op.execute(
        "INSERT INTO pending_entries (log_id, leaf_index, entry) SELECT logs.log_id, leaf_index, entry "
        "FROM old_pending_entries JOIN logs ON logs.log_no = old_pending_entries.log_no"
    )
    digits = "lower(hex(r.record_id))" if on_sqlite() else "encode(r.record_id, 'hex')"
    parts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    record_id = " || '-' || ".join(f"substr({digits}, {start}, {length})" for start, length in parts)
    insert = (
        "INSERT INTO vault_payloads (log_id, record_id, field, subject, ciphertext) "
        "SELECT log_id, {record_id}, field, subject, ciphertext FROM old_vault_payloads AS v "
        "JOIN logs ON logs.log_no = v.log_no "
        "JOIN old_records AS r ON r.log_no = v.log_no AND r.leaf_index = v.leaf_index"
    )
    op.execute(insert.format(record_id=record_id))
    for table in (*(f"old_{table}" for table in TURNED), "names", "streams"):
        op.drop_table(table)
    op.drop_index(op.f("ix_logs_log_no"), "logs")
    with op.batch_alter_table("logs", recreate="never") as logs:
        logs.drop_column("log_no")
    make_wide_indexes()
    refuse_changes(APPEND_ONLY_BEFORE)
