"""What stands against questions of others' enforcement points, whatever a policy says: containments, and kills.

The set is that of the log at this moment (`service.containments`), and is held against a question as every gateway
holds it against a call. It is looked up before a policy is asked, and once more before the answer is recorded, so that
what was contained meanwhile is answered so.

INVARIANT 7: if nobody can say what is stopped, everything is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from enforcement.facts import Pseudonyms
from ledger.restrictions import RestrictionSet
from service.authzen import Question

__all__ = ["UNAVAILABLE", "Standing", "Stops", "standing_against"]

_log = structlog.get_logger()

_TOOL_METHOD: Final = "tools/call"


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands against a question.

    Attributes:
        reason: Why it is denied: ``contained``, ``session_ended``, ``restrictions_unavailable``.
        restriction: Id of the containment, or of the decision that killed.
    """

    reason: str
    restriction: str | None = None


UNAVAILABLE: Final = Standing("restrictions_unavailable")


class Stops:
    """Says what stands against questions. Methods belong to one event loop."""

    def __init__(self, look: Callable[[], RestrictionSet]) -> None:
        """Take where the set comes from.

        Args:
            look: Returns the set in force, in a thread of its own.
        """
        self._look = look

    async def against(self, questions: Sequence[Question], pseudonyms: Pseudonyms) -> list[Standing | None]:
        """Return what stands against each of some questions; None against those that nothing stands against."""
        try:
            current = await asyncio.to_thread(self._look)
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: see above
            _log.error("restrictions_unavailable", error=type(error).__name__)
            return [UNAVAILABLE for _ in questions]
        return [standing_against(current, question, pseudonyms) for question in questions]


def standing_against(current: RestrictionSet, question: Question, pseudonyms: Pseudonyms) -> Standing | None:
    """Return what of a set stands against a question.

    Args:
        current: The set in force.
        question: What is asked. One that names no session is a session of its own, which nobody can have stopped.
        pseudonyms: Make the names by which restrictions know users and sessions.
    """
    if not current:
        return None
    covering = current.covering(
        agent=question.agent,
        server=question.server,
        tool=question.tool if question.method == _TOOL_METHOD else None,
        user=lambda: pseudonyms.user(question.user),
        session=lambda: "" if question.session is None else pseudonyms.session(question.session),
        key_id=pseudonyms.key_id,
    )
    found = next(covering, None)
    if found is None:
        return None
    return Standing("contained" if found.kind == "containment" else "session_ended", found.restriction_id)
