"""Alembic's environment: runs migrations over the connection that `migrations.schema` hands in."""

from __future__ import annotations

from alembic import context

from migrations.target import target_metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=target_metadata(),
    transaction_per_migration=True,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
