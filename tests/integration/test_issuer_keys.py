"""An issuer's keys: asked for when they are needed, seldom, once for all who wait, and not believed for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from enforcement.config_identity import IssuerSettings
from enforcement.issuer_keys import IssuerKeys
from ledger.clock import SimulatedClock
from ledger.errors import ConfigError
from tests.support.gateway_keys import NOON_MS
from tests.support.issuer import AuthorizationServer, authorization_server, issuer_settings, jwk_of, key_set


class Scene:
    def __init__(self, server: AuthorizationServer, keys: IssuerKeys, clock: SimulatedClock) -> None:
        self.server, self.keys, self.clock = server, keys, clock

    async def knows(self, kid: str, algorithm: str = "ES256") -> bool:
        return await self.keys.find(kid, algorithm) is not None


def play(scenario: Callable[[Scene], Awaitable[None]], *, path: str = "/keys", **settings: Any) -> None:
    async def run() -> None:
        async with authorization_server() as server, aiohttp.ClientSession() as session:
            clock = SimulatedClock(NOON_MS)
            members = {"jwks": f"{server.url}{path}", "refresh_seconds": 3600, **settings}
            keys = IssuerKeys(IssuerSettings.model_validate(issuer_settings(**members)), clock)
            keys.start(session)
            try:
                await scenario(Scene(server, keys, clock))
            finally:
                await keys.stop()

    asyncio.run(run())


def test_a_call_waits_for_the_first_keys_and_all_wait_for_the_same() -> None:
    async def scenario(scene: Scene) -> None:
        assert await asyncio.gather(*(scene.knows("ec") for _ in range(20))) == [True] * 20
        assert scene.server.asked == 1
        assert scene.keys.usable

    play(scenario)


def test_no_more_than_a_few_wait() -> None:
    async def scenario(scene: Scene) -> None:
        known = await asyncio.gather(*(scene.knows("ec") for _ in range(80)))
        assert 64 <= sum(known) < 80

    play(scenario)


def test_a_key_that_is_not_known_is_asked_for_but_seldom_whoever_writes_it_into_a_token() -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.knows("ec")
        for number in range(50):
            assert not await scene.knows(f"ec-{number}")
        assert scene.server.asked == 1
        scene.server.keys = key_set("ec", "ec-2")
        scene.clock.advance(30_000)
        assert await scene.knows("ec-2")
        assert (scene.server.asked, scene.keys.generation) == (2, 2)

    play(scenario)


def test_a_key_that_was_withdrawn_verifies_nothing_once_the_new_set_is_here() -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.knows("ec")
        scene.server.keys = key_set("ec-2")
        scene.clock.advance(30_000)
        assert await scene.knows("ec-2")
        assert not await scene.knows("ec")

    play(scenario)


def test_an_issuer_that_withdraws_all_of_its_keys_is_believed_as_well() -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.knows("ec")
        scene.server.keys = b'{"keys":[]}'
        scene.clock.advance(30_000)
        assert not await scene.knows("ec-2")
        assert not await scene.knows("ec")

    play(scenario)


@pytest.mark.parametrize(
    "keys", [b"", b"not json", b'{"keys":{}}', json.dumps({"keys": [jwk_of("rsa")]}).encode()[:-3]]
)
def test_a_set_that_cannot_be_read_leaves_the_keys_that_were_known(keys: bytes) -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.knows("ec")
        scene.server.keys = keys
        scene.clock.advance(30_000)
        assert not await scene.knows("ec-2")
        assert scene.server.asked == 2
        assert await scene.knows("ec")

    play(scenario)


def test_keys_that_nobody_could_confirm_for_too_long_verify_nothing() -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.knows("ec")
        scene.server.status = 503
        scene.clock.advance(60_000)
        assert await scene.knows("ec")
        scene.clock.advance(1)
        assert not await scene.knows("ec")
        assert not scene.keys.usable
        scene.server.status = 200
        scene.clock.advance(30_000)
        assert await scene.knows("ec")

    play(scenario, max_age_seconds=60)


def test_no_redirect_is_followed() -> None:
    async def scenario(scene: Scene) -> None:
        assert not await scene.knows("ec")
        assert scene.server.asked == 0

    play(scenario, path="/moved")


def test_an_issuer_that_is_away_makes_nobody_known() -> None:
    async def scenario(scene: Scene) -> None:
        assert not await scene.knows("ec")
        assert not scene.keys.usable

    play(scenario, jwks="http://127.0.0.1:1/keys")


def test_keys_come_from_a_file_as_well_and_are_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    async def scenario(scene: Scene) -> None:
        assert not await scene.knows("ec")  # no file yet
        path.write_bytes(key_set("ec"))
        scene.clock.advance(30_000)
        assert await scene.knows("ec")

    play(scenario, jwks=f"file:{path}")


def test_certificates_that_cannot_be_read_are_a_fault_of_the_configuration(tmp_path: Path) -> None:
    settings = IssuerSettings.model_validate(issuer_settings(ca=str(tmp_path / "nowhere.pem")))
    with pytest.raises(ConfigError):
        IssuerKeys(settings, SimulatedClock(NOON_MS))
