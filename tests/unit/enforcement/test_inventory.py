"""What the ledger is told of servers and tools: each change once, restarts included, and no more than bounds allow."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from enforcement.answers import MAX_TOOLS
from enforcement.batches import Batch
from enforcement.config import ServerSettings, ToolSettings
from enforcement.inventory import AGAIN_MS, InventoryReport
from enforcement.state import StateDatabase
from ledger.bodies_inventory import InventoryEvent
from ledger.errors import OverloadedError, StorageError
from ledger.records import Record
from tests.unit.enforcement.test_pep import World


def server(name: str = "finance", **members: Any) -> ServerSettings:
    return ServerSettings(name=name, url="http://127.0.0.1:1/mcp", **members)


def listing(*tools: Any) -> bytes:
    return json.dumps({"tools": list(tools)}).encode()


def tool(name: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **members}


def told(world: World) -> list[InventoryEvent]:
    return [record.body for record in world.spooled() if isinstance(record.body, InventoryEvent)]


def report_of(world: World) -> InventoryReport:
    return InventoryReport(world.reader, world.recorder, world.clock)


def play(directory: Path, scenario: Callable[[World, InventoryReport], Awaitable[None]]) -> World:
    async def run(world: World) -> None:
        await scenario(world, report_of(world))

    return World(directory).run(run)


# --- lists of servers


def test_a_list_is_told_with_owners_and_tags_and_what_is_unowned_says_nothing_of_one(tmp_path: Path) -> None:
    async def scenario(world: World, report: InventoryReport) -> None:
        tools = (ToolSettings(name="refund", tags=("payment", "money")), ToolSettings(name="ping", mode="enforce"))
        report.note_servers([server(owner="team-pay", tags=("money",), tools=tools), server("crm")])
        assert await report.record() == 3
        assert told(world) == [
            InventoryEvent(action="registered", server="finance", owner="team-pay", tags=("money",)),
            InventoryEvent(action="registered", server="finance", tool="refund", tags=("payment",)),
            InventoryEvent(action="registered", server="crm"),
        ]

    play(tmp_path, scenario)


def test_what_was_told_is_not_told_again_after_a_restart_either(tmp_path: Path) -> None:
    async def scenario(_: World, report: InventoryReport) -> None:
        report.note_servers([server(owner="team-pay")])
        report.note_tools("finance", listing(tool("delete_user")))
        assert await report.record() == 2
        report.note_servers([server(owner="team-pay")])
        report.note_tools("finance", listing(tool("delete_user")))
        assert await report.record() == 0

    async def again(_: World, report: InventoryReport) -> None:
        report.note_servers([server(owner="team-pay")])
        report.note_tools("finance", listing(tool("delete_user")))
        assert await report.record() == 0

    play(tmp_path, scenario)
    play(tmp_path, again)


def test_an_owner_who_goes_a_tag_that_comes_and_a_server_that_is_taken_off_are_changes(tmp_path: Path) -> None:
    async def scenario(world: World, report: InventoryReport) -> None:
        tools = (ToolSettings(name="refund", tags=("payment",)),)
        report.note_servers([server(owner="team-pay", tools=tools), server("crm")])
        await report.record()
        report.note_servers([server(tags=("money",), tools=tools)])
        assert await report.record() == 2
        assert told(world)[3:] == [
            InventoryEvent(action="changed", server="finance", tags=("money",)),
            InventoryEvent(action="removed", server="crm"),
        ]
        report.note_servers([server("crm")])
        await report.record()
        assert [(one.action, one.server, one.tool) for one in told(world)[5:]] == [
            ("registered", "crm", None),
            ("removed", "finance", "refund"),
            ("removed", "finance", None),
        ]

    play(tmp_path, scenario)


def test_the_order_of_tags_and_of_servers_is_no_change(tmp_path: Path) -> None:
    async def scenario(_: World, report: InventoryReport) -> None:
        report.note_servers([server(tags=("a", "b")), server("crm")])
        assert await report.record() == 2
        report.note_servers([server("crm"), server(tags=("b", "a"))])
        assert await report.record() == 0

    play(tmp_path, scenario)


def test_a_tool_whose_name_is_no_name_stands_by_its_digest(tmp_path: Path) -> None:
    async def scenario(world: World, report: InventoryReport) -> None:
        hostile = "<script>\u202e delete user"
        report.note_servers([server(tools=(ToolSettings(name=hostile, tags=("x",)),))])
        report.note_tools("finance", listing(tool(hostile)))
        await report.record()
        named = {one.tool for one in told(world)} - {None}
        assert len(named) == 1
        assert named.pop().startswith("sha256:")  # type: ignore[union-attr]  # None was taken out

    play(tmp_path, scenario)


# --- definitions


def test_a_definition_is_told_with_its_digest_its_rules_and_what_gainsays_the_server(tmp_path: Path) -> None:
    async def scenario(world: World, report: InventoryReport) -> None:
        report.note_tools("finance", listing(tool("delete_user", annotations={"readOnlyHint": True}), tool("frob")))
        await report.record()
        first, second = told(world)
        assert (first.action, first.server, first.tool) == ("suggested", "finance", "delete_user")
        assert first.tags == ("irreversible", "personal-data", "write")
        assert first.rules == ("irreversible:name", "personal-data:name", "write:name")
        assert first.disagreements == ("readOnlyHint",)
        assert len(first.definition or "") == 64
        assert (second.tool, second.tags) == ("frob", ())  # that it is there is worth a record as well

    play(tmp_path, scenario)


def test_another_definition_is_told_and_one_that_flaps_once_an_hour(tmp_path: Path) -> None:
    async def scenario(world: World, report: InventoryReport) -> None:
        plain, final = listing(tool("frob")), listing(tool("frob", description="cannot be undone"))
        report.note_tools("finance", plain)
        assert await report.record() == 1
        report.note_tools("finance", b'{"tools":[{"inputSchema":{"type":"object"},"name":"frob"}]}')
        assert await report.record() == 0  # it says the same in another order
        report.note_tools("finance", final)
        assert await report.record() == 0
        world.clock.advance(AGAIN_MS)
        report.note_tools("finance", final)
        assert await report.record() == 1
        report.note_tools("finance", plain)
        assert await report.record() == 0
        first, second = told(world)
        assert first.definition != second.definition
        assert second.rules == ("irreversible:description",)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"[]",
        b"null",
        b'{"tools": 3}',
        b'{"tools": [3, null, {"name": 7}]}',
        b'{"tools": [{"name": "x"}], "tools": []}',
        b'{"tools": [{"name": "x"}, {"name": "x", "title": "another"}]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_list_that_cannot_be_read_in_one_way_tells_nothing(tmp_path: Path, result: bytes) -> None:
    async def scenario(_: World, report: InventoryReport) -> None:
        report.note_tools("finance", result)
        assert await report.record() == 0

    play(tmp_path, scenario)


def test_a_server_that_lists_ever_new_tools_is_told_of_up_to_a_bound(tmp_path: Path) -> None:
    async def scenario(_: World, report: InventoryReport) -> None:
        done = 0
        for page in range(3):
            report.note_tools("finance", listing(*(tool(f"tool-{page}-{number}") for number in range(MAX_TOOLS // 2))))
            done += await report.record()
        assert done == MAX_TOOLS
        report.note_tools("crm", listing(tool("frob")))
        assert await report.record() == 1  # another server's are counted apart

    play(tmp_path, scenario)


def test_a_tool_that_is_listed_twice_in_one_form_is_told_once(tmp_path: Path) -> None:
    async def scenario(_: World, report: InventoryReport) -> None:
        report.note_tools("finance", listing(tool("frob"), tool("frob")))
        assert await report.record() == 1

    play(tmp_path, scenario)


def test_answers_that_wait_are_bounded_and_the_next_list_brings_what_was_left_out(tmp_path: Path) -> None:
    async def scenario(_: World, report: InventoryReport) -> None:
        large = [listing(tool(f"tool-{number}", description="x" * (6 << 20))) for number in range(3)]
        for one in large:
            report.note_tools("finance", one)
        assert await report.record() == 2
        report.note_tools("finance", large[2])
        assert await report.record() == 1

    play(tmp_path, scenario)


# --- failures


@pytest.mark.parametrize("error", [OverloadedError("full"), StorageError("broken")])
def test_what_could_not_be_recorded_is_told_once_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def scenario(world: World, report: InventoryReport) -> None:
        report.note_servers([server()])
        report.note_tools("finance", listing(tool("frob")))

        async def refuse(_batch: Batch, *, strict: bool) -> list[Record]:
            assert not strict
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(world.recorder, "record", refuse)
            with pytest.raises(type(error)):
                await report.record()
            await report.stop()  # nor does it hinder a stop
        assert await report.record() == 2

    play(tmp_path, scenario)


def test_what_is_noted_is_told_by_the_work_beside_the_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World, report: InventoryReport) -> None:
        done, record = asyncio.Queue[int](), world.recorder.record

        async def noting(batch: Batch, *, strict: bool) -> list[Record]:
            recorded = await record(batch, strict=strict)
            done.put_nowait(len(recorded))
            return recorded

        with monkeypatch.context() as watched:
            watched.setattr(world.recorder, "record", noting)
            report.note_servers([server()])
            await report.start()
            report.note_tools("finance", listing(tool("frob")))
            async with asyncio.timeout(60):
                assert [await done.get(), await done.get()] == [1, 1]
            await report.stop()
        assert [one.action for one in told(world)] == ["registered", "suggested"]

    play(tmp_path, scenario)


def test_a_state_file_of_the_version_before_gets_its_table_and_tells_everything(tmp_path: Path) -> None:
    StateDatabase(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as file:
        file.execute("DROP TABLE inventory")
        file.execute("PRAGMA user_version = 10")

    async def scenario(_: World, report: InventoryReport) -> None:
        report.note_servers([server()])
        assert await report.record() == 1

    play(tmp_path, scenario)
