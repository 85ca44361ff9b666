"""Impacts as jobs: what a bundle would have decided over a stretch of history.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "impact_jobs",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", BIG, nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("access", sa.Text(), nullable=False),
        sa.Column("created_ms", BIG, nullable=False),
        sa.Column("finished_ms", BIG, nullable=True),
        sa.Column("done_leaves", BIG, nullable=False),
        sa.Column("all_leaves", BIG, nullable=False),
        sa.Column("report_sha256", sa.String(length=64), nullable=True),
        sa.Column("lines_sha256", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("log_id", "job_id", name=op.f("pk_impact_jobs")),
    )
    op.create_index(op.f("ix_impact_jobs_log_id_created_ms"), "impact_jobs", ["log_id", "created_ms"], unique=False)


def downgrade() -> None:
    op.drop_table("impact_jobs")
