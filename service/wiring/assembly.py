"""Making every part of a service for one log, from settings and keys."""

from __future__ import annotations

import secrets

from sqlalchemy import Engine

from ledger.anchoring import HoldableStore
from ledger.bodies import KeyEvent
from ledger.clock import Clock, SystemClock
from ledger.collecting import COLLECTOR_LEASE, COLLECTOR_LEASE_SECONDS, CollectingLoop, PartialCollector
from ledger.commitments import pseudonym
from ledger.erasure import ErasureKeeper
from ledger.errors import (
    ConfigError,
)
from ledger.expiry import Expirer
from ledger.integrator import Integrator
from ledger.keyring import Keyring
from ledger.log_keys import LogKeys
from ledger.prover import Prover
from ledger.pruning import MinimumIndex, Pruner
from ledger.publisher import Publisher
from ledger.publishing import PublishingLoop
from ledger.publishing_turns import LEASE_SECONDS, PUBLISHER_LEASE
from ledger.reader import EntryReader
from ledger.records import Record
from ledger.sequencer import Sequencer
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_catalog import SQLCatalog
from ledger.stores.sql_leases import SQLLease
from ledger.stores.sql_objects import SQLBundleStore, SQLPayloadStore
from ledger.stores.sql_payloads import SQLPayloadArchive
from ledger.stores.sql_usage import SQLUsage
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.vault import Vault
from policies.registry import Registry
from policies.trusted_keys import read_trusted_keys
from service.access import AccessRecorder
from service.access_requests import AccessRequests
from service.approvals import Approvals
from service.auditing import AUDIT_LEASE, AUDIT_LEASE_SECONDS, AuditLoop, ProcessAuditRunner
from service.auth import TokenStore
from service.bundle_watch import BundleWatch
from service.bundles import LogBundleHistory, OPAArchives, service_actor
from service.contacts import Contacts
from service.containments import Containments
from service.current_keys import CurrentKeys
from service.deciding import ActiveBundles, DecisionPoint
from service.discoveries import Discoveries
from service.drift import Behaviour
from service.fairness import Bytes, Places
from service.fleet_reader import FleetReader
from service.fleet_windows import FleetWindows
from service.health import Metrics
from service.impact_files import ImpactFiles
from service.impact_orders import ImpactStore
from service.impacts import IMPACT_LEASE_SECONDS, ImpactJobs
from service.ingest import Admission, LogIdentity
from service.inventory import Inventory
from service.key_records import KeyringReader
from service.keyset import KeySet
from service.lifecycle import Lifecycle, erasures_beyond, load_retention, own_record_check
from service.modes import Modes
from service.oidc.provider import OpenIDProvider
from service.oidc.settings import login_methods, oidc_settings
from service.opa_intake import OPAIntake
from service.packs import PACK_LEASE_SECONDS, PackJobs, PackStore
from service.people import People
from service.person_tokens import PersonTokens
from service.privileges import Privileges
from service.reach import Acknowledgements
from service.recorder import ServiceRecorder
from service.rollback_replays import RollbackReplays
from service.settings import Settings, passphrase
from service.stopping import Stops
from service.tools import Tools
from service.web.sessions import LoginLinks
from service.wiring.notifying import make_notifications
from service.wiring.outsiders import make_timestamping, make_witnessing, read_witness_policy
from service.wiring.places import make_anchor, make_tiles, probed, puts_at_once
from service.wiring.services import Services, SharedParts, make_data_dir, open_shared
from service.wiring.signing import open_signer

