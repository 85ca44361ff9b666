"""Which set of restrictions each gateway has in force, by its own word.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "restriction_acknowledgements",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("enforcer_id", sa.String(length=128), nullable=False),
        sa.Column("version", BIG, nullable=False),
        sa.Column("seen_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "enforcer_id", name=op.f("pk_restriction_acknowledgements")),
    )


def downgrade() -> None:
    op.drop_table("restriction_acknowledgements")
