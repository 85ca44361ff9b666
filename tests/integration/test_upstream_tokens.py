"""The gateway's own credentials: what a server sees was issued to the gateway, and never to one of its clients."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from enforcement.config import Limits, ServerSettings
from enforcement.config_files import authorizations
from enforcement.issuer_keys import trusting
from enforcement.upstream import Upstream
from enforcement.upstream_tokens import UpstreamTokens, check_credentials
from ledger.clock import SimulatedClock
from ledger.errors import ConfigError, UpstreamError
from tests.support.gateway_keys import NOON_MS
from tests.support.issuer import AuthorizationServer, authorization_server, private_key
from tests.support.mcp_messages import headers_of


class Scene:
    """A way to one server that echoes the headers it gets, and an issuer of tokens for it."""

    def __init__(self, issuer: AuthorizationServer, directory: Path) -> None:
        self.issuer, self.directory = issuer, directory
        self.clock = SimulatedClock(NOON_MS)
        self.tokens = UpstreamTokens(self.clock)
        self.upstream = Upstream(Limits(), {}, tokens=self.tokens)
        self.status = 200
        self.seen: list[list[tuple[str, str]]] = []
        self.url = ""
        self.server = ServerSettings(name="finance")

    async def echo(self, request: web.Request) -> web.Response:
        self.seen.append([(name.lower(), value) for name, value in request.headers.items()])
        return web.json_response({}, status=self.status)

    def settings(self, **oauth: Any) -> ServerSettings:
        secret = self.directory / "secret"
        secret.write_text(oauth.pop("secret", "s3cr:t/"))
        secret.chmod(0o600)
        members = {"token_url": f"{self.issuer.url}/token", "client_id": "gateway:1", **oauth}
        if "private_key" not in members:
            members["client_secret"] = f"file:{secret}"
        else:
            members["private_key"] = f"file:{secret}"
        return ServerSettings.model_validate({"name": "finance", "url": self.url, "oauth": members})

    async def call(self, token: str = "of-the-client") -> str | None:
        """Make one call; returns the token that the server saw."""
        async with self.upstream.send(self.server, headers_of(token=token), b"{}") as response:
            await response.read()
        values = [value for name, value in self.seen[-1] if name == "authorization"]
        assert len(values) == 1
        return values[0].removeprefix("Bearer ")


def play(directory: Path, scenario: Callable[[Scene], Awaitable[None]], **oauth: Any) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            issuer = await stack.enter_async_context(authorization_server())
            scene = Scene(issuer, directory)
            app = web.Application()
            app.router.add_post("/mcp", scene.echo)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            scene.url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
            scene.server = scene.settings(**oauth)
            await stack.enter_async_context(scene.tokens)
            await stack.enter_async_context(scene.upstream)
            scene.tokens.take_up([scene.server])
            await scenario(scene)

    asyncio.run(run())


def test_a_server_sees_the_gateways_token_and_nothing_of_the_clients(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        token = await scene.call("of-the-client")
        assert token is not None
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["aud"] == scene.url
        assert not any("of-the-client" in value for line in scene.seen for _, value in line)
        (form,) = scene.issuer.tokens
        assert form == {"grant_type": "client_credentials", "scope": "mcp refunds", "resource": scene.url}
        basic = scene.issuer.requests[0].headers["Authorization"].removeprefix("Basic ")
        assert base64.b64decode(basic) == b"gateway%3A1:s3cr%3At%2F"

    play(tmp_path, scenario, scopes=["mcp", "refunds"])


def test_a_private_key_signs_an_assertion_for_the_token_endpoint(tmp_path: Path) -> None:
    pem = private_key("ec").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    async def scenario(scene: Scene) -> None:
        await scene.call()
        (form,) = scene.issuer.tokens
        claims = jwt.decode(
            form["client_assertion"],
            private_key("ec").public_key(),
            algorithms=["ES256"],
            audience=f"{scene.issuer.url}/token",
            options={"verify_exp": False, "verify_iat": False},
        )
        assert (claims["iss"], claims["sub"], claims["exp"] - claims["iat"]) == ("gateway:1", "gateway:1", 60)
        assert jwt.get_unverified_header(form["client_assertion"])["kid"] == "k1"
        assert "client_secret" not in form
        assert "Authorization" not in scene.issuer.requests[0].headers

    play(tmp_path, scenario, private_key="", secret=pem, key_id="k1")


def test_the_secret_goes_in_the_form_and_a_resource_is_left_out_where_an_issuer_wants_it_so(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.call()
        (form,) = scene.issuer.tokens
        assert (form["client_id"], form["client_secret"], form["audience"]) == ("gateway:1", "s3cr:t/", "api")
        assert "resource" not in form

    play(tmp_path, scenario, client_auth="post", omit_resource=True, audience="api")


def test_calls_at_once_ask_once_and_further_ones_not_at_all(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        await asyncio.gather(*(scene.call() for _ in range(20)))
        await scene.call()
        assert len(scene.issuer.tokens) == 1

    play(tmp_path, scenario)


def test_a_token_is_renewed_before_it_expires_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        first = await scene.call()
        scene.clock.advance(241_000)  # of 300 s
        assert await scene.call() == first
        async with asyncio.timeout(20):
            while len(scene.issuer.tokens) < 2 or await scene.call() == first:  # noqa: ASYNC110  # the answer is under way
                await asyncio.sleep(0.005)
        assert len(scene.issuer.tokens) == 2

    play(tmp_path, scenario)


def test_an_issuer_that_is_away_fails_calls_only_once_the_token_has_expired(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        first = await scene.call()
        scene.issuer.status = 503
        scene.clock.advance(299_000)
        assert await scene.call() == first
        scene.clock.advance(1_000)
        for _ in range(3):
            with pytest.raises(UpstreamError, match="upstream_credentials"):
                await scene.call()
        assert len(scene.issuer.tokens) <= 3
        assert len(scene.seen) == 2  # nothing goes to the server without
        scene.issuer.status = 200
        scene.clock.advance(5_000)
        assert await scene.call() != first

    play(tmp_path, scenario)


def test_a_token_that_the_server_refuses_is_thrown_away_but_no_call_is_repeated(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        scene.clock.advance(1)
        first = await scene.call()
        scene.status = 401
        assert await scene.call() == first  # so new that another would be refused as well
        assert await scene.call() == first
        scene.clock.advance(5_000)
        assert await scene.call() == first
        assert await scene.call() != first
        assert (len(scene.seen), len(scene.issuer.tokens)) == (5, 2)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"access_token": "t"},
        {"access_token": "t", "token_type": "DPoP", "expires_in": 60},
        {"access_token": "a b", "token_type": "Bearer", "expires_in": 60},
        {"access_token": "a\r\nx: y", "token_type": "Bearer", "expires_in": 60},
        {"access_token": "", "token_type": "Bearer", "expires_in": 60},
        {"access_token": ["t"], "token_type": "Bearer", "expires_in": 60},
        {"access_token": "t" * 70_000, "token_type": "Bearer", "expires_in": 60},
        {"access_token": "t", "token_type": "Bearer", "expires_in": "60"},
        {"access_token": "t", "token_type": "Bearer", "expires_in": 0},
        {"access_token": "t", "token_type": "Bearer", "expires_in": True},
    ],
)
def test_what_is_no_token_is_not_presented(tmp_path: Path, answer: dict[str, Any]) -> None:
    async def scenario(scene: Scene) -> None:
        scene.issuer.answer = answer
        with pytest.raises(UpstreamError, match="upstream_credentials"):
            await scene.call()
        assert scene.seen == []

    play(tmp_path, scenario)


def test_no_redirect_takes_the_secret_elsewhere(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        scene.tokens.take_up([scene.settings(token_url=f"{scene.issuer.url}/moved")])
        with pytest.raises(UpstreamError, match="upstream_credentials"):
            await scene.call()
        assert (scene.issuer.asked, scene.issuer.tokens) == (0, [])

    play(tmp_path, scenario)


def test_another_list_of_servers_keeps_the_tokens_of_those_that_stay_the_same(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        first = await scene.call()
        scene.tokens.take_up([scene.settings()])
        assert await scene.call() == first
        scene.tokens.take_up([scene.settings(scopes=["more"])])
        assert await scene.call() != first

    play(tmp_path, scenario)


@pytest.mark.parametrize("own", ["oauth", "authorization"])
def test_what_is_meant_for_a_new_address_is_not_shown_to_calls_on_their_way_to_the_old_one(
    tmp_path: Path, own: str
) -> None:
    async def scenario(scene: Scene) -> None:
        new = scene.server.model_copy(update={"url": "http://127.0.0.1:9/elsewhere"})
        if own == "authorization":
            scene.server = scene.server.model_copy(update={"oauth": None, "authorization": scene.server.oauth.secret})
            new = scene.server.model_copy(update={"url": new.url})
            scene.upstream.authorize(authorizations([scene.server]))
            async with scene.upstream.send(scene.server, headers_of(), b"{}"):
                assert ("authorization", "s3cr:t/") in scene.seen.pop()
        scene.tokens.take_up([new])
        scene.upstream.authorize(authorizations([new]))
        with pytest.raises(UpstreamError, match="upstream_credentials"):
            await scene.call()
        assert scene.seen == []

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("oauth", "message"),
    [
        ({"private_key": "", "secret": "no key"}, "does not sign"),
        ({"client_secret": "file:/nowhere", "secret": ""}, "there is no secret"),
    ],
)
def test_a_secret_that_cannot_be_used_is_a_fault_of_the_list(
    tmp_path: Path, oauth: dict[str, Any], message: str
) -> None:
    async def scenario(scene: Scene) -> None:
        with pytest.raises(ConfigError, match=message):
            check_credentials([scene.settings(**oauth)])

    play(tmp_path, scenario)


def test_a_long_list_reads_the_certificates_of_the_system_once_and_not_on_the_event_loop_for_each_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(scene: Scene) -> None:
        trusting(None)
        read: list[object] = []
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: read.append(None))
        listed = [scene.server.model_copy(update={"name": f"server-{number}"}) for number in range(40)]
        check_credentials(listed)
        scene.tokens.take_up(listed)
        assert not read

    play(tmp_path, scenario)


def test_a_key_of_another_kind_than_the_algorithm_is_a_fault_of_the_list(tmp_path: Path) -> None:
    pem = private_key("ed").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    async def scenario(scene: Scene) -> None:
        with pytest.raises(ConfigError, match="does not sign ES256"):
            check_credentials([scene.settings(private_key="", secret=pem)])

    play(tmp_path, scenario)
