"""The metadata that the migrations lead to."""

from __future__ import annotations

from sqlalchemy import MetaData

from ledger.stores import cosignatures, timestamps  # noqa: F401  # their tables join those of the log
from ledger.stores import tables as log_tables
from service import tables as service_tables

__all__ = ["target_metadata"]


def target_metadata() -> list[MetaData]:
    """Return the metadata of every room that has tables."""
    return [log_tables.metadata, service_tables.metadata]
