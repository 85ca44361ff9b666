"""Whoever can write rows of the database, and has no key."""

from __future__ import annotations

import msgspec

from ledger.bodies import Body
from ledger.records import Record, sign_record
from tests.support.ledger import LOG_ID, Enforcer, pending
from tests.support.service import RunningService

__all__ = ["forge", "slip_in"]


def forge(service: RunningService, body: Body, enforcer_id: str = "service") -> None:
    """Have a record sequenced that bears an enforcer's name, and a stranger's signature."""
    service.enforcer().decide()
    genuine = service.services.reader.record(service.services.store.sequenced_size(LOG_ID) - 1)
    stranger = Enforcer(enforcer_id, LOG_ID, seed=99, epoch="e" * 32, time_ms=genuine.time_ms)
    record = msgspec.structs.replace(
        stranger.record(body), tenant=genuine.tenant, environment=genuine.environment, pseudonym_key_id="a1" * 8
    )
    slip_in(service, sign_record(record, stranger.key))


def slip_in(service: RunningService, record: Record) -> None:
    """Have a record sequenced that nobody admitted."""
    service.run(lambda: service.services.sequencer.append([pending(record)]))
