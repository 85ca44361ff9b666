"""Tokens by which a machine becomes an enforcer, once.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "enrolment_tokens",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("enforcer_id", sa.String(length=128), nullable=False),
        sa.Column("created_ms", BIG, nullable=False),
        sa.Column("expires_ms", BIG, nullable=False),
        sa.Column("refusals", BIG, nullable=False),
        sa.Column("revoked_ms", BIG, nullable=True),
        sa.Column("used_ms", BIG, nullable=True),
        sa.Column("claim_sha256", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("log_id", "token_sha256", name=op.f("pk_enrolment_tokens")),
    )


def downgrade() -> None:
    op.drop_table("enrolment_tokens")
