"""The safeguards of one enforcement point, put together from its settings.

Here each safeguard is given its place: what it says of calls (`enforcement.signals`), what it does about answers
(`enforcement.answer_inspection`). What each of them is, stands where it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enforcement.answer_inspection import AnswerInspection
from enforcement.config import ServerSettings
from enforcement.config_inspection import InspectionSettings, inspecting_of
from enforcement.inspectors import inspector_of
from enforcement.looking import Inspector
from enforcement.mcp import Kind, Message
from enforcement.message_inspection import MessageInspection
from enforcement.signals import SIGNALS_SECONDS, Safeguards, SignalSource, ToolStates

__all__ = ["Guarding", "guarding_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarding:
    """The safeguards of one enforcement point.

    Attributes:
        safeguards: What says something of calls.
        answers: Looks through answers; None if nobody does.
    """

    safeguards: Safeguards
    answers: AnswerInspection | None = None


def guarding_of(
    settings: InspectionSettings | None,
    inspector: Inspector | None,
    *,
    sources: Sequence[SignalSource] = (),
    tool_states: ToolStates | None = None,
) -> Guarding:
    """Return the safeguards that a configuration asks for.

    Args:
        settings: What is inspected; None if nothing is.
        inspector: Finds things; None for the one that the settings describe, which is made here and takes seconds.
        sources: Other safeguards that say something of calls.
        tool_states: Knows the state of tools' definitions; None if nobody does.

    Raises:
        ConfigError: The inspector cannot be made of its settings.
    """
    if settings is None:
        return Guarding(safeguards=Safeguards(sources=sources, tool_states=tool_states))
    inspected, finds = settings, inspector or inspector_of(settings)

    def looks_through(server: ServerSettings, message: Message) -> bool:
        # What a server asks is answered by the client, and nobody redacts that. A notification has no result.
        if message.direction == "server":
            return message.kind is not Kind.REQUEST
        return inspecting_of(inspected, server, message.method, message.name) is not None

    return Guarding(
        safeguards=Safeguards(
            sources=(MessageInspection(finds, settings), *sources),
            seconds=max(settings.seconds, SIGNALS_SECONDS) if sources else settings.seconds,
            tool_states=tool_states,
            looks_through=looks_through,
        ),
        answers=AnswerInspection(finds, settings),
    )
