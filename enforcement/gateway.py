"""The gateway: a streamable-HTTP reverse proxy that lets no MCP call pass unjudged.

The routes:

* ``POST /servers/{name}/mcp``: MCP messages for the server of that name, in the stateful revisions ``GET`` and
  ``DELETE`` as well;
* ``GET /.well-known/oauth-protected-resource/servers/{name}/mcp``: how to get a token for it (`enforcement.resources`);
* ``GET /healthz``: the process runs;
* ``GET /readyz``: it can decide and record: a bundle in force, and room in a spool that stores. That the ledger is away
  is said, but does not make it unready: what then may still pass is said by each server's ``recording``;
* ``GET /metrics``: Prometheus.

What is elsewhere: the enforcement point itself (`enforcement.core`), one request (`enforcement.endpoint`).

INVARIANT: the address of a caller is that of the socket. `Gateway.server_config` runs uvicorn without its
``X-Forwarded-For`` handling, which would believe the header of a local proxy, or of any local process.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import nacl.signing
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from enforcement.authenticator import Authenticator
from enforcement.config import GatewayConfig
from enforcement.config_files import authorizations
from enforcement.connections import closing_strangers, connection_class
from enforcement.core import Core, CoreKeys
from enforcement.endpoint import Endpoint, serving
from enforcement.judging import PolicyEvaluator
from enforcement.looking import Inspector
from enforcement.metrics import Metrics
from enforcement.pin_fetching import ToolFetcher
from enforcement.ports import BundleSource, LedgerClient
from enforcement.resources import WELL_KNOWN, metadata_at
from enforcement.sessions import Block
from enforcement.tls_transport import tls_protocol_class
from enforcement.tls_wiring import make_listener
from enforcement.upstream import Upstream
from enforcement.upstream_tokens import UpstreamTokens
from ledger.clock import Clock, SystemClock
from ledger.errors import ConfigError

__all__ = ["Gateway", "build_gateway"]

_KEEPALIVE_SECONDS: Final = 30


class Gateway:
    """A gateway. Runs between `start` and `stop`, on one event loop.

    Attributes:
        core: The enforcement point.
        app: The ASGI application.
    """

    def __init__(self, core: Core) -> None:
        """Take an enforcement point that has not been started.

        Raises:
            ConfigError: A server has no address.
        """
        self.core = core
        core.over_http = True
        self._config = core.config
        for place, server in enumerate(core.config.servers):
            if server.url is None:
                raise ConfigError(f"servers[{place}].url: a gateway needs the address of every server")
        self._stack = AsyncExitStack()
        self._endpoint: Endpoint | None = None
        self.app = Starlette(
            routes=[
                Route("/servers/{name}/mcp", _Late(self)),
                Route(WELL_KNOWN, self._resource_metadata, methods=["GET"]),
                Route(f"{WELL_KNOWN}/{{path:path}}", self._resource_metadata, methods=["GET"]),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ]
        )
        self.app.router.redirect_slashes = False  # to a client, a redirect is an answer, and this one was not judged

    @property
    def metrics(self) -> Metrics:
        """What is counted."""
        return self.core.metrics

    async def start(self) -> None:
        """Start the enforcement point, then take messages; see `Core.start`.

        Raises:
            ConfigError: Another gateway runs on the state directory, it belongs to another enforcer, or a secret is
                missing.
            StorageError: The state file failed.
        """
        running = await self.core.start()
        self._stack.push_async_callback(self.core.stop)
        try:
            limits, protocol = self._config.limits, self._config.protocol
            tokens = await self._stack.enter_async_context(UpstreamTokens(self.core.clock))
            upstream = Upstream(limits, {}, self.core.ways.context, tokens=tokens, streams=protocol.streams)
            await self._stack.enter_async_context(upstream)
            running.servers.watch(lambda listed: upstream.authorize(authorizations(listed)))
            running.servers.watch(tokens.take_up)
            authenticator = Authenticator(self._config, self.core.clock, self.metrics)
            await self._stack.enter_async_context(authenticator)
            endpoint = serving(self.core, running, authenticator, upstream)
            self._endpoint = await self._stack.enter_async_context(endpoint)
            fetcher = ToolFetcher(
                running.pins,
                running.servers,
                upstream,
                self._config.pinning,
                limits,
                lambda server: server.revisions or protocol.revisions,
            )
            self._stack.push_async_callback(fetcher.stop)
            fetcher.start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        """Cancel what is under way, record its outcomes, close the stream of records in order.

        Raises:
            StorageError: The state file failed.
        """
        try:
            await self._stack.aclose()
        finally:
            self._endpoint = None

    # --- what operators do; see `Core`

    async def refresh_bundle(self) -> str | None:
        """Ask now which bundle is in force, instead of at the next turn; return its revision."""
        return await self.core.refresh_bundle()

    def blocks(self) -> list[Block]:
        """Return the principals whose session was ended and who were not released since; see `Core.blocks`."""
        return self.core.blocks()

    async def release(self, agent: str, user: str | None, *, actor: str, actor_role: str, purpose: str) -> None:
        """Let a principal call again whose session was ended; see `Core.release`."""
        await self.core.release(agent, user, actor=actor, actor_role=actor_role, purpose=purpose)

    def server_config(self, *, host: str, port: int) -> uvicorn.Config:
        """Return how uvicorn must run `app`.

        Args:
            host: Address to listen on.
            port: Port to listen on, 0 for any.

        Raises:
            ConfigError: The certificate where clients arrive, its key or their authorities cannot be used.
        """
        limits = self._config.limits
        return uvicorn.Config(
            closing_strangers(self.app),
            host=host,
            port=port,
            loop="asyncio",
            http=self._connections(),
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=_KEEPALIVE_SECONDS,
            h11_max_incomplete_event_size=2 * limits.header_bytes,
        )

    def _connections(self) -> type[asyncio.Protocol]:
        limits, tls = self._config.limits, self._config.tls
        http = connection_class(head_seconds=limits.body_seconds, max_waiting=limits.concurrent_calls)
        if tls is None:
            return http
        listener = make_listener(tls, self.metrics.tls, SystemClock(), max_handshakes=limits.concurrent_calls)
        self.core.certificates.add(listener.contexts)
        return tls_protocol_class(listener, http)

    # --- routes

    async def _resource_metadata(self, request: Request) -> Response:
        document = metadata_at(self._config.identity, f"/{request.path_params.get('path', '')}")
        if document is None:
            return PlainTextResponse("not found\n", status_code=404)
        return JSONResponse(document, headers={"Cache-Control": "max-age=300", "Access-Control-Allow-Origin": "*"})

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        ready, facts = self.core.readiness()
        return JSONResponse(facts, status_code=200 if ready else 503)

    async def _metrics(self, _request: Request) -> Response:
        return Response(self.metrics.render(), media_type="text/plain; version=0.0.4")

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._endpoint is None:
            await PlainTextResponse("not started\n", status_code=503)(scope, receive, send)
            return
        await self._endpoint(scope, receive, send)


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
    inspector: Inspector | None = None,
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
        inspector: Instead of the one that the configuration describes.
    """
    core = Core(
        config,
        evaluator=evaluator,
        clock=clock,
        keys=CoreKeys(signing=signing_key, pseudonym=pseudonym_key, spool=spool_key),
        simulated=simulated,
        ledger=ledger,
        bundles=bundles,
        inspector=inspector,
    )
    return Gateway(core)
