"""The composition root: nothing else names a concrete store, anchor, signer or engine.

`build_services` makes every part from settings and keys; `Services.start` and `Services.stop` run them in order. There
are no module-level engines or clients: two services in one process do not know of each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Engine

from enforcement.config import GatewayConfig
from enforcement.gateway import Gateway, build_gateway
from ledger.anchoring import HoldableStore, ProbedAnchor, ProbeReport
from ledger.anchors.directory import DirectoryAnchor
from ledger.anchors.rfc3161 import HTTPTimestampAuthority
from ledger.anchors.s3_object_lock import S3ObjectLockAnchor
from ledger.anchors.timestamp_copies import DirectoryTimestampCopies, S3TimestampCopies
from ledger.audit_chunks import AuditSources
from ledger.bodies import Body, Heartbeat, KeyEvent, Succession
from ledger.catalog import Catalog
from ledger.clock import Clock, SystemClock
from ledger.collecting import CollectableStore, CollectingLoop, PartialCollector
from ledger.commitments import pseudonym
from ledger.database import open_engine
from ledger.erasure import ErasureKeeper
from ledger.errors import (
    AnchorError,
    ConfigError,
    LedgerError,
    MalformedError,
    NotFoundError,
    StaleKeysError,
    StorageError,
)
from ledger.expiry import Expirer
from ledger.integrator import Integrator
from ledger.keyring import Keyring
from ledger.keys import LocalKey, load_key
from ledger.log_keys import LogKeys
from ledger.notes import VerifierKey
from ledger.ports import Anchor, Draft, Lease, LogStore, Signer, TileStore, TimestampArchive
from ledger.prover import Prover
from ledger.pruning import MinimumIndex, Pruner
from ledger.publisher import Published, Publisher
from ledger.publishing import PublishingLoop
from ledger.publishing_turns import LEASE_SECONDS, PUBLISHER_LEASE
from ledger.reader import EntryReader
from ledger.rebuild import ProjectionRebuild, RepairableTiles
from ledger.records import Record
from ledger.remote_keys import RemoteKey, SigningKey
from ledger.s3 import S3Bucket, open_bucket
from ledger.sequencer import Sequencer
from ledger.signers import aws_kms
from ledger.signers.cosigner import LocalCosigner
from ledger.signers.local import LocalEnvelopeSigner, LocalSigner
from ledger.stores.cosignatures import SQLCosignatures
from ledger.stores.directory import DirectoryTileStore
from ledger.stores.s3 import S3TileStore
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_catalog import SQLCatalog
from ledger.stores.sql_leases import SQLLease
from ledger.stores.sql_objects import SQLBundleStore, SQLPayloadStore
from ledger.stores.sql_payloads import SQLPayloadArchive
from ledger.stores.sql_rebuild import SQLProjectionRebuild
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.stores.timestamps import SQLTimestamps
from ledger.stores.witnessed import SQLWitnessedLogs
from ledger.timestamping import Timestamping, TimestampingLoop
from ledger.timestamps import TimestampTrust, parse_roots
from ledger.trust import TrustPolicy, parse_trust_policy
from ledger.vault import Vault
from ledger.witnesses.client import HTTPWitness
from ledger.witnesses.server import WitnessServer
from ledger.witnessing import Witnessing, WitnessMode
from migrations.schema import require_current, upgrade
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.registry import Registry
from service.access import AccessRecorder
from service.auditing import AUDIT_LEASE, AUDIT_LEASE_SECONDS, AuditLoop, ProcessAuditRunner
from service.auth import TokenStore
from service.backups import DatabaseCopy
from service.bundles import LogBundleHistory
from service.current_keys import CurrentKeys
from service.fairness import Bytes, Places
from service.health import Metrics, ReadinessProbe
from service.ingest import Admission, LogIdentity
from service.key_records import NO_KEYS, KeyringReader
from service.keyset import KeySet, introductions, load_key_set
from service.lifecycle import Lifecycle, erasures_beyond, load_retention, own_record_check
from service.packs import PACK_LEASE_SECONDS, PackJobs, PackStore
from service.predecessor import load_predecessor, require_predecessor
from service.rebuilds import record_rebuilds
from service.recorder import ServiceRecorder
from service.settings import Settings, passphrase
from service.version import VERSION
from service.web.sessions import LoginLinks

__all__ = [
    "AuditParts",
    "LogSummary",
    "Services",
    "SharedParts",
    "WitnessParts",
    "build_services",
    "directory_sources",
    "directory_tiles",
    "fetch_public_key",
    "make_anchor",
    "make_evaluator",
    "make_gateway",
    "make_tiles",
    "make_witness",
    "open_audit_sources",
    "open_database_copy",
    "open_for_audit",
    "open_for_rebuild",
    "open_shared",
    "open_signer",
    "summarise_logs",
    "witness_vkey",
]

_log = structlog.get_logger()
_TSA_TIMEOUT_SECONDS: Final = 20.0


def _in_bucket(place: str) -> tuple[str, str]:
    """Return bucket and prefix of ``//BUCKET/PREFIX``."""
    bucket, _, prefix = place.removeprefix("//").partition("/")
    return bucket, f"{prefix.rstrip('/')}/" if prefix else ""


