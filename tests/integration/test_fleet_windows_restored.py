"""A service whose database was put back from a copy: gateways say again what it has lost, and forget nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nacl.signing
import pytest
from click.testing import CliRunner

from enforcement.fleet_store import ServiceFleetStore
from enforcement.ledger_client import ServiceClient
from enforcement.window_exchange import WindowExchange
from ledger.clock import SimulatedClock
from ledger.notes import encode_base64
from service.auth import Role
from service.cli.main import cli
from tests.support.gateway_keys import NOON_MS
from tests.support.service import (
    RunningService,
    keep_database_and_keys,
    make_settings,
    put_database_and_keys_back,
    start_service,
)
from tests.unit.enforcement.test_fleet_windows import CALLS
from tests.unit.enforcement.test_pep import World
from tests.unit.enforcement.test_windows import asked, bundle_with, call


class Gate:
    """What a gateway counts, and its exchange with whatever service there is."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, bundle=bundle_with(CALLS))
        world = self.world
        self.token = ""
        self.exchange = WindowExchange(
            world.windows,
            None,  # type: ignore[arg-type]  # given in `meet`
            world.reader,
            world.recorder,
            world.clock,
            interval_seconds=3600,
        )

    async def call(self) -> int:
        """Make a call, and return how many of all gateways are known here then, itself included."""
        (value,) = await asked(self.world, call(1))
        return int(str(value))

    async def meet(self, service: RunningService) -> None:
        """Exchange until there is nothing more to say or to hear."""
        async with ServiceClient(service.url, self.token, timeout_seconds=20) as client:
            self.exchange._store = ServiceFleetStore(client)
            while await self.exchange.exchange():
                pass


@asynccontextmanager
async def gates(folder: Path, *names: str) -> AsyncIterator[list[Gate]]:
    made = [Gate(folder / name) for name in names]
    for gate in made:
        await gate.world.recorder.start()
    try:
        yield made
    finally:
        for gate in made:
            await gate.world.recorder.stop()
            gate.world.reader.close()
            gate.world.state.close()


def put_back(folder: Path) -> None:
    """Put the database back as operators do: the log, of which nothing was lost, brings it forward."""
    put_database_and_keys_back(folder)
    settings = make_settings(folder)
    names = ("data_dir", "keys_dir", "log_id", "tenant", "environment", "origin")
    environment = {f"TALLYSTICK_{name.upper()}": str(getattr(settings, name)) for name in names}
    done = CliRunner().invoke(cli, ["rebuild", "--forward"], env=environment)
    assert done.exit_code == 0, done.output
    assert "was brought forward" in done.output


async def everybody(service: RunningService, *gates: Gate) -> None:
    for gate in gates:
        await gate.meet(service)


def introduce(service: RunningService, gate: Gate, name: str) -> None:
    key = nacl.signing.SigningKey(name.encode().ljust(32, b"."))
    with service.client(Role.ADMIN) as admin:
        wanted = {"enforcer_id": name, "public_key": encode_base64(bytes(key.verify_key))}
        gate.token = admin.post("/v1/enforcers", json=wanted).raise_for_status().json()["token"]


@pytest.mark.parametrize("first", ["who heard it", "a third"])
def test_what_a_restored_database_has_lost_is_said_again_whoever_asks_it_first(tmp_path: Path, first: str) -> None:
    """Also where a third gateway has taken the version beyond what the others had heard."""

    async def scenario() -> None:
        folder, clock = tmp_path / "service", SimulatedClock(NOON_MS)
        async with gates(tmp_path, "gate-a", "gate-b", "gate-c") as (a, b, c):
            with start_service(folder, clock=clock) as service:
                for gate, name in ((a, "gate-a"), (b, "gate-b"), (c, "gate-c")):
                    introduce(service, gate, name)
                    await gate.call()
                await everybody(service, c, b, a, b, c)
                assert await a.call() == 4
                await everybody(service, a, b)
            keep_database_and_keys(folder)
            with start_service(folder, clock=clock) as service:
                assert [await a.call(), await a.call()] == [5, 6]
                await everybody(service, a, b)
                assert await b.call() == 7
            put_back(folder)
            clock.advance(1000)  # the copy is put back after what it lost
            with start_service(folder, clock=clock) as service:
                if first == "who heard it":
                    await everybody(service, b)
                    # The copy knows less of A's calls: what was heard before is not taken back by that.
                    assert await b.call() == 8
                else:
                    await c.call()
                    await everybody(service, c)
                await everybody(service, a, b, c, a)
                assert await c.call() == 9
                await everybody(service, c, a)
                assert await a.call() == 10

    asyncio.run(scenario())
