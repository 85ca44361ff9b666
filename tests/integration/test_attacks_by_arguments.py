"""Attacks by what stands in an argument: a path that leads out of its folder, a name that is a command.

The servers are careless as servers are: one joins paths, the other hands its argument to a shell. Directly the attacks
work, and what was read or made says so; through the gateway the servers hear nothing of them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from mcp.server.mcpserver import MCPServer

from tests.support.attacks import Who, directly, in_order, precinct
from tests.support.held import APPROVALS

SALARIES = "salaries: everybody's"

# --- a path that leads out


class Files:
    """A file server that joins what it is given to its folder, after undoing percent signs and odd letters."""

    def __init__(self, folder: Path) -> None:
        self.read: list[str] = []
        self.root = folder
        for name, text in {"data/a.txt": "harmless", "hr/salaries.txt": SALARIES, "data/hr/pay.txt": SALARIES}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        self.server = MCPServer("files")
        self.server.tool()(self.read_file)

    async def read_file(self, path: str) -> str:
        """Read a file."""
        self.read.append(path)
        plain = path.replace("%2e", ".").replace("%2F", "/").replace("\uff0e", ".").replace("\\", "/").split("\0")[0]
        return await asyncio.to_thread((self.root / plain.lstrip("/").lower()).read_text)


WAYS_OUT = (
    "/data/../hr/salaries.txt",
    "/data/%2e%2e/hr/salaries.txt",
    "/data%2F..%2Fhr/salaries.txt",
    "/data/\uff0e\uff0e/hr/salaries.txt",
    "/data\\..\\hr\\salaries.txt",
    "/data//../hr/salaries.txt",
    "/data/../hr/salaries.txt\0.png",
    "/hr/salaries.txt",
    "/data/hr/pay.txt",
    "/data/HR/pay.txt",
)


def test_a_path_that_leads_out_of_its_folder(tmp_path: Path) -> None:
    async def scenario() -> None:
        careless = Files(tmp_path / "open")
        async with directly({"files": careless.server}) as agent:
            for path in WAYS_OUT:
                assert await agent.call("files", "read_file", path=path) == SALARIES, path

        guarded = Files(tmp_path / "guarded")
        async with precinct(tmp_path, "path-allow-list") as place:
            async with place.guarded({"files": guarded.server}, [Who(agent="File-Bot", role="analyst")]) as (agent,):
                for path in WAYS_OUT:
                    assert await agent.call("files", "read_file", path=path) is None, path
                assert await agent.call("files", "read_file", path="/data/a.txt") == "harmless"
            assert guarded.read == ["/data/a.txt"]
            assert len(agent.refused) == len(WAYS_OUT)
            story = place.story("File-Bot")
            in_order(story, *["files/read_file: DENY"] * len(WAYS_OUT), "files/read_file: ALLOW", "completed")
            assert "path-closed" in story
            assert "salaries" not in story

    asyncio.run(scenario())


# --- a name that is a command


class Host:
    """A server that hands its argument to a real shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.server = MCPServer("host")
        self.server.tool()(self.run_command)

    async def run_command(self, name: str) -> str:
        """Write the report of a service."""
        shell = await asyncio.create_subprocess_shell(f"echo report of {name}", stdout=-1, cwd=self.folder)
        told, _ = await shell.communicate()
        return told.decode()

    @property
    def made(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


COMMANDS = ("web; touch taken", "web\ntouch taken", "$(touch taken)", "`touch taken`", "web & touch taken #")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_name_that_is_a_command(name: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        careless = Host(tmp_path / "open")
        async with directly({"host": careless.server}) as agent:
            await agent.call("host", "run_command", name=name)
        assert careless.made == ["taken"]

        guarded = Host(tmp_path / "guarded")
        async with precinct(tmp_path, "approval") as place:
            who = Who(agent="Ops-Bot", role="sre")
            async with place.guarded({"host": guarded.server}, [who], approvals=APPROVALS) as (agent,):
                call = asyncio.create_task(agent.call("host", "run_command", name=name))
                shown = await asyncio.to_thread(place.refuse, await place.held(), "that is no name of a service")
                assert await call is None
                # Whoever looked saw all of it.
                assert "touch taken" in shown
                call = asyncio.create_task(agent.call("host", "run_command", name="web"))
                await asyncio.to_thread(place.agree, await place.held(), "a report of our own service")
                assert await call == "report of web\n"
            assert guarded.made == []
            assert [one.reason for one in agent.refused] == ["approval_denied"]
            story = place.story("Ops-Bot")
            in_order(
                story,
                "host/run_command: ASK",
                "approval-shell",
                "somebody opened exactly what would run",
                "a person denied it",
                "not_forwarded, approval_denied",
                "host/run_command: ASK",
                "completed",
            )
            assert "touch" not in story

    asyncio.run(scenario())
