"""The inventory as it is shown: a line for each server and tool, from what lists and definitions say and what was used.

Pure. What is told of people and tools here names agents, tools and servers, which are public; nobody's user is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from service.inventory_book import InventoryBook, Listed, Said, Suggestion, ToolKey
from service.inventory_usage import Counted, Use

__all__ = [
    "MAX_AGENTS",
    "AgentLine",
    "InventoryView",
    "ServerLine",
    "TagState",
    "Term",
    "ToolLine",
    "Totals",
    "UseLine",
    "assemble",
    "use_line",
]

MAX_AGENTS: Final = 64
"""Agents that a line names; it counts all of them."""

TagState = Literal["in_force", "suggested", "confirmed", "rejected", "contested"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UseLine:
    """How something was used.

    Attributes:
        calls: Calls that were asked for.
        passed: Those that were let through, or only observed.
        refused: Those that were denied.
        held: Those that waited for a person.
        first_leaf: The first call; None if there is none.
        last_leaf: The last.
        first_ms: The earliest of their times.
        last_ms: The latest.
    """

    calls: int = 0
    passed: int = 0
    refused: int = 0
    held: int = 0
    first_leaf: int | None = None
    last_leaf: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One tag of a tool, and where it stands.

    Attributes:
        tag: The tag.
        state: in_force: the list has it; suggested: nobody said anything of it yet, and the list has it not; confirmed:
            a person wants it, and the list has it not; rejected: a person does not, and the list has it not; contested:
            a person rejected it, and the list has it.
        rules: Which rules suggest it.
        said_leaf: The record in which a person spoke of it last.
        outdated: The tool's definition has changed since then.
    """

    tag: str
    state: TagState
    rules: tuple[str, ...] = ()
    said_leaf: int | None = None
    outdated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLine:
    """A server.

    Attributes:
        name: Its name.
        state: registered: some enforcer's list has it; removed: none has it any more; unlisted: it was called, and no
            list that was recorded ever had it.
        owners: Who answers for it; several if lists differ, none if it is unowned.
        tags: Its tags in force.
        enforcers: Whose lists have it.
        differing: The lists do not agree on owner or tags.
        since_ms: Since when a list has it.
        removed_ms: When it went from the last of them.
        list_leaf: The latest record of a list about it.
        tools: Tools of it that are known or were called.
        unused_tools: Those that nobody ever called.
        agents: Agents that called it.
        use: Calls of its tools.
    """

    name: str
    state: Literal["registered", "removed", "unlisted"]
    owners: tuple[str, ...]
    tags: tuple[str, ...]
    enforcers: tuple[str, ...]
    differing: bool
    since_ms: int | None
    removed_ms: int | None
    list_leaf: int | None
    tools: int
    unused_tools: int
    agents: int
    use: UseLine


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLine:
    """A tool.

    Attributes:
        server: Its server.
        tool: Its name; by its SHA-256 if it is no name.
        state: known: its definition was seen, or a list names it; unseen: it was called, and neither is so.
        server_state: As of its server.
        owners: Who answers for its server.
        tags: The tags in force, those of its server included.
        terms: Every tag that is in force, suggested or was spoken of.
        disagreements: Hints of the server that the definition gainsays.
        definition: Digest of its definition.
        seen_ms: When its definition was first seen.
        definition_ms: Since when it has this definition.
        definitions: How many it has had.
        definition_leaf: The record that says so.
        agents: Who called it, the first `MAX_AGENTS` by name.
        agent_count: How many called it.
        use: Its calls.
    """

    server: str
    tool: str
    state: Literal["known", "unseen"]
    server_state: Literal["registered", "removed", "unlisted"]
    owners: tuple[str, ...]
    tags: tuple[str, ...]
    terms: tuple[Term, ...]
    disagreements: tuple[str, ...]
    definition: str | None
    seen_ms: int | None
    definition_ms: int | None
    definitions: int
    definition_leaf: int | None
    agents: tuple[str, ...]
    agent_count: int
    use: UseLine

    @property
    def to_confirm(self) -> bool:
        """Whether somebody should say something of its tags."""
        return any(term.state == "suggested" for term in self.terms)

    @property
    def disputed(self) -> bool:
        """Whether list and people, or the server and its own definition, do not agree."""
        return bool(self.disagreements) or any(term.state in ("confirmed", "contested") for term in self.terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLine:
    """An agent that called a tool.

    Attributes:
        agent: Its name.
        servers: How many servers it called.
        tools: How many tools.
        use: Its calls.
    """

    agent: str
    servers: int
    tools: int
    use: UseLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How many there are.

    Attributes:
        servers: Servers.
        unowned: Registered servers for which nobody answers.
        unlisted: Servers that were called and are on no list.
        tools: Tools.
        never_used: Tools of registered servers that nobody ever called.
        to_confirm: Tools with a tag of which somebody should say something.
        disputed: Tools of which list and people, or the server and its own definition, do not agree.
    """

    servers: int
    unowned: int
    unlisted: int
    tools: int
    never_used: int
    to_confirm: int
    disputed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryView:
    """The inventory at one time.

    Attributes:
        now_ms: When.
        counted: What the use was counted from.
        servers: Every server, the unowned first.
        tools: Every tool, those of unowned servers first.
        totals: How many these are.
    """

    now_ms: int
    counted: Counted
    servers: tuple[ServerLine, ...]
    tools: tuple[ToolLine, ...]
    totals: Totals

    def server(self, name: str) -> ServerLine | None:
        """Return a server's line."""
        return next((line for line in self.servers if line.name == name), None)

    def agents(self) -> tuple[AgentLine, ...]:
        """Return every agent that called a tool, by name."""
        found: dict[str, dict[ToolKey, Use]] = {}
        for (agent, server, tool), use in self.counted.uses.items():
            found.setdefault(agent, {})[server, tool] = use
        return tuple(
            AgentLine(
                agent=agent,
                servers=len({server for server, _ in uses}),
                tools=len(uses),
                use=use_line(uses.values()),
            )
            for agent, uses in sorted(found.items())
        )


def use_line(uses: Iterable[Use]) -> UseLine:
    """Return several uses as one."""
    found = [use for use in uses if use.calls]
    if not found:
        return UseLine()
    return UseLine(
        calls=sum(use.calls for use in found),
        passed=sum(use.passed for use in found),
        refused=sum(use.refused for use in found),
        held=sum(use.held for use in found),
        first_leaf=min(use.first_leaf for use in found),
        last_leaf=max(use.last_leaf for use in found),
        first_ms=min(use.first_ms for use in found),
        last_ms=max(use.last_ms for use in found),
    )


def assemble(book: InventoryBook, counted: Counted, now_ms: int) -> InventoryView:
    """Return the inventory.

    Args:
        book: What records say.
        counted: What was used.
        now_ms: The time.
    """
    by_tool: dict[ToolKey, dict[str, Use]] = {}
    for (agent, server, tool), use in counted.uses.items():
        by_tool.setdefault((server, tool), {})[agent] = use
    keys = sorted(book.known_tools | by_tool.keys())
    by_server: dict[str, list[ToolKey]] = {}
    for key in keys:
        by_server.setdefault(key[0], []).append(key)
    names = sorted(book.servers.keys() | book.removed_ms.keys() | by_server.keys())
    servers = {name: _server(book, name, by_server.get(name, []), by_tool) for name in names}
    tools = [_tool(book, key, by_tool.get(key, {}), servers[key[0]]) for key in keys]
    listed = [line for line in servers.values() if line.state == "registered"]
    return InventoryView(
        now_ms=now_ms,
        counted=counted,
        servers=tuple(sorted(servers.values(), key=lambda line: (bool(line.owners), line.name))),
        tools=tuple(sorted(tools, key=lambda line: (bool(line.owners), line.server, line.tool))),
        totals=Totals(
            servers=len(servers),
            unowned=sum(not line.owners for line in listed),
            unlisted=sum(line.state == "unlisted" for line in servers.values()),
            tools=len(tools),
            never_used=sum(not line.use.calls and line.server_state == "registered" for line in tools),
            to_confirm=sum(line.to_confirm for line in tools),
            disputed=sum(line.disputed for line in tools),
        ),
    )


def _server(
    book: InventoryBook, name: str, keys: list[ToolKey], by_tool: Mapping[ToolKey, Mapping[str, Use]]
) -> ServerLine:
    listed = list(book.servers.get(name, {}).values())
    removed_ms = book.removed_ms.get(name)
    return ServerLine(
        name=name,
        state="registered" if listed else "unlisted" if removed_ms is None else "removed",
        owners=book.owners(name),
        tags=book.tags_of(name),
        enforcers=tuple(sorted(one.enforcer for one in listed)),
        differing=len({(one.owner, one.tags) for one in listed}) > 1,
        since_ms=min((one.since_ms for one in listed), default=None),
        removed_ms=removed_ms,
        list_leaf=max((one.leaf for one in listed), default=None),
        tools=len(keys),
        unused_tools=sum(key not in by_tool for key in keys),
        agents=len({agent for key in keys for agent in by_tool.get(key, {})}),
        use=use_line(use for key in keys for use in by_tool.get(key, {}).values()),
    )


def _tool(book: InventoryBook, key: ToolKey, uses: Mapping[str, Use], server: ServerLine) -> ToolLine:
    suggestion = book.suggestions.get(key)
    listed: Mapping[str, Listed] = book.tools.get(key, {})
    tags = book.tags_of(*key)
    return ToolLine(
        server=key[0],
        tool=key[1],
        state="known" if suggestion is not None or listed else "unseen",
        server_state=server.state,
        owners=server.owners,
        tags=tags,
        terms=tuple(_terms(tags, suggestion, book.said_of(*key))),
        disagreements=() if suggestion is None else suggestion.disagreements,
        definition=None if suggestion is None else suggestion.definition,
        seen_ms=None if suggestion is None else suggestion.first_ms,
        definition_ms=None if suggestion is None else suggestion.since_ms,
        definitions=0 if suggestion is None else suggestion.definitions,
        definition_leaf=None if suggestion is None else suggestion.leaf,
        agents=tuple(sorted(uses))[:MAX_AGENTS],
        agent_count=len(uses),
        use=use_line(uses.values()),
    )


def _terms(tags: tuple[str, ...], suggestion: Suggestion | None, said: Mapping[str, Said]) -> Iterable[Term]:
    suggested = () if suggestion is None else suggestion.tags
    definition = None if suggestion is None else suggestion.definition
    for tag in sorted({*tags, *suggested, *said}):
        spoken = said.get(tag)
        prefix = f"{tag}:"
        rules = () if suggestion is None else tuple(rule for rule in suggestion.rules if rule.startswith(prefix))
        yield Term(
            tag=tag,
            state=_state(tag in tags, spoken),
            rules=tuple(rule.removeprefix(prefix) for rule in rules),
            said_leaf=None if spoken is None else spoken.leaf,
            outdated=spoken is not None and spoken.definition != definition,
        )


def _state(in_force: bool, spoken: Said | None) -> TagState:  # noqa: FBT001  # a cell of the table below
    if spoken is None:
        return "in_force" if in_force else "suggested"
    if spoken.confirmed:
        return "in_force" if in_force else "confirmed"
    return "contested" if in_force else "rejected"
