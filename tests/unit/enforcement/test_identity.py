"""Who is calling: every credential that is presented must count, and together they must name one agent."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from enforcement.authenticator import Authenticator
from enforcement.config import GatewayConfig
from enforcement.identity import Cause, Identity
from enforcement.metrics import Metrics
from enforcement.tls_peer import TLSPeer
from ledger.clock import SimulatedClock
from tests.support.gateway import config_of
from tests.support.gateway_keys import NOON_MS
from tests.support.issuer import RESOURCE, encoded, issuer_settings, key_set, token_of

SAN = "URI:spiffe://acme.example/finance-bot"
TLS = TLSPeer(version="TLSv1.3", group="X25519MLKEM768", cipher="c", sans=(SAN,), certificate_sha256="ab" * 32)
CERTIFICATES = [
    {"san": "spiffe://acme.example/finance-bot", "agent": "Finance-Bot", "roles": ["mtls"]},
    {"san": "DNS:support.acme.example", "agent": "Support-Bot", "user": "bob"},
]
NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)


class Scene:
    """An authenticator with one issuer, whose keys are in a file."""

    def __init__(self, directory: Path, **identity: Any) -> None:
        keys = directory / "keys.json"
        keys.write_bytes(key_set("ec", "rsa", "ed"))
        issuer = issuer_settings(jwks=f"file:{keys}", refresh_seconds=3600)
        settings = {"resource": RESOURCE, "issuers": [issuer], "certificates": CERTIFICATES, **identity}
        self.config: GatewayConfig = config_of(directory, "http://x", "http://x/mcp", identity=settings)
        self.clock = SimulatedClock(NOON_MS)
        self.metrics = Metrics()

    def identify(self, *requests: tuple[list[str], TLSPeer | None]) -> list[Identity | None]:
        async def run() -> list[Identity | None]:
            async with Authenticator(self.config, self.clock, self.metrics) as authenticator:
                return [
                    await authenticator.identify(
                        [(b"authorization", one.encode()) for one in values], tls, server="finance"
                    )
                    for values, tls in requests
                ]

        return asyncio.run(run())

    def one(self, *authorization: str, tls: TLSPeer | None = None) -> Identity | None:
        return self.identify((list(authorization), tls))[0]

    def refused(self, cause: Cause) -> bool:
        return f'tallystick_refused_credentials_total{{cause="{cause.value}"}} 1.0' in self.metrics.render().decode()


@pytest.fixture(name="scene")
def _scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_each_kind_of_credential_names_its_agent_and_says_how(scene: Scene) -> None:
    token = f"Bearer {token_of()}"
    found = scene.identify(
        (["Bearer finance-token"], None), ([token], None), ([], TLS), ([token], TLS), (["Bearer finance-token"], TLS)
    )
    assert [(one.agent, one.authn) for one in found if one is not None] == [
        ("Finance-Bot", "api_token"),
        ("Finance-Bot", "oauth"),
        ("Finance-Bot", "mtls"),
        ("Finance-Bot", "oauth+mtls"),
        ("Finance-Bot", "api_token+mtls"),
    ]


def test_nothing_presented_is_a_stranger_and_no_refused_credential(scene: Scene) -> None:
    assert scene.one() is None
    assert "refused_credentials_total{" not in scene.metrics.render().decode()


@pytest.mark.parametrize(
    ("authorization", "cause"),
    [
        (["Bearer finance-token", "Bearer finance-token"], Cause.AMBIGUOUS),
        (["Bearer finance-token", ""], Cause.AMBIGUOUS),
        ([""], Cause.SCHEME),
        (["finance-token"], Cause.SCHEME),
        (["Bearer"], Cause.SCHEME),
        (["Bearer finance-token, Bearer x"], Cause.SCHEME),
        (["Basic ZmluYW5jZS10b2tlbjo="], Cause.SCHEME),
        ([f"DPoP {token_of()}"], Cause.SCHEME),
        (["Bearer finance-tokenx"], Cause.MALFORMED),
        (["Bearer a.b"], Cause.MALFORMED),
        ([f"Bearer {'a' * 9000}.b.c"], Cause.MALFORMED),
        (["Bearer " + hashlib.sha256(b"finance-token").hexdigest()], Cause.MALFORMED),
        ([f"Bearer {token_of(aud='https://elsewhere.example')}"], Cause.AUDIENCE),
    ],
)
@pytest.mark.parametrize("tls", [None, TLS])
def test_a_credential_that_does_not_count_is_not_made_good_by_a_certificate(
    scene: Scene, authorization: list[str], cause: Cause, tls: TLSPeer | None
) -> None:
    assert scene.one(*authorization, tls=tls) is None
    assert scene.refused(cause)


def test_two_headers_that_some_servers_read_as_one_are_two(scene: Scene) -> None:
    async def run() -> Identity | None:
        async with Authenticator(scene.config, scene.clock, scene.metrics) as authenticator:
            lines = [(b"authorization", b"Bearer finance-token"), (b"AUTHORIZATION", b"Bearer finance-token")]
            return await authenticator.identify(lines, None, server="finance")

    assert asyncio.run(run()) is None


# --- API tokens


@pytest.mark.parametrize(("seconds", "known"), [(1, True), (0, False), (-1, False)])
def test_an_api_token_is_good_until_the_moment_that_is_written_down(tmp_path: Path, seconds: int, known: bool) -> None:
    principal = {
        "token_sha256": hashlib.sha256(b"t").hexdigest(),
        "name": "ci-2026",
        "not_after": NOON + timedelta(seconds=seconds),
        "agent": "Finance-Bot",
    }
    scene = Scene(tmp_path)
    scene.config = config_of(tmp_path, "http://x", "http://x/mcp", principals=[principal])
    assert (scene.one("Bearer t") is not None) is known
    assert scene.refused(Cause.EXPIRED) is not known


# --- certificates


@pytest.mark.parametrize(
    "sans",
    [
        (),
        ("URI:spiffe://acme.example/finance-bot/x",),
        ("URI:spiffe://acme.example/Finance-Bot",),
        ("URI:SPIFFE://acme.example/finance-bot",),
        ("DNS:spiffe://acme.example/finance-bot",),  # a name of another kind that reads the same
        ("spiffe://acme.example/finance-bot",),
        ("DNS:a.support.acme.example",),
        ("DNS:*.acme.example",),
        ("email:support.acme.example",),
    ],
)
def test_a_certificate_without_a_name_of_the_configuration_names_nobody(scene: Scene, sans: tuple[str, ...]) -> None:
    assert scene.one(tls=replace(TLS, sans=sans)) is None


def test_a_certificate_that_names_two_principals_names_nobody(scene: Scene) -> None:
    both = replace(TLS, sans=(SAN, "DNS:support.acme.example"))
    assert scene.one(tls=both) is None
    assert scene.one("Bearer finance-token", tls=both) is None
    assert scene.refused(Cause.AMBIGUOUS) or "2.0" in scene.metrics.render().decode()


def test_a_renewed_certificate_is_the_same_credential(scene: Scene) -> None:
    first, second = scene.identify(([], TLS), ([], replace(TLS, certificate_sha256="cd" * 32)))
    assert first is not None
    assert first == second


@pytest.mark.parametrize(
    ("authorization", "sans"),
    [
        ("Bearer support-token", SAN),
        ("Bearer finance-token", "DNS:support.acme.example"),
        ("Bearer support-token", "DNS:support.acme.example"),  # the same agent, for alice and for bob
        (f"Bearer {token_of(client_id='Support-Bot')}", SAN),
    ],
)
def test_a_token_and_a_certificate_that_name_two_are_refused(scene: Scene, authorization: str, sans: str) -> None:
    assert scene.one(authorization, tls=replace(TLS, sans=(sans,))) is None
    assert scene.refused(Cause.CERTIFICATE)


def test_with_a_certificate_and_a_token_the_token_says_in_which_roles(scene: Scene) -> None:
    known = scene.one("Bearer finance-token", tls=TLS)
    assert known is not None
    assert (known.roles, known.user) == (("finance",), "alice")


def test_where_certificates_are_demanded_no_token_counts_without(tmp_path: Path) -> None:
    scene = Scene(tmp_path, require_certificate=True)
    other = replace(TLS, sans=("URI:spiffe://acme.example/other",))
    found = scene.identify((["Bearer finance-token"], None), (["Bearer finance-token"], other), ([], None))
    assert found == [None, None, None]
    assert scene.one("Bearer finance-token", tls=TLS) is not None


# --- access tokens


def test_a_bound_token_is_stolen_in_vain(tmp_path: Path) -> None:
    scene = Scene(tmp_path, require_bound_tokens=True)
    bound = f"Bearer {token_of(cnf={'x5t#S256': encoded(bytes.fromhex('ab' * 32))})}"
    other = replace(TLS, certificate_sha256="cd" * 32)
    assert [one is not None for one in scene.identify(([bound], TLS), ([bound], other), ([bound], None))] == [
        True,
        False,
        False,
    ]
    assert scene.one(f"Bearer {token_of()}", tls=TLS) is None


def test_a_token_that_was_good_is_not_after_its_time(scene: Scene) -> None:
    token = token_of()

    async def run() -> list[bool]:
        async with Authenticator(scene.config, scene.clock, scene.metrics) as authenticator:
            known = []
            for _ in range(3):
                lines = [(b"authorization", f"Bearer {token}".encode())]
                known.append(await authenticator.identify(lines, None, server="finance") is not None)
                scene.clock.advance(165_000)
            return known

    assert asyncio.run(run()) == [True, True, False]


def test_a_token_that_was_good_is_not_for_another_server(scene: Scene) -> None:
    lines = [(b"authorization", f"Bearer {token_of()}".encode())]

    async def run() -> list[bool]:
        async with Authenticator(scene.config, scene.clock, scene.metrics) as authenticator:
            return [
                await authenticator.identify(lines, None, server=name) is not None
                for name in ("finance", "payroll", "finance")
            ]

    assert asyncio.run(run()) == [True, False, True]


def test_a_token_whose_key_was_withdrawn_is_no_good_any_more(scene: Scene, tmp_path: Path) -> None:
    async def run() -> list[bool]:
        async with Authenticator(scene.config, scene.clock, scene.metrics) as authenticator:

            async def known(token: str) -> bool:
                lines = [(b"authorization", f"Bearer {token}".encode())]
                return await authenticator.identify(lines, None, server="finance") is not None

            first = await known(token_of("ec"))
            (tmp_path / "keys.json").write_bytes(key_set("ec-2"))
            scene.clock.advance(31_000)
            return [first, await known(token_of("ec-2")), await known(token_of("ec"))]

    assert asyncio.run(run()) == [True, True, False]


def test_a_fault_makes_nobody_known(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr("enforcement.oauth.check_token", fail)
    assert scene.one(f"Bearer {token_of()}") is None
    assert scene.refused(Cause.INTERNAL)
