"""Every part of one running service, what it shares with others of its process, and the order of start and stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Engine

from ledger.anchoring import ProbedAnchor, ProbeReport
from ledger.bodies import Body, Heartbeat, Succession
from ledger.catalog import Catalog
from ledger.clock import Clock, SystemClock
from ledger.collecting import CollectableStore, CollectingLoop
from ledger.database import open_engine
from ledger.errors import (
    ConfigError,
    LedgerError,
    StaleKeysError,
)
from ledger.keyring import Keyring
from ledger.ports import Anchor, Draft
from ledger.prover import Prover
from ledger.pruning import MinimumIndex, Pruner
from ledger.publishing import PublishingLoop
from ledger.reader import EntryReader
from ledger.sequencer import Sequencer
from ledger.signers.local import LocalEnvelopeSigner
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_objects import SQLBundleStore
from ledger.tasks import Repeating
from ledger.timestamping import TimestampingLoop
from ledger.trust import TrustPolicy
from ledger.vault import Vault
from migrations.schema import require_current, upgrade
from policies.evaluate import Evaluator
from policies.registry import Registry
from policies.worker_process import WorkerLimits
from service.access import AccessRecorder
from service.access_requests import AccessRequests
from service.approvals import Approvals
from service.auditing import AuditLoop
from service.auth import TokenStore
from service.bundle_watch import BundleWatch
from service.bundles import OPAArchives
from service.contacts import Contacts
from service.containments import Containments
from service.current_keys import CurrentKeys
from service.deciding import DecisionPoint
from service.discoveries import Discoveries
from service.drift import Behaviour
from service.fairness import THREADS, Bytes, LargeTurns, Places
from service.fleet_reader import FleetReader
from service.fleet_windows import FleetWindows
from service.health import Metrics, ReadinessProbe
from service.impacts import ImpactJobs
from service.ingest import Admission, LogIdentity
from service.inventory import Inventory
from service.key_records import NO_KEYS, KeyringReader
from service.keyset import KeySet, introductions
from service.lifecycle import Lifecycle
from service.modes import Modes
from service.notifications import Notifications
from service.oidc.provider import OpenIDProvider
from service.opa_intake import OPAIntake
from service.packs import PackJobs
from service.people import People
from service.predecessor import load_predecessor, require_predecessor
from service.privileges import Privileges
from service.rebuilds import record_rebuilds
from service.recorder import ServiceRecorder
from service.settings import Settings
from service.tools import Tools
from service.version import VERSION
from service.web.sessions import LoginLinks
from service.wiring.engines import make_evaluator, make_opa_server

__all__ = ["Services", "SharedParts", "make_data_dir", "open_shared"]

_log = structlog.get_logger()

_OWN_THREADS: Final = 3
"""Of each log: the sequencer's, the publisher's, and one for what either does beside a transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedParts:
    """What all logs of one process have in common. Made by `open_shared` alone; whoever made it closes it."""

    clock: Clock
    database: Engine
    evaluator: Evaluator

    def close(self) -> None:
        """Let threads and connections go."""
        self.evaluator.close()
        self.database.dispose()


def open_shared(settings: Settings, *, clock: Clock | None = None, migrate: bool = False, logs: int = 1) -> SharedParts:
    """Open what the logs of one process share.

    Args:
        settings: Which database, and where an SQLite file is.
        clock: The system's clock if None.
        migrate: Bring the database to the newest schema; an SQLite database is brought there in any case.
        logs: How many logs share them.

    Raises:
        ConfigError: A setting or the database's schema cannot be used.
        StorageError: The database failed.
    """
    make_data_dir(settings)
    # As many as there are threads that may want one: whoever takes records waits for no search to give one back. All
    # are kept: opening one takes longer than what is asked over it.
    connections = THREADS + _OWN_THREADS * logs
    database = open_engine(settings.effective_database_url, pool_size=connections, overflow=0)
    if migrate or database.dialect.name == "sqlite":
        upgrade(database)
    require_current(database)
    evaluator = make_evaluator(
        workers=settings.engine_workers,
        batch_workers=settings.engine_batch_workers,
        cellar=settings.effective_engine_cellar,
        limits=WorkerLimits(evaluation_seconds=settings.engine_seconds, memory_bytes=settings.engine_memory_bytes),
        opa=make_opa_server(settings.opa_url, settings.opa_token, settings.opa_seconds),
    )
    return SharedParts(clock=clock or SystemClock(), database=database, evaluator=evaluator)


