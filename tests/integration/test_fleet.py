"""The fleet as the service sees it: heartbeats in the log, signs of life, the active bundle, and who is enrolled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ledger.bodies import Heartbeat
from ledger.clock import SimulatedClock
from policies.bundles import Bundle
from service.auth import Role
from service.cli.main import cli
from service.contacts import Contacts
from service.fleet_reader import FleetReader
from tests.support.gateway_keys import NOON_MS
from tests.support.ledger import LOG_ID
from tests.support.packs import ready_bundle
from tests.support.service import EnforcerClient, RunningService, start_service

FORBID = '@id("only") forbid (principal, action, resource);'


class World:
    """A service under a clock that the test moves, and gateways that say what the test has them say."""

    def __init__(self, running: RunningService, clock: SimulatedClock) -> None:
        self.running = running
        self.clock = clock
        self.gateways: dict[str, EnforcerClient] = {}
        self.seeds = count(100)

    def enrol(self, enforcer_id: str) -> EnforcerClient:
        self.gateways[enforcer_id] = self.running.enforcer(enforcer_id, seed=next(self.seeds))
        return self.gateways[enforcer_id]

    def beat(self, enforcer_id: str, **said: Any) -> None:
        client = self.gateways.get(enforcer_id) or self.enrol(enforcer_id)
        body = {"kind": "periodic", "version": "0.1.0", "spool_depth": 0, "contact_ms": 30_000, **said}
        client.post([(client.record(Heartbeat(**body)), ())]).raise_for_status()

    def ask_for_bundle(self, enforcer_id: str) -> None:
        with self.running.client(token=self.gateways[enforcer_id].token) as client:
            client.get("/v1/bundles/active")

    def retire(self, enforcer_id: str) -> None:
        with self.running.client(Role.ADMIN) as admin:
            admin.delete(f"/v1/enforcers/{enforcer_id}").raise_for_status()
        del self.gateways[enforcer_id]

    def look(self) -> dict[str, Any]:
        with self.running.client(Role.AUDITOR) as auditor:
            return auditor.get("/v1/fleet").raise_for_status().json()

    def states(self) -> dict[str, str]:
        return {one["enforcer_id"]: one["state"] for one in self.look()["gateways"]}

    def command(self, *more: str) -> Result:
        token = self.running.token(Role.AUDITOR)
        return CliRunner().invoke(cli, ["fleet", "--url", self.running.url, "--token", token, *more])


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    clock = SimulatedClock(NOON_MS)
    with start_service(tmp_path_factory.mktemp("fleet"), clock=clock) as running:
        yield World(running, clock)


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    """Yield the world without any gateway, each time an hour later."""
    module_world.clock.advance(3_600_000)
    yield module_world
    for enforcer_id in tuple(module_world.gateways):
        module_world.retire(enforcer_id)


def in_force(world: World, bundle: Bundle) -> str:
    return world.running.put_in_force(bundle)


def test_a_gateway_is_never_there_then_well_then_silent_and_a_question_is_a_sign_of_life(world):
    world.enrol("gateway-a")
    assert world.states() == {"gateway-a": "never"}
    world.beat("gateway-a")
    assert world.states() == {"gateway-a": "ok"}
    world.clock.advance(45_000)
    assert world.states() == {"gateway-a": "ok"}
    world.clock.advance(1)
    assert world.states() == {"gateway-a": "silent"}
    world.ask_for_bundle("gateway-a")
    assert world.states() == {"gateway-a": "ok"}


def test_a_bundle_that_a_gateway_did_not_take_up_shows_within_a_minute_with_the_time_of_its_activation(world):
    first = in_force(world, ready_bundle())
    world.clock.advance(60_000)
    world.beat("gateway-b", bundle_revision=first)
    assert world.states() == {"gateway-b": "ok"}
    second = in_force(world, ready_bundle(FORBID))
    activated_ms = world.clock.now_ms()
    assert world.states() == {"gateway-b": "ok"}
    world.clock.advance(15_001)
    found = world.look()
    (gateway,) = found["gateways"]
    assert (found["active"]["revision"], found["active"]["since_ms"]) == (second, activated_ms)
    assert (gateway["state"], gateway["warnings"], gateway["skewed_since_ms"]) == ("skewed", ["bundle"], activated_ms)
    world.beat("gateway-b", bundle_revision=second)
    assert world.states() == {"gateway-b": "ok"}


def test_the_service_itself_is_no_gateway_and_a_retired_one_is_not_shown(world):
    revision = world.look()["active"]["revision"]
    world.beat("gateway-c", bundle_revision=revision)
    assert world.states() == {"gateway-c": "ok"}
    world.retire("gateway-c")
    assert world.look()["gateways"] == []


def test_a_gateway_that_was_enrolled_anew_is_not_judged_by_what_was_there_before(world):
    world.beat("gateway-d", set_aside=3)
    world.retire("gateway-d")
    world.enrol("gateway-d")
    assert world.states() == {"gateway-d": "never"}


def test_what_was_read_once_is_what_somebody_reads_who_begins_now(world):
    world.beat("gateway-e", spool_depth=1)
    world.look()
    world.beat("gateway-e", spool_depth=2)
    world.beat("gateway-f", clock_offset_ms=-9000, clock_bound_ms=2)
    services = world.running.services
    anew = FleetReader(
        LOG_ID,
        service_id=services.settings.service_id,
        catalog=services.catalog,
        reader=services.reader,
        keyring=services.keyring,
        key_records=services.key_records,
        history=services.fleet._history,
        contacts=services.contacts,
        clock=services.clock,
    )
    assert anew.look() == services.fleet.look()
    depths = {one.enforcer_id: one.beat.body.spool_depth for one in anew.look().members if one.beat}
    assert depths == {"gateway-e": 2, "gateway-f": 0}


def test_every_process_of_the_service_knows_when_an_enforcer_was_heard_of(world):
    world.beat("gateway-g")
    services = world.running.services
    services.contacts.write()
    other = Contacts(services.database, LOG_ID, services.clock)
    assert other.all()["gateway-g"] == world.clock.now_ms()
    world.clock.advance(5000)
    other.heard("gateway-g")
    other.write()
    assert services.contacts.all()["gateway-g"] == world.clock.now_ms()
    services.contacts._heard["gateway-g"] = world.clock.now_ms() - 1  # what a process writes late lifts nothing
    services.contacts.write()
    assert other.all()["gateway-g"] == world.clock.now_ms()


def test_a_token_of_nobody_or_of_an_auditor_is_no_sign_of_life_of_a_gateway(world):
    world.beat("gateway-h")
    world.clock.advance(60_000)
    with world.running.client(Role.ADMIN) as admin, world.running.client(token="ts1.acme." + "x" * 43) as nobody:
        admin.get("/v1/bundles/active")
        nobody.get("/v1/bundles/active")
    assert world.states() == {"gateway-h": "silent"}


def test_the_command_shows_who_needs_a_look_and_says_so_by_its_status(world):
    assert world.command().exit_code == 0
    revision = in_force(world, ready_bundle('@id("another") permit (principal, action, resource);'))
    world.beat("gateway-i", bundle_revision=revision, enforced=39, observed=1, clock_offset_ms=12, clock_bound_ms=3)
    well = world.command()
    assert (well.exit_code, "All are well." in well.stdout) == (0, True), well.output
    assert "1 of 40" in well.stdout
    assert "+12 ±3 ms" in well.stdout
    world.beat("gateway-j", bundle_revision="ee" * 32, set_aside=1)
    world.clock.advance(20_000)
    worse = world.command()
    assert worse.exit_code == 1
    assert [line.split()[0] for line in worse.stdout.splitlines()[1:3]] == ["gateway-j", "gateway-i"]
    assert "another bundle is active since" in worse.stdout
    assert "the ledger refused records" in worse.stdout
    as_json = world.command("--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["well"]) == (1, False)


def test_one_that_stopped_in_order_is_shown_until_it_is_retired(world):
    world.beat("gateway-k", kind="stop")
    assert world.states() == {"gateway-k": "stopped"}
    assert world.command().exit_code == 1
    world.retire("gateway-k")
    assert world.command().exit_code == 0
