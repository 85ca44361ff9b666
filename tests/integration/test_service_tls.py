"""TLS on the service's own port: the gateway's way to it on the wire, who is kept out, certificates that change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from enforcement.ledger_client import ServiceClient
from enforcement.ports import NoBundle, Unavailable
from enforcement.tls_client import ClientContext, ClientRules, client_context
from enforcement.tls_files import Rotating, read_material
from ledger.clock import SystemClock
from tests.support.commands import Installation, Served
from tests.support.pki import PKI
from tests.support.tls_wire import TLS13, X25519MLKEM768, listening_in, read_handshake

CLOCK = SystemClock()


@dataclass(frozen=True)
class Scene:
    """A service that wants client certificates, and those that ``tallystick tls init`` made."""

    served: Served
    installation: Installation
    tls: Path
    token: str

    @property
    def port(self) -> int:
        return int(self.served.url.rpartition(":")[2])

    def variables(self, who: str) -> dict[str, str]:
        return {
            "TALLYSTICK_URL": f"https://127.0.0.1:{self.port}",
            "TALLYSTICK_TOKEN": self.token,
            "TALLYSTICK_CA": str(self.tls / "ca.crt"),
            "TALLYSTICK_CLIENT_CERTIFICATE": str(self.tls / f"{who}.crt"),
            "TALLYSTICK_CLIENT_KEY": f"file:{self.tls / f'{who}.key'}",
        }


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("service")
    tls = folder / "tls"
    plain = Installation(folder=folder)
    made = plain.do_json("tls", "init", tls, "--name", "acme")
    assert len(made["certificates"]) == 5
    plain.make_keys()
    named = {"TLS_CLIENT_NAMES": "URI:spiffe://acme/gateway/*, URI:spiffe://acme/agent/agent", "TLS_GROUPS": "strict"}
    installation = Installation(folder=folder, more=named)
    command = ("serve", "--tls-certificate", tls / "service.crt", "--tls-key", f"file:{tls / 'service.key'}")
    with installation.serve(*command, "--tls-client-ca", tls / "ca.crt") as served:
        yield Scene(served=served, installation=installation, tls=tls, token=plain.token("admin"))


def rotating(certificate: Path | None, ca: Path) -> Rotating[ClientContext]:
    key = None if certificate is None else f"file:{certificate.with_suffix('.key')}"
    return Rotating(
        "service",
        lambda: read_material(certificate, key, ca, CLOCK),
        lambda material: client_context(material, ClientRules(groups="strict")),
    )


async def fetch(scene: Scene, tls: Rotating[ClientContext], url: str) -> object:
    async with ServiceClient(url, scene.token, timeout_seconds=20, tls=tls) as client:
        return await client.fetch(None)


def test_the_gateways_way_to_the_service_shows_a_listener_x25519mlkem768_and_no_plaintext(scene: Scene) -> None:
    async def scenario() -> None:
        async with listening_in(scene.port) as wire:
            answer = await fetch(
                scene, rotating(scene.tls / "gateway-1.crt", scene.tls / "ca.crt"), f"https://localhost:{wire.port}"
            )
        assert answer == NoBundle()
        (talk,) = wire.conversations
        seen = read_handshake(talk)
        assert (seen.version, seen.group) == (TLS13, X25519MLKEM768)
        for word in (scene.token, "/v1/bundles", "Bearer", "HTTP/1.1"):
            assert word.encode() not in wire.everything()

    asyncio.run(scenario())


def test_whoever_shows_no_certificate_a_foreign_one_or_another_name_is_kept_out(scene: Scene, tmp_path: Path) -> None:
    async def scenario() -> None:
        here, ca = f"https://localhost:{scene.port}", scene.tls / "ca.crt"
        foreign = PKI(tmp_path).client("foreign", "spiffe://acme/gateway/gateway-1")
        for certificate in (None, foreign.certificate, scene.tls / "service.crt"):
            assert isinstance(await fetch(scene, rotating(certificate, ca), here), Unavailable)
        gateway = scene.tls / "gateway-1.crt"
        assert isinstance(await fetch(scene, rotating(gateway, PKI(tmp_path / "other").ca), here), Unavailable)
        assert await fetch(scene, rotating(gateway, ca), here) == NoBundle()

    asyncio.run(scenario())


def test_commands_reach_the_service_with_a_certificate_and_not_without(scene: Scene) -> None:
    done = scene.installation.run("find", **scene.variables("agent"))
    assert (done.status, done.errors) == (0, "")
    without = {**scene.variables("agent"), "TALLYSTICK_CLIENT_CERTIFICATE": "", "TALLYSTICK_CLIENT_KEY": ""}
    assert scene.installation.run("find", **without).status == 4


async def get(scene: Scene, path: str) -> str:
    context = rotating(scene.tls / "agent.crt", scene.tls / "ca.crt").current
    url = f"https://localhost:{scene.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as response:
        return await response.text()


def test_readiness_and_metrics_say_when_the_certificate_ends_and_who_was_kept_out(scene: Scene) -> None:
    async def scenario() -> None:
        checks = {check["name"]: check for check in json.loads(await get(scene, "/readyz"))["checks"]}
        assert checks["certificate_listener"]["ok"]
        assert not checks["certificate_listener"]["vital"]
        assert checks["certificate_listener"]["detail"].startswith("holds until 20")
        metrics = await get(scene, "/metrics")
        assert 'tallystick_tls_connections_total{group="X25519MLKEM768",hop="client",version="TLSv1.3"}' in metrics
        assert 'tallystick_certificate_expires_timestamp_seconds{use="listener"}' in metrics
        assert 'tallystick_certificate_refused{use="listener"} 0.0' in metrics

    asyncio.run(scenario())


def test_a_service_whose_key_is_another_ones_does_not_start(scene: Scene) -> None:
    command = ("serve", "--tls-certificate", "tls/service.crt", "--tls-key", "file:tls/agent.key")
    done = scene.installation.run(*command, TALLYSTICK_TLS_CLIENT_NAMES="")
    assert done.status == 64
    assert "does not belong" in done.errors
