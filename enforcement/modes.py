"""Which servers and tools are only observed: what a list of servers declares, against what was in force before.

Pure. A change from ``enforce`` to ``observe`` loosens: it is not taken up before a second person has approved it, and
until then the server or tool stays enforced. Every other change is taken up at once, as a record that waits for its
review.

A tool that the list does not name has its server's mode. A server that was taken off the list keeps what it had: it
does not come back as an observed one by being put on again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from enforcement.config import ServerSettings, ToolSettings
from enforcement.config_types import Mode
from ledger import body_fields

__all__ = ["ApprovedMode", "Key", "ModeChange", "changes_between", "declared_modes", "kept_enforced", "recorded_tool"]

Key: TypeAlias = tuple[str, str | None]
"""A server's name, and a tool's; None for the server itself."""

_DIGEST_PREFIX: Final = "sha256:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeChange:
    """A server or tool whose mode another list of servers would change.

    Attributes:
        server: The server.
        tool: The tool; None for the server itself.
        mode: What it would be.
        previous: What it is; None for a server that was never there.
        covered: Tools that the list names with the same mode, and that change with their server.
    """

    server: str
    tool: str | None
    mode: Mode
    previous: Mode | None
    covered: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What changes."""
        return self.server, self.tool

    @property
    def loosens(self) -> bool:
        """What was enforced would only be observed."""
        return self.previous == "enforce" and self.mode == "observe"

    @property
    def recorded(self) -> bool:
        """It is a record; that a new server is enforced, as all are by default, is none."""
        return self.previous is not None or self.mode == "observe"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedMode:
    """A change that two people have agreed upon.

    Attributes:
        change_id: Its id.
        server: The server.
        tool: The tool as records name it (`recorded_tool`); None for the server itself.
        mode: What it may be.
    """

    change_id: str
    server: str
    tool: str | None
    mode: Mode

    def allows(self, change: ModeChange) -> bool:
        """Whether it is this change that was approved."""
        return (self.server, self.tool, self.mode) == (change.server, recorded_tool(change.tool), change.mode)


def recorded_tool(tool: str | None) -> str | None:
    """Return a tool's name as records have it: as it is if that is a name, by its SHA-256 otherwise."""
    if tool is None:
        return None
    try:
        return msgspec.convert(tool, body_fields.Name)
    except msgspec.ValidationError:
        return _DIGEST_PREFIX + hashlib.sha256(tool.encode(errors="surrogatepass")).hexdigest()


def declared_modes(servers: Iterable[ServerSettings]) -> dict[Key, Mode]:
    """Return the modes that a list of servers states: of each server, and of each tool with one of its own."""
    modes: dict[Key, Mode] = {}
    for server in servers:
        modes[server.name, None] = server.mode
        modes.update({(server.name, tool.name): tool.mode for tool in server.tools if tool.mode is not None})
    return modes


def changes_between(held: Mapping[Key, Mode], servers: Sequence[ServerSettings]) -> list[ModeChange]:
    """Return what taking up a list of servers would change, in its order.

    Args:
        held: What is in force, and what was for servers that are not on the list any more.
        servers: The list.
    """
    declared = declared_modes(servers)
    tools: dict[str, set[str]] = {server.name: set() for server in servers}
    for name, tool in (*held, *declared):
        if tool is not None and name in tools:
            tools[name].add(tool)
    found: list[ModeChange] = []
    for server in servers:
        found += _of_server(server.name, sorted(tools[server.name]), held, declared)
    return found


def _of_server(
    name: str, tools: Sequence[str], held: Mapping[Key, Mode], declared: Mapping[Key, Mode]
) -> list[ModeChange]:
    before, after = held.get((name, None)), declared[name, None]
    covered: list[str] = []
    single: list[ModeChange] = []
    for tool in tools:
        was, becomes = held.get((name, tool), before), declared.get((name, tool), after)
        if was == becomes:
            continue
        if (name, tool) not in held and becomes == after:
            covered.append(tool)
        else:
            single.append(ModeChange(server=name, tool=tool, mode=becomes, previous=was))
    if before == after:
        return single
    return [ModeChange(server=name, tool=None, mode=after, previous=before, covered=tuple(covered)), *single]


def kept_enforced(servers: Iterable[ServerSettings], kept: Collection[ModeChange]) -> tuple[ServerSettings, ...]:
    """Return a list of servers in which some changes are not made: what they would loosen stays enforced."""
    by_server: dict[str, list[ModeChange]] = {}
    for change in kept:
        by_server.setdefault(change.server, []).append(change)
    return tuple(_enforced(server, by_server.get(server.name, ())) for server in servers)


def _enforced(server: ServerSettings, kept: Sequence[ModeChange]) -> ServerSettings:
    if not kept:
        return server
    mode: Mode = "enforce" if any(change.tool is None for change in kept) else server.mode
    names = {change.tool for change in kept if change.tool is not None}
    names.update(tool for change in kept for tool in change.covered)
    tools = [tool.model_copy(update={"mode": "enforce"}) if tool.name in names else tool for tool in server.tools]
    missing = sorted(names - {tool.name for tool in server.tools})
    tools += [ToolSettings(name=name, mode="enforce") for name in missing]
    return server.model_copy(update={"mode": mode, "tools": tuple(tools)})