def make_anchor(settings: Settings, clock: Clock) -> DirectoryAnchor | S3ObjectLockAnchor:
    """Return the anchor that the settings name; nothing is asked of it yet.

    Raises:
        ConfigError: It cannot be used.
    """
    kind, _, place = settings.effective_anchor.partition(":")
    if kind == "directory":
        return DirectoryAnchor(Path(place))
    bucket, prefix, retention_days = _anchor_bucket(settings, place)
    return S3ObjectLockAnchor(bucket, prefix, retention_days=retention_days, clock=clock)


def _anchor_bucket(settings: Settings, place: str) -> tuple[S3Bucket, str, int]:
    """Return the anchor's bucket, prefix and days of retention."""
    if settings.anchor_retention_days is None:
        raise ConfigError("TALLYSTICK_ANCHOR_RETENTION_DAYS: say for how long checkpoints are to be locked")
    name, prefix = _in_bucket(place)
    bucket = open_bucket(
        name,
        role="the anchor bucket",
        failure=AnchorError,
        endpoint=settings.anchor_endpoint,
        credentials=settings.anchor_credentials,
    )
    return bucket, prefix, settings.anchor_retention_days


def _probed(anchor: DirectoryAnchor | S3ObjectLockAnchor, settings: Settings) -> DirectoryAnchor | ProbedAnchor:
    """Return the anchor behind a trial of its locks, if it has any; see `ProbedAnchor.start`."""
    if isinstance(anchor, DirectoryAnchor):
        return anchor
    probed = ProbedAnchor(anchor, accepted=settings.accepted_weaknesses)
    probed.start()
    return probed


def make_tiles(settings: Settings, clock: Clock) -> DirectoryTileStore | S3TileStore:
    """Return the tile store that the settings name.

    Raises:
        ConfigError: It cannot be used.
        StorageError: The bucket does not answer.
    """
    kind, _, place = settings.effective_tiles.partition(":")
    if kind == "directory":
        return DirectoryTileStore(Path(place))
    if settings.tiles_retention_days is None:
        raise ConfigError(
            "TALLYSTICK_TILES_RETENTION_DAYS: say for how long full tiles are to be locked; 0 for no lock"
        )
    name, prefix = _in_bucket(place)
    bucket = open_bucket(
        name,
        role="the tile bucket",
        failure=StorageError,
        endpoint=settings.tiles_endpoint,
        credentials=settings.tiles_credentials,
    )
    tiles = S3TileStore(bucket, prefix, retention_days=settings.tiles_retention_days, clock=clock)
    tiles.check()
    return tiles


def make_evaluator() -> Evaluator:
    """Return an evaluator over every engine that is installed."""
    return Evaluator({"cedar": CedarEngine()})


def make_gateway(
    config: GatewayConfig, secret: str | None, *, clock: Clock | None = None, evaluator: Evaluator | None = None
) -> Gateway:
    """Return a gateway with the keys that its configuration names; it has not been started.

    Args:
        config: Its settings.
        secret: Passphrase of its key files.
        clock: The system's clock if None.
        evaluator: A new one if None.

    Raises:
        ConfigError: A key cannot be used, or is for another purpose.
        MalformedError: A file is not a key file.
    """
    wanted = {"signing": "enforcer", "pseudonym": "pseudonym", "spool": "spool"}
    keys = {name: load_key(getattr(config.keys, name), secret) for name in wanted}
    for name, purpose in wanted.items():
        if keys[name].purpose != purpose:
            raise ConfigError(f"keys.{name} names a key for {keys[name].purpose}")
    if keys["signing"].name != config.enforcer_id:
        raise ConfigError(f"keys.signing names the key of {keys['signing'].name}, not of {config.enforcer_id}")
    return build_gateway(
        config,
        evaluator=evaluator or make_evaluator(),
        clock=clock or SystemClock(),
        signing_key=keys["signing"].signing_key(),
        pseudonym_key=keys["pseudonym"].seed,
        spool_key=keys["spool"].seed,
        simulated=any(key.simulated for key in keys.values()),
    )


