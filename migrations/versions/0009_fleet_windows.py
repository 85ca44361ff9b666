"""What the gateways of a fleet have counted together, and what strict caps have given out.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "fleet_heads",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("version", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", name=op.f("pk_fleet_heads")),
    )
    op.create_table(
        "fleet_totals",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("slot", BIG, nullable=False),
        sa.Column("origin", sa.String(length=192), nullable=False),
        sa.Column("total", sa.String(length=64), nullable=False),
        sa.Column("forget_ms", BIG, nullable=False),
        sa.Column("version", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "digest", "subject", "slot", "origin", name=op.f("pk_fleet_totals")),
    )
    op.create_index(op.f("ix_fleet_totals_log_id_version"), "fleet_totals", ["log_id", "version"], unique=False)
    op.create_index(op.f("ix_fleet_totals_log_id_forget_ms"), "fleet_totals", ["log_id", "forget_ms"], unique=False)
    op.create_table(
        "fleet_reservations",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("enforcer_id", sa.String(length=128), nullable=False),
        sa.Column("decision_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("slot", BIG, nullable=False),
        sa.Column("amount", sa.String(length=64), nullable=False),
        sa.Column("forget_ms", BIG, nullable=False),
        sa.Column("released", BIG, nullable=False),
        sa.Column("created_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "enforcer_id", "decision_id", "digest", name=op.f("pk_fleet_reservations")),
    )
    op.create_index(
        op.f("ix_fleet_reservations_log_id_created_ms"), "fleet_reservations", ["log_id", "created_ms"], unique=False
    )


def downgrade() -> None:
    op.drop_table("fleet_reservations")
    op.drop_table("fleet_totals")
    op.drop_table("fleet_heads")
