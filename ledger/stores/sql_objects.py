"""Things kept by key in the SQL database: encrypted payloads (read side) and policy bundles."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine, and_, select

from ledger.clock import Clock
from ledger.database import insert_if_absent, translated, writing
from ledger.errors import ConflictError, NotFoundError, UnknownBundleError
from ledger.ports import SealedPayload
from ledger.stores import tables
from ledger.stores.sql_cells import any_bytes, any_text
from ledger.stores.sql_dictionary import chunks, log_number
from ledger.stores.sql_rows import id_bytes

__all__ = ["SQLBundleStore", "SQLPayloadStore"]


class SQLPayloadStore:
    """`ledger.vault.PayloadStore` over SQL; payloads are written by `SQLLogStore.sequence`, with their record."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine

    def payload(self, log_id: str, record_id: str, field: str) -> SealedPayload:
        """See `PayloadStore.payload`."""
        columns, records = tables.vault_payloads.c, tables.records.c
        query = (
            select(columns.subject, columns.ciphertext)
            .join(tables.records, and_(records.log_no == columns.log_no, records.leaf_index == columns.leaf_index))
            .where(
                records.log_no == log_number(log_id),
                records.record_id == id_bytes(record_id),
                columns.field == field,
            )
        )
        with translated("read a payload"), self._engine.connect() as connection, any_text(connection):
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"the vault holds no payload for the field {field} of record {record_id}")
        return SealedPayload(record_id, field, str(row[0]), any_bytes(row[1]))

    def payloads(self, log_id: str, leaves: Mapping[int, str], field: str) -> dict[int, SealedPayload]:
        """See `PayloadStore.payloads`."""
        if not leaves:
            return {}
        columns = tables.vault_payloads.c
        found: dict[int, SealedPayload] = {}
        query = select(columns.leaf_index, columns.subject, columns.ciphertext).where(
            columns.log_no == log_number(log_id), columns.field == field
        )
        with translated("read payloads"), self._engine.connect() as connection, any_text(connection):
            for chunk in chunks(sorted(leaves)):
                for leaf, subject, ciphertext in connection.execute(query.where(columns.leaf_index.in_(chunk))):
                    found[leaf] = SealedPayload(leaves[leaf], field, str(subject), any_bytes(ciphertext))
        return found


class SQLBundleStore:
    """Policy bundles by digest, create-only."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._clock = clock

    def put(self, log_id: str, revision: str, archive: bytes) -> None:
        """Keep a bundle's archive; durable when the call returns, the same bytes again are success.

        Raises:
            ConflictError: Another archive is kept under that revision.
            StorageError: The database failed.
        """
        columns = tables.bundles.c
        query = select(columns.archive).where(columns.log_id == log_id, columns.revision == revision)
        row = {"log_id": log_id, "revision": revision, "archive": archive, "stored_ms": self._clock.now_ms()}
        with translated("store a bundle"), writing(self._engine) as connection:
            if not insert_if_absent(connection, tables.bundles, row) and connection.scalar(query) != archive:
                raise ConflictError(f"another archive is stored as bundle {revision}")

    def get(self, log_id: str, revision: str) -> bytes:
        """Return a bundle's archive.

        Raises:
            UnknownBundleError: No such bundle.
            StorageError: The database failed.
        """
        columns = tables.bundles.c
        query = select(columns.archive).where(columns.log_id == log_id, columns.revision == revision)
        with translated("read a bundle"), self._engine.connect() as connection:
            archive = connection.scalar(query)
        if archive is None:
            raise UnknownBundleError(f"no bundle of revision {revision}")
        return bytes(archive)
