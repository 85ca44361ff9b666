"""What SQLite believes of the tables when it plans a query: what a long log looks like, and not what it last measured.

Without statistics SQLite answers nearly every question by walking through the log. It would gather them only when
somebody asks it to, from what is there at that moment: the plans of a service would change as its log grows, and those
of a new log would be wrong for long. So they are given, once, in the table that ``ANALYZE`` writes. PostgreSQL gathers
its own.

Revision ID: 0005
Revises: 0004
Source: https://www.sqlite.org/fileformat2.html#the_sqlite_stat1_table
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATISTICS = {
    # Rows of the index, and then for each longer beginning of its columns how many rows agree in it.
    "records": {
        "records": "1000000 1000000 1",
        "sqlite_autoindex_records_2": "1000000 1000000 1",
        "sqlite_autoindex_records_3": "1000000 1000000 10000 1",
        "ix_records_log_no_time_ms": "500000 500000 5",
        # Said to be longer than it is: whoever wants the newest decisions of all agents is better off with the leaves.
        "ix_records_log_no_agent_leaf_index": "4000000 4000000 5000 1",
        "ix_records_log_no_user_key_leaf_index": "1000000 1000000 1000 1",
        "ix_records_log_no_session_key": "1000000 1000000 20",
        "ix_records_log_no_fingerprint_key": "1000000 1000000 2",
        "ix_records_log_no_decision_id": "500000 500000 1",
        "ix_records_log_no_enforcement_leaf_index": "50000 50000 10000 1",
        "ix_records_log_no_record_type_leaf_index": "20000 20000 2000 1",
    },
    "decision_rules": {
        "decision_rules": "1000000 1000000 2 1",
        "ix_decision_rules_log_no_rule_leaf_index": "1000000 1000000 5000 1",
    },
    "vault_payloads": {
        "sqlite_autoindex_vault_payloads_1": "600000 600000 2 1",
        "ix_vault_payloads_log_no_subject": "600000 600000 100",
    },
    "pending_entries": {"sqlite_autoindex_pending_entries_1": "2000 2000 1"},
}


def forget_measured() -> None:
    """Empty what ``ANALYZE`` wrote; where SQLite was built to, it writes samples besides, which count for more."""
    names = op.get_bind().exec_driver_sql("SELECT name FROM sqlite_master WHERE name LIKE 'sqlite_stat_'")
    for name in names.scalars().all():
        op.execute(f"DELETE FROM {name}")  # noqa: S608  # a name of SQLite's own


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    # The table is there from the first ANALYZE on. What somebody measured meanwhile is of one moment, and goes.
    op.execute("ANALYZE logs")
    forget_measured()
    rows = [
        {"table": table, "index": index, "numbers": numbers}
        for table, indexes in STATISTICS.items()
        for index, numbers in indexes.items()
    ]
    statement = sa.text("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (:table, :index, :numbers)")
    op.get_bind().execute(statement, rows)
    # Read anew by this connection; every later one reads them when it opens the database.
    op.execute("ANALYZE sqlite_schema")


def downgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    forget_measured()
    op.execute("ANALYZE sqlite_schema")
