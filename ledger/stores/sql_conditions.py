"""Conditions on narrowly stored columns, as every query over them says them so that the indexes can be used."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from sqlalchemy import BindParameter, ColumnElement, FromClause, ScalarSelect, and_, false, or_, select

from ledger.stores import tables
from ledger.stores.sql_dictionary import log_number
from ledger.stores.sql_rows import halves

__all__ = ["holds", "is_type", "name_number"]


def name_number(log_id: str | BindParameter[str], name: str) -> ScalarSelect[int]:
    """Return the number of a name in a log: NULL, which nothing equals, if it has none."""
    columns = tables.names.c
    return select(columns.name_no).where(columns.log_no == log_number(log_id), columns.name == name).scalar_subquery()


def is_type(log_id: str | BindParameter[str], record_type: str) -> ColumnElement[bool]:
    """Return the condition that a row of ``records`` is of a type."""
    columns = tables.records.c
    if record_type == "decision":
        return columns.agent.is_not(None)
    if record_type == "outcome":
        return columns.decision_id.is_not(None)
    other = and_(columns.agent.is_(None), columns.decision_id.is_(None))
    return and_(other, columns.record_type == name_number(log_id, record_type))


def holds(column: str, pseudonyms: Sequence[str], table: FromClause = tables.records) -> ColumnElement[bool]:
    """Return the condition that a halved column holds one of the pseudonyms; the index is on the first half.

    Args:
        column: ``session``, ``fingerprint`` or ``user``.
        pseudonyms: 32 hexadecimal digits each; what is no pseudonym is held by nothing.
        table: ``records``, or another name for it in a query that has it twice.
    """
    key, rest = table.c[f"{column}_key"], table.c[f"{column}_rest"]
    pairs = [_halves(pseudonym) for pseudonym in pseudonyms]
    return or_(false(), *(and_(key == first, rest == second) for first, second in pairs if first is not None))


def _halves(pseudonym: str) -> tuple[int | None, int | None]:
    try:
        return halves(pseudonym)
    except (ValueError, struct.error):
        return None, None
