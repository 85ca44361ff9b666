"""Tools' definitions, as the records of a log tell them: what gateways saw, what people said.

Pure. Nothing of it is stored by itself: it follows from the `ToolEvent` records, in log order. What a server lists
stands there by the gateways' word; what a person approved or rejected, by the service's alone.

INVARIANT: what any gateway saw holds at all of them (`ledger.tool_verdicts`): a quarantine ends by a person's word that
comes later, about the very definition that was seen last. A gateway that is behind, and records what was approved
before it heard of it, begins none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from ledger.bodies_tools import ToolEvent
from ledger.errors import ConflictError, NotFoundError
from ledger.records import Record
from ledger.tool_verdicts import ToolVerdict, ToolVerdicts

__all__ = ["MAX_STEPS", "ToolBook", "ToolLife", "ToolStep", "Verdict"]

Verdict: TypeAlias = Literal["approved", "rejected"]
MAX_STEPS: Final = 200
"""Most steps that are kept of a tool; the log has all of them."""


@dataclass(frozen=True, slots=True)
class ToolStep:
    """One record.

    Attributes:
        leaf: Its leaf index.
        record_id: Its id.
        time_ms: Its time, POSIX milliseconds.
        enforcer: Who wrote it.
        event: What it says.
    """

    leaf: int
    record_id: str
    time_ms: int
    enforcer: str
    event: ToolEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLife:
    """What the log says of one tool.

    Attributes:
        server: Its server.
        tool: Its name, as records have it.
        state: ``first_use``: nothing stands against it, and nobody has said anything; ``quarantined``; ``approved`` or
            ``rejected`` by a person.
        digest: Of the definition that the state is about; empty for one that has none.
        standing: Of the definition that stood last; empty if none ever did.
        listed: Some gateway saw it listed after another saw that it was gone.
        leaf: Of the record that made the state.
        steps: The latest steps, oldest first.
    """

    server: str
    tool: str
    state: Literal["first_use", "quarantined", "approved", "rejected"]
    digest: str
    standing: str
    listed: bool
    leaf: int
    steps: tuple[ToolStep, ...]

    @property
    def last(self) -> ToolStep:
        """The latest step."""
        return self.steps[-1]

    def waits(self) -> bool:
        """Whether somebody must say something of it."""
        return self.state == "quarantined"

    def why(self) -> ToolEvent | None:
        """The event that says why it is quarantined, if it is; None otherwise."""
        found = [step.event for step in self.steps if step.leaf == self.leaf and self.state == "quarantined"]
        return found[0] if found else None


class ToolBook:
    """All tools, read from the log's records in order."""

    def __init__(self, service_id: str) -> None:
        """Begin with no record.

        Args:
            service_id: The enforcer id of the service, whose word it is what people said.
        """
        self._service_id = service_id
        self._lives: dict[tuple[str, str], ToolLife] = {}
        self._version = -1
        self._verdicts: ToolVerdicts | None = None

    @property
    def all(self) -> list[ToolLife]:
        """The tools: what waits for somebody first, then those of which something was recorded last."""
        return sorted(self._lives.values(), key=lambda life: (not life.waits(), -life.last.leaf))

    def get(self, server: str, tool: str) -> ToolLife:
        """Return a tool.

        Raises:
            NotFoundError: No gateway has seen one of that name.
        """
        try:
            return self._lives[server, tool]
        except KeyError:
            raise NotFoundError(f"no gateway has seen a tool {tool} of a server {server}") from None

    @property
    def verdicts(self) -> ToolVerdicts:
        """The set that gateways follow."""
        if self._verdicts is None:
            found = {
                key: ToolVerdict(
                    server=life.server, tool=life.tool, state=life.state, digest=life.digest, leaf=life.leaf
                )
                for key, life in self._lives.items()
                if life.state != "first_use"
            }
            self._verdicts = ToolVerdicts(self._version, found)
        return self._verdicts

    def take(self, leaf: int, record: Record) -> None:
        """Read one record; what is no step that may be taken changes nothing."""
        event = record.body
        if not isinstance(event, ToolEvent):
            return
        said = event.action in ("approved", "rejected")
        if said is not (record.enforcer_id == self._service_id):
            return
        step = ToolStep(leaf, record.record_id, record.time_ms, record.enforcer_id, event)
        key = event.server, event.tool
        life = self._lives.get(key)
        if life is None:
            if said:
                return
            life = ToolLife(
                server=event.server,
                tool=event.tool,
                state="first_use",
                digest=event.digest or "",
                standing="" if event.action == "quarantined" else event.digest or "",
                listed=True,
                leaf=leaf,
                steps=(),
            )
        after = self._after(life, leaf, event)
        self._lives[key] = replace(after, steps=(*life.steps, step)[-MAX_STEPS:])
        if (after.state, after.digest, after.leaf) != (life.state, life.digest, life.leaf) or not life.steps:
            self._version, self._verdicts = leaf, None

    @staticmethod
    def _after(life: ToolLife, leaf: int, event: ToolEvent) -> ToolLife:
        digest = event.digest or ""
        if event.action in ("approved", "rejected"):
            if digest != life.digest:
                return life  # another definition was seen while it was being recorded: nobody has looked at that one
            standing = digest if event.action == "approved" else life.standing
            return replace(life, state=event.action, standing=standing, leaf=leaf)
        if event.action == "gone":
            return replace(life, listed=False)
        life = replace(life, listed=True)
        if event.action not in ("quarantined", "changed"):
            return life
        if life.state in ("approved", "rejected") and digest == life.digest:
            return life  # whoever recorded it had not heard of that yet
        standing = life.standing or event.previous or ""
        return replace(life, state="quarantined", digest=digest, standing=standing, leaf=leaf)

    def check(self, server: str, tool: str, digest: str, verdict: Verdict) -> ToolLife:
        """Return a tool of which somebody wants to say something.

        Args:
            server: Its server.
            tool: Its name.
            digest: Of the definition that he has looked at.
            verdict: What he wants to say.

        Raises:
            NotFoundError: No gateway has seen such a tool.
            ConflictError: Another definition was seen by now, or that is what stands already.
        """
        life = self.get(server, tool)
        if not digest or life.digest != digest:
            raise ConflictError(f"another definition of {tool} was seen by now: look at it again")
        if life.state == verdict:
            raise ConflictError(f"this definition of {tool} is {verdict} already")
        return life
