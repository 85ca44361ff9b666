"""What safeguards say of a call, gathered before a policy is asked.

Each safeguard is a `SignalSource`: inspection fills ``inspected``, ``inspector``, ``findings`` and ``finding_count``,
tool pinning ``tool_state``, behaviour profiles ``baseline`` and ``deviations`` (`policies.signals`). `Safeguards` asks
those that concern a call, all at once, and puts their parts together. None of them decides.

A gateway without safeguards, and a call that concerns none of them, has no signals: its request is of the version that
it would have been without this module.

INVARIANT 7: a source that fails, or has not answered in time, is not taken for one that found nothing: the call is
denied with the reason ``signals_unavailable``. INVARIANT 6: what a source raises may quote the call; only its type goes
into a log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import structlog

from enforcement.config import ServerSettings
from enforcement.drafts import Case
from enforcement.mcp import Message
from ledger.errors import PolicyError
from policies.model import with_signals
from policies.signals import Signals, ToolState

__all__ = [
    "NO_SAFEGUARDS",
    "SIGNALS_SECONDS",
    "Safeguards",
    "SignalSource",
    "SignalsUnavailableError",
    "ToolStates",
]

_LOG: Final = structlog.get_logger(__name__)
SIGNALS_SECONDS: Final = 2.0
"""All sources together must have answered by then."""


class SignalsUnavailableError(PolicyError):
    """A safeguard did not say what it found."""


class SignalSource(Protocol):
    """A safeguard that says something about calls. Owned by the event loop."""

    @property
    def name(self) -> str:
        """What it is, for logs: ``inspection``, ``tool_state``, ``profile``."""
        ...

    @property
    def fills(self) -> frozenset[str]:
        """Names of the members of `Signals` that it gives, and no other source does."""
        ...

    def concerns(self, case: Case) -> bool:
        """Whether it has anything to say about a call. Must not wait, and must not raise."""
        ...

    async def signals(self, case: Case) -> Signals:
        """Return what it has to say about an admitted call it concerns; only the members that it fills are taken.

        Whatever is raised denies the call. It may be cancelled, when its time is over or the caller goes away.
        """
        ...


class ToolStates(Protocol):
    """Knows the state of tools' definitions without a call: for lists."""

    def state_of(self, server: ServerSettings, tool: str) -> ToolState:
        """Return the state of a tool as it was last listed. Must not wait."""
        ...


def _looks_through_nothing(_server: ServerSettings, _message: Message) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Safeguards:
    """The sources of one enforcement point.

    Attributes:
        sources: The sources.
        seconds: All together must have answered by then.
        tool_states: Knows tools for lists; None if nobody does.
        looks_through: Whether the answer to a message is inspected, so that it can be redacted or blocked.

    Raises:
        ValueError: Two sources fill one member, or one fills a member that there is not.
    """

    sources: Sequence[SignalSource] = ()
    seconds: float = SIGNALS_SECONDS
    tool_states: ToolStates | None = None
    looks_through: Callable[[ServerSettings, Message], bool] = _looks_through_nothing

    def __post_init__(self) -> None:
        """Hold the sources apart."""
        filled = [member for source in self.sources for member in source.fills]
        if len(filled) != len(set(filled)) or not set(filled) <= set(Signals.__struct_fields__):
            raise ValueError("each signal is filled by one source")

    async def gather(self, case: Case) -> None:
        """Put what the sources say of a call into its request.

        Raises:
            SignalsUnavailableError: One of them failed, or there was no time.
        """
        concerned = [source for source in self.sources if source.concerns(case)]
        if not concerned or case.request is None:
            return
        try:
            async with asyncio.timeout(self.seconds), asyncio.TaskGroup() as group:
                tasks = [group.create_task(source.signals(case)) for source in concerned]
            parts = [_part(source, task.result()) for source, task in zip(concerned, tasks, strict=True)]
            together: dict[str, Any] = {name: value for part in parts for name, value in part.items()}
            # Converted and not constructed: types and patterns are checked, whatever a source made.
            signals = msgspec.convert(together, Signals)
        except Exception as error:
            _LOG.error("signals_unavailable", decision_id=case.decision_id, error=_kinds(error))
            raise SignalsUnavailableError("signals_unavailable") from error
        case.request = with_signals(case.request, signals)


NO_SAFEGUARDS: Final = Safeguards()


def _part(source: SignalSource, signals: Signals) -> dict[str, Any]:
    said = msgspec.structs.asdict(signals)
    return {name: said[name] for name in source.fills}


def _kinds(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        return ",".join(sorted({type(one).__name__ for one in error.exceptions}))
    return type(error).__name__
