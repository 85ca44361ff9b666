"""At which version the windows of a fleet took in something of each gateway last.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "fleet_origins",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("origin", sa.String(length=192), nullable=False),
        sa.Column("version", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "origin", name=op.f("pk_fleet_origins")),
    )


def downgrade() -> None:
    op.drop_table("fleet_origins")
