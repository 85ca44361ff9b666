"""What answers hold, piece by piece: the fingerprints by which a document is found again inside another answer.

Outcomes of before name no pieces, so that the table begins without rows.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

SQLITE_TRIGGER = """
CREATE TRIGGER contents_refuse_{verb} BEFORE {verb} ON contents
BEGIN SELECT RAISE(ABORT, 'rows of contents are never changed'); END
"""

POSTGRESQL_TRIGGER = """
CREATE TRIGGER contents_refuse_{verb} BEFORE {verb} ON contents EXECUTE FUNCTION tallystick_refuse()
"""

# As in 0005: what a long log looks like, for SQLite's planner.
STATISTICS = {
    "contents": "1000000 1000000 2 1 1",
    "ix_contents_log_no_fingerprint_key": "1000000 1000000 2",
}


def upgrade() -> None:
    op.create_table(
        "contents",
        sa.Column("leaf_index", BIG, nullable=False),
        sa.Column("fingerprint_key", BIG, nullable=False),
        sa.Column("fingerprint_rest", BIG, nullable=False),
        sa.Column("log_no", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "log_no", "leaf_index", "fingerprint_key", "fingerprint_rest", name=op.f("pk_contents")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_contents_log_no_fingerprint_key"), "contents", ["log_no", "fingerprint_key"])
    if op.get_bind().dialect.name != "sqlite":
        for verb in ("UPDATE", "DELETE", "TRUNCATE"):
            op.execute(POSTGRESQL_TRIGGER.format(verb=verb))
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(SQLITE_TRIGGER.format(verb=verb))
    rows = [{"index": index, "numbers": numbers} for index, numbers in STATISTICS.items()]
    statement = sa.text("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('contents', :index, :numbers)")
    op.get_bind().execute(statement, rows)
    op.execute("ANALYZE sqlite_schema")


def downgrade() -> None:
    # SQLite forgets a table's statistics, and either database its triggers, with the table.
    op.drop_table("contents")
