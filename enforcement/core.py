"""One enforcement point, assembled: what is the same behind every transport.

Here the parts are put together and taken apart again; each is described where it is. A transport, such as
`enforcement.gateway`, hands messages to `Running.passage`, which is the one way to a decision, and reports there what
became of them.

INVARIANT: of one state directory runs one enforcement point, whatever its transport: `Core.start` takes its lock.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from types import TracebackType
from typing import Final

import nacl.signing
import structlog

from enforcement.admission import Admission
from enforcement.approvals import approvals_of
from enforcement.batches import Depth, RecordIdentity
from enforcement.call_tracing import tracing_of
from enforcement.canary import Canary, CanaryEvaluator
from enforcement.config import GatewayConfig, ServerSettings
from enforcement.config_files import read_secret, read_trust
from enforcement.conversations import Conversations
from enforcement.facts import Pseudonyms
from enforcement.fleet_store import FleetStore, ServiceFleetStore
from enforcement.guarding import guarding_of
from enforcement.holding import Holding
from enforcement.inventory import InventoryReport
from enforcement.judging import PolicyEvaluator
from enforcement.ledger_client import ServiceClient
from enforcement.listings import Listings
from enforcement.looking import Inspector
from enforcement.metrics import Metrics
from enforcement.modes import ModeChange
from enforcement.passage import Passage
from enforcement.pep import EnforcementPoint
from enforcement.pin_store import KeptVerdicts, PinStore
from enforcement.pins import PinnedTools, ToolPins
from enforcement.policy_source import PolicySource
from enforcement.ports import BundleSource, CanarySource, LedgerClient, RestrictionChannel, ToolVerdictChannel
from enforcement.profiles.keeper import Profiles
from enforcement.profiles.orders import BaselineOrders
from enforcement.profiles.profile import Baseline
from enforcement.profiles.signalling import spoken_for
from enforcement.receipts import LogSource, Receipts
from enforcement.recorder import Recorder
from enforcement.releases import blocks_of_others, kills_of, lift_blocks, release_batch
from enforcement.restrictions import Restrictions, kept_restrictions
from enforcement.review import AnswerReview
from enforcement.round_claims import RoundClaims
from enforcement.rounds import RoundReview, Rounds
from enforcement.server_list import HeldModes, Servers
from enforcement.server_reload import ModeApprovals, NoApprovals, ServerReload
from enforcement.session_ends import SessionEnds
from enforcement.sessions import Block, Sessions
from enforcement.spool import Spool
from enforcement.state import StateDatabase, lock_directory
from enforcement.strict_windows import StrictWindows
from enforcement.tls_watch import CertificateWatch
from enforcement.tls_wiring import ServerContexts, service_context
from enforcement.tool_manifests import manifest_of
from enforcement.upstream_tokens import check_credentials
from enforcement.vitals import Vitals, vitals_of
from enforcement.window_exchange import WindowExchange
from enforcement.window_sweeps import WindowSweeps
from enforcement.windows import Windows
from ledger.clock import Clock, SystemClock
from ledger.errors import ConfigError, LedgerError
from ledger.restrictions import NO_VERSION
from ledger.trust import TrustPolicy
from policies.bundles import Bundle
from policies.direct import DirectEvaluator
from policies.evaluate import Evaluator
from policies.trusted_keys import read_trusted_keys

__all__ = ["Core", "CoreKeys", "Running"]

_LOG: Final = structlog.get_logger(__name__)
_MS_PER_SECOND: Final = 1000
_LOOK_SECONDS: Final = 60.0
"""How often it is looked which sessions are silent, at most, and what behaviour windows can forget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreKeys:
    """The keys of one enforcement point.

    Attributes:
        signing: Signs records, Ed25519.
        pseudonym: The tenant's pseudonym key, 32 bytes; not shown in a representation.
        spool: Encrypts payloads that wait, 32 bytes; likewise.
    """

    signing: nacl.signing.SigningKey = field(repr=False)
    pseudonym: bytes = field(repr=False)
    spool: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The parts of an enforcement point that runs.

    Attributes:
        passage: The way of a message.
        admission: Knows servers and callers.
        policies: Which policy decides.
        recorder: Makes records durable.
        sessions: Sessions and blocks.
        canary: What is evaluated beside.
        servers: What may be called at all, as it is now.
        conversations: Sessions of the protocol's stateful revisions.
        reload: Keeps it so.
        receipts: Proves what the ledger has acknowledged, if a trust policy says by which keys.
        exchange: Tells other gateways what was counted; None if there is no service to tell.
        restrictions: What is stopped.
        profiles: What agents usually do; None if nothing is learned.
        pins: Which definitions of tools stand.
        holding: Holds calls until people have agreed, if that is wanted.
    """

    passage: Passage
    admission: Admission
    policies: PolicySource
    recorder: Recorder
    sessions: Sessions
    canary: Canary
    servers: Servers
    conversations: Conversations
    reload: ServerReload
    receipts: Receipts | None
    exchange: WindowExchange | None
    restrictions: Restrictions
    profiles: Profiles | None
    pins: ToolPins
    holding: Holding | None


class Core:
    """An enforcement point. Runs between `start` and `stop`, on one event loop.

    Attributes:
        config: Its settings.
        clock: Dates calls and records.
        metrics: What is counted.
        certificates: Looks after the certificates that it uses, also those of transports.
        ways: What TLS is like on the ways to servers.
        pseudonyms: Name what may not stand in the open.
        over_http: Calls go out over HTTP alone, so that servers of a file without a url are passed over. A transport
            of that kind says so before `start`.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        evaluator: PolicyEvaluator,
        clock: Clock,
        keys: CoreKeys,
        simulated: bool = False,
        ledger: LedgerClient | None = None,
        bundles: BundleSource | None = None,
        inspector: Inspector | None = None,
        on_stopped: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the parts; nothing is read, opened or sent before `start`.

        Args:
            config: Its settings.
            evaluator: Asks policies; several enforcement points may share one.
            clock: Dates calls and records.
            keys: Its keys.
            simulated: The keys are a demonstration's; every record says so (it does as well if the clock is simulated).
            ledger: Instead of the service of the configuration.
            bundles: Instead of the service of the configuration.
            inspector: Instead of the one that the configuration describes; it is used only if that says what for.
            on_stopped: Called in a thread once all has stopped: what was made for this enforcement point alone is
                closed there.
        """
        self.config = config
        self.clock = clock
        self._evaluator = evaluator
        self._keys = keys
        self._simulated = simulated or clock.simulated
        self._ledger = ledger
        self._bundles = bundles
        self._inspector = inspector
        self._on_stopped = on_stopped
        self.over_http = False
        self.pseudonyms = self._pseudonyms = Pseudonyms(keys.pseudonym)
        self._idle_ms = int(config.sessions.idle_seconds * _MS_PER_SECOND)
        self.look_seconds: Final = min(_LOOK_SECONDS, self._idle_ms / 4000)
        self._stack = AsyncExitStack()
        self._running: Running | None = None
        self.metrics = Metrics()
        self.certificates = CertificateWatch(self.metrics.tls)
        # TLS goes by the time of this machine, whatever clock dates the records.
        self.ways = ServerContexts(self.metrics.tls, self.certificates, SystemClock())
        self.metrics.watch("spool_records", "Records that wait for the ledger", lambda: self._depth().records)
        self.metrics.watch("spool_bytes", "Bytes that wait for the ledger", lambda: self._depth().size_bytes)
        self.metrics.watch("set_aside_records", "Records that the ledger refused", lambda: self._depth().set_aside)
        self.metrics.watch("windows_staleness_seconds", "Since other gateways were heard of; NaN: never", self._stale)
        self.metrics.watch("restrictions", "What is stopped here", lambda: self._restrictions()[0])
        self.metrics.watch(
            "restrictions_stale", "1 if nobody says what else is stopped by now", lambda: self._restrictions()[1]
        )
        self.metrics.watch("tools_quarantined", "Tools that wait for a person's word", self._quarantined)
        self.metrics.watch("held_calls", "Calls that wait for people", self._held)
        self.metrics.watch("ledger_reachable", "1 if the ledger took records last time", self._reachable)
        self.metrics.watch("unproven_records", "Records acknowledged and not proven", self._unproven)
        self.metrics.watch("ledger_disputed", "1 if the ledger's proofs contradict its word", self._disputed)
        self.metrics.watch("servers", "Servers that calls may go to", lambda: len(self.servers()))
        self.metrics.watch("servers_file_broken", "1 if the list of servers is not sound", self._list_broken)
        self.metrics.watch("baselines_learning", "Agents whose baseline is not ready", lambda: self._known("learning"))
        self.metrics.watch("baselines_ready", "Agents with a baseline of behaviour", lambda: self._known("ready"))
        self.metrics.watch("modes_waiting", "Changes to observe that nobody approved", lambda: len(self._waiting()))

    async def start(self) -> Running:
        """Take the state directory, announce the run, get the bundle in force.

        The ledger need not be there; what may pass without it is said by each server's ``recording``.

        Raises:
            ConfigError: Another enforcement point runs on the state directory, it belongs to another enforcer, or a
                secret is missing.
            StorageError: The state file failed.
        """
        if self._running is not None:
            raise ConfigError("the gateway runs already")
        try:
            self._running = await self._assemble()
        except BaseException:
            await self._stack.aclose()
            raise
        _LOG.info("gateway_started", enforcer_id=self.config.enforcer_id, simulated=self._simulated)
        return self._running

    async def stop(self) -> None:
        """Cancel what is under way, record its outcomes, close the stream of records in order.

        Raises:
            StorageError: The state file failed.
        """
        try:
            await self._stack.aclose()
        finally:
            self._running = None
            await asyncio.to_thread(self._on_stopped)
        _LOG.info("gateway_stopped", enforcer_id=self.config.enforcer_id)

    async def __aenter__(self) -> Running:
        """Start; see `start`."""
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; see `stop`."""
        await self.stop()

    @property
    def running(self) -> Running | None:
        """The parts while it runs."""
        return self._running

    def server_name(self, name: str | None = None) -> str:
        """Return which server a transport of one server alone is for.

        Args:
            name: Its name; None for the only one of the configuration.

        Raises:
            ConfigError: There is none of that name, or there are several.
        """
        known = [server.name for server in self.config.servers]
        if name is None:
            if len(known) != 1:
                raise ConfigError("the configuration does not list exactly one server: name the one that this is")
            return known[0]
        if self.config.servers_file is None and name not in known:
            raise ConfigError(f"servers lists no {name}")
        return name

    def require(self) -> Running:
        """Return the parts.

        Raises:
            ConfigError: It does not run.
        """
        if self._running is None:
            raise ConfigError("the gateway does not run")
        return self._running

    async def _assemble(self) -> Running:
        config, stack = self.config, self._stack
        descriptor = lock_directory(config.state_directory)
        stack.callback(os.close, descriptor)
        state = StateDatabase(config.state_directory)
        stack.callback(state.close)
        reader = StateDatabase(config.state_directory)
        stack.callback(reader.close)
        ledger, bundles = await self._service()
        self.certificates.start()
        stack.push_async_callback(self.certificates.stop)
        sessions = Sessions(reader, self._pseudonyms, idle_ms=self._idle_ms)
        store = ServiceFleetStore(ledger) if isinstance(ledger, ServiceClient) else None
        windows = self._windows(reader, store)
        trusted = () if config.bundles.trusted_keys is None else read_trusted_keys(config.bundles.trusted_keys)
        canary, profiles = Canary(self.metrics), self._profiles(reader, bundles)
        policies = PolicySource(
            bundles,
            config.state_directory,
            config.bundles,
            self.clock,
            trusted=trusted,
            on_adopted=self._say_adopted,
            evaluator=self._evaluator,
            on_canary=canary.follow,
        )
        spool = self._spool(state)
        trust = None if config.service.trust is None else read_trust(config.service.trust)
        recorder = Recorder(
            spool,
            ledger,
            config.recording,
            version=package_version("tallystick"),
            vitals=lambda: self._vitals(policies, ledger),
            keep=trust is not None,
        )
        receipts = self._receipts(spool, ledger, trust, recorder)
        servers, inventory = self._listed(reader, recorder)
        pins = self._pins_of(servers, bundles, reader, recorder)
        reload = ServerReload(
            servers,
            path=config.servers_file,
            inline=config.servers,
            held=HeldModes(reader),
            approvals=bundles if isinstance(bundles, ModeApprovals) else NoApprovals(),
            recorder=recorder,
            interval_seconds=config.servers_seconds,
            check=lambda listed: self._usable(listed, pins),
            over_http=self.over_http,
        )
        rounds = self._rounds(reader, store)
        restrictions = self._restrictions_of(bundles, sessions, recorder)
        admission = Admission(
            config, servers, sessions, self.clock, rounds=rounds, restrictions=restrictions, pins=pins
        )
        guarding = await asyncio.to_thread(
            guarding_of,
            config.inspection,
            self._inspector,
            sources=(PinnedTools(pins), *spoken_for(profiles)),
            tool_states=PinnedTools(pins),
        )
        pep = EnforcementPoint(
            admission,
            evaluator=DirectEvaluator(self._evaluator) if isinstance(self._evaluator, Evaluator) else self._evaluator,
            evaluation_seconds=config.limits.evaluation_seconds,
            policies=policies,
            recorder=recorder,
            sessions=sessions,
            windows=windows,
            pseudonyms=self._pseudonyms,
            metrics=self.metrics,
            on_settled=canary.offer,
            disputed=lambda: receipts is not None and receipts.disputed is not None,
            tracing=await stack.enter_async_context(tracing_of(config, self._pseudonyms, self.metrics)),
            safeguards=guarding.safeguards,
            on_judged=(lambda _: None) if profiles is None else profiles.judged,
            holding=self._holding(bundles, admission, policies, recorder),
        )
        listings = Listings(
            self._evaluator,
            policies,
            evaluation_seconds=config.limits.evaluation_seconds,
            stopped=lambda server, tool: restrictions.stops_tool(server, tool) or pins.hides(server, tool),
            tool_states=guarding.safeguards.tool_states,
            baseline_of=(lambda _: "none") if profiles is None else profiles.state_of,
        )
        asking = RoundReview(rounds, pep.handle, pep.complete)
        review = AnswerReview(
            listings, asking, admission.learn_tools, self.metrics, inventory.note_tools, pins, guarding.answers
        )
        passage = Passage(pep, review)
        # In reverse order when it stops: no more calls, then no more polling, then the last record.
        ends = SessionEnds(sessions, recorder, self.clock, interval_seconds=self.look_seconds)
        sweeps = WindowSweeps(windows, sessions, recorder, self.clock, interval_seconds=_LOOK_SECONDS)
        stack.push_async_callback(recorder.stop)
        if receipts is not None:
            stack.push_async_callback(receipts.stop)
        for part in (policies, ends, sweeps, canary, reload):
            stack.push_async_callback(part.stop)
        await policies.start()
        await recorder.start()
        await reload.start()
        if receipts is not None:
            receipts.start()
        await self._begin(restrictions, pins, ends, sweeps, inventory, profiles, recorder)
        exchange = self._exchange(windows, store, reader, recorder)
        if isinstance(bundles, CanarySource) and isinstance(self._evaluator, CanaryEvaluator):
            canary.start(bundles, self._evaluator, recorder, trusted)
        stack.push_async_callback(passage.stop)
        return Running(
            passage=passage,
            admission=admission,
            policies=policies,
            recorder=recorder,
            sessions=sessions,
            canary=canary,
            servers=servers,
            reload=reload,
            conversations=Conversations(config.protocol, self.clock, idle_ms=self._idle_ms),
            receipts=receipts,
            exchange=exchange,
            restrictions=restrictions,
            pins=pins,
            profiles=profiles,
            holding=pep.holding,
        )

    async def _begin(
        self,
        restrictions: Restrictions,
        pins: ToolPins,
        ends: SessionEnds,
        sweeps: WindowSweeps,
        inventory: InventoryReport,
        profiles: Profiles | None,
        recorder: Recorder,
    ) -> None:
        """Begin what is repeated beside the messages, and hear what is contained before the first of them."""
        self._stack.push_async_callback(restrictions.stop)
        self._stack.push_async_callback(pins.stop)
        await restrictions.start()
        await pins.start()
        ends.start()
        sweeps.start()
        self._stack.push_async_callback(inventory.stop)
        await inventory.start()
        if profiles is not None:
            self._stack.push_async_callback(profiles.stop)
            profiles.start(recorder)

    def _listed(self, reader: StateDatabase, recorder: Recorder) -> tuple[Servers, InventoryReport]:
        """Return the list of servers, with nothing on it yet, and what tells the ledger of it."""
        servers, inventory = Servers(), InventoryReport(reader, recorder, self.clock)
        servers.watch(self.ways.keep)
        servers.watch(inventory.note_servers)
        return servers, inventory

    def _holding(
        self, source: object, admission: Admission, policies: PolicySource, recorder: Recorder
    ) -> Holding | None:
        """Return what holds calls, if the configuration wants that; it asks only while it holds some."""
        approvals = approvals_of(self.config, source)
        if approvals is None:
            return None
        self._stack.push_async_callback(approvals.stop)
        approvals.start()
        return Holding(
            approvals,
            admission=admission,
            policies=policies,
            recorder=recorder,
            pseudonyms=self._pseudonyms,
            clock=self.clock,
        )

    def _restrictions_of(self, source: object, sessions: Sessions, recorder: Recorder) -> Restrictions:
        return Restrictions(
            source if isinstance(source, RestrictionChannel) else None,
            self.config.state_directory,
            self.config.restrictions,
            self.clock,
            self._pseudonyms,
            released_here=sessions.is_released,
            on_lifted=lambda lifted: lift_blocks(sessions, recorder, lifted),
        )

    def _pins_of(self, servers: Servers, source: object, reader: StateDatabase, recorder: Recorder) -> ToolPins:
        channel = source if isinstance(source, ToolVerdictChannel) else None
        kept = KeptVerdicts(self.config.state_directory)
        pins = ToolPins(
            PinStore(reader), recorder, self.config.pinning, channel=channel, kept=kept, manifests=manifest_of
        )
        servers.watch(pins.take_up)
        return pins

    def _receipts(
        self, spool: Spool, ledger: LedgerClient, trust: TrustPolicy | None, recorder: Recorder
    ) -> Receipts | None:
        if trust is None:
            return None
        if not isinstance(ledger, LogSource):
            raise ConfigError("service.trust: this ledger hands out no proofs")
        service = self.config.service
        return Receipts(
            spool,
            ledger,
            trust,
            self.config.log_id,
            in_thread=recorder.in_thread,
            interval_seconds=service.proof_seconds,
        )

    def _windows(self, reader: StateDatabase, store: FleetStore | None) -> Windows:
        strict = StrictWindows(store, self.metrics, seconds=self.config.windows.strict_seconds)
        return Windows(reader, self._pseudonyms, strict)

    def _profiles(self, reader: StateDatabase, source: object) -> Profiles | None:
        settings = self.config.profiles
        if settings is None:
            return None
        orders = source if isinstance(source, BaselineOrders) else None
        return Profiles(reader, self._pseudonyms, settings, self.metrics, orders)

    def _known(self, state: Baseline) -> int:
        profiles = None if self._running is None else self._running.profiles
        return 0 if profiles is None else profiles.in_state(state)

    def _rounds(self, reader: StateDatabase, store: FleetStore | None) -> Rounds:
        seconds = self.config.windows.strict_seconds
        claims = None if store is None else RoundClaims(store, reader, seconds=seconds)
        return Rounds(self._keys.pseudonym, reader, self.clock, claims=claims)

    def _exchange(
        self, windows: Windows, store: FleetStore | None, reader: StateDatabase, recorder: Recorder
    ) -> WindowExchange | None:
        """Begin to tell other gateways what is counted, if there is a service to tell."""
        if store is None:
            return None
        seconds = self.config.windows.exchange_seconds
        exchange = WindowExchange(windows, store, reader, recorder, self.clock, interval_seconds=seconds)
        self._stack.push_async_callback(exchange.stop)
        exchange.start()
        return exchange

    def _usable(self, servers: Sequence[ServerSettings], pins: ToolPins) -> None:
        """Refuse a list of servers that names a secret, a certificate or a manifest that cannot be used."""
        check_credentials(servers)
        pins.prepare(servers)
        self.ways.prepare(servers)

    async def _service(self) -> tuple[LedgerClient, BundleSource]:
        if self._ledger is not None and self._bundles is not None:
            return self._ledger, self._bundles
        service = self.config.service
        if service.url.startswith("http:"):
            _LOG.warning("service_without_tls", url=service.url)
        tls = service_context(self.config, self.metrics.tls, SystemClock())
        if tls is not None:
            self.certificates.add(tls)
        client = ServiceClient(
            service.url, read_secret(service.token), timeout_seconds=service.timeout_seconds, clock=self.clock, tls=tls
        )
        await self._stack.enter_async_context(client)
        return self._ledger or client, self._bundles or client

    def _vitals(self, policies: PolicySource, ledger: LedgerClient) -> Vitals:
        """Return what heartbeats say of this enforcement point."""
        offset = ledger.offset.measured(self.clock.now_ms()) if isinstance(ledger, ServiceClient) else None
        running = self._running
        return vitals_of(
            self.config,
            self._keys.pseudonym,
            revision=policies.revision,
            age_ms=policies.age_ms,
            offset=offset,
            restrictions=NO_VERSION if running is None else running.restrictions.current.version,
        )

    def _spool(self, state: StateDatabase) -> Spool:
        config = self.config
        identity = RecordIdentity(
            log_id=config.log_id,
            tenant=config.tenant,
            environment=config.environment,
            enforcer_id=config.enforcer_id,
            simulated=self._simulated,
            pseudonym_key_id=self._pseudonyms.key_id,
        )
        return Spool(
            state,
            identity=identity,
            signing_key=self._keys.signing,
            spool_key=self._keys.spool,
            clock=self.clock,
            max_bytes=config.recording.spool_bytes,
        )

    # --- what operators do

    def _say_adopted(self) -> None:
        """Say with the next heartbeat, at once, that another bundle decides."""
        if self._running is not None:
            self._running.recorder.beat_soon()

    async def refresh_bundle(self) -> str | None:
        """Ask now which bundle is in force, instead of at the next turn; return its revision."""
        running = self.require()
        await running.policies.refresh()
        return running.policies.revision

    def servers(self) -> tuple[ServerSettings, ...]:
        """Return the servers that calls may go to now, with the modes that are in force."""
        return () if self._running is None else self._running.servers.all

    async def reload_servers(self) -> None:
        """Look at the list of servers now, instead of at the next turn.

        Raises:
            ConfigError: It does not run.
            LedgerError: The list cannot be taken up now; the one before goes on.
        """
        await self.require().reload.look()

    async def exchange_windows(self) -> None:
        """Tell other gateways now what was counted here, and hear of theirs, instead of at the next turn.

        Raises:
            StorageError: The state file failed.
        """
        exchange = self.require().exchange
        while exchange is not None and await exchange.exchange():
            pass

    def blocks(self) -> list[Block]:
        """Return the principals whose session was ended, here or at another gateway, and who were not released since.

        Works on a gateway that was not started as well, beside another process that runs on the same directory.

        Raises:
            ConfigError: The state directory belongs to another enforcer.
            StorageError: The state file failed.
        """
        with self._state() as (sessions, _):
            return [*sessions.blocks(), *blocks_of_others(sessions, kept_restrictions(self.config.state_directory))]

    async def release(self, agent: str, user: str | None, *, actor: str, actor_role: str, purpose: str) -> None:
        """Let a principal call again whose session was ended; it becomes a record.

        Works on a gateway that was not started as well, beside another process that runs on the same directory: that
        one sees it at the principal's next call, and posts the record with its next heartbeat at the latest.

        Args:
            agent: The agent.
            user: Its user, or None.
            actor: The person who releases it.
            actor_role: In which role.
            purpose: Why.

        Raises:
            NotFoundError: The principal is not blocked.
            ConfigError: The state directory belongs to another enforcer.
            LedgerError: It could not be recorded; the block stands.
        """
        with self._state() as (sessions, spool):
            kills = kills_of(kept_restrictions(self.config.state_directory), self._pseudonyms, agent, user)
            batch = release_batch(
                sessions,
                self._pseudonyms,
                spool.new_record_id,
                agent=agent,
                user=user,
                actor=actor,
                actor_role=actor_role,
                purpose=purpose,
                now_ms=self.clock.now_ms(),
                elsewhere=[kill for kill in kills if not sessions.is_released(kill)],
            )
            if self._running is not None:
                await self._running.recorder.record(batch, strict=False)
                return
            (result,) = spool.append([batch])
            if isinstance(result, LedgerError):
                raise result

    @contextmanager
    def beside(self) -> Iterator[tuple[StateDatabase, Spool]]:
        """Open the state file once more, on a connection of its own; another process may run on it.

        Raises:
            ConfigError: The state directory belongs to another enforcer.
            StorageError: The state file failed.
        """
        with closing(StateDatabase(self.config.state_directory)) as state:
            yield state, self._spool(state)

    @contextmanager
    def _state(self) -> Iterator[tuple[Sessions, Spool]]:
        with self.beside() as (state, spool):
            yield Sessions(state, self._pseudonyms, idle_ms=self._idle_ms), spool

    def readiness(self) -> tuple[bool, dict[str, object]]:
        """Return whether it can decide and record, and what is to be said of it: names and counts, no caller's."""
        running = self._running
        if running is None:
            return False, {"ready": False}
        depth, current = running.recorder.depth, running.policies.current()
        unproven_bytes = 0 if running.receipts is None else running.receipts.unproven_bytes
        room = depth.size_bytes + unproven_bytes < self.config.recording.spool_bytes * 7 // 8
        ready = isinstance(current, Bundle) and room and running.recorder.storing
        facts: dict[str, object] = {
            "ready": ready,
            "bundle": running.policies.revision,
            "bundle_usable": isinstance(current, Bundle),
            "canary": running.canary.revision,
            "ledger_disputed": bool(self._disputed()),
            "servers": len(running.servers.all),
            "servers_file": running.reload.file,
            **({"servers_passed_over": running.reload.passed_over} if running.reload.passed_over else {}),
            "modes_waiting": len(running.reload.waiting),
            "ledger_reachable": running.recorder.reachable,
            "spool_usable": running.recorder.storing,
            "spool_records": depth.records,
            "spool_bytes": depth.size_bytes,
            "unproven_bytes": unproven_bytes,
            "set_aside_records": depth.set_aside,
            **running.restrictions.readiness(),
            "tools_quarantined": running.pins.quarantined(),
        }
        certificates = self.certificates.readiness()
        return ready, {**facts, "certificates": certificates} if certificates else facts

    def _depth(self) -> Depth:
        return Depth(0, 0, 0) if self._running is None else self._running.recorder.depth

    def _waiting(self) -> tuple[ModeChange, ...]:
        return () if self._running is None else self._running.reload.waiting

    def _disputed(self) -> float:
        running = self._running
        return float(running is not None and running.receipts is not None and running.receipts.disputed is not None)

    def _unproven(self) -> float:
        running = self._running
        return 0.0 if running is None or running.receipts is None else running.receipts.waiting

    def _list_broken(self) -> float:
        return float(self._running is not None and self._running.reload.file == "broken")

    def _stale(self) -> float:
        heard_ms = None if self._running is None or self._running.exchange is None else self._running.exchange.heard_ms
        return float("nan") if heard_ms is None else max(0, self.clock.now_ms() - heard_ms) / _MS_PER_SECOND

    def _restrictions(self) -> tuple[float, float]:
        if self._running is None:
            return 0.0, 0.0
        restrictions = self._running.restrictions
        return float(len(restrictions.current.restrictions)), float(restrictions.stale)

    def _quarantined(self) -> float:
        return 0.0 if self._running is None else float(self._running.pins.quarantined())

    def _held(self) -> float:
        holding = None if self._running is None else self._running.holding
        return 0.0 if holding is None else float(len(holding))

    def _reachable(self) -> float:
        return float(self._running is not None and self._running.recorder.reachable)
