"""Who calls, end to end: a gateway, an authorization server, and clients of the official SDK that log in alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from mcp_types import Implementation

from ledger.clock import SimulatedClock
from policies.model import Effect
from tests.support.gateway import Surroundings, bound, deny_tool, serve, surroundings
from tests.support.issuer import AuthorizationServer, authorization_server, issuer_settings, token_of
from tests.support.mcp_messages import VERSION, body_of, headers_of


class Storage:
    """Keeps a client's tokens, as the SDK asks for it."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Scene:
    """The surroundings of a gateway, with an authorization server; the gateway's own URL is known before it runs."""

    def __init__(self, world: Surroundings, issuer: AuthorizationServer) -> None:
        self.world, self.issuer = world, issuer

    def settings(self, **identity: Any) -> dict[str, Any]:
        jwks = {"issuer": self.issuer.url, "jwks": f"{self.issuer.url}/keys"}
        # Where a gateway listens is known to its clients: the resource is set once it does.
        return {"identity": {"resource": "https://gateway.example", "issuers": [issuer_settings(**jwks)], **identity}}

    def token(self, **claims: Any) -> str:
        return token_of(iss=self.issuer.url, **claims)

    async def post(self, token: str | None, *, name: str = "refund_customer", path: str = "") -> httpx2.Response:
        headers = {key.decode(): value.decode() for key, value in headers_of(name=name, token=token)}
        async with httpx2.AsyncClient(headers=headers, timeout=20) as http:
            return await http.post(f"{self.world.mcp_url}{path}", content=body_of(name=name, arguments={"amount": 1}))


def play(directory: Path, scenario: Callable[[Scene], Awaitable[None]], *, answer: Any = None, **identity: Any) -> None:
    async def run() -> None:
        async with authorization_server() as issuer, surroundings(directory, answer=answer) as world:
            scene = Scene(world, issuer)
            async with world.running(**scene.settings(**identity)):
                await scenario(scene)

    asyncio.run(run())


def test_a_client_of_the_sdk_finds_its_way_from_the_denial_to_a_token_and_calls(tmp_path: Path) -> None:
    """401, protected resource metadata, authorization server metadata, token, call: all by the SDK itself."""

    async def run() -> None:
        async with authorization_server() as issuer, surroundings(tmp_path) as world:
            scene = Scene(world, issuer)
            listener = bound()
            resource = f"http://127.0.0.1:{listener.getsockname()[1]}"
            gateway = world.build(**scene.settings(resource=resource))
            await gateway.start()
            async with serve(gateway.server_config(host="127.0.0.1", port=0), listener):
                url = f"{resource}/servers/finance/mcp"
                provider = ClientCredentialsOAuthProvider(
                    server_url=url,
                    storage=Storage(),
                    client_id="Finance-Bot",
                    client_secret="secret",
                    issuer=issuer.url,
                )
                async with httpx2.AsyncClient(auth=provider, timeout=20) as http:
                    transport = streamable_http_client(url, http_client=http)
                    async with Client(transport, mode=VERSION, cache=None) as client:
                        result = await client.call_tool("refund_customer", {"amount": 5})
            await gateway.stop()
            assert result.structured_content == {"result": "refunded 5.0"}
            (request,) = issuer.tokens
            assert (request["grant_type"], request["resource"]) == ("client_credentials", url)
            stranger, decision = world.ledger.decisions(None)[0], world.ledger.decisions()[-1]
            assert (stranger.agent, stranger.reason) == ("unauthenticated", "unauthenticated")
            assert (decision.agent, decision.decision) == ("Finance-Bot", "PERMIT")
            assert decision.facts is not None
            assert decision.facts.authn == "oauth"

    asyncio.run(run())


