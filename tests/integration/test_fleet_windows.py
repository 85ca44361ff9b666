"""Two gateways and one service: a cap of both, what one has read and the other may not write, and a service away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import nacl.signing
import pytest
from msgspec import UNSET

from enforcement.fleet_store import CLAIMED
from enforcement.gateway import Gateway, build_gateway
from enforcement.round_tokens import Token
from enforcement.rounds import OpenedRound
from ledger.bodies import Decision
from ledger.errors import StorageError
from ledger.notes import encode_base64
from policies.bundles import Bundle, bundle_from_files
from policies.evaluate import Evaluator
from policies.model import decode_request
from policies.replay import RecordedDecision, ReplayClass, replay_many
from service.auth import Role
from service.fleet_windows import FleetWindows
from service.wiring.engines import make_evaluator
from tests.integration.test_gateway_windows import SCHEMA
from tests.support.gateway import SPOOL_KEY, TOKENS, Tools, config_of, serve, serve_mcp
from tests.support.ledger import LOG_ID
from tests.support.mcp_messages import body_of, headers_of
from tests.support.packs import PASSING_CASE
from tests.support.service import RunningService, start_service

CAP = 1000
WAIT_SECONDS = 40
REFUND = {"server": "finance", "tools": ["refund_customer"], "per": "user", "over": "day", "across": "fleet"}
WINDOWS = [
    {"name": "refunded", "measure": "sum", "parameter": "amount", **REFUND, "strict": True},
    {"name": "refunds", "measure": "count", **REFUND},
    {
        "name": "looked",
        "measure": "seen",
        "tools": ["break_down"],
        "per": "agent+user",
        "over_seconds": 600,
        "across": "fleet",
    },
    {"name": "age", "measure": "staleness"},
]
POLICY = f"""
@id("work") permit(principal, action, resource);
@id("cap") forbid(principal, action == Action::"tools/call", resource == Tool::"finance/refund_customer")
unless {{ context.state.windows.refunded.lessThanOrEqual(decimal("{CAP}.0")) }};
@id("deputy") forbid(principal, action == Action::"tools/call", resource == Tool::"finance/transfer_funds")
when {{ context.state.windows.looked }};
"""


def bundle() -> Bundle:
    manifest = {
        "format": "tallystick.bundle/1",
        "name": "fleet",
        "engine": "cedar",
        "policies": ["policy.cedar"],
        "schema": "schema.cedarschema",
        "parameters": "parameters.json",
        "windows": "windows.json",
    }
    schema = SCHEMA.replace(
        "{ refunded: decimal, looked: Bool }", "{ refunded: decimal, refunds: Long, looked: Bool, age: Long }"
    )
    parameters = [{"name": "amount", "type": "decimal", "server": "finance", "paths": ["amount"]}]
    return bundle_from_files(
        {
            "manifest.json": json.dumps(manifest).encode(),
            "schema.cedarschema": schema.encode(),
            "policy.cedar": POLICY.encode(),
            "parameters.json": json.dumps({"parameters": parameters}).encode(),
            "windows.json": json.dumps({"windows": WINDOWS}).encode(),
            **PASSING_CASE,
        }
    )


@dataclass(frozen=True)
class Fleet:
    """A service, an evaluator, and what gateways of it need."""

    service: RunningService
    evaluator: Evaluator
    folder: Path
    tokens: dict[str, str]

    def build(self, name: str, upstream: str, **members: Any) -> Gateway:
        """Build a gateway on the state directory of its name."""
        token = self.folder / name / "token"
        token.parent.mkdir(exist_ok=True)
        token.touch(mode=0o600)
        token.write_text(self.tokens[name])
        config = config_of(
            self.folder / name / "state",
            self.service.server.url,
            upstream,
            enforcer_id=name,
            windows={"exchange_seconds": 3600, "strict_seconds": 30},  # exchanged when a test says so
            limits={"evaluation_seconds": 60},
            recording={"strict_seconds": 30},
            **members,
        )
        return build_gateway(
            config,
            evaluator=self.evaluator,
            clock=self.service.services.clock,
            signing_key=key_of(name),
            pseudonym_key=self.service.services.keys.pseudonym.seed,
            spool_key=SPOOL_KEY,
            simulated=True,
        )

    def decisions(self) -> list[RecordedDecision]:
        services = self.service.services
        found = []
        for leaf in sorted(services.catalog.of_type(LOG_ID, "decision")):
            record = services.reader.record(leaf)
            assert isinstance(record.body, Decision)
            opened = services.vault.open(record, "request").payload
            found.append(RecordedDecision(record_id=record.record_id, body=record.body, request=opened))
        return found


def key_of(name: str) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(name.encode().ljust(32, b"."))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    evaluator = make_evaluator(workers=2, batch_workers=1)
    tokens = {}
    try:
        with start_service(folder) as service:
            service.put_in_force(bundle())
            with service.client(Role.ADMIN) as admin:
                for name in ("gateway-a", "gateway-b"):
                    public = encode_base64(bytes(key_of(name).verify_key))
                    answer = admin.post("/v1/enforcers", json={"enforcer_id": name, "public_key": public})
                    tokens[name] = answer.json()["token"]
            yield Fleet(service, evaluator, folder, tokens)
    finally:
        evaluator.close()


@dataclass(frozen=True)
class Gate:
    """A gateway that runs, and a client of it."""

    gateway: Gateway
    url: str
    http: httpx2.AsyncClient

    async def call(self, tool: str, amount: float = 0) -> str | None:
        """Return the rule that stood against a call, or None if it was made."""
        headers = {key.decode(): value.decode() for key, value in headers_of(name=tool)}
        body = body_of(name=tool, arguments={"amount": amount})
        answer = await self.http.post(f"{self.url}/servers/finance/mcp", content=body, headers=headers)
        document = answer.json() if answer.headers["content-type"].startswith("application/json") else {"result": {}}
        return str(document["error"]["data"]["rule"]) if "error" in document else None


@asynccontextmanager
async def running(fleet: Fleet, name: str, upstream: str) -> AsyncIterator[Gate]:
    gateway = fleet.build(name, upstream)
    await gateway.start()
    try:
        headers = {"Authorization": f"Bearer {TOKENS['Finance-Bot']}"}
        async with (
            serve(gateway.server_config(host="127.0.0.1", port=0)) as url,
            httpx2.AsyncClient(headers=headers, timeout=WAIT_SECONDS) as http,
        ):
            yield Gate(gateway, url, http)
    finally:
        await gateway.stop()


async def latest(fleet: Fleet, denied: bool) -> Any:
    """Return the state in the request of the latest refund; a denial reaches the ledger after the client."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            decisions = await asyncio.to_thread(fleet.decisions)
            request = decode_request(
                [item for item in decisions if item.body.tool == "refund_customer"][-1].request or b""
            )
            if (request.state.unavailable is not UNSET) == denied:
                return request.state
            await asyncio.sleep(0.02)


