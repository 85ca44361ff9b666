"""The first schema: a log, its projection, its vault, its bundles, and the service's own tables.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("records", "decisions", "decision_rules", "outcomes", "checkpoints", "bundles")

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

SQLITE_TRIGGER = """
CREATE TRIGGER {table}_refuse_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END
"""

POSTGRESQL_FUNCTION = """
CREATE FUNCTION tallystick_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME; END $$
"""

POSTGRESQL_TRIGGER = """
CREATE TRIGGER {table}_refuse_{verb} BEFORE {verb} ON {table} EXECUTE FUNCTION tallystick_refuse()
"""


def refuse_changes() -> None:
    """Let triggers refuse what the application never does: a bug or a hurried hand, not an attacker with DDL rights."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    if not on_sqlite:
        op.execute(POSTGRESQL_FUNCTION)
    refused = [(table, verb) for table in APPEND_ONLY for verb in ("UPDATE", "DELETE", "TRUNCATE")]
    # What is acknowledged and not published yet may be released, which deletes it, but never changed.
    refused += [("pending_entries", "UPDATE"), ("pending_entries", "TRUNCATE")]
    for table, verb in refused:
        if not on_sqlite:
            op.execute(POSTGRESQL_TRIGGER.format(table=table, verb=verb))
        elif verb != "TRUNCATE":
            op.execute(SQLITE_TRIGGER.format(table=table, verb=verb))


