"""The fleet as the service sees it: heartbeats in the log, signs of life, the active bundle, and who is enrolled."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry

from ledger.bodies import Heartbeat
from ledger.clock import SimulatedClock
from ledger.errors import StorageError
from policies.bundles import Bundle
from service.auth import Role
from service.cli.main import cli
from service.contacts import Contacts
from service.fleet import Fleet, State
from service.fleet_metrics import FleetMetrics
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
        containments=services.containments,
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


def gauges(world: World) -> dict[str, float]:
    with world.running.client(Role.AUDITOR) as auditor:
        lines = auditor.get("/metrics").text.splitlines()
    shown = [line.rpartition(" ") for line in lines if line.startswith("tallystick_fleet_")]
    return {name.removeprefix("tallystick_fleet_"): float(value) for name, _, value in shown}


def test_the_metrics_count_the_gateways_by_how_they_stand(world: World) -> None:
    world.beat("gateway-a", spool_depth=3, spool_bytes=900, oldest_ms=90_000, observed=2, clock_offset_ms=-4_000)
    world.beat("gateway-b", spool_depth=4, spool_bytes=100, set_aside=1)
    world.beat("gateway-c", kind="stop")
    world.enrol("gateway-d")
    found = gauges(world)
    counted = {state: found[f'gateways{{state="{state}"}}'] for state in State}
    assert counted == {state: list(world.states().values()).count(state) for state in State}
    assert (counted["stopped"], counted["never"], counted["silent"], sum(counted.values())) == (1, 1, 0, 4)
    assert (found["spool_records"], found["spool_bytes"], found["spool_oldest_seconds"]) == (7, 1000, 90)
    assert (found["set_aside_records"], found["observed"], found["clock_offset_seconds"]) == (1, 2, 4)
    assert found['warnings{warning="set_aside"}'] == 1
    world.clock.advance(60_000)
    assert gauges(world)['gateways{state="silent"}'] == 2


def test_the_metrics_name_no_gateway(world: World) -> None:
    world.beat("gateway-a")
    with world.running.client(Role.AUDITOR) as auditor:
        assert "gateway-a" not in auditor.get("/metrics").text


def test_gateways_that_nobody_can_count_are_no_number() -> None:
    registry = CollectorRegistry()
    metrics = FleetMetrics(registry)

    def fail() -> Fleet:
        raise StorageError("the database is away")

    metrics.refresh(fail)
    assert math.isnan(registry.get_sample_value("tallystick_fleet_gateways", {"state": "ok"}) or 0)
    assert math.isnan(registry.get_sample_value("tallystick_fleet_warnings", {"warning": "clock"}) or 0)
    assert math.isnan(registry.get_sample_value("tallystick_fleet_spool_records") or 0)


def test_the_database_is_asked_once_at_a_time_however_many_ask_for_metrics() -> None:
    metrics, looks = FleetMetrics(CollectorRegistry()), 0

    def look() -> Fleet:
        nonlocal looks
        looks += 1
        asked = threading.Thread(target=metrics.refresh, args=(look,))
        asked.start()
        asked.join()
        raise StorageError("the database is away")

    metrics.refresh(look)
    assert looks == 1


def test_a_gateway_that_lacks_what_is_contained_is_skewed_as_long_as_the_containment_says_unreached(world):
    """What the fleet says and what the containment says come from one word: the gateway's own."""
    revision = world.look()["active"]["revision"]

    def ask(enforcer_id: str, version: int) -> None:
        with world.running.client(token=world.gateways[enforcer_id].token) as client:
            answer = client.get("/v1/restrictions", params={"after": version, "digest": digest})
        assert answer.status_code == (304 if version == order["leaf_index"] else 200)

    def told() -> tuple[dict[str, str], dict[str, list[str]]]:
        with world.running.client(Role.AUDITOR) as auditor:
            reached = auditor.get(f"/v1/containments/{order['id']}").json()["gateways"]
        fleet = {one["enforcer_id"]: one["warnings"] for one in world.look()["gateways"]}
        return {one["enforcer_id"]: one["state"] for one in reached}, fleet

    for enforcer_id in ("gateway-x", "gateway-y", "gateway-z"):
        world.beat(enforcer_id, bundle_revision=revision)
    with world.running.client(Role.RESPONDER) as responder:
        wanted = {"server": "finance", "seconds": 7200, "reason": "ticket 18"}
        order = responder.post("/v1/containments", json=wanted).raise_for_status().json()
    version = order["leaf_index"]
    with world.running.client(Role.AUDITOR) as auditor:
        digest = auditor.get("/v1/containments").json()["digest"]
    ask("gateway-x", version)
    digest, current = "0" * 64, digest
    ask("gateway-y", version - 1)
    digest = current
    reached, fleet = told()
    assert reached == {"gateway-x": "reached", "gateway-y": "unreached", "gateway-z": "unreached"}
    assert fleet == {"gateway-x": [], "gateway-y": [], "gateway-z": []}  # it may be on its way
    world.clock.advance(5_001)
    found = world.look()
    assert found["restrictions"] == {"version": version, "since_ms": order["since_ms"], "count": 1}
    assert {one["enforcer_id"]: one["state"] for one in found["gateways"]} == {
        "gateway-x": "ok",
        "gateway-y": "skewed",
        "gateway-z": "skewed",
    }
    said = {one["enforcer_id"]: one["restrictions_version"] for one in found["gateways"]}
    assert said == {"gateway-x": version, "gateway-y": version - 1, "gateway-z": None}
    shown = world.command().stdout
    assert shown.count("what is contained is not in force there") == 2
    assert "Stopped everywhere: 1" in shown
    ask("gateway-y", version)
    world.beat("gateway-z", bundle_revision=revision, restrictions_version=version)
    ask("gateway-z", version)
    assert told() == (
        {"gateway-x": "reached", "gateway-y": "reached", "gateway-z": "reached"},
        {"gateway-x": [], "gateway-y": [], "gateway-z": []},
    )
    for name in ("ann", "eve"):
        with world.running.client(token=world.running.token(Role.ADMIN, name)) as second:
            second.post(f"/v1/containments/{order['id']}/release", json={"reason": "ticket 18"}).raise_for_status()
