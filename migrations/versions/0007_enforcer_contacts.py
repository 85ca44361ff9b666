"""When the service last heard of each enforcer.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "enforcer_contacts",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("enforcer_id", sa.String(length=128), nullable=False),
        sa.Column("heard_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "enforcer_id", name=op.f("pk_enforcer_contacts")),
    )


def downgrade() -> None:
    op.drop_table("enforcer_contacts")