def upgrade() -> None:
    op.create_table(
        "logs",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=128), nullable=False),
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("environment", sa.String(length=128), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", name=op.f("pk_logs")),
        sa.UniqueConstraint("origin", name=op.f("uq_logs_origin")),
    )
    op.create_table(
        "bundles",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("archive", sa.LargeBinary(), nullable=False),
        sa.Column("stored_ms", BIG, nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f("fk_bundles_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "revision", name=op.f("pk_bundles")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("size", BIG, autoincrement=False, nullable=False),
        sa.Column("checkpoint", sa.LargeBinary(), nullable=False),
        sa.Column("published_ms", BIG, nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f("fk_checkpoints_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "size", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "decision_rules",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("leaf_index", BIG, autoincrement=False, nullable=False),
        sa.Column("rule", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f("fk_decision_rules_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "leaf_index", "rule", name=op.f("pk_decision_rules")),
    )
    op.create_index(
        op.f("ix_decision_rules_log_id_rule_leaf_index"),
        "decision_rules",
        ["log_id", "rule", "leaf_index"],
        unique=False,
    )
    op.create_table(
        "decisions",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("leaf_index", BIG, autoincrement=False, nullable=False),
        sa.Column("time_ms", BIG, nullable=False),
        sa.Column("agent", sa.String(length=128), nullable=False),
        sa.Column("user", sa.String(length=32), nullable=True),
        sa.Column("session", sa.String(length=32), nullable=False),
        sa.Column("server", sa.String(length=128), nullable=False),
        sa.Column("method", sa.String(length=128), nullable=True),
        sa.Column("tool", sa.String(length=128), nullable=True),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("enforcement", sa.String(length=8), nullable=False),
        sa.Column("mode", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.String(length=128), nullable=False),
        sa.Column("bundle_revision", sa.String(length=64), nullable=True),
        sa.Column("trace_id", sa.String(length=32), nullable=True),
        sa.Column("arguments_fingerprint", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f("fk_decisions_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "leaf_index", name=op.f("pk_decisions")),
    )
    op.create_index(
        op.f("ix_decisions_log_id_agent_leaf_index"), "decisions", ["log_id", "agent", "leaf_index"], unique=False
    )
    op.create_index(
        op.f("ix_decisions_log_id_arguments_fingerprint"),
        "decisions",
        ["log_id", "arguments_fingerprint"],
        unique=False,
    )
    op.create_index(
        op.f("ix_decisions_log_id_enforcement_leaf_index"),
        "decisions",
        ["log_id", "enforcement", "leaf_index"],
        unique=False,
    )
    op.create_index(
        op.f("ix_decisions_log_id_session_leaf_index"), "decisions", ["log_id", "session", "leaf_index"], unique=False
    )
    op.create_index(op.f("ix_decisions_log_id_time_ms"), "decisions", ["log_id", "time_ms"], unique=False)
    op.create_index(
        op.f("ix_decisions_log_id_user_leaf_index"), "decisions", ["log_id", "user", "leaf_index"], unique=False
    )
    op.create_table(
        "outcomes",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("leaf_index", BIG, autoincrement=False, nullable=False),
        sa.Column("time_ms", BIG, nullable=False),
        sa.Column("decision_id", sa.String(length=36), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("session", sa.String(length=32), nullable=False),
        sa.Column("result_fingerprint", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f("fk_outcomes_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "leaf_index", name=op.f("pk_outcomes")),
    )
    op.create_index(op.f("ix_outcomes_log_id_decision_id"), "outcomes", ["log_id", "decision_id"], unique=False)
    op.create_index(
        op.f("ix_outcomes_log_id_result_fingerprint"), "outcomes", ["log_id", "result_fingerprint"], unique=False
    )
    op.create_index(
        op.f("ix_outcomes_log_id_session_leaf_index"), "outcomes", ["log_id", "session", "leaf_index"], unique=False
    )
    op.create_table(
        "pending_entries",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("leaf_index", BIG, autoincrement=False, nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f("fk_pending_entries_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "leaf_index", name=op.f("pk_pending_entries")),
    )
    op.create_table(
        "records",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("leaf_index", BIG, autoincrement=False, nullable=False),
        sa.Column("record_id", sa.String(length=36), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("record_type", sa.String(length=16), nullable=False),
        sa.Column("time_ms", BIG, nullable=False),
        sa.Column("enforcer_id", sa.String(length=128), nullable=False),
        sa.Column("epoch", sa.String(length=32), nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("received_ms", BIG, nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f("fk_records_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "leaf_index", name=op.f("pk_records")),
        sa.UniqueConstraint(
            "log_id", "enforcer_id", "epoch", "seq", name=op.f("uq_records_log_id_enforcer_id_epoch_seq")
        ),
        sa.UniqueConstraint("log_id", "record_id", name=op.f("uq_records_log_id_record_id")),
    )
    op.create_index(
        op.f("ix_records_log_id_record_type_leaf_index"),
        "records",
        ["log_id", "record_type", "leaf_index"],
        unique=False,
    )
    op.create_table(
        "vault_payloads",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("record_id", sa.String(length=36), nullable=False),
        sa.Column("field", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.log_id"], name=op.f("fk_vault_payloads_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "record_id", "field", name=op.f("pk_vault_payloads")),
    )
    op.create_index(op.f("ix_vault_payloads_log_id_subject"), "vault_payloads", ["log_id", "subject"], unique=False)
    op.create_table(
        "api_tokens",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("enforcer_id", sa.String(length=128), nullable=True),
        sa.Column("created_ms", BIG, nullable=False),
        sa.Column("expires_ms", BIG, nullable=True),
        sa.Column("revoked_ms", BIG, nullable=True),
        sa.PrimaryKeyConstraint("log_id", "token_sha256", name=op.f("pk_api_tokens")),
    )
    op.create_table(
        "pack_jobs",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("step", sa.String(length=128), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.String(length=32), nullable=False),
        sa.Column("created_ms", BIG, nullable=False),
        sa.Column("finished_ms", BIG, nullable=True),
        sa.Column("pack_id", sa.String(length=36), nullable=True),
        sa.Column("leaves", BIG, nullable=True),
        sa.Column("zip_sha256", sa.String(length=64), nullable=True),
        sa.Column("pdf_sha256", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("log_id", "job_id", name=op.f("pk_pack_jobs")),
    )
    op.create_index(op.f("ix_pack_jobs_log_id_created_ms"), "pack_jobs", ["log_id", "created_ms"], unique=False)
    op.create_table(
        "web_sessions",
        sa.Column("log_id", sa.String(length=63), nullable=False),
        sa.Column("session_sha256", sa.String(length=64), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("csrf", sa.String(length=64), nullable=False),
        sa.Column("created_ms", BIG, nullable=False),
        sa.Column("expires_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "session_sha256", name=op.f("pk_web_sessions")),
    )
    refuse_changes()


def downgrade() -> None:
    op.drop_table("web_sessions")
    op.drop_table("pack_jobs")
    op.drop_table("api_tokens")
    op.drop_table("vault_payloads")
    op.drop_table("records")
    op.drop_table("pending_entries")
    op.drop_table("outcomes")
    op.drop_table("decisions")
    op.drop_table("decision_rules")
    op.drop_table("checkpoints")
    op.drop_table("bundles")
    op.drop_table("logs")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION tallystick_refuse()")
