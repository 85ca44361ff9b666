"""Webhooks, and how far each has come in the log.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("webhook_id", sa.String(length=36), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("symmetric", BIG, nullable=False),
        sa.Column("internal", BIG, nullable=False),
        sa.Column("created_ms", BIG, nullable=False),
        sa.Column("cursor_leaf", BIG, nullable=False),
        sa.Column("gone", BIG, nullable=False),
        sa.Column("failures", BIG, nullable=False),
        sa.Column("next_ms", BIG, nullable=False),
        sa.Column("delivered_ms", BIG, nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("skipped", BIG, nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("log_id", "webhook_id", name=op.f("pk_webhooks")),
    )


def downgrade() -> None:
    op.drop_table("webhooks")
