"""A gateway in its surroundings: a ledger over real HTTP, a real MCP server of the official SDK, real clients.

Everything listens on 127.0.0.1, on ports that the system chose, and runs on the test's own event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from aiohttp import web
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer

from enforcement.config import GatewayConfig
from enforcement.gateway import Gateway, build_gateway
from enforcement.identity import Identity
from enforcement.looking import Inspector
from ledger.approvals import VerdictSet
from ledger.bodies import Approval, Outcome
from ledger.bodies import Decision as DecisionRecord
from ledger.clock import Clock, SimulatedClock
from ledger.commitments import open_commitment
from ledger.completeness import EnforcerStream, assess
from ledger.notes import decode_base64
from ledger.records import Record, commitments, decode_entry, verify_record_signature
from ledger.restrictions import RestrictionSet
from policies.bundles import Bundle, bundle_from_files
from policies.evaluate import Evaluation
from policies.model import Decision, DecisionRequest, Effect
from tests.support.gateway_keys import NOON_MS, PSEUDONYM_KEY, SIGNING_KEY, SPOOL_KEY
from tests.support.mcp_messages import VERSION

ENFORCER_TOKEN = "enforcer-token"
TOKENS = {"Finance-Bot": "finance-token", "Support-Bot": "support-token"}
WAIT_SECONDS = 20


def simple_bundle(note: str = "") -> Bundle:
    manifest = {"format": "tallystick.bundle/1", "name": "scripted", "engine": "scripted", "policies": ["policy.txt"]}
    return bundle_from_files({"manifest.json": json.dumps(manifest).encode(), "policy.txt": note.encode() or b"-"})


@dataclass
class ScriptedEvaluator:
    """Answers by a function of the request; permits everything by default."""

    answer: Callable[[DecisionRequest], dict[str, Any]] = lambda _: {"effect": Effect.PERMIT}
    asked: list[DecisionRequest] = field(default_factory=list)

    async def evaluate_many(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> list[Evaluation]:
        self.asked.extend(requests)
        return [Evaluation(self._decide(bundle, request), 7) for request in requests]

    def _decide(self, bundle: Bundle, request: DecisionRequest) -> Decision:
        members = {"rules": ("scripted-rule",), **self.answer(request)}
        return Decision(bundle_revision=bundle.revision, engine="scripted", engine_version="1", **members)


def deny_tool(name: str, **members: Any) -> Callable[[DecisionRequest], dict[str, Any]]:
    """A policy that permits everything but one tool."""

    def answer(request: DecisionRequest) -> dict[str, Any]:
        if request.resource.name != name:
            return {"effect": Effect.PERMIT}
        return {"effect": Effect.DENY, "failed_condition": f"{name}-forbidden", **members}

    return answer


@dataclass
class FakeLedger:
    """The service's contract over HTTP: durable when acknowledged, idempotent by record id, conflicts, faults."""

    bundle: Bundle | None = field(default_factory=simple_bundle)
    records: list[Record] = field(default_factory=list)
    openings: dict[tuple[str, str], bytes] = field(default_factory=dict)
    posts: list[list[str]] = field(default_factory=list)
    lines: dict[str, bytes] = field(default_factory=dict)
    fault: Callable[[list[Record]], web.Response | None] = lambda _: None
    before: Callable[[], Any] | None = None
    restricted: RestrictionSet | None = field(default_factory=RestrictionSet)
    acknowledged: list[int] = field(default_factory=list)
    taken: dict[tuple[str, str], int] | None = field(default_factory=dict)
    verdicts: VerdictSet | None = field(default_factory=lambda: VerdictSet(version=-1, items=()))
    url: str = ""
    _runner: web.AppRunner | None = None
    _port: int = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/decisions", self._post)
        app.router.add_get("/v1/bundles/active", self._bundle)
        app.router.add_get("/v1/restrictions", self._restrictions)
        app.router.add_post("/v1/windows/reservations", self._reserve)
        app.router.add_get("/v1/approvals/verdicts", self._verdicts)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _post(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {ENFORCER_TOKEN}":
            return web.json_response({"title": "unauthenticated"}, status=401)
        assert request.content_type == "application/x-ndjson"
        lines = (await request.read()).splitlines()
        batch = [(self._entry(line), json.loads(line)) for line in lines]
        records = [record for record, _ in batch]
        self.posts.append([record.record_id for record in records])
        if self.before is not None:
            await self.before()
        refusal = self.fault(records)
        if refusal is not None:
            return refusal
        if any(self._conflicts(record) for record in records):
            return web.json_response({"title": "conflict"}, status=409)
        results = [self._take(record, value["openings"]) for record, value in batch]
        self.lines.update((record.record_id, line) for record, line in zip(records, lines, strict=True))
        return web.json_response({"results": results}, status=201)

    @staticmethod
    def _entry(line: bytes) -> Record:
        """Take the entry's bytes out of the line; a decoder would not show whether they are canonical."""
        end = line.index(b',"openings":[')
        assert line.startswith(b'{"record":')
        return decode_entry(line[len(b'{"record":') : end])

    def _conflicts(self, record: Record) -> bool:
        for known in self.records:
            if known.record_id == record.record_id:
                return known != record
            if (known.enforcer_id, known.epoch, known.seq) == (record.enforcer_id, record.epoch, record.seq):
                return True
        return False

    def _take(self, record: Record, openings: list[dict[str, str]]) -> dict[str, object]:
        verify_record_signature(record, bytes(SIGNING_KEY.verify_key))
        committed = commitments(record)
        assert {opening["field"] for opening in openings} == committed.keys()
        for opening in openings:
            name, salt, payload = opening["field"], decode_base64(opening["salt"]), decode_base64(opening["payload"])
            open_commitment(name, bytes.fromhex(committed[name].digest), salt, payload)
            self.openings[record.record_id, name] = payload
        known = [index for index, other in enumerate(self.records) if other.record_id == record.record_id]
        if not known:
            self.records.append(record)
        index = known[0] if known else len(self.records) - 1
        return {"record_id": record.record_id, "leaf_index": index, "duplicate": bool(known)}

    async def _bundle(self, request: web.Request) -> web.Response:
        if self.bundle is None:
            return web.json_response({"title": "none"}, status=404)
        etag = f'"{self.bundle.revision}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=self.bundle.archive(), headers={"ETag": etag})

    async def _restrictions(self, request: web.Request) -> web.Response:
        """Answer at once with what `restricted` is; nothing is held, so that it is asked as often as is configured."""
        if self.restricted is None:
            return web.json_response({"title": "unavailable"}, status=503)
        self.acknowledged.append(int(request.query["after"]))
        if request.query["digest"] == self.restricted.digest:
            return web.Response(status=304)
        return web.Response(body=self.restricted.document)

    async def _verdicts(self, request: web.Request) -> web.Response:
        """Answer at once with what `verdicts` is, likewise."""
        if self.verdicts is None:
            return web.json_response({"title": "unavailable"}, status=503)
        if int(request.query["after"]) == self.verdicts.version:
            return web.Response(status=304)
        return web.Response(body=self.verdicts.document)

    def steps(self, action: str | None = None) -> list[Approval]:
        """Return the steps of approvals that the gateway has recorded."""
        bodies = [record.body for record in self.records if isinstance(record.body, Approval)]
        return [body for body in bodies if action is None or body.action == action]

    async def _reserve(self, request: web.Request) -> web.Response:
        """Give out what is asked for, once for each decision, and tell the sums; unavailable if `taken` is None."""
        if self.taken is None:
            return web.json_response({"title": "unavailable"}, status=503)
        asked = await request.json()
        for part in asked["parts"]:
            self.taken.setdefault((part["digest"], asked["decision_id"]), int(part["amount"]))
        digests = [part["digest"] for part in asked["parts"]]
        sums = [sum(amount for (kept, _), amount in self.taken.items() if kept == digest) for digest in digests]
        return web.json_response({"sums": [str(one) for one in sums]})

    def decisions(self, method: str | None = "tools/call") -> list[DecisionRecord]:
        bodies = [record.body for record in self.records if isinstance(record.body, DecisionRecord)]
        return [body for body in bodies if method is None or body.method == method]

    def decision_ids(self, method: str | None = "tools/call") -> list[str]:
        return [
            record.record_id
            for record in self.records
            if isinstance(record.body, DecisionRecord) and (method is None or record.body.method == method)
        ]

    def outcomes(self, decision_id: str | None = None) -> list[Outcome]:
        bodies = [record.body for record in self.records if isinstance(record.body, Outcome)]
        return [body for body in bodies if decision_id is None or body.decision_id == decision_id]

    def streams(self) -> list[EnforcerStream]:
        return assess(self.records)


class Tools:
    """A real MCP server that counts what it did."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.server = MCPServer("finance")
        for tool in self.functions():
            self.server.tool()(tool)

    def functions(self) -> list[Callable[..., Any]]:
        """Return the tools, for a server of another make."""
        return [self.refund_customer, self.transfer_funds, self.count_slowly, self.wait_for_ever, self.break_down]

    async def refund_customer(self, amount: float, note: str = "") -> str:
        """Refund a customer."""
        self.calls.append("refund_customer")
        return f"refunded {amount} {note}".strip()

    async def transfer_funds(self, amount: float) -> str:
        """Transfer funds."""
        self.calls.append("transfer_funds")
        return f"transferred {amount}"

    async def count_slowly(self, steps: int, ctx: Context) -> str:
        """Report progress step by step."""
        self.calls.append("count_slowly")
        for step in range(steps):
            await ctx.report_progress(step + 1, steps)
        self.started.set()
        await self.go_on.wait()
        return "counted"

    async def wait_for_ever(self) -> str:
        """Never return."""
        self.calls.append("wait_for_ever")
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "never"

    async def break_down(self) -> str:
        """Fail."""
        self.calls.append("break_down")
        raise ValueError("out of order")


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bound() -> socket.socket:
    """Return a socket with an address of its own; nobody listens on it yet."""
    # asyncio sets TCP_NODELAY only on sockets that say they are TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


@asynccontextmanager
async def serve(config: uvicorn.Config, listener: socket.socket | None = None) -> AsyncIterator[str]:
    """Run an ASGI application, on a socket of `bound` if its address had to be known before; yields its base URL."""
    with listener or bound() as place:
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[place]))
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110  # uvicorn offers no event
                await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = config.lifespan == "off"  # a lifespan is let end
            await task


@asynccontextmanager
async def serve_mcp(tools: Tools) -> AsyncIterator[str]:
    app = tools.server.streamable_http_app()
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", loop="asyncio")
    async with tools.server.session_manager.run(), serve(config) as url:
        yield f"{url}/mcp"


def config_of(directory: Path, service: str, upstream: str, **members: Any) -> GatewayConfig:
    """Return a configuration with one server and two principals; parts may be replaced."""
    server = {"name": "finance", "url": upstream, "tags": ["internal"], **members.pop("server", {})}
    settings: dict[str, Any] = {
        "enforcer_id": "gateway-1",
        "log_id": "acme",
        "tenant": "acme",
        "environment": "test",
        "zone": "Europe/Berlin",
        "state_directory": str(directory),
        "service": {"url": service, "token": f"file:{directory.parent / 'token'}"},
        "keys": {"signing": "env:UNUSED", "pseudonym": "env:UNUSED", "spool": "env:UNUSED"},
        "networks": [{"label": "loopback", "cidrs": ["127.0.0.0/8"]}],
        "principals": [
            {
                "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
                "agent": agent,
                "user": "alice",
                "roles": ["finance"],
                "mfa": True,
            }
            for agent, token in TOKENS.items()
        ],
        "servers": [server],
        "recording": {"strict_seconds": 2, "retry_min_seconds": 0.01, "retry_max_seconds": 0.05},
        "bundles": {"poll_seconds": 3600},
        "restrictions": {"poll_seconds": 3600, "max_stale_seconds": 86_400},
    }
    for name, value in members.items():
        known = settings.get(name)
        settings[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return GatewayConfig.model_validate(settings)


def identity_of(agent: str) -> Identity:
    """Return who one of the two principals of `config_of` is."""
    digest = hashlib.sha256(TOKENS[agent].encode()).hexdigest()
    return Identity(credential=digest, agent=agent, user="alice", roles=("finance",), mfa=True)


@dataclass
class Surroundings:
    """A running gateway and everything around it."""

    directory: Path
    ledger: FakeLedger
    tools: Tools
    evaluator: ScriptedEvaluator
    upstream: str
    clock: Clock
    options: dict[str, Any]
    url: str = ""
    pseudonym_key: bytes = PSEUDONYM_KEY
    inspector: Inspector | None = None

    def build(self, **options: Any) -> Gateway:
        """Build a gateway on the state directory; it has not been started."""
        config = config_of(self.directory / "state", self.ledger.url, self.upstream, **{**self.options, **options})
        return build_gateway(
            config,
            evaluator=self.evaluator,
            clock=self.clock,
            signing_key=SIGNING_KEY,
            pseudonym_key=self.pseudonym_key,
            spool_key=SPOOL_KEY,
            inspector=self.inspector,
        )

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Gateway]:
        """Run a gateway on the state directory."""
        gateway = self.build(**options)
        await gateway.start()
        try:
            async with serve(gateway.server_config(host="127.0.0.1", port=0)) as url:
                self.url = url
                yield gateway
        finally:
            await gateway.stop()

    @property
    def mcp_url(self) -> str:
        return f"{self.url}/servers/finance/mcp"

    @asynccontextmanager
    async def client(self, agent: str = "Finance-Bot", **options: Any) -> AsyncIterator[Client]:
        """A client of the official SDK, speaking to the gateway."""
        async with self.http(agent) as http:
            transport = streamable_http_client(self.mcp_url, http_client=http)
            async with Client(transport, mode=VERSION, cache=None, **options) as client:
                yield client

    @asynccontextmanager
    async def http(self, agent: str | None = "Finance-Bot") -> AsyncIterator[httpx2.AsyncClient]:
        headers = {} if agent is None else {"Authorization": f"Bearer {TOKENS.get(agent, agent)}"}
        async with httpx2.AsyncClient(headers=headers, timeout=WAIT_SECONDS) as http:
            yield http

    async def settle(self, ready: Callable[[], bool]) -> None:
        """Wait until something is true that a background task brings about."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not ready():  # noqa: ASYNC110  # any condition of the test's
                await asyncio.sleep(0.005)


@asynccontextmanager
async def surroundings(
    directory: Path,
    *,
    answer: Callable[[DecisionRequest], dict[str, Any]] | None = None,
    inspector: Inspector | None = None,
    **options: Any,
) -> AsyncIterator[Surroundings]:
    """A ledger and an MCP server; the gateway is started by the test, as often as it likes."""
    token = directory / "token"
    token.write_text(ENFORCER_TOKEN)
    token.chmod(0o600)
    ledger, tools = FakeLedger(), Tools()
    evaluator = ScriptedEvaluator() if answer is None else ScriptedEvaluator(answer)
    await ledger.start()
    try:
        async with serve_mcp(tools) as upstream:
            yield Surroundings(
                directory=directory,
                ledger=ledger,
                tools=tools,
                evaluator=evaluator,
                upstream=upstream,
                clock=SimulatedClock(NOON_MS),
                options=options,
                inspector=inspector,
            )
    finally:
        await ledger.stop()
