"""The gateway: a streamable-HTTP reverse proxy that lets no MCP call pass unjudged.

Here the parts are put together and taken apart again; each is described where it is. The routes:

* ``POST /servers/{name}/mcp``: MCP messages for the server of that name;
* ``GET /healthz``: the process runs;
* ``GET /readyz``: it can decide and record: a bundle in force, and room in the spool. That the ledger is away is said,
  but does not make it unready: what then may still pass is said by each server's ``recording``;
* ``GET /metrics``: Prometheus.

INVARIANT: the address of a caller is that of the socket. `Gateway.server_config` runs uvicorn without its
``X-Forwarded-For`` handling, which would believe the header of a local proxy, or of any local process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import Final

import nacl.signing
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from enforcement.admission import Admission
from enforcement.authenticator import Authenticator
from enforcement.batches import Depth, RecordIdentity
from enforcement.canary import Canary, CanaryEvaluator
from enforcement.config import GatewayConfig
from enforcement.config_files import read_secret
from enforcement.connections import closing_strangers, connection_class
from enforcement.endpoint import Endpoint
from enforcement.facts import Pseudonyms
from enforcement.ledger_client import ServiceClient
from enforcement.metrics import Metrics
from enforcement.pep import EnforcementPoint, PolicyEvaluator
from enforcement.policy_source import PolicySource
from enforcement.ports import BundleSource, CanarySource, LedgerClient
from enforcement.recorder import Recorder
from enforcement.releases import release_batch
from enforcement.session_ends import SessionEnds
from enforcement.sessions import Block, Sessions
from enforcement.spool import Spool
from enforcement.state import StateDatabase, lock_directory
from enforcement.upstream import Upstream
from enforcement.window_sweeps import WindowSweeps
from enforcement.windows import Windows
from ledger.clock import Clock
from ledger.errors import ConfigError, LedgerError
from policies.bundles import Bundle
from policies.trusted_keys import read_trusted_keys

__all__ = ["Gateway", "build_gateway"]

_LOG: Final = structlog.get_logger(__name__)
_MS_PER_SECOND: Final = 1000
_KEEPALIVE_SECONDS: Final = 30
_LOOK_SECONDS: Final = 60.0
"""How often it is looked which sessions are silent, at most, and what behaviour windows can forget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    signing: nacl.signing.SigningKey
    pseudonym: bytes
    spool: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """The parts of a gateway that runs."""

    endpoint: Endpoint
    policies: PolicySource
    recorder: Recorder
    sessions: Sessions
    canary: Canary


