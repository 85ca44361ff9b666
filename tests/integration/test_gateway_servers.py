"""The list of servers in a file of its own, taken up while the gateway runs, and the modes in it as records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcp import MCPError

from enforcement.gateway import Gateway
from enforcement.modes import ApprovedMode
from enforcement.ports import Unavailable
from ledger.bodies import ModeEvent
from ledger.errors import ConfigError, StorageError
from tests.support.gateway import Surroundings, deny_tool, surroundings

NO_LOOK = {"servers": (), "servers_seconds": 3600}
"""The test says when the file is looked at."""


class Approvals:
    """What the service would answer."""

    def __init__(self) -> None:
        self.answer: Sequence[ApprovedMode] | Unavailable = ()

    async def approved_modes(self) -> Sequence[ApprovedMode] | Unavailable:
        return self.answer


class World:
    """A gateway with its list in a file."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.file = around.directory / "servers.yaml"
        self.approvals = Approvals()

    def write(self, *servers: dict[str, Any]) -> None:
        entries = [{"name": "finance", "url": self.around.upstream, **entry} for entry in servers]
        self.file.write_text(yaml.safe_dump({"servers": entries}))

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Gateway]:
        async with self.around.running(**NO_LOOK, servers_file=self.file, **options) as gateway:
            reload = gateway.core.require().reload
            reload._approvals = self.approvals
            reload._until_asking = 0.0
            yield gateway

    async def look(self, gateway: Gateway) -> None:
        gateway.core.require().reload._until_asking = 0.0
        await gateway.core.reload_servers()

    async def modes(self) -> list[tuple[str, str | None, str, str | None]]:
        await self.around.settle(self.records_are_there)
        return [(one.server, one.tool, one.mode, one.previous) for one in self.events()]

    def records_are_there(self) -> bool:
        return all(self.around.ledger.records)

    def events(self) -> list[ModeEvent]:
        return [record.body for record in self.around.ledger.records if isinstance(record.body, ModeEvent)]


@asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with surroundings(tmp_path, answer=deny_tool("transfer_funds")) as around:
        yield World(around)


async def refused(around: Surroundings, tool: str = "transfer_funds") -> bool:
    async with around.client() as client:
        try:
            await client.call_tool(tool, {"amount": 1})
        except MCPError:
            return True
    return False


def approved(change_id: str = "018f2f5e-7a8b-7c1d-9e2f-0123456789ab", **members: Any) -> ApprovedMode:
    given: dict[str, Any] = {"server": "finance", "tool": None, "mode": "observe", **members}
    return ApprovedMode(change_id=change_id, **given)


def test_another_list_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            async with here.running() as gateway:
                assert not await refused(here.around, "refund_customer")
                here.write({"name": "elsewhere", "owner": "payments"})
                await here.look(gateway)
                assert [one.name for one in gateway.core.servers()] == ["elsewhere"]
                async with here.around.http() as http:
                    answer = await http.post(here.around.mcp_url, content=b"{}")
                assert (answer.status_code, answer.json()["error"]["data"]["reason"]) == (404, "unknown_server")
                here.write({}, {"name": "elsewhere"})
                await here.look(gateway)
                assert not await refused(here.around, "refund_customer")

    asyncio.run(play())


def test_servers_without_an_address_are_passed_over_and_named(tmp_path: Path) -> None:
    """One file serves gateways and `tallystick wrap`: what only the latter can start is no server of a gateway."""

    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({"mode": "enforce"}, {"name": "files", "url": None, "mode": "observe"})
            async with here.running() as gateway:
                assert [one.name for one in gateway.core.servers()] == ["finance"]
                assert gateway.core.readiness()[1]["servers_passed_over"] == ("files",)
                async with here.around.http() as http:
                    answer = await http.post(here.around.mcp_url.replace("finance", "files"), content=b"{}")
                assert (answer.status_code, answer.json()["error"]["data"]["reason"]) == (404, "unknown_server")
                here.write({})
                await here.look(gateway)
                assert "servers_passed_over" not in gateway.core.readiness()[1]
                here.write({"name": "files", "url": None})
                await here.look(gateway)
                assert gateway.core.require().reload.file == "broken"
                assert [one.name for one in gateway.core.servers()] == ["finance"]
            assert all(event[0] != "files" for event in await here.modes())

    asyncio.run(play())


