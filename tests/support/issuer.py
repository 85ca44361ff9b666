"""An authorization server for tests: keys of each kind, access tokens good and spoiled, and its addresses over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.support.gateway_keys import NOON_MS

ISSUER: Final = "https://login.example"
RESOURCE: Final = "https://gateway.example"
AUDIENCE: Final = f"{RESOURCE}/servers/finance/mcp"
NOW: Final = NOON_MS // 1000
ALGORITHMS: Final = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}


@cache
def private_key(kid: str) -> Any:
    """Return the private key of a name: ``rsa``, ``ec``, ``ed``, or one of these with something after a dash."""
    kind = kid.partition("-")[0]
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else ed25519.Ed25519PrivateKey.generate()


def jwk_of(kid: str, /, **members: Any) -> dict[str, Any]:
    """Return a public key as a JWK."""
    public = private_key(kid).public_key()
    kinds = {"rsa": jwt.algorithms.RSAAlgorithm, "ec": jwt.algorithms.ECAlgorithm, "ed": jwt.algorithms.OKPAlgorithm}
    described: dict[str, Any] = kinds[kid.partition("-")[0]].to_jwk(public, as_dict=True)
    described.pop("key_ops", None)
    return {**described, "kid": kid, "use": "sig", **members}


def key_set(*kids: str) -> bytes:
    """Return the key set of these keys."""
    return json.dumps({"keys": [jwk_of(kid) for kid in kids]}).encode()


def claims_of(**members: Any) -> dict[str, Any]:
    """Return the claims of a good token; a member that is None is left out."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": NOW + 300,
        "iat": NOW,
        "sub": "alice",
        "client_id": "Finance-Bot",
        "jti": "1",
        "scope": "mcp",
        **members,
    }
    return {name: value for name, value in claims.items() if value is not None}


def token_of(
    kid: str = "ec", *, headers: Mapping[str, Any] | None = None, alg: str | None = None, **claims: Any
) -> str:
    """Return a token, good but for what is given."""
    together = {"kid": kid, "typ": "at+jwt", **(headers or {})}
    present = {name: value for name, value in together.items() if value is not None}
    algorithm = alg or ALGORITHMS[kid.partition("-")[0]]
    return jwt.encode(claims_of(**claims), private_key(kid), algorithm=algorithm, headers=present)


def encoded(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes, kid: str = "ec") -> str:
    """Return a token of exactly these bytes, with a good signature."""
    text = f"{encoded(header)}.{encoded(payload)}"
    algorithm = jwt.get_algorithm_by_name(ALGORITHMS[kid.partition("-")[0]])
    return f"{text}.{encoded(algorithm.sign(text.encode(), private_key(kid)))}"


def issuer_settings(**members: Any) -> dict[str, Any]:
    """Return the settings of the issuer."""
    return {"issuer": ISSUER, "jwks": "https://login.example/keys", "claims": {"user": "sub"}, **members}


@dataclass
class AuthorizationServer:
    """What an authorization server answers on the network; what it was asked is counted."""

    now: int = NOW
    keys: bytes = field(default_factory=lambda: key_set("ec"))
    status: int = 200
    asked: int = 0
    tokens: list[dict[str, str]] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)
    answer: dict[str, Any] | None = None
    expires_in: int | None = 300
    signing: str = "ec"
    agent: str = "Finance-Bot"
    url: str = ""

    async def _keys(self, _request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(body=self.keys, status=self.status, content_type="application/json")

    async def _metadata(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "response_types_supported": ["code"],
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        )

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.tokens.append(form)
        self.requests.append(request)
        if self.status != 200:
            return web.json_response({"error": "invalid_client"}, status=self.status)
        if self.answer is not None:
            return web.json_response(self.answer)
        token = token_of(
            self.signing,
            iss=self.url,
            aud=form.get("resource", AUDIENCE),
            client_id=self.agent,
            sub=self.agent,
            scope=form.get("scope"),
            iat=self.now,
            exp=self.now + 300,
            jti=str(len(self.tokens)),
        )
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in}
        return web.json_response({name: value for name, value in answer.items() if value is not None})


@asynccontextmanager
async def authorization_server(**members: Any) -> AsyncIterator[AuthorizationServer]:
    """Run one on this machine."""
    server = AuthorizationServer(**members)
    app = web.Application()
    app.router.add_get("/keys", server._keys)
    app.router.add_route("*", "/moved", _moved)
    app.router.add_get("/.well-known/oauth-authorization-server", server._metadata)
    app.router.add_post("/token", server._token)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


async def _moved(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/keys")
