"""What else the log says of a session: records that name no session and belong to its story all the same.

Those are the steps of approvals of its calls, what became of the definitions of the tools that it called, departures
from what is usual that rest on its calls, and containments that stopped it. Reading is safe for any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.bodies import Approval, Containment, Decision
from ledger.bodies_drift import Drift
from ledger.bodies_tools import ToolEvent
from ledger.records import Record
from service.wiring.services import Services

__all__ = ["MAX_RELATED", "related_leaves"]

MAX_RELATED: Final = 500
"""Records beside a session's own that its story tells at most."""

_MAX_LOOKED_AT: Final = 10_000  # of each type, the newest: a log holds more of them than any session has


@dataclass(slots=True)
class _Session:
    """What is sought: what the calls of a session name."""

    session: str
    decisions: set[str] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)
    servers: set[str] = field(default_factory=set)
    tools: set[tuple[str, str]] = field(default_factory=set)
    containments: set[str] = field(default_factory=set)
    drifts: set[str] = field(default_factory=set)

    def take(self, record: Record) -> None:
        body = record.body
        if not isinstance(body, Decision):
            return
        self.decisions.add(record.record_id)
        self.agents.add(body.agent)
        self.servers.add(body.server)
        if body.tool is not None:
            self.tools.add((body.server, body.tool))
        if body.restriction is not None:
            self.containments.add(body.restriction)

    def concerns(self, record: Record) -> bool:
        match record.body:
            case Approval(decision_id=decision_id):
                return decision_id in self.decisions
            case ToolEvent(server=server, tool=tool):
                return (server, tool) in self.tools
            case Drift(drift_id=drift_id, decisions=decisions):
                if self.decisions.intersection(decisions):
                    self.drifts.add(drift_id)
                return drift_id in self.drifts
            case Containment() as step:
                if step.action == "ordered" and self._stopped_by(step):
                    self.containments.add(step.containment_id)
                # The block that a kill leaves behind is known by the decision's own id.
                return step.containment_id in self.containments or step.containment_id in self.decisions
        return False

    def _stopped_by(self, order: Containment) -> bool:
        return order.session == self.session or (order.scope == "agent" and order.agent in self.agents)


def related_leaves(services: Services, session: str, indexes: Sequence[int]) -> tuple[list[int], bool]:
    """Return the leaf indexes of what belongs to a session's story, in order, and whether there may be more.

    Args:
        services: Parts of the service.
        session: The session.
        indexes: Leaf indexes of the session's own records that are served, in order; one at least.

    Raises:
        StorageError: A store failed.
    """
    sought = _Session(session)
    for index in indexes:
        sought.take(services.reader.record(index))
    found: list[int] = []
    cut = False
    # Definitions may have been seen, and agents contained, long before; approvals and departures follow the calls.
    for kind, above in (("tool", -1), ("containment", -1), ("approval", indexes[0]), ("drift", indexes[0])):
        known = services.catalog.of_type(services.identity.log_id, kind, above=above)
        cut |= len(known) > _MAX_LOOKED_AT
        found += _concerned(services, sought, known[-_MAX_LOOKED_AT:])
    minimum = services.minimum_index.current()
    served = sorted(index for index in found if index >= minimum)
    return served[-MAX_RELATED:], cut or len(served) > MAX_RELATED


def _concerned(services: Services, sought: _Session, known: Sequence[int]) -> Iterator[int]:
    minimum = services.minimum_index.current()
    for index in known:
        if index >= minimum and sought.concerns(services.reader.record(index)):
            yield index