class Gateway:
    """A gateway. Runs between `start` and `stop`, on one event loop.

    Attributes:
        app: The ASGI application.
        metrics: What is counted.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        evaluator: PolicyEvaluator,
        clock: Clock,
        keys: _Keys,
        simulated: bool,
        ledger: LedgerClient | None,
        bundles: BundleSource | None,
    ) -> None:
        """Take what `build_gateway` was given."""
        self._config = config
        self._evaluator = evaluator
        self._clock = clock
        self._keys = keys
        self._simulated = simulated or clock.simulated
        self._ledger = ledger
        self._bundles = bundles
        self._pseudonyms = Pseudonyms(keys.pseudonym)
        self._idle_ms = int(config.sessions.idle_seconds * _MS_PER_SECOND)
        self._stack = AsyncExitStack()
        self._running: _Running | None = None
        self.metrics = Metrics()
        self.metrics.watch("spool_records", "Records that wait for the ledger", lambda: self._depth().records)
        self.metrics.watch("spool_bytes", "Bytes that wait for the ledger", lambda: self._depth().size_bytes)
        self.metrics.watch("set_aside_records", "Records that the ledger refused", lambda: self._depth().set_aside)
        self.metrics.watch("ledger_reachable", "1 if the ledger took records last time", self._reachable)
        self.app = Starlette(
            routes=[
                Route("/servers/{name}/mcp", _Late(self)),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ]
        )
        self.app.router.redirect_slashes = False  # to a client, a redirect is an answer, and this one was not judged

    async def start(self) -> None:
        """Take the state directory, announce the run, get the bundle in force.

        The ledger need not be there; what may pass without it is said by each server's ``recording``.

        Raises:
            ConfigError: Another gateway runs on the state directory, it belongs to another enforcer, or a secret is
                missing.
            StorageError: The state file failed.
        """
        if self._running is not None:
            raise ConfigError("the gateway runs already")
        try:
            self._running = await self._assemble()
        except BaseException:
            await self._stack.aclose()
            raise
        _LOG.info("gateway_started", enforcer_id=self._config.enforcer_id, simulated=self._simulated)

    async def stop(self) -> None:
        """Cancel what is under way, record its outcomes, close the stream of records in order.

        Raises:
            StorageError: The state file failed.
        """
        try:
            await self._stack.aclose()
        finally:
            self._running = None
        _LOG.info("gateway_stopped", enforcer_id=self._config.enforcer_id)

    async def _assemble(self) -> _Running:
        config, stack = self._config, self._stack
        descriptor = lock_directory(config.state_directory)
        stack.callback(os.close, descriptor)
        state = StateDatabase(config.state_directory)
        stack.callback(state.close)
        reader = StateDatabase(config.state_directory)
        stack.callback(reader.close)
        ledger, bundles = await self._service()
        sessions = Sessions(reader, self._pseudonyms, idle_ms=self._idle_ms)
        windows = Windows(reader, self._pseudonyms)
        trusted = () if config.bundles.trusted_keys is None else read_trusted_keys(config.bundles.trusted_keys)
        canary = Canary(self.metrics)
        policies = PolicySource(
            bundles,
            config.state_directory,
            config.bundles,
            self._clock,
            trusted=trusted,
            on_adopted=self._say_adopted,
            evaluator=self._evaluator,
            on_canary=canary.follow,
        )
        recorder = Recorder(
            self._spool(state),
            ledger,
            config.recording,
            version=package_version("tallystick"),
            bundle_revision=lambda: policies.revision,
        )
        upstream = await stack.enter_async_context(Upstream(config.limits, self._authorizations()))
        admission = Admission(config, sessions, self._clock)
        pep = EnforcementPoint(
            admission,
            evaluator=self._evaluator,
            evaluation_seconds=config.limits.evaluation_seconds,
            policies=policies,
            recorder=recorder,
            sessions=sessions,
            windows=windows,
            pseudonyms=self._pseudonyms,
            metrics=self.metrics,
            on_settled=canary.offer,
        )
        endpoint = Endpoint(pep, admission, Authenticator(config), upstream, config.limits, self.metrics)
        # In reverse order when it stops: no more calls, then no more polling, then the last record.
        ends = SessionEnds(sessions, recorder, self._clock, interval_seconds=min(_LOOK_SECONDS, self._idle_ms / 4000))
        sweeps = WindowSweeps(windows, sessions, recorder, self._clock, interval_seconds=_LOOK_SECONDS)
        stack.push_async_callback(recorder.stop)
        stack.push_async_callback(policies.stop)
        stack.push_async_callback(ends.stop)
        stack.push_async_callback(sweeps.stop)
        stack.push_async_callback(canary.stop)
        await policies.start()
        await recorder.start()
        ends.start()
        sweeps.start()
        if isinstance(bundles, CanarySource) and isinstance(self._evaluator, CanaryEvaluator):
            canary.start(bundles, self._evaluator, recorder, trusted)
        stack.push_async_callback(endpoint.stop)
        return _Running(endpoint=endpoint, policies=policies, recorder=recorder, sessions=sessions, canary=canary)

    async def _service(self) -> tuple[LedgerClient, BundleSource]:
        if self._ledger is not None and self._bundles is not None:
            return self._ledger, self._bundles
        service = self._config.service
        if service.url.startswith("http:"):
            _LOG.warning("service_without_tls", url=service.url)
        client = ServiceClient(service.url, read_secret(service.token), timeout_seconds=service.timeout_seconds)
        await self._stack.enter_async_context(client)
        return self._ledger or client, self._bundles or client

    def _spool(self, state: StateDatabase) -> Spool:
        config = self._config
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
            clock=self._clock,
            max_bytes=config.recording.spool_bytes,
        )

    def _authorizations(self) -> Mapping[str, str]:
        servers = self._config.servers
        return {server.name: read_secret(server.authorization) for server in servers if server.authorization}

    # --- what operators do

    def _say_adopted(self) -> None:
        """Say with the next heartbeat, at once, that another bundle decides."""
        if self._running is not None:
            self._running.recorder.beat_soon()

    async def refresh_bundle(self) -> str | None:
        """Ask now which bundle is in force, instead of at the next turn; return its revision."""
        running = self._require()
        await running.policies.refresh()
        return running.policies.revision

    def blocks(self) -> list[Block]:
        """Return the principals whose session was ended and who were not released since.

        Works on a gateway that was not started as well, beside another process that runs on the same directory.

        Raises:
            ConfigError: The state directory belongs to another enforcer.
            StorageError: The state file failed.
        """
        with self._state() as (sessions, _):
            return sessions.blocks()

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
            batch = release_batch(
                sessions,
                self._pseudonyms,
                spool.new_record_id,
                agent=agent,
                user=user,
                actor=actor,
                actor_role=actor_role,
                purpose=purpose,
            )
            if self._running is not None:
                await self._running.recorder.record(batch, strict=False)
                return
            (result,) = spool.append([batch])
            if isinstance(result, LedgerError):
                raise result

    @contextmanager
    def _state(self) -> Iterator[tuple[Sessions, Spool]]:
        """Open the state file once more, on a connection of its own."""
        with closing(StateDatabase(self._config.state_directory)) as state:
            sessions = Sessions(state, self._pseudonyms, idle_ms=self._idle_ms)
            yield sessions, self._spool(state)

    def server_config(self, *, host: str, port: int) -> uvicorn.Config:
        """Return how uvicorn must run `app`.

        Args:
            host: Address to listen on.
            port: Port to listen on, 0 for any.
        """
        limits = self._config.limits
        return uvicorn.Config(
            closing_strangers(self.app),
            host=host,
            port=port,
            loop="asyncio",
            http=connection_class(head_seconds=limits.body_seconds, max_waiting=limits.concurrent_calls),
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=_KEEPALIVE_SECONDS,
            h11_max_incomplete_event_size=2 * limits.header_bytes,
        )

    # --- routes

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        running = self._running
        if running is None:
            return JSONResponse({"ready": False}, status_code=503)
        depth, current = running.recorder.depth, running.policies.current()
        room = depth.size_bytes < self._config.recording.spool_bytes * 7 // 8
        ready = isinstance(current, Bundle) and room
        facts = {
            "ready": ready,
            "bundle": running.policies.revision,
            "bundle_usable": isinstance(current, Bundle),
            "canary": running.canary.revision,
            "ledger_reachable": running.recorder.reachable,
            "spool_records": depth.records,
            "spool_bytes": depth.size_bytes,
            "set_aside_records": depth.set_aside,
        }
        return JSONResponse(facts, status_code=200 if ready else 503)

    async def _metrics(self, _request: Request) -> Response:
        return Response(self.metrics.render(), media_type="text/plain; version=0.0.4")

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._running is None:
            await PlainTextResponse("not started\n", status_code=503)(scope, receive, send)
            return
        await self._running.endpoint(scope, receive, send)

    def _require(self) -> _Running:
        if self._running is None:
            raise ConfigError("the gateway does not run")
        return self._running

    def _depth(self) -> Depth:
        return Depth(0, 0, 0) if self._running is None else self._running.recorder.depth

    def _reachable(self) -> float:
        return float(self._running is not None and self._running.recorder.reachable)


class _Late:
    """The endpoint of a gateway that has been started; before that it says that it is not there yet."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gateway._dispatch(scope, receive, send)  # noqa: SLF001  # its own route


def build_gateway(
    config: GatewayConfig,
    *,
    evaluator: PolicyEvaluator,
    clock: Clock,
    signing_key: nacl.signing.SigningKey,
    pseudonym_key: bytes,
    spool_key: bytes,
    simulated: bool = False,
    ledger: LedgerClient | None = None,
    bundles: BundleSource | None = None,
) -> Gateway:
    """Return a gateway that has not been started; nothing is read, opened or sent before `Gateway.start`.

    Args:
        config: Its settings.
        evaluator: Asks policies; several gateways may share one.
        clock: Dates calls and records.
        signing_key: Signs records, Ed25519.
        pseudonym_key: The tenant's pseudonym key, 32 bytes.
        spool_key: Encrypts payloads that wait, 32 bytes.
        simulated: The keys are a demonstration's; every record says so (it does as well if the clock is simulated).
        ledger: Instead of the service of the configuration.
        bundles: Instead of the service of the configuration.
    """
    return Gateway(
        config,
        evaluator=evaluator,
        clock=clock,
        keys=_Keys(signing=signing_key, pseudonym=pseudonym_key, spool=spool_key),
        simulated=simulated,
        ledger=ledger,
        bundles=bundles,
    )