def test_the_denial_of_a_stranger_leads_to_the_metadata_and_to_nothing_else(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        denied = await scene.post(None)
        assert denied.status_code == 401
        assert denied.headers["WWW-Authenticate"] == (
            'Bearer realm="tallystick", scope="mcp", resource_metadata='
            '"https://gateway.example/.well-known/oauth-protected-resource/servers/finance/mcp"'
        )
        async with httpx2.AsyncClient() as http:
            where = f"{scene.world.url}/.well-known/oauth-protected-resource"
            known = (await http.get(f"{where}/servers/finance/mcp")).json()
            other = (await http.get(f"{where}/servers/nowhere/mcp")).json()
            assert (await http.get(where)).status_code == 404
            assert (await http.post(f"{where}/servers/finance/mcp")).status_code == 405
        assert known["authorization_servers"] == [scene.issuer.url]
        assert known | {"resource": ""} == other | {"resource": ""}

    play(tmp_path, scenario, required_scopes=["mcp"])


def test_tokens_that_do_not_count_never_reach_the_server_and_are_told_apart_by_nobody(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        spoiled = {
            "expired": scene.token(exp=1),
            "another server's": scene.token(aud="https://gateway.example/servers/payroll/mcp"),
            "forged": scene.token()[:-6] + "AAAAAA",
            "of another issuer": token_of(),
            "with an unknown key": token_of("ec-2", iss=scene.issuer.url),
        }
        answers = [await scene.post(token) for token in spoiled.values()]
        answers.append(await scene.post(None, path=f"?access_token={scene.token()}"))
        assert {answer.status_code for answer in answers} == {401}
        challenges = [answer.headers["WWW-Authenticate"] for answer in answers]
        assert {'error="invalid_token"' in one for one in challenges[:-1]} == {True}
        assert len(set(challenges[:-1])) == 1
        assert "error" not in challenges[-1]  # nothing was presented where credentials are
        assert scene.world.tools.calls == []
        reasons = {(one.agent, one.reason) for one in scene.world.ledger.decisions()}
        assert reasons == {("unauthenticated", "unauthenticated")}
        stored = b"".join(scene.world.ledger.lines.values())
        assert all(token.encode() not in stored for token in spoiled.values())

    play(tmp_path, scenario)


def test_a_token_without_a_scope_that_is_needed_is_known_and_refused(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        denied = await scene.post(scene.token(scope="mcp"))
        assert denied.status_code == 403
        assert 'error="insufficient_scope", scope="mcp refunds"' in denied.headers["WWW-Authenticate"]
        assert (await scene.post(scene.token(scope="refunds mcp other"))).status_code == 200
        assert (await scene.post("finance-token")).status_code == 200  # an API token knows no scopes
        first, *_ = scene.world.ledger.decisions()
        assert (first.agent, first.decision, first.reason) == ("Finance-Bot", "DENY", "insufficient_scope")

    play(tmp_path, scenario, required_scopes=["mcp"], server_scopes={"finance": ["refunds"]})


def test_a_killed_principal_does_not_come_back_with_another_token_of_any_kind(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        first = scene.token(jti="1")
        assert (await scene.post(first)).status_code == 200
        killed = (await scene.post(first, name="transfer_funds")).json()["error"]["data"]
        assert killed["enforcement"] == "kill"
        # Another token, one of another session of the issuer's, and the API token of the same agent and user.
        for token in (scene.token(jti="2"), scene.token(jti="3", iat=None, scope=None), "finance-token"):
            denied = (await scene.post(token)).json()["error"]["data"]
            assert denied["reason"] == "session_ended"
        assert (await scene.post(scene.token(sub="bob"))).json()["result"]  # another user's is another principal
        assert scene.world.tools.calls == ["refund_customer", "refund_customer"]

    answer = deny_tool("transfer_funds", obligations=("end_session",))
    play(tmp_path, scenario, answer=answer)


def test_one_session_goes_on_over_the_tokens_of_one_caller(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        for number in range(3):
            assert (await scene.post(scene.token(jti=str(number)))).status_code == 200
        assert (await scene.post(scene.token(sub="bob"))).status_code == 200
        sessions = [decision.session for decision in scene.world.ledger.decisions()]
        assert len(set(sessions[:3])) == 1
        assert sessions[3] != sessions[0]

    play(tmp_path, scenario)


def test_a_gateway_starts_though_an_issuer_is_away_and_knows_its_tokens_once_it_is_back(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        assert (await scene.post(scene.token())).status_code == 401
        assert (await scene.post("finance-token")).status_code == 200
        scene.issuer.status = 200
        clock = scene.world.clock
        assert isinstance(clock, SimulatedClock)
        clock.advance(31_000)
        assert (await scene.post(scene.token())).status_code == 200

    async def run() -> None:
        async with authorization_server(status=503) as issuer, surroundings(tmp_path) as world:
            scene = Scene(world, issuer)
            async with world.running(**scene.settings()):
                await scenario(scene)

    asyncio.run(run())


def test_what_a_client_says_of_itself_grants_nothing(tmp_path: Path) -> None:
    def finance_only(request: Any) -> dict[str, Any]:
        return {"effect": Effect.PERMIT if request.principal.agent == "Finance-Bot" else Effect.DENY}

    async def scenario(scene: Scene) -> None:
        world = scene.world
        info = Implementation(name="Finance-Bot", version="1")
        async with world.client("Support-Bot", client_info=info) as client:
            with pytest.raises(Exception, match="Denied by policy"):
                await client.call_tool("refund_customer", {"amount": 1})
        assert world.tools.calls == []

    play(tmp_path, scenario, answer=finance_only)