def directory_tiles(root: Path) -> TileStore:
    """Return the tile store over a directory that holds one directory for each log."""
    return DirectoryTileStore(root)


def directory_sources(root: Path) -> AuditSources:
    """Return what an audit reads of a directory that holds one directory for each log."""
    return AuditSources(tiles=directory_tiles(root))


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessParts:
    """A witness for other people's logs."""

    server: WitnessServer
    verifier_key: VerifierKey
    close: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditParts:
    """What an audit of an installation reads."""

    sources: AuditSources
    tiles: TileStore
    catalog: Catalog
    vault: Vault
    anchor: Anchor
    close: Callable[[], None]


def open_audit_sources(settings: Settings, secret: str | None) -> AuditSources:
    """Open what a process of an audit reads, until the process ends; see `open_for_audit`."""
    return _audit_sources(settings, secret)[0]


def _audit_sources(settings: Settings, secret: str | None) -> tuple[AuditSources, Engine]:
    keys = load_key_set(settings.keys_dir, secret)
    database = open_engine(settings.effective_database_url)
    require_current(database)
    subject_keys = DirectorySubjectKeys(settings.keys_dir / "subjects", keys.vault)
    sources = AuditSources(
        tiles=make_tiles(settings, SystemClock()),
        catalog=SQLCatalog(database),
        vault=Vault(settings.log_id, subject_keys, SQLPayloadStore(database)),
    )
    return sources, database


