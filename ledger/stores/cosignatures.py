"""Cosignatures over SQL: one row for each witness key and tree size, inserted once and never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Column, Engine, LargeBinary, String, Table, func, select

from ledger.database import BigInt, insert_if_absent, translated, writing
from ledger.notes import KeyId, NoteSignature, VerifierKey
from ledger.stores.tables import metadata

__all__ = ["SQLCosignatures", "cosignatures"]

cosignatures = Table(
    "cosignatures",
    metadata,
    Column("log_id", String(63), primary_key=True),
    Column("key_fingerprint", String(64), primary_key=True),
    Column("size", BigInt, primary_key=True, autoincrement=False),
    Column("signature", LargeBinary, nullable=False),
    Column("kept_ms", BigInt, nullable=False),
)
"""The signature bytes behind name and key id, which the witness policy gives; the checkpoint is in `checkpoints`."""


class SQLCosignatures:
    """`ledger.ports.CosignatureStore` over SQL."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine

    def keep(self, log_id: str, size: int, cosigned: Mapping[VerifierKey, NoteSignature], *, now_ms: int) -> None:
        """See `CosignatureStore.keep`."""
        with translated("keep cosignatures"), writing(self._engine) as connection:
            for key, line in cosigned.items():
                row = {
                    "log_id": log_id,
                    "key_fingerprint": key.fingerprint,
                    "size": size,
                    "signature": line.signature,
                    "kept_ms": now_ms,
                }
                insert_if_absent(connection, cosignatures, row)

    def kept(self, log_id: str, size: int, keys: Sequence[VerifierKey]) -> dict[VerifierKey, NoteSignature]:
        """See `CosignatureStore.kept`."""
        columns = cosignatures.c
        wanted = {key.fingerprint: key for key in keys}
        query = select(columns.key_fingerprint, columns.signature).where(
            columns.log_id == log_id, columns.size == size, columns.key_fingerprint.in_(wanted)
        )
        with translated("read cosignatures"), self._engine.connect() as connection:
            found = {wanted[name]: bytes(signature) for name, signature in connection.execute(query)}
        return {key: NoteSignature(key.name, KeyId(key.key_id), signature) for key, signature in found.items()}

    def last_size(self, log_id: str, key: VerifierKey) -> int:
        """See `CosignatureStore.last_size`."""
        columns = cosignatures.c
        query = select(func.max(columns.size)).where(
            columns.log_id == log_id, columns.key_fingerprint == key.fingerprint
        )
        with translated("read cosignatures"), self._engine.connect() as connection:
            return connection.scalar(query) or 0