def make_data_dir(settings: Settings) -> None:
    """Make the data directory unless it is there.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the data directory cannot be made: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Every part of one running service. Made by `build_services` alone."""

    settings: Settings
    identity: LogIdentity
    clock: Clock
    current_keys: CurrentKeys
    database: Engine
    store: SQLLogStore
    tiles: CollectableStore
    catalog: Catalog
    reader: EntryReader
    prover: Prover
    sequencer: Sequencer
    publishing: PublishingLoop
    collecting: CollectingLoop
    timestamping: TimestampingLoop | None
    witness_policy: TrustPolicy | None
    anchor: Anchor
    vault: Vault
    keyring: Keyring
    key_records: KeyringReader
    admission: Admission
    recorder: ServiceRecorder
    access: AccessRecorder
    tokens: TokenStore
    people: People
    oidc: OpenIDProvider | None
    login_links: LoginLinks
    metrics: Metrics
    evaluator: Evaluator
    bundles: Registry
    bundle_archives: SQLBundleStore
    bundle_watch: BundleWatch
    contacts: Contacts
    fleet: FleetReader
    containments: Containments
    approvals: Approvals
    access_requests: AccessRequests
    opa_archives: OPAArchives
    decision_point: DecisionPoint
    opa_intake: OPAIntake
    packs: PackJobs
    impacts: ImpactJobs
    modes: Modes
    notifications: Notifications
    tools: Tools
    behaviour: Behaviour
    discoveries: Discoveries
    inventory: Inventory
    privileges: Privileges
    fleet_windows: FleetWindows
    lifecycle: Lifecycle
    minimum_index: MinimumIndex
    pruner: Pruner
    places: Places
    bytes_in_hand: Bytes
    auditing: AuditLoop
    shared: SharedParts
    owns_shared: bool
    readiness: ReadinessProbe = field(default_factory=ReadinessProbe)
    large_turns: LargeTurns = field(default_factory=LargeTurns)
    enrolment: asyncio.Lock = field(default_factory=asyncio.Lock)
    _heartbeats: list[Repeating] = field(default_factory=list)

    @property
    def keys(self) -> KeySet:
        """The keys that are used now; a rotation changes them while the service runs."""
        return self.current_keys.keys

    @property
    def pack_signers(self) -> Sequence[LocalEnvelopeSigner]:
        """What signs the packs that are made now."""
        return [LocalEnvelopeSigner(key) for key in self.keys.pack]

    @property
    def anchor_report(self) -> ProbeReport | None:
        """What was found when the anchor's locks were tried; None if it has none, or could not be tried yet."""
        return self.anchor.report if isinstance(self.anchor, ProbedAnchor) else None

    def sequenced_size(self) -> int:
        """Return the number of records that have an index."""
        return self.store.sequenced_size(self.identity.log_id)

    async def start(self) -> None:
        """Open the log, writing its first records if it is new, and begin to sequence and publish.

        Raises:
            ConfigError: The log was opened by another service, or with other keys.
            LedgerError: A store failed, or the log does not verify.
        """
        try:
            await self._start()
        except BaseException:
            await self._rest()
            await self._let_go()
            raise

    async def _start(self) -> None:
        await self.lifecycle.apply_beyond()
        await self.sequencer.start()
        await self.publishing.start()
        predecessor = await asyncio.to_thread(load_predecessor, self.settings.keys_dir)
        if await asyncio.to_thread(self.sequenced_size) == 0:
            await self._introduce(predecessor)
        await asyncio.to_thread(self.key_records.refresh)
        size = await asyncio.to_thread(self.sequenced_size)
        await asyncio.to_thread(require_predecessor, predecessor, self.reader.record, size)
        self._check_keys()
        await self.lifecycle.apply()
        await record_rebuilds(self.settings, self.access)
        self.collecting.start()
        if self.timestamping is not None:
            self.timestamping.start()
        await self.packs.start(self)
        self.bundle_watch.start()
        self.contacts.work.start()
        if self.oidc is not None:
            await self.oidc.start()
        self.containments.start()
        self.approvals.start()
        self.notifications.work.start()
        await self.impacts.start(self)
        await self._beat("start")
        self._heartbeats.append(self._beating())
        await self.lifecycle.start()
        await self.auditing.start()

    async def _introduce(self, predecessor: Succession | None) -> None:
        """Write the first records of a log; of several processes that start at once, one does."""
        opening: list[Body] = [*introductions(self.keys), *([] if predecessor is None else [predecessor])]
        with contextlib.suppress(StaleKeysError):
            await self.recorder.append([Draft(body=body) for body in opening], keys_leaf=NO_KEYS)

    def _check_keys(self) -> None:
        """Refuse to write with keys that the log does not know: such records and packs would verify for nobody."""
        if self.keyring.registrar != self.settings.service_id:
            raise ConfigError(f"the log belongs to the service {self.keyring.registrar}")
        # Made anew now that the log was read; it raises where a kind of key is missing.
        _ = self.keys

    async def stop(self) -> None:
        """Close the service's own stream, publish what is sequenced, and let go of everything."""
        await self._rest()
        with contextlib.suppress(LedgerError):
            await self._beat("stop")
        await self._let_go()

    async def _rest(self) -> None:
        """End what writes records by itself."""
        await self.auditing.stop()
        await self.bundle_watch.stop()
        if self.oidc is not None:
            await self.oidc.stop()
        with contextlib.suppress(LedgerError):
            await self.contacts.stop()
        await self.containments.stop()
        await self.approvals.stop()
        await self.notifications.stop()
        await self.packs.stop()
        await self.impacts.stop()
        await self.lifecycle.stop()
        for work in self._heartbeats:
            await work.stop()

    async def _let_go(self) -> None:
        await self.sequencer.stop()
        await self.collecting.stop()
        if self.timestamping is not None:
            await self.timestamping.stop()
        await self.publishing.stop()
        if self.owns_shared:
            await asyncio.to_thread(self.shared.close)

    async def heartbeat(self) -> None:
        """Record that the service lives, up to now."""
        await self._beat("periodic")

    async def _beat(self, kind: str) -> None:
        body = Heartbeat(
            kind=kind,  # type: ignore[arg-type]  # called with the three kinds alone
            version=VERSION,
            spool_depth=self.sequencer.waiting_records,
        )
        await self.recorder.append([Draft(body=body)])

    def _beating(self) -> Repeating:
        """Begin to record heartbeats."""
        seconds = self.settings.heartbeat_interval_seconds

        async def beat() -> float:
            await self.heartbeat()
            return seconds

        def tell(error: Exception) -> None:
            _log.warning("heartbeat_failed", error=type(error).__name__)

        beating = Repeating("heartbeats", beat, first_seconds=seconds, retry_seconds=seconds, on_failure=tell)
        beating.start()
        return beating

    @property
    def background(self) -> Sequence[Repeating]:
        """The work that is repeated beside answering requests."""
        dating = () if self.timestamping is None else (self.timestamping.work,)
        mine = (*self._heartbeats, self.collecting.work, *dating, *self.lifecycle.works)
        news = (
            self.bundle_watch.work,
            self.containments.watch.work,
            self.containments.work,
            self.contacts.work,
            self.approvals.watch.work,
            self.notifications.work,
        )
        return (*mine, self.packs.work, self.impacts.work, self.auditing.work, *news)