def open_for_audit(settings: Settings, secret: str | None) -> AuditParts:
    """Open an installation for reading alone; the service may be running.

    Args:
        settings: Which installation.
        secret: Passphrase of the key files.

    Raises:
        ConfigError: A setting, key or the database's schema cannot be used.
    """
    sources, database = _audit_sources(settings, secret)
    assert sources.catalog is not None
    assert sources.vault is not None
    return AuditParts(
        sources=sources,
        tiles=sources.tiles,
        catalog=sources.catalog,
        vault=sources.vault,
        anchor=make_anchor(settings, SystemClock()),
        close=database.dispose,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildParts:
    """What a rebuild of an installation reads and writes."""

    tiles: RepairableTiles
    store: LogStore
    catalog: Catalog
    projection: ProjectionRebuild
    anchor: Anchor
    lease: Lease
    close: Callable[[], None]


def open_for_rebuild(settings: Settings) -> RebuildParts:
    """Open an installation for a rebuild; whoever holds the lease is alone with the log.

    Args:
        settings: Which installation.

    Raises:
        ConfigError: A setting or the database's schema cannot be used.
    """
    database = open_engine(settings.effective_database_url)
    require_current(database)
    return RebuildParts(
        tiles=make_tiles(settings, SystemClock()),
        store=SQLLogStore(database),
        catalog=SQLCatalog(database),
        projection=SQLProjectionRebuild(database),
        anchor=make_anchor(settings, SystemClock()),
        lease=SQLLease(database, settings.log_id, PUBLISHER_LEASE, holder=secrets.token_hex(16), seconds=LEASE_SECONDS),
        close=database.dispose,
    )


def open_database_copy(path: Path) -> DatabaseCopy:
    """Open a copy of an SQLite database, for a look into it.

    Raises:
        ConfigError: Its schema is not the one of this software.
        StorageError: It cannot be read.
    """
    database = open_engine(f"sqlite:///{path}")
    try:
        require_current(database)
        store = SQLLogStore(database)
        return DatabaseCopy({log_id: store.checkpoint(log_id) for log_id in store.log_ids()})
    finally:
        database.dispose()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """How far one log is.

    Attributes:
        sequenced: Records that have an index; None if the log was never opened.
        checkpoint: The newest published checkpoint, or None.
    """

    sequenced: int | None
    checkpoint: bytes | None


def summarise_logs(settings: Settings, log_ids: Sequence[str]) -> dict[str, LogSummary]:
    """Read how far logs are; the service may be running.

    Args:
        settings: Which database.
        log_ids: Which logs.

    Raises:
        ConfigError: The database or its schema cannot be used.
        StorageError: The database failed.
    """
    database = open_engine(settings.effective_database_url)
    try:
        require_current(database)
        store = SQLLogStore(database)
        return {log_id: _summarise(store, log_id) for log_id in log_ids}
    finally:
        database.dispose()


def _summarise(store: SQLLogStore, log_id: str) -> LogSummary:
    try:
        return LogSummary(sequenced=store.sequenced_size(log_id), checkpoint=store.checkpoint(log_id))
    except NotFoundError:
        return LogSummary(sequenced=None, checkpoint=None)


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


def open_shared(
    settings: Settings, *, clock: Clock | None = None, migrate: bool = False, connections: int = 5
) -> SharedParts:
    """Open what the logs of one process share.

    Args:
        settings: Which database, and where an SQLite file is.
        clock: The system's clock if None.
        migrate: Bring the database to the newest schema; an SQLite database is brought there in any case.
        connections: Database connections that are kept open.

    Raises:
        ConfigError: A setting or the database's schema cannot be used.
        StorageError: The database failed.
    """
    _make_data_dir(settings)
    database = open_engine(settings.effective_database_url, pool_size=connections)
    if migrate or database.dialect.name == "sqlite":
        upgrade(database)
    require_current(database)
    return SharedParts(clock=clock or SystemClock(), database=database, evaluator=make_evaluator())


def _make_data_dir(settings: Settings) -> None:
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
    login_links: LoginLinks
    metrics: Metrics
    evaluator: Evaluator
    bundles: Registry
    bundle_archives: SQLBundleStore
    packs: PackJobs
    lifecycle: Lifecycle
    minimum_index: MinimumIndex
    pruner: Pruner
    places: Places
    bytes_in_hand: Bytes
    auditing: AuditLoop
    shared: SharedParts
    owns_shared: bool
    readiness: ReadinessProbe = field(default_factory=ReadinessProbe)
    enrolment: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

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
        await self._beat("start")
        self._tasks.append(asyncio.create_task(self._heartbeats(), name="heartbeats"))
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
        await self.auditing.stop()
        await self.packs.stop()
        await self.lifecycle.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(LedgerError):
            await self._beat("stop")
        await self._let_go()

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

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self.settings.heartbeat_interval_seconds)
            try:
                await self.heartbeat()
            except LedgerError as error:
                _log.warning("heartbeat_failed", error=type(error).__name__)


def build_services(
    settings: Settings,
    *,
    clock: Clock | None = None,
    allow_simulated: bool = False,
    migrate: bool = False,
    shared: SharedParts | None = None,
) -> Services:
    """Make every part of a service for one log.

    Args:
        settings: What to make.
        clock: The system's clock if None.
        allow_simulated: Accept demonstration keys and simulated clocks; everything then says SIMULATED.
        migrate: Bring the database to the newest schema; an SQLite database is brought there in any case.
        shared: What other logs of the process use as well; ``clock`` and ``migrate`` are then settled. If None, the
            service has its own and closes it.

    Raises:
        ConfigError: A setting, key or the database's schema cannot be used.
        StorageError: The database failed.
    """
    clock = shared.clock if shared else clock or SystemClock()
    keyring = Keyring()
    current = CurrentKeys(settings.keys_dir, passphrase(), keyring)
    keys = current.keys
    if (keys.simulated or clock.simulated) and not allow_simulated:
        raise ConfigError("demonstration keys or clocks: this service writes no real log with them")
    _require_same_names(settings, keys)
    _make_data_dir(settings)
    identity = LogIdentity(
        log_id=settings.log_id,
        tenant=settings.tenant,
        environment=settings.environment,
        simulated=keys.simulated or clock.simulated,
    )
    parts = shared or open_shared(settings, clock=clock, migrate=migrate)
    store = SQLLogStore(parts.database)
    store.create_log(
        settings.log_id,
        tenant=settings.tenant,
        origin=settings.origin,
        environment=settings.environment,
        simulated=identity.simulated,
        created_ms=clock.now_ms(),
    )
    return _assemble(settings, identity, current, keyring, store, parts, owns_shared=shared is None)