async def replayed(fleet: Fleet) -> None:
    """Make every decision again, exactly: what gateways have told each other stands in the requests as values."""
    originals = await asyncio.to_thread(fleet.decisions)
    results = await replay_many(originals, bundle(), fleet.evaluator)
    assert {(result.classification, result.same) for result in results} == {(ReplayClass.EXACT, True)}


def test_two_gateways_take_a_cap_together_and_never_more_than_it_is(fleet: Fleet) -> None:
    async def scenario() -> None:
        tools = Tools()
        async with serve_mcp(tools) as upstream:
            async with running(fleet, "gateway-a", upstream) as a, running(fleet, "gateway-b", upstream) as b:
                wanted = [70, 45, 130, 20, 95, 60] * 4
                answers = await asyncio.gather(
                    *(gate.call("refund_customer", amount) for amount in wanted for gate in (a, b))
                )
                asked = [amount for amount in wanted for _ in (a, b)]
                made = [amount for amount, answer in zip(asked, answers, strict=True) if answer is None]
                assert set(answers) == {None, "cap"}
                assert sum(made) <= CAP
                assert len(made) == len(tools.calls)
                # What was refused was given back: the rest of the cap can be taken to the last, by either of them.
                await a.gateway.core.exchange_windows()
                await b.gateway.core.exchange_windows()
                assert await a.call("refund_customer", CAP - sum(made) + 1) == "cap"
                await a.gateway.core.exchange_windows()
                assert await b.call("refund_customer", CAP - sum(made)) is None
                assert await a.call("refund_customer", 1) == "cap"
                await a.gateway.core.exchange_windows()
                assert await b.call("refund_customer", 1) == "cap"
            # Neither a restart of a gateway nor its lost state lifts it.
            (fleet.folder / "gateway-a" / "state" / "state.db").unlink()
            async with running(fleet, "gateway-a", upstream) as a:
                assert await a.call("refund_customer", 1) == "cap"
                await a.gateway.core.exchange_windows()
                assert await a.call("refund_customer", 0) is None

    asyncio.run(scenario())