def test_a_gateway_does_not_start_on_a_file_of_servers_that_it_cannot_reach(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({"url": None})
            with pytest.raises(ConfigError, match="none has a url"):
                async with here.running():
                    pass

    asyncio.run(play())


def test_the_file_is_looked_at_by_itself(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            async with here.around.running(servers=(), servers_file=here.file, servers_seconds=0.02) as gateway:
                here.write({"name": "one"}, {"name": "two"})
                await here.around.settle(lambda: [one.name for one in gateway.core.servers()] == ["one", "two"])

    asyncio.run(play())


@pytest.mark.parametrize(
    "broken",
    ["", "servers: []", "servers: [", "servers: [{name: a b}]", "other: 1", "servers:\n- {name: a, url: ftp://x}"],
)
def test_a_list_that_is_not_sound_changes_nothing_and_is_said(tmp_path: Path, broken: str) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            async with here.running() as gateway:
                sound = here.file.read_text()
                here.file.write_text(broken)
                await here.look(gateway)
                assert [one.name for one in gateway.core.servers()] == ["finance"]
                assert b"tallystick_servers_file_broken 1.0" in gateway.metrics.render()
                here.file.write_text(sound)
                await here.look(gateway)
                assert b"tallystick_servers_file_broken 0.0" in gateway.metrics.render()

    asyncio.run(play())


def test_a_file_that_is_gone_or_names_a_missing_secret_changes_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            async with here.running() as gateway:
                here.write({"name": "other", "authorization": "env:TALLYSTICK_TEST_NOT_THERE"})
                await here.look(gateway)
                assert [one.name for one in gateway.core.servers()] == ["finance"]
                here.file.unlink()
                await here.look(gateway)
                assert gateway.core.require().reload.file == "broken"
                assert [one.name for one in gateway.core.servers()] == ["finance"]

    asyncio.run(play())


def test_a_gateway_does_not_start_on_a_list_that_is_not_sound(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.file.write_text("servers: []")
            with pytest.raises(ConfigError, match="servers: is empty"):
                async with here.running():
                    pass

    asyncio.run(play())


def test_a_new_server_may_be_observed_at_once_and_that_is_a_record(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({"mode": "observe"})
            async with here.running():
                assert not await refused(here.around)
            assert await here.modes() == [("finance", None, "observe", None)]

    asyncio.run(play())


def test_a_list_that_is_looked_at_twice_at_once_is_taken_up_once(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            async with here.running() as gateway:
                here.write({}, {"name": "elsewhere", "mode": "observe"})
                await asyncio.gather(here.look(gateway), here.look(gateway))
            assert await here.modes() == [("elsewhere", None, "observe", None)]

    asyncio.run(play())


def test_what_was_enforced_stays_so_until_somebody_has_approved_the_change(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            async with here.running() as gateway:
                here.write({"mode": "observe"})
                await here.look(gateway)
                assert await refused(here.around)
                assert gateway.core.require().reload.waiting[0].key == ("finance", None)
                here.approvals.answer = [approved(tool="transfer_funds"), approved(mode="enforce")]
                await here.look(gateway)
                assert await refused(here.around)
                here.approvals.answer = Unavailable("timeout")
                await here.look(gateway)
                assert await refused(here.around)
                here.approvals.answer = [approved()]
                await here.look(gateway)
                assert not await refused(here.around)
                assert gateway.core.require().reload.waiting == ()
            assert await here.modes() == [("finance", None, "observe", "enforce")]
            assert here.events()[0].change_id == approved().change_id

    asyncio.run(play())


def test_a_restart_on_another_list_evades_no_approval(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            async with here.running():
                pass
            here.write({"mode": "observe"})
            async with here.running():
                assert await refused(here.around)
            here.write({"name": "other"})
            async with here.running():
                pass
            here.write({"mode": "observe"})
            async with here.running():
                assert await refused(here.around)
            assert await here.modes() == []

    asyncio.run(play())


def test_an_approval_is_used_up_by_the_change_that_it_allowed(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            here.approvals.answer = [approved()]
            async with here.running() as gateway:
                for mode in ("observe", "enforce", "observe"):
                    here.write({"mode": mode})
                    await here.look(gateway)
                assert await refused(here.around)
            async with here.running() as gateway:
                await here.look(gateway)
                assert await refused(here.around)
            assert await here.modes() == [
                ("finance", None, "observe", "enforce"),
                ("finance", None, "enforce", "observe"),
            ]

    asyncio.run(play())


def test_the_rest_of_a_list_does_not_wait_for_what_must(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({"tools": [{"name": "transfer_funds", "mode": "enforce"}]})
            async with here.running() as gateway:
                tools = [{"name": "transfer_funds", "mode": "observe"}]
                here.write({"tools": tools}, {"name": "tickets", "mode": "observe"})
                await here.look(gateway)
                assert [one.name for one in gateway.core.servers()] == ["finance", "tickets"]
                assert await refused(here.around)
            assert await here.modes() == [("tickets", None, "observe", None)]

    asyncio.run(play())


def test_a_change_that_cannot_be_recorded_is_not_made(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            async with here.running() as gateway:
                reload = gateway.core.require().reload
                here.write({"mode": "observe"}, {"name": "tickets", "mode": "observe"})
                here.approvals.answer = [approved()]
                record = reload._recorder.record

                async def fail(*_: Any, **__: Any) -> Any:
                    raise StorageError("the disk is gone")

                reload._recorder.record = fail  # type: ignore[method-assign]
                with pytest.raises(StorageError):
                    await here.look(gateway)
                reload._recorder.record = record  # type: ignore[method-assign]
                assert [one.name for one in gateway.core.servers()] == ["finance"]
                assert await refused(here.around)
                await here.look(gateway)
                assert not await refused(here.around)

    asyncio.run(play())


def test_readiness_says_what_waits(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as here:
            here.write({})
            async with here.running() as gateway:
                here.write({"mode": "observe"})
                await here.look(gateway)
                async with here.around.http() as http:
                    facts = json.loads((await http.get(f"{here.around.url}/readyz")).content)
                assert (facts["servers"], facts["servers_file"], facts["modes_waiting"]) == (1, "sound", 1)

    asyncio.run(play())