def _audit_loop(settings: Settings, database: Engine, clock: Clock) -> AuditLoop:
    lease = SQLLease(database, settings.log_id, AUDIT_LEASE, holder=secrets.token_hex(16), seconds=AUDIT_LEASE_SECONDS)
    return AuditLoop(
        ProcessAuditRunner(settings, passphrase()),
        lease,
        clock,
        interval_seconds=settings.audit_interval_seconds,
        full_interval_seconds=settings.audit_full_interval_seconds,
    )


def _require_same_names(settings: Settings, keys: KeySet) -> None:
    """Refuse keys under whose names no checkpoint or record of this service would verify."""
    wanted = {"TALLYSTICK_ORIGIN": settings.origin, "TALLYSTICK_SERVICE_ID": settings.service_id}
    made_for = {"TALLYSTICK_ORIGIN": keys.log[0].name, "TALLYSTICK_SERVICE_ID": keys.service.name}
    told = [
        f"{name} is {wanted[name]}, the keys are of {made_for[name]}"
        for name in wanted
        if wanted[name] != made_for[name]
    ]
    if told:
        raise ConfigError(f"the keys were made for another origin or service id: {'; '.join(told)}")


def open_signer(key: SigningKey) -> Signer:
    """Return what signs checkpoints with a key, wherever its private half is.

    Raises:
        ConfigError: The key does not sign checkpoints, or no client for its keeper can be made.
    """
    return aws_kms.open_signer(key) if isinstance(key, RemoteKey) else LocalSigner(key)


def fetch_public_key(uri: str) -> tuple[str, bytes]:
    """Return algorithm and public key of a log key that is kept elsewhere.

    Raises:
        ConfigError: The URI cannot be used, or the key is not one that signs checkpoints.
        DependencyError: Its keeper failed or refused.
    """
    return aws_kms.fetch_public_key(uri)


def _read_file(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"TALLYSTICK_{name}: the file cannot be read: {error.strerror}") from error


def _read_witness_policy(settings: Settings, current: CurrentKeys) -> TrustPolicy | None:
    """Return the witness policy that the settings name.

    Raises:
        ConfigError: It cannot be read, has no quorum, or names a key of the log as a witness's.
    """
    if settings.witness_policy is None:
        return None
    try:
        policy = parse_trust_policy(_read_file(settings.witness_policy, "WITNESS_POLICY"))
    except MalformedError as error:
        raise ConfigError(f"TALLYSTICK_WITNESS_POLICY: {error}") from error
    if policy.quorum is None:
        raise ConfigError("TALLYSTICK_WITNESS_POLICY: a policy without a quorum asks no witness for anything")
    own = {key.public_key for key in current.keys.of("log")}
    if any(witness.key.public_key in own for witness in policy.witnesses.values()):
        raise ConfigError("TALLYSTICK_WITNESS_POLICY: a key of the log itself is listed as a witness's")
    return policy


def _make_witnessing(
    settings: Settings, policy: TrustPolicy | None, database: Engine, prover: Prover, clock: Clock
) -> Witnessing | None:
    """Return who has checkpoints cosigned, or None without a witness policy.

    Raises:
        ConfigError: A witness has no URL, or one that cannot be used.
    """
    if policy is None:
        return None
    return Witnessing(
        settings.log_id,
        policy=policy,
        witnesses=[
            HTTPWitness(witness, timeout_seconds=settings.witness_timeout_seconds)
            for witness in policy.witnesses.values()
        ],
        mode=WitnessMode(settings.witness_mode),
        store=SQLCosignatures(database),
        prover=prover,
        clock=clock,
    )


