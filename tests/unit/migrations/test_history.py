"""The history of the schema as text: one line of revisions, and what the first one protects."""

from __future__ import annotations

import importlib

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Table

from ledger.stores import tables
from ledger.stores.tables import APPEND_ONLY_TABLES
from migrations.schema import _config
from migrations.target import target_metadata

SCRIPTS = ScriptDirectory.from_config(_config())
LOG_COLUMNS = ("log_id", "log_no")
ALL_TABLES = [table for metadata in target_metadata() for table in metadata.sorted_tables]


def test_the_history_has_one_beginning_and_one_end():
    assert len(SCRIPTS.get_bases()) == 1
    assert len(SCRIPTS.get_heads()) == 1


@pytest.mark.parametrize("revision", [script.revision for script in SCRIPTS.walk_revisions()])
def test_every_migration_can_be_taken_back(revision):
    module = SCRIPTS.get_revision(revision).module
    assert callable(module.upgrade)
    assert callable(module.downgrade)


def test_the_migrations_protect_the_tables_that_the_code_calls_append_only():
    names = ("0001_first", "0002_witnessing", "0004_narrow_rows")
    first, witnessing, narrow = (importlib.import_module(f"migrations.versions.{name}") for name in names)
    kept = (set(first.APPEND_ONLY) | set(witnessing.APPEND_ONLY)) - set(narrow.APPEND_ONLY_BEFORE)
    contents = importlib.import_module("migrations.versions.0012_contents")
    triggers = (contents.SQLITE_TRIGGER, contents.POSTGRESQL_TRIGGER)
    later = {name for name in APPEND_ONLY_TABLES if all(f" ON {name} " in one.replace("\n", " ") for one in triggers)}
    assert kept | set(narrow.APPEND_ONLY) | later == set(APPEND_ONLY_TABLES)


def test_every_table_of_the_log_is_protected_or_named_here_as_one_that_is_not():
    unprotected = set(tables.metadata.tables) - set(APPEND_ONLY_TABLES)
    assert unprotected == {"leases", "pending_entries", "vault_payloads"}


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_the_log_stands_first_in_every_key_and_index(table: Table):
    def first(columns: object) -> Column[object]:
        return next(iter(columns))

    assert first(table.primary_key.columns).name in LOG_COLUMNS
    assert [index.name for index in table.indexes if first(index.columns).name not in LOG_COLUMNS] == []


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_constraint_has_a_name_that_a_migration_can_call_it_by(table: Table):
    assert [constraint for constraint in (*table.constraints, *table.indexes) if not constraint.name] == []


def test_a_table_name_belongs_to_one_room():
    names = [table.name for table in ALL_TABLES]
    assert sorted(names) == sorted(set(names))
