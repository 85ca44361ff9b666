"""Replays of recorded decisions: reading them, opening their requests, evaluating them again."""

from __future__ import annotations

from ledger.bodies import Decision
from ledger.errors import ErasedError, NotFoundError
from ledger.records import Record
from ledger.vault import Vault
from policies.replay import RecordedDecision

__all__ = ["recorded_decision"]


def recorded_decision(record: Record, vault: Vault) -> RecordedDecision:
    """Return a decision with its opened request, which is None if the payload is gone.

    Raises:
        NotFoundError: The record is no decision.
        CommitmentError: What the vault holds is not what the leaf commits to.
        StorageError: A store failed.
    """
    body = record.body
    if not isinstance(body, Decision):
        raise NotFoundError(f"record {record.record_id} is no decision")
    request: bytes | None = None
    if body.request is not None:
        try:
            request = vault.open(record, "request").payload
        except ErasedError:
            request = None
    return RecordedDecision(record_id=record.record_id, body=body, request=request)