def _make_timestamping(
    settings: Settings, database: Engine, published: Callable[[], Published | None], clock: Clock
) -> TimestampingLoop | None:
    """Return who has checkpoints dated, or None without an authority.

    Raises:
        ConfigError: The authority or its certificates cannot be used.
    """
    if not settings.tsa_url:
        return None
    if settings.tsa_certificates is None:
        raise ConfigError("TALLYSTICK_TSA_CERTIFICATES: say which root certificates a token must lead to")
    try:
        roots = parse_roots(_read_file(settings.tsa_certificates, "TSA_CERTIFICATES"))
    except MalformedError as error:
        raise ConfigError(f"TALLYSTICK_TSA_CERTIFICATES: {error}") from error
    timestamping = Timestamping(
        settings.log_id,
        authority=HTTPTimestampAuthority(
            settings.tsa_url,
            TimestampTrust(roots=roots, policy=settings.tsa_policy or None),
            clock=clock,
            timeout_seconds=_TSA_TIMEOUT_SECONDS,
        ),
        store=SQLTimestamps(database),
        archive=_make_timestamp_archive(settings, clock),
        clock=clock,
        interval_seconds=settings.tsa_interval_seconds,
    )
    return TimestampingLoop(timestamping, published, interval_seconds=settings.tsa_interval_seconds)


def witness_vkey(key: LocalKey) -> VerifierKey:
    """Return the key by which a witness's cosignatures are verified.

    Raises:
        ConfigError: The key is not a witness's.
        MalformedError: No note can carry its name.
    """
    return LocalCosigner(key).verifier_key


def make_witness(key: LocalKey, logs: TrustPolicy, database_url: str, clock: Clock) -> WitnessParts:
    """Return a witness for other people's logs.

    Args:
        key: Its key.
        logs: The logs that it knows.
        database_url: A database of its own.
        clock: For the time of cosignatures.

    Raises:
        ConfigError: The key is not a witness's, or the database cannot be used.
        StorageError: The database failed.
    """
    cosigner = LocalCosigner(key)
    database = open_engine(database_url)
    return WitnessParts(
        server=WitnessServer(logs, cosigner, SQLWitnessedLogs(database), clock),
        verifier_key=cosigner.verifier_key,
        close=database.dispose,
    )


def _make_timestamp_archive(settings: Settings, clock: Clock) -> TimestampArchive:
    kind, _, place = settings.effective_anchor.partition(":")
    if kind == "directory":
        return DirectoryTimestampCopies(Path(place))
    bucket, prefix, retention_days = _anchor_bucket(settings, place)
    return S3TimestampCopies(bucket, prefix, retention_days=retention_days, clock=clock)


def _checked_by_newest_keys(
    key_records: KeyringReader, keyring: Keyring, service_id: str
) -> Callable[[int, Record], None]:
    """Return `own_record_check` for records that another process may have signed with a key not known here yet."""
    own = own_record_check(keyring, service_id)

    def check(index: int, record: Record) -> None:
        key_records.refresh()
        own(index, record)

    return check


