"""Containments and kills at two real gateways behind one real service."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import nacl.signing
import pytest
from click.testing import CliRunner
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from enforcement.gateway import Gateway, build_gateway
from ledger.bodies import Decision
from ledger.clock import SystemClock
from ledger.notes import encode_base64
from policies.model import DecisionRequest, Effect, Obligation
from service.auth import Role
from service.cli.main import cli
from tests.support.gateway import SPOOL_KEY, ScriptedEvaluator, Tools, config_of, serve, serve_mcp
from tests.support.ledger import LOG_ID
from tests.support.mcp_messages import VERSION, body_of, headers_of
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service

WAIT_SECONDS = 30
REASON = "ticket 18: it behaves oddly"
BUNDLE = ready_bundle('@id("open") permit (principal, action, resource);')
AGENTS = ("Finance-Bot", "Support-Bot")
IDS = ("gateway-a", "gateway-b")


class Held(ScriptedEvaluator):
    """Permits everything but what kills, and can be made to wait before it answers."""

    def __init__(self) -> None:
        super().__init__(answer=kills_break_down)
        self.wanted = False
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def evaluate_many(self, bundle: Any, requests: Any) -> Any:
        if self.wanted:
            self.reached.set()
            await self.go_on.wait()
        return await super().evaluate_many(bundle, requests)


def kills_break_down(request: DecisionRequest) -> dict[str, Any]:
    if request.resource.name == "break_down":
        return {"effect": Effect.DENY, "obligations": (Obligation.END_SESSION,)}
    return {"effect": Effect.PERMIT}


class Fleet:
    """A service with two gateways introduced, and a place for their states."""

    def __init__(self, service: RunningService, folder: Path) -> None:
        self.service = service
        self.keys = {name: nacl.signing.SigningKey(bytes([40 + number]) * 32) for number, name in enumerate(IDS)}
        self.folder = folder
        with service.client(Role.ADMIN) as admin:
            for name, key in self.keys.items():
                wanted = {"enforcer_id": name, "public_key": encode_base64(bytes(key.verify_key))}
                token = admin.post("/v1/enforcers", json=wanted).json()["token"]
                (folder / name).mkdir()
                (folder / name / "token").touch(mode=0o600)
                (folder / name / "token").write_text(token)

    def token(self, gateway: str, agent: str) -> str:
        """Each gateway knows each agent by another token."""
        return f"{agent}-at-{gateway}"

    def build(self, name: str, upstream: str, evaluator: ScriptedEvaluator, **options: Any) -> Gateway:
        principals = [
            {"token_sha256": hashlib.sha256(self.token(name, agent).encode()).hexdigest(), "agent": agent, "user": user}
            for agent, user in zip(AGENTS, ("alice", "bert"), strict=True)
        ]
        url = options.pop("url", self.service.server.url)
        clock = options.pop("clock", SystemClock())
        config = config_of(
            self.folder / name / "state",
            url,
            upstream,
            enforcer_id=name,
            principals=principals,
            **{"restrictions": {"poll_seconds": 0.05, "max_stale_seconds": 600}, **options},
        )
        return build_gateway(
            config,
            evaluator=evaluator,
            clock=clock,
            signing_key=self.keys[name],
            pseudonym_key=self.service.services.keys.pseudonym.seed,
            spool_key=SPOOL_KEY,
            simulated=True,
        )

    def ask(
        self, method: str, path: str, who: str = "rita", role: Role = Role.RESPONDER, **body: Any
    ) -> httpx.Response:
        with self.service.client(token=self.service.token(role, who)) as client:
            return client.request(method, path, json=body or None)

    def contain(self, **wanted: Any) -> dict[str, Any]:
        answer = self.ask("POST", "/v1/containments", **{"seconds": 3600, "reason": REASON, **wanted})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def end(self, order_id: str) -> None:
        for who in ("rita", "ben"):
            path = f"/v1/containments/{order_id}/release"
            assert self.ask("POST", path, who, reason="looked into it").status_code == 200

    def cli(self, *arguments: str, who: str = "rita") -> Any:
        options = ["--url", self.service.server.url, "--token", self.service.token(Role.RESPONDER, who)]
        return CliRunner().invoke(cli, ["contain", *arguments, *options], standalone_mode=False)

    def decisions(self) -> list[Decision]:
        services = self.service.services
        found = [services.reader.record(leaf).body for leaf in services.catalog.of_type(LOG_ID, "decision")]
        return [body for body in found if isinstance(body, Decision)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with start_service(folder / "service") as service:
        service.put_in_force(BUNDLE)
        yield Fleet(service, folder)


class Site:
    """One gateway that runs, with its own server behind it."""

    def __init__(self, fleet: Fleet, name: str, gateway: Gateway, tools: Tools, url: str) -> None:
        self.fleet, self.name, self.gateway, self.tools, self.url = fleet, name, gateway, tools, url

    @property
    def mcp_url(self) -> str:
        return f"{self.url}/servers/finance/mcp"

    def http(self, agent: str) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.fleet.token(self.name, agent)}"}
        return httpx2.AsyncClient(headers=headers, timeout=WAIT_SECONDS)

    async def call(self, agent: str = "Finance-Bot", tool: str = "refund_customer") -> dict[str, Any]:
        """Call a tool; return what a denial says, or nothing if the call was let through."""
        headers = {key.decode(): value.decode() for key, value in headers_of(name=tool)}
        async with self.http(agent) as http:
            answer = await http.post(self.mcp_url, content=body_of(name=tool, arguments={"amount": 1}), headers=headers)
        if '"result"' in answer.text:
            return {}
        return dict(answer.json()["error"]["data"])

    async def until(self, reason: str | None, agent: str = "Finance-Bot") -> dict[str, Any]:
        """Call until the answer has a reason, or is no denial if that is None; return what it says."""
        async with asyncio.timeout(WAIT_SECONDS):
            while (told := await self.call(agent)).get("reason") != reason:  # noqa: ASYNC110  # over HTTP
                await asyncio.sleep(0.02)
        return told


@asynccontextmanager
async def site(
    fleet: Fleet, name: str, evaluator: ScriptedEvaluator | None = None, **options: Any
) -> AsyncIterator[Site]:
    tools = Tools()
    async with serve_mcp(tools) as upstream:
        gateway = fleet.build(name, upstream, evaluator or Held(), **options)
        await gateway.start()
        try:
            async with serve(gateway.server_config(host="127.0.0.1", port=0)) as url:
                yield Site(fleet, name, gateway, tools, url)
        finally:
            await gateway.stop()


async def reached(fleet: Fleet, order_id: str) -> list[dict[str, Any]]:
    """Wait as `contain` does until every gateway that runs has a containment in force."""
    path = f"/v1/containments/{order_id}?wait=30"
    told = (await asyncio.to_thread(fleet.ask, "GET", path)).json()
    assert told["reached"], told
    return list(told["gateways"])


def play(scenario: Callable[[], Any]) -> Any:
    return asyncio.run(scenario())


# --- containments ----------------------------------------------------------------------------------------------------


def test_what_is_contained_is_stopped_at_every_gateway_and_let_go_by_two(fleet: Fleet) -> None:
    async def scenario() -> None:
        async with site(fleet, "gateway-a") as first, site(fleet, "gateway-b") as second:
            assert await first.call() == await second.call() == {}
            order = await asyncio.to_thread(lambda: fleet.contain(agent="Finance-Bot"))
            gateways = await reached(fleet, order["id"])
            assert [(one["enforcer_id"], one["state"]) for one in gateways] == [(name, "reached") for name in IDS]
            for place in (first, second):
                # In force once it is said to be: not one call more.
                told = await place.call()
                assert (told["reason"], told["restriction"]) == ("contained", order["id"])
                assert told["until_ms"] == order["until_ms"]
                assert REASON not in str(told)
                assert await place.call("Support-Bot") == {}
                assert place.tools.calls == ["refund_customer"] * 2
            await asyncio.to_thread(fleet.end, order["id"])
            for place in (first, second):
                await place.until(None)
        denied = [body for body in fleet.decisions() if body.restriction == order["id"]]
        assert len(denied) == 2
        assert {(body.decision, body.enforcement, body.mode, body.reason, body.bundle) for body in denied} == {
            ("DENY", "deny", "enforce", "contained", None)
        }

    play(scenario)


def test_a_client_of_the_sdk_hears_that_a_responder_stopped_it_and_an_observed_server_is_stopped_too(
    fleet: Fleet,
) -> None:
    async def scenario() -> None:
        async with site(fleet, "gateway-a", server={"mode": "observe"}) as place, place.http("Finance-Bot") as http:
            transport = streamable_http_client(place.mcp_url, http_client=http)
            async with Client(transport, mode=VERSION, cache=None) as client:
                await client.call_tool("refund_customer", {"amount": 1})
                order = await asyncio.to_thread(lambda: fleet.contain(server="finance", tool="refund_customer"))
                await reached(fleet, order["id"])
                with pytest.raises(MCPError) as denied:
                    await client.call_tool("refund_customer", {"amount": 1})
                assert denied.value.error.data["reason"] == "contained"
                assert denied.value.error.message == "Stopped by a responder"
                await client.call_tool("transfer_funds", {"amount": 1})
            assert place.tools.calls == ["refund_customer", "transfer_funds"]
            await asyncio.to_thread(fleet.end, order["id"])

    play(scenario)


@pytest.mark.parametrize("scope", [{"all": True}, {"server": "finance"}])
def test_a_server_or_everything_is_stopped_for_all_agents(fleet: Fleet, scope: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with site(fleet, "gateway-a") as place:
            order = await asyncio.to_thread(lambda: fleet.contain(**scope))
            await reached(fleet, order["id"])
            assert [(await place.call(agent))["reason"] for agent in AGENTS] == ["contained"] * 2
            assert place.tools.calls == []
            await asyncio.to_thread(fleet.end, order["id"])
            await place.until(None)

    play(scenario)


def test_a_session_is_stopped_and_no_other_and_an_unknown_one_is_refused(fleet: Fleet) -> None:
    async def scenario() -> None:
        async with site(fleet, "gateway-a") as place:
            for agent in AGENTS:
                assert await place.call(agent) == {}
            session = next(body.session for body in reversed(fleet.decisions()) if body.agent == "Finance-Bot")
            order = await asyncio.to_thread(lambda: fleet.contain(session=session))
            assert order["agent"] == "Finance-Bot"
            await reached(fleet, order["id"])
            assert (await place.call())["reason"] == "contained"
            assert await place.call("Support-Bot") == {}
            await asyncio.to_thread(fleet.end, order["id"])

    play(scenario)
    unknown = fleet.ask("POST", "/v1/containments", session="0" * 32, seconds=60, reason=REASON)
    assert unknown.status_code == 404


@pytest.mark.parametrize("recording", ["strict", "available"])
def test_a_call_under_evaluation_when_it_is_contained_never_reaches_the_server(fleet: Fleet, recording: str) -> None:
    async def scenario() -> None:
        evaluator = Held()
        limits = {"evaluation_seconds": WAIT_SECONDS}
        async with site(fleet, "gateway-a", evaluator, server={"recording": recording}, limits=limits) as place:
            evaluator.wanted = True
            call = asyncio.create_task(place.call())
            await evaluator.reached.wait()
            order = await asyncio.to_thread(lambda: fleet.contain(agent="Finance-Bot"))
            await reached(fleet, order["id"])
            evaluator.go_on.set()
            told = await call
            assert (told["reason"], told["restriction"]) == ("contained", order["id"])
            assert place.tools.calls == []
            await asyncio.to_thread(fleet.end, order["id"])
        (record,) = [body for body in fleet.decisions() if body.restriction == order["id"]]
        assert (record.decision, record.enforcement) == ("PERMIT", "deny")

    play(scenario)


def test_a_kept_set_holds_over_a_restart_without_the_service(fleet: Fleet) -> None:
    async def scenario() -> None:
        available = {"server": {"recording": "available"}}
        async with site(fleet, "gateway-b", **available):
            order = await asyncio.to_thread(lambda: fleet.contain(agent="Finance-Bot"))
            await reached(fleet, order["id"])
        away = "http://127.0.0.1:9"  # nobody listens there
        async with site(fleet, "gateway-b", url=away, **available) as place:
            told = await place.call()
            assert (told["reason"], told["restriction"]) == ("contained", order["id"])
            assert await place.call("Support-Bot") == {}
            async with place.http("Finance-Bot") as http:
                ready = (await http.get(f"{place.url}/readyz")).json()
                metrics = (await http.get(f"{place.url}/metrics")).text
            assert (ready["restrictions_stale"], ready["restrictions_age_seconds"]) == (True, None)
            assert ready["restrictions_version"] >= order["leaf_index"]
            assert "tallystick_restrictions_stale 1.0" in metrics
        async with site(fleet, "gateway-b") as place:
            assert (await place.call())["reason"] == "contained"
            await asyncio.to_thread(fleet.end, order["id"])
            await place.until(None)

    play(scenario)


# --- kills -----------------------------------------------------------------------------------------------------------


def test_a_kill_holds_at_other_gateways_under_another_token_until_it_is_released_at_the_first(fleet: Fleet) -> None:
    async def scenario() -> None:
        async with site(fleet, "gateway-a") as first, site(fleet, "gateway-b") as second:
            assert await second.call() == {}
            killed = await first.call(tool="break_down")
            assert killed["enforcement"] == "kill"
            told = await second.until("session_ended")
            assert told["restriction"] == killed["decision_id"]
            assert await second.call("Support-Bot") == {}
            assert [block.decision_id for block in second.gateway.blocks()] == [killed["decision_id"]]
            # At once where it is released, and then everywhere.
            await first.gateway.release(
                "Finance-Bot", "alice", actor="olga", actor_role="operator", purpose="looked into it"
            )
            assert await first.call() == {}
            await second.until(None)
            assert first.gateway.blocks() == second.gateway.blocks() == []

    play(scenario)


def test_a_kill_is_released_at_another_gateway_and_the_one_that_decided_it_lets_go(fleet: Fleet) -> None:
    async def scenario() -> None:
        async with site(fleet, "gateway-a") as first, site(fleet, "gateway-b") as second:
            await first.call(tool="break_down")
            await second.until("session_ended")
            await second.gateway.release(
                "Finance-Bot", "alice", actor="olga", actor_role="operator", purpose="looked into it"
            )
            assert await second.call() == {}
            await first.until(None)

    play(scenario)


def test_a_kill_is_released_by_two_people_at_the_service_and_by_no_one_alone(fleet: Fleet) -> None:
    async def scenario() -> None:
        async with site(fleet, "gateway-a") as first, site(fleet, "gateway-b") as second:
            killed = await first.call(tool="break_down")
            await second.until("session_ended")
            path = f"/v1/containments/{killed['decision_id']}/release"
            asked = [fleet.ask("POST", path, "rita", reason="looked into it") for _ in range(2)]
            assert [answer.status_code for answer in asked] == [200, 409]
            assert (await first.call())["reason"] == "session_ended"
            released = fleet.ask("POST", path, "ben", Role.APPROVER, reason="so have I")
            assert released.json()["action"] == "released"
            await first.until(None)
            await second.until(None)
            # And it may be killed again.
            again = await first.call(tool="break_down")
            assert (await second.until("session_ended"))["restriction"] == again["decision_id"]
            await asyncio.to_thread(fleet.end, again["decision_id"])
            await first.until(None)

    play(scenario)


# --- what responders see ---------------------------------------------------------------------------------------------


def test_an_enforcer_that_does_not_follow_is_listed_as_unreached_and_the_command_says_so(fleet: Fleet) -> None:
    silent = fleet.service.enforcer("silent", seed=77)
    silent.decide()
    try:
        done = fleet.cli("--tool", "finance/refund_customer", "--for", "1h", "--reason", REASON, "--wait", "0s")
        assert done.return_value == 4
        assert "silent     UNREACHED" in done.output
        assert "tool finance/refund_customer is contained until" in done.output
        listed = fleet.cli("list")
        assert "due 20" in listed.output
        (item,) = fleet.ask("GET", "/v1/containments").json()["items"]
        asked = fleet.cli("release", item["id"], "--reason", "looked into it")
        assert "somebody else confirms it" in asked.output
        assert fleet.cli("release", item["id"], "--reason", "looked into it").exit_code == 4
        assert "is released" in fleet.cli("release", item["id"], "--reason", "so have I", who="ben").output
        assert fleet.cli("review", item["id"], "--verdict", "justified", "--comment", "it was I who did").exit_code == 4
        reviewed = fleet.cli("review", item["id"], "--verdict", "unfounded", "--comment", "it was a drill", who="ben")
        assert "is reviewed: unfounded" in reviewed.output
        assert "unfounded" in fleet.cli("list", "--ever").output
    finally:
        with fleet.service.client(Role.ADMIN) as admin:
            admin.delete("/v1/enforcers/silent").raise_for_status()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--for", "1h", "--reason", REASON),
        ("--agent", "a", "--server", "b", "--for", "1h", "--reason", REASON),
        ("--tool", "no-server", "--for", "1h", "--reason", REASON),
        ("--agent", "a", "--reason", REASON),
        ("--agent", "a", "--for", "1h"),
        ("--agent", "a", "--for", "31d", "--reason", REASON),
        ("--agent", "a", "--for", "soon", "--reason", REASON),
    ],
)
def test_what_does_not_say_what_to_stop_for_how_long_and_why_stops_nothing(
    fleet: Fleet, arguments: tuple[str, ...]
) -> None:
    before = fleet.ask("GET", "/v1/containments?state=all").json()["items"]
    refused = fleet.cli(*arguments)
    assert refused.exit_code != 0
    assert fleet.ask("GET", "/v1/containments?state=all").json()["items"] == before
