"""Who stands behind a token: the person who logged in for it, or who had a machine's token issued.

Tokens of before have no row here: they are machines', and nobody knows whose.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "token_persons",
        sa.Column("log_id", sa.String(63), nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("issuer", sa.String(512), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("acr", sa.String(256), nullable=False),
        sa.Column("amr", sa.Text(), nullable=False),
        sa.Column("provider_session", sa.String(256), nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("log_id", "token_sha256", name=op.f("pk_token_persons")),
    )
    op.create_index(op.f("ix_token_persons_log_id_issuer_subject"), "token_persons", ["log_id", "issuer", "subject"])


def downgrade() -> None:
    op.drop_table("token_persons")
