"""An OpenID provider for tests, over HTTP on loopback: strict where a good one is, and spoilt where a test says so.

It speaks the code flow with PKCE (S256 and nothing else), takes each code once, compares redirect addresses exactly,
and rotates its keys when told. `spoil` changes what an ID token says, `forge` what is handed out for it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import httpx
import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.issuer import ALGORITHMS, jwk_of, private_key
from tests.support.service import ServerThread

CLIENT_ID: Final = "tallystick"
CLIENT_SECRET: Final = "a client's secret: 100 % sure"
ANN: Final = {
    "sub": "248289761001",
    "email": "ann@example.com",
    "email_verified": True,
    "preferred_username": "ann",
    "roles": ["tally-approvers"],
    "acr": "urn:example:silver",
    "amr": ["pwd", "otp"],
    "sid": "sid-of-ann",
}
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"


def _half(value: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(value.encode()).digest()[:16]).rstrip(b"=").decode()


@dataclass
class OpenIDServer:
    """What the provider knows and does; a test changes it as it goes.

    Attributes:
        user: The claims of whoever sits at the provider's page.
        signing: The key that signs.
        published: The keys that are shown.
        spoil: Members that an ID token has otherwise; None leaves one out.
        forge: Makes what is handed out of the ID token, if anything is to.
        metadata: Members of the metadata that are otherwise.
        require_secret: The client must authenticate.
    """

    user: dict[str, Any] = field(default_factory=lambda: dict(ANN))
    signing: str = "ec"
    published: tuple[str, ...] = ("ec",)
    spoil: dict[str, Any] = field(default_factory=dict)
    forge: Callable[[str, dict[str, Any]], str] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    require_secret: bool = True
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    exchanged: int = 0
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._describe),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/keys", self._keys),
            ]
        )

    async def _describe(self, _request: Request) -> Response:
        known = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "end_session_endpoint": f"{self.url}/logout",
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }
        return JSONResponse({name: value for name, value in known.items() if value is not None})

    async def _keys(self, _request: Request) -> Response:
        return JSONResponse({"keys": [jwk_of(kid) for kid in self.published]})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        self.asked.append(asked)
        good = asked.get("response_type") == "code" and asked.get("client_id") == CLIENT_ID
        if not good or "openid" not in asked.get("scope", "").split() or asked.get("code_challenge_method") != "S256":
            return JSONResponse({"error": "invalid_request"}, 400)
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        query = {"code": code, "state": asked["state"], "iss": self.url}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(query)}", 303)

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = self._codes.pop(form.get("code", ""), None)
        if self.require_secret and not self._authenticated(request):
            return JSONResponse({"error": "invalid_client"}, 401)
        proof = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(proof).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form.get("redirect_uri"):
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.exchanged += 1
        access_token = secrets.token_urlsafe(16)
        claims = self.claims(nonce=asked.get("nonce"), at_hash=_half(access_token))
        text = self.sign(claims)
        id_token = text if self.forge is None else self.forge(text, claims)
        return JSONResponse({"access_token": access_token, "token_type": "Bearer", "id_token": id_token})

    def _authenticated(self, request: Request) -> bool:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        pair = base64.b64decode(value).decode() if scheme == "Basic" else ":"
        name, _, secret = pair.partition(":")
        return (unquote(name), unquote(secret)) == (CLIENT_ID, CLIENT_SECRET)

    def claims(self, **members: Any) -> dict[str, Any]:
        """Return what an ID token of the user says now."""
        now = int(time.time())
        said = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, **self.user, **members, **self.spoil}
        return {name: value for name, value in said.items() if value is not None}

    def sign(self, claims: dict[str, Any], *, kid: str | None = None, typ: str = "JWT") -> str:
        """Return a token, signed with the key that signs now."""
        kid = kid or self.signing
        algorithm = ALGORITHMS[kid.partition("-")[0]]
        return jwt.encode(claims, private_key(kid), algorithm=algorithm, headers={"kid": kid, "typ": typ})

    def logout_token(self, **members: Any) -> str:
        """Return a logout token for the user's session, good but for what is given."""
        now = int(time.time())
        said = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 120, "jti": secrets.token_hex(8)}
        said |= {"events": {LOGOUT_EVENT: {}}, "sid": self.user.get("sid"), **members}
        return self.sign({name: value for name, value in said.items() if value is not None}, typ="logout+jwt")

    def settings(self, secret: str) -> dict[str, object]:
        """Return the settings of a service whose people log in here.

        Args:
            secret: URI of the client's secret.
        """
        roles = "tally-approvers=approver,tally-responders=responder,tally-admins=admin,tally-auditors=auditor"
        return {
            "oidc_issuer": self.url,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": secret,
            "oidc_roles": roles,
        }


@contextmanager
def openid_provider() -> Iterator[OpenIDServer]:
    """Serve a provider."""
    known = OpenIDServer()
    server = ServerThread(known.app())
    with server:
        known.url = server.url
        yield known


def target_of(page: str) -> str:
    """Return where a page of ours leads on to."""
    found = page.partition('http-equiv="refresh" content="0;url=')[2].partition('"')[0]
    assert found, page
    return found.replace("&amp;", "&")


def at_provider(url: str) -> str:
    """Go to the provider as a browser does, with nobody's cookies of ours, and return where it sends one back to."""
    answer = httpx.get(url, follow_redirects=False, trust_env=False)
    assert answer.status_code == 303, answer.text
    back = urlsplit(answer.headers["location"])
    return f"{back.path}?{back.query}"
