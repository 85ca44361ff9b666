"""Who tells people what happens in a log, with the key and the lease that it takes."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from sqlalchemy import Engine

from ledger.bodies import Containment
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.keys import load_key
from ledger.reader import EntryReader
from ledger.records import Record
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_leases import SQLLease
from service.fleet import Fleet
from service.notification_signing import WebhookSigner
from service.notification_store import WebhookStore
from service.notifications import LEASE_SECONDS, WEBHOOK_LEASE, Notifications
from service.settings import Settings, passphrase

__all__ = ["make_notifications"]


def make_notifications(
    settings: Settings,
    database: Engine,
    store: SQLLogStore,
    catalog: Catalog,
    reader: EntryReader,
    *,
    check: Callable[[int, Record], None],
    look_at_fleet: Callable[[], Fleet],
    clock: Clock,
) -> Notifications:
    """Return the notifications of a log; without a key for them nothing is sent.

    Raises:
        ConfigError: The key cannot be used.
        MalformedError: It is no key file.
    """
    log_id = settings.log_id

    def signed(index: int, record: Record) -> None:
        if record.enforcer_id == settings.service_id or isinstance(record.body, Containment):
            check(index, record)

    return Notifications(
        log_id,
        signer=WebhookSigner(load_key(settings.webhook_key, passphrase())) if settings.webhook_key else None,
        store=WebhookStore(database, log_id),
        size=lambda: store.sequenced_size(log_id),
        catalog=catalog,
        reader=reader,
        check=signed,
        look_at_fleet=look_at_fleet,
        lease=SQLLease(database, log_id, WEBHOOK_LEASE, holder=secrets.token_hex(16), seconds=LEASE_SECONDS),
        clock=clock,
        base_url=settings.external_url,
    )