def test_what_was_read_behind_one_gateway_is_not_written_behind_another(fleet: Fleet) -> None:
    async def scenario() -> None:
        async with serve_mcp(Tools()) as upstream:
            async with running(fleet, "gateway-a", upstream) as a, running(fleet, "gateway-b", upstream) as b:
                assert await b.call("transfer_funds") is None
                assert await a.call("break_down") is None  # the sensitive read
                assert await a.call("transfer_funds") == "deputy"
                await a.gateway.core.exchange_windows()
                await b.gateway.core.exchange_windows()
                assert await b.call("transfer_funds") == "deputy"
            async with running(fleet, "gateway-b", upstream) as b:  # and not after a restart either
                assert await b.call("transfer_funds") == "deputy"

    asyncio.run(scenario())


def test_of_gateways_that_claim_a_round_together_one_has_it_and_goes_on_having_it(fleet: Fleet) -> None:
    def token(number: int) -> OpenedRound:
        expires_ms = fleet.service.services.clock.now_ms() + 3_600_000
        return OpenedRound(Token(root="", asked=(), state=None, expires_ms=expires_ms, code=f"{number:064x}"), b"")

    async def scenario() -> None:
        async with (
            serve_mcp(Tools()) as upstream,
            running(fleet, "gateway-a", upstream) as a,
            running(fleet, "gateway-b", upstream) as b,
        ):
            rounds = [gate.gateway.core.require().admission._rounds for gate in (a, b)]
            tokens = [token(number) for number in range(10)]
            asked = [(mine, one) for one in tokens for mine in rounds if mine is not None]
            first = await asyncio.gather(*(mine.claim(one) for mine, one in asked))
            again = await asyncio.gather(*(mine.claim(one) for mine, one in reversed(asked)))
            assert [first[place] != first[place + 1] for place in range(0, len(first), 2)] == [True] * 10
            assert first == again[::-1]
            # It is no count of anybody's, so that nobody is told of it.
            page = fleet.service.services.fleet_windows.exchange("gateway-c", "c" * 32, since=0)
            assert all(total.subject != CLAIMED for total in page.totals)

    asyncio.run(scenario())


def test_while_the_service_does_not_answer_a_strict_cap_counts_as_reached(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> Any:
        raise StorageError("the database is away")

    async def scenario() -> None:
        async with serve_mcp(Tools()) as upstream, running(fleet, "gateway-b", upstream) as b:
            await b.gateway.core.exchange_windows()
            with monkeypatch.context() as patched:
                patched.setattr(FleetWindows, "reserve", away)
                assert await b.call("refund_customer", 0) == "cap"
                state = await latest(fleet, denied=True)
                assert state.windows["refunded"] == "922337203685477.5807"
                assert state.unavailable == ("refunded",)
                # Those that are not strict go on, and say how old they are.
                patched.setattr(FleetWindows, "exchange", away)
                await b.gateway.core.exchange_windows()
                assert await b.call("break_down") is None
            assert await b.call("refund_customer", 0) is None
            state = await latest(fleet, denied=False)
            assert state.unavailable is UNSET
            assert isinstance(state.windows["age"], int)
            text = (await b.http.get(f"{b.url}/metrics")).text
            assert 'tallystick_window_reservations_total{result="unavailable"} 1.0' in text
            assert "tallystick_windows_staleness_seconds" in text
        await replayed(fleet)

    asyncio.run(scenario())
