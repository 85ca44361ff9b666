"""Cosignatures of witnesses and trusted timestamps, beside the checkpoints that they are of.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

APPEND_ONLY = ("cosignatures", "timestamps")

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

SQLITE_TRIGGER = """
CREATE TRIGGER {table}_refuse_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END
"""

POSTGRESQL_TRIGGER = """
CREATE TRIGGER {table}_refuse_{verb} BEFORE {verb} ON {table} EXECUTE FUNCTION tallystick_refuse()
"""


def refuse_changes() -> None:
    """Let triggers refuse what the application never does; the function is that of the first revision."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            op.execute((SQLITE_TRIGGER if on_sqlite else POSTGRESQL_TRIGGER).format(table=table, verb=verb))
        if not on_sqlite:
            op.execute(POSTGRESQL_TRIGGER.format(table=table, verb="TRUNCATE"))


def upgrade() -> None:
    op.create_table(
        "cosignatures",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("key_fingerprint", sa.String(length=64), nullable=False),
        sa.Column("size", BIG, autoincrement=False, nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("kept_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "key_fingerprint", "size", name=op.f("pk_cosignatures")),
    )
    op.create_table(
        "timestamps",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("size", BIG, autoincrement=False, nullable=False),
        sa.Column("checkpoint", sa.LargeBinary(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("time_ms", BIG, nullable=False),
        sa.Column("kept_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "size", name=op.f("pk_timestamps")),
    )
    refuse_changes()


def downgrade() -> None:
    op.drop_table("timestamps")
    op.drop_table("cosignatures")
