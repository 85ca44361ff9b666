"""What there is by the log's inventory records: servers and tools as lists have them, what was suggested and said.

Pure. Nothing of it is stored by itself: it follows from the `InventoryEvent` records, in log order.

Each enforcer speaks for its own list. A server is registered while some enforcer's list has it; where lists differ,
both owners are there. Suggestions come from definitions as some enforcer saw them, and the latest counts. What people
said, the service recorded: a confirmation that an enforcer claims is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ledger.bodies_inventory import InventoryEvent
from ledger.records import Record

__all__ = ["InventoryBook", "Listed", "Said", "Suggestion", "ToolKey"]

ToolKey = tuple[str, str]
"""A server's name and a tool's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What one enforcer's list says of a server or tool.

    Attributes:
        enforcer: Whose list.
        owner: Of a server: who answers for it; None if nobody does.
        tags: Its tags; of a tool those beside its server's.
        since_ms: Since when the list has it, by the enforcer's clock.
        changed_ms: When what it says changed last.
        leaf: The record that said so last.
    """

    enforcer: str
    owner: str | None
    tags: tuple[str, ...]
    since_ms: int
    changed_ms: int
    leaf: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What a tool's definition suggests.

    Attributes:
        tags: The tags.
        rules: Which rule suggests which.
        disagreements: Hints of the server that the rest of the definition gainsays.
        definition: Digest of the definition.
        first_ms: When the tool was first seen.
        since_ms: Since when it has this definition.
        definitions: How many definitions it has had.
        leaf: The record that said so.
    """

    tags: tuple[str, ...]
    rules: tuple[str, ...]
    disagreements: tuple[str, ...]
    definition: str | None
    first_ms: int
    since_ms: int
    definitions: int
    leaf: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a person said of a tag.

    Attributes:
        confirmed: That it is right; else that it is wrong.
        definition: Digest of the definition that the tool had then.
        actor: Pseudonym of who said so.
        time_ms: When.
        leaf: The record.
    """

    confirmed: bool
    definition: str | None
    actor: str | None
    time_ms: int
    leaf: int


@dataclass(slots=True)
class InventoryBook:
    """What the records read so far come to. Whoever takes records owns it.

    Attributes:
        service_id: The service's own name among the enforcers.
        servers: By name, and then by enforcer, what lists say of servers.
        tools: By server and tool, and then by enforcer, what lists say of tools.
        removed_ms: When a server went from the last list that had it.
        suggestions: By server and tool.
        said: By server and tool (empty for the server itself), and then by tag.
    """

    service_id: str
    servers: dict[str, dict[str, Listed]] = field(default_factory=dict)
    tools: dict[ToolKey, dict[str, Listed]] = field(default_factory=dict)
    removed_ms: dict[str, int] = field(default_factory=dict)
    suggestions: dict[ToolKey, Suggestion] = field(default_factory=dict)
    said: dict[ToolKey, dict[str, Said]] = field(default_factory=dict)

    def take(self, index: int, record: Record) -> None:
        """Take the next inventory record; what is none, or says nothing that counts, is passed over."""
        event = record.body
        if not isinstance(event, InventoryEvent) or event.server is None:
            return
        if event.action in ("confirmed", "rejected"):
            # INVARIANT: only the service lets people speak, and it knows who they are.
            if record.enforcer_id == self.service_id:
                self._speak(index, record, event)
        elif record.enforcer_id == self.service_id:
            return
        elif event.action == "removed":
            self._remove(record, event)
        elif event.action == "suggested" and event.tool is not None:
            self._suggest(index, record, event, event.tool)
        elif event.action in ("registered", "changed"):
            self._list(index, record, event)

    def _listed(self, event: InventoryEvent) -> dict[str, Listed]:
        server = event.server or ""
        if event.tool is None:
            return self.servers.setdefault(server, {})
        return self.tools.setdefault((server, event.tool), {})

    def _list(self, index: int, record: Record, event: InventoryEvent) -> None:
        listed = self._listed(event)
        before = listed.get(record.enforcer_id)
        listed[record.enforcer_id] = Listed(
            enforcer=record.enforcer_id,
            owner=event.owner,
            tags=event.tags,
            since_ms=record.time_ms if before is None else before.since_ms,
            changed_ms=record.time_ms,
            leaf=index,
        )
        if event.tool is None:
            self.removed_ms.pop(event.server or "", None)

    def _remove(self, record: Record, event: InventoryEvent) -> None:
        listed = self._listed(event)
        listed.pop(record.enforcer_id, None)
        if event.tool is None:
            # A list without the server has none of its tools.
            for (server, _), by_enforcer in self.tools.items():
                if server == event.server:
                    by_enforcer.pop(record.enforcer_id, None)
            if not listed:
                self.removed_ms[event.server or ""] = record.time_ms

    def _suggest(self, index: int, record: Record, event: InventoryEvent, tool: str) -> None:
        key = (event.server or "", tool)
        before = self.suggestions.get(key)
        now = Suggestion(
            tags=event.tags,
            rules=event.rules,
            disagreements=event.disagreements,
            definition=event.definition,
            first_ms=record.time_ms,
            since_ms=record.time_ms,
            definitions=1,
            leaf=index,
        )
        if before is not None:
            same = before.definition == event.definition  # another enforcer sees what one has seen
            now = replace(
                now,
                first_ms=before.first_ms,
                since_ms=before.since_ms if same else record.time_ms,
                definitions=before.definitions + (not same),
                leaf=before.leaf if same else index,
            )
        self.suggestions[key] = now

    def _speak(self, index: int, record: Record, event: InventoryEvent) -> None:
        of = self.said.setdefault((event.server or "", event.tool or ""), {})
        for tag in event.tags:
            of[tag] = Said(
                confirmed=event.action == "confirmed",
                definition=event.definition,
                actor=event.actor,
                time_ms=record.time_ms,
                leaf=index,
            )

    # --- what it comes to

    def owners(self, server: str) -> tuple[str, ...]:
        """Return who answers for a server, by any list; sorted."""
        return tuple(sorted({one.owner for one in self.servers.get(server, {}).values() if one.owner is not None}))

    def tags_of(self, server: str, tool: str | None = None) -> tuple[str, ...]:
        """Return the tags that some list gives to a server, or to one of its tools, the server's included; sorted."""
        tags = {tag for one in self.servers.get(server, {}).values() for tag in one.tags}
        if tool is not None:
            tags |= {tag for one in self.tools.get((server, tool), {}).values() for tag in one.tags}
        return tuple(sorted(tags))

    def said_of(self, server: str, tool: str) -> Mapping[str, Said]:
        """Return what people said of a tool's tags, by tag."""
        return self.said.get((server, tool), {})

    @property
    def known_tools(self) -> set[ToolKey]:
        """The tools that a list names or a server has listed."""
        return self.suggestions.keys() | {key for key, listed in self.tools.items() if listed}