def _assemble(
    settings: Settings,
    identity: LogIdentity,
    current: CurrentKeys,
    keyring: Keyring,
    store: SQLLogStore,
    shared: SharedParts,
    *,
    owns_shared: bool,
) -> Services:
    log_id, clock, database, evaluator = identity.log_id, shared.clock, shared.database, shared.evaluator
    tiles = make_tiles(settings, clock)
    catalog = SQLCatalog(database)
    reader = EntryReader(store, tiles, log_id)
    anchor = _probed(make_anchor(settings, clock), settings)
    prover = Prover(tiles, log_id)
    witness_policy = _read_witness_policy(settings, current)
    publisher = Publisher(
        log_id=log_id,
        origin=settings.origin,
        store=store,
        tiles=tiles,
        integrator=Integrator(log_id, reader, tiles),
        signers=LogKeys(
            settings.origin,
            key_records=lambda start: (
                (leaf, reader.record(leaf)) for leaf in catalog.of_type(log_id, "key") if leaf >= start
            ),
            held=lambda: [open_signer(key) for key in current.look_again().of("log")],
        ),
        anchor=anchor,
        clock=clock,
        witnessing=_make_witnessing(settings, witness_policy, database, prover, clock),
    )
    lease = SQLLease(database, log_id, PUBLISHER_LEASE, holder=secrets.token_hex(16), seconds=LEASE_SECONDS)
    publishing = PublishingLoop(publisher, interval_seconds=settings.checkpoint_interval_seconds, lease=lease)
    metrics = Metrics()
    timestamping = _make_timestamping(settings, database, lambda: publishing.published, clock)
    collecting = CollectingLoop(
        PartialCollector(log_id, tiles),
        lambda: publishing.published.head.size if publishing.published else 0,
        interval_seconds=max(1.0, settings.checkpoint_interval_seconds),
        on_collected=metrics.collected.inc,
    )
    sequencer = Sequencer(
        store,
        log_id,
        clock,
        max_waiting_records=settings.max_waiting_records,
        on_sequenced=publishing.notify,
    )
    subject_keys = DirectorySubjectKeys(settings.keys_dir / "subjects", current.keys.vault)
    vault = Vault(log_id, subject_keys, SQLPayloadStore(database))
    key_records = KeyringReader(log_id, keyring, catalog, reader)

    def take_key(_index: int, record: Record) -> None:
        if isinstance(record.body, KeyEvent):
            key_records.refresh()

    recorder = ServiceRecorder(
        identity,
        settings.service_id,
        key=current.service_key,
        pseudonym_key_id=lambda: current.keys.pseudonym_key_id,
        sequencer=sequencer,
        catalog=catalog,
        vault=vault,
        clock=clock,
        on_record=take_key,
        refresh_keys=key_records.refresh,
    )
    archive = SQLPayloadArchive(database)
    keeper = ErasureKeeper(
        log_id,
        keys=subject_keys,
        archive=archive,
        vault=vault,
        catalog=catalog,
        reader=reader,
        sink=recorder,
        check=own_record_check(keyring, settings.service_id),
    )
    minimum_index = MinimumIndex(
        log_id, catalog=catalog, reader=reader, check=_checked_by_newest_keys(key_records, keyring, settings.service_id)
    )
    actor = pseudonym(current.keys.pseudonym.seed, "actor", settings.service_id)
    expirer = Expirer(
        log_id,
        policy=load_retention(settings.retention, settings.tenant),
        keeper=keeper,
        keys=subject_keys,
        archive=archive,
        vault=vault,
        sink=recorder,
        clock=clock,
        actor=actor,
    )
    lifecycle = Lifecycle(
        log_id,
        keeper=keeper,
        expirer=expirer,
        keys=subject_keys,
        sink=recorder,
        actor=actor,
        beyond=lambda: erasures_beyond(log_id, store, tiles, bytes(current.keys.service.signing_key().verify_key)),
        interval_seconds=settings.expiry_interval_seconds,
        holdable=[place for place in (anchor, tiles) if isinstance(place, HoldableStore)],
    )
    pruner = Pruner(
        log_id,
        policy=expirer.policy,
        minimum=minimum_index,
        keeper=keeper,
        keys=subject_keys,
        reader=reader,
        sink=recorder,
        published=lambda: publishing.published.head.size if publishing.published else 0,
        clock=clock,
    )
    tokens = TokenStore(database, clock)
    pack_maker = secrets.token_hex(16)
    archives = SQLBundleStore(database, clock)
    registry = Registry(
        log_id=log_id,
        store=archives,
        history=LogBundleHistory(catalog, reader),
        sink=recorder,
        evaluator=evaluator,
    )
    return Services(
        settings=settings,
        identity=identity,
        clock=clock,
        current_keys=current,
        database=database,
        store=store,
        tiles=tiles,
        catalog=catalog,
        reader=reader,
        prover=prover,
        sequencer=sequencer,
        publishing=publishing,
        collecting=collecting,
        timestamping=timestamping,
        witness_policy=witness_policy,
        anchor=anchor,
        vault=vault,
        keyring=keyring,
        key_records=key_records,
        admission=Admission(identity, vault, key_records),
        recorder=recorder,
        access=AccessRecorder(recorder, lambda: current.keys.pseudonym.seed),
        tokens=tokens,
        login_links=LoginLinks(database, clock, log_id, tokens),
        metrics=metrics,
        evaluator=evaluator,
        bundles=registry,
        bundle_archives=archives,
        packs=PackJobs(
            PackStore(database, settings.data_dir / "packs", log_id),
            clock,
            lease=lambda job_id: SQLLease(
                database, log_id, f"pack:{job_id}", holder=pack_maker, seconds=PACK_LEASE_SECONDS
            ),
        ),
        lifecycle=lifecycle,
        minimum_index=minimum_index,
        pruner=pruner,
        places=Places(settings.max_requests),
        bytes_in_hand=Bytes(max(settings.max_waiting_bytes, settings.max_request_bytes)),
        auditing=_audit_loop(settings, database, clock),
        shared=shared,
        owns_shared=owns_shared,
    )
