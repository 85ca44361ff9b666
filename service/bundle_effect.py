"""When an activation took effect: each enforcer's first heartbeat after it that names the active bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ledger.bodies import Heartbeat
from ledger.catalog import Catalog
from ledger.reader import EntryReader
from policies.bundle_lives import RecordedEvent

__all__ = ["Effect", "effects"]

_MAX_HEARTBEATS: Final = 2_000
"""Those after an activation that are looked at; a gateway sends one as soon as it has another bundle."""


@dataclass(frozen=True, slots=True)
class Effect:
    """An enforcer decides by the active bundle.

    Attributes:
        enforcer_id: Which.
        leaf_index: The heartbeat that says so.
        after_ms: From the activation's record to it, by the clocks of service and enforcer.
    """

    enforcer_id: str
    leaf_index: int
    after_ms: int


def effects(activation: RecordedEvent, log_id: str, catalog: Catalog, reader: EntryReader) -> list[Effect]:
    """Return when each enforcer first said that it decides by an activated bundle, as far as it has.

    Raises:
        StorageError: A store failed.
    """
    found: dict[str, Effect] = {}
    for leaf in catalog.of_type(log_id, "heartbeat", above=activation.leaf_index)[:_MAX_HEARTBEATS]:
        record = reader.record(leaf)
        body = record.body
        if isinstance(body, Heartbeat) and body.bundle_revision == activation.event.revision:
            after_ms = record.time_ms - activation.time_ms
            found.setdefault(record.enforcer_id, Effect(record.enforcer_id, leaf, after_ms))
    return list(found.values())