__all__ = ["build_services"]


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
    make_data_dir(settings)
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
    log_id, clock, database = identity.log_id, shared.clock, shared.database
    evaluator = shared.evaluator.taking_turns_as(log_id)
    tiles = make_tiles(settings, clock)
    catalog = SQLCatalog(database)
    reader = EntryReader(store, tiles, log_id)
    anchor = probed(make_anchor(settings, clock), settings)
    prover = Prover(tiles, log_id)
    witness_policy = read_witness_policy(settings, current)
    publisher = Publisher(
        log_id=log_id,
        origin=settings.origin,
        store=store,
        tiles=tiles,
        integrator=Integrator(log_id, reader, tiles, puts_at_once=puts_at_once(tiles)),
        signers=LogKeys(
            settings.origin,
            key_records=lambda start: (
                (leaf, reader.record(leaf)) for leaf in catalog.of_type(log_id, "key", above=start - 1)
            ),
            held=lambda: [open_signer(key) for key in current.look_again().of("log")],
        ),
        anchor=anchor,
        clock=clock,
        witnessing=make_witnessing(settings, witness_policy, database, prover, clock),
    )
    lease = SQLLease(database, log_id, PUBLISHER_LEASE, holder=secrets.token_hex(16), seconds=LEASE_SECONDS)
    publishing = PublishingLoop(publisher, interval_seconds=settings.checkpoint_interval_seconds, lease=lease)
    metrics = Metrics()
    timestamping = make_timestamping(settings, database, lambda: publishing.published, clock)
    collecting = CollectingLoop(
        PartialCollector(log_id, tiles),
        lambda: publishing.published.head.size if publishing.published else 0,
        interval_seconds=max(1.0, settings.checkpoint_interval_seconds),
        on_collected=metrics.collected.inc,
        lease=SQLLease(
            database, log_id, COLLECTOR_LEASE, holder=secrets.token_hex(16), seconds=COLLECTOR_LEASE_SECONDS
        ),
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
        read=reader.record,
        vault=vault,
        clock=clock,
        on_record=take_key,
        refresh_keys=key_records.refresh,
    )
    archive = SQLPayloadArchive(database)
    check = own_record_check(keyring, settings.service_id, key_records.refresh)
    keeper = ErasureKeeper(
        log_id,
        keys=subject_keys,
        archive=archive,
        vault=vault,
        catalog=catalog,
        reader=reader,
        sink=recorder,
        check=check,
    )
    minimum_index = MinimumIndex(log_id, catalog=catalog, reader=reader, check=check)
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
        beyond=lambda: erasures_beyond(
            log_id, store, tiles, lambda: [key.public_key for key in current.keys.of("enforcer") if key.public_key]
        ),
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
    contacts = Contacts(database, log_id, clock)
    worker = secrets.token_hex(16)
    archives = SQLBundleStore(database, clock)
    history = LogBundleHistory(catalog, reader, check)
    registry = Registry(
        log_id=log_id,
        store=archives,
        history=history,
        sink=recorder,
        evaluator=evaluator,
        foresee=RollbackReplays(log_id, catalog=catalog, reader=reader, vault=vault, evaluator=evaluator, clock=clock),
        tester=lambda: service_actor(settings.service_id, current.keys),
        trusted=() if settings.bundle_trust is None else read_trusted_keys(settings.bundle_trust),
        solo=settings.bundle_review == "solo",
    )
    containments = Containments(
        log_id,
        service_id=settings.service_id,
        size=lambda: store.sequenced_size(log_id),
        catalog=catalog,
        reader=reader,
        check=check,
        keyring=keyring,
        refresh_keys=key_records.refresh,
        sink=recorder,
        said=Acknowledgements(database, log_id),
        clock=clock,
        actor=lambda: pseudonym(current.keys.pseudonym.seed, "actor", settings.service_id),
    )
    provider = oidc_settings(settings)
    access = AccessRecorder(recorder, lambda: current.keys.pseudonym.seed)
    inventory = Inventory(
        log_id,
        settings.service_id,
        size=lambda: store.sequenced_size(log_id),
        usage=SQLUsage(database),
        catalog=catalog,
        reader=reader,
        check=check,
        sink=recorder,
        clock=clock,
        simulated=identity.simulated,
    )
    fleet = FleetReader(
        log_id,
        service_id=settings.service_id,
        catalog=catalog,
        reader=reader,
        keyring=keyring,
        key_records=key_records,
        history=history,
        contacts=contacts,
        containments=containments,
        clock=clock,
    )
    approvals = Approvals(
        log_id,
        service_id=settings.service_id,
        size=lambda: store.sequenced_size(log_id),
        catalog=catalog,
        reader=reader,
        check=check,
        vault=vault,
        sink=recorder,
        clock=clock,
        keys=lambda: current.keys,
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
        access=access,
        tokens=tokens,
        people=People(
            PersonTokens(database, clock, log_id), lambda: current.keys, access, methods=login_methods(settings)
        ),
        oidc=None if provider is None else OpenIDProvider(provider, clock),
        login_links=LoginLinks(database, clock, log_id, tokens, lambda: current.keys.pseudonym_seeds),
        metrics=metrics,
        evaluator=evaluator,
        bundles=registry,
        bundle_archives=archives,
        bundle_watch=BundleWatch(registry.newest),
        contacts=contacts,
        fleet=fleet,
        containments=containments,
        notifications=make_notifications(
            settings, database, store, catalog, reader, check=check, look_at_fleet=fleet.look, clock=clock
        ),
        approvals=approvals,
        access_requests=AccessRequests(
            log_id,
            service_id=settings.service_id,
            approvals=approvals,
            sink=recorder,
            catalog=catalog,
            reader=reader,
            vault=vault,
            clock=clock,
            keys=lambda: current.keys,
            seconds=settings.access_request_seconds,
            needed=settings.access_request_approvers,
        ),
        opa_archives=OPAArchives(),
        decision_point=DecisionPoint(
            log_id,
            bundles=ActiveBundles(log_id, registry, catalog),
            stops=Stops(lambda: containments.look().current),
            evaluator=evaluator,
            sink=recorder,
            catalog=catalog,
            reader=reader,
            vault=vault,
            clock=clock,
            pseudonym_key=lambda: current.keys.pseudonym.seed,
        ),
        opa_intake=OPAIntake(
            log_id, sink=recorder, catalog=catalog, reader=reader, registry=registry, keys=lambda: current.keys
        ),
        packs=PackJobs(
            PackStore(database, settings.data_dir / "packs", log_id),
            clock,
            lease=lambda job_id: SQLLease(
                database, log_id, f"pack:{job_id}", holder=worker, seconds=PACK_LEASE_SECONDS
            ),
        ),
        impacts=ImpactJobs(
            ImpactStore(database, log_id),
            ImpactFiles(settings.data_dir / "impacts", log_id),
            clock,
            lease=lambda job_id: SQLLease(
                database, log_id, f"impact:{job_id}", holder=worker, seconds=IMPACT_LEASE_SECONDS
            ),
        ),
        modes=Modes(
            log_id, settings.service_id, sink=recorder, catalog=catalog, reader=reader, check=check, clock=clock
        ),
        behaviour=Behaviour(
            log_id, settings.service_id, sink=recorder, catalog=catalog, reader=reader, check=check, clock=clock
        ),
        discoveries=Discoveries(
            log_id,
            settings.service_id,
            sink=recorder,
            catalog=catalog,
            reader=reader,
            vault=vault,
            check=check,
            keys=lambda: current.keys,
            clock=clock,
        ),
        tools=Tools(
            log_id, settings.service_id, sink=recorder, catalog=catalog, reader=reader, vault=vault, check=check
        ),
        inventory=inventory,
        privileges=Privileges(
            log_id,
            inventory=inventory,
            bundles=ActiveBundles(log_id, registry, catalog),
            evaluator=evaluator,
            catalog=catalog,
            reader=reader,
        ),
        fleet_windows=FleetWindows(database, log_id, clock),
        lifecycle=lifecycle,
        minimum_index=minimum_index,
        pruner=pruner,
        places=Places(settings.max_requests),
        bytes_in_hand=Bytes(max(settings.max_waiting_bytes, settings.max_request_bytes)),
        auditing=_audit_loop(settings, database, clock),
        shared=shared,
        owns_shared=owns_shared,
    )
