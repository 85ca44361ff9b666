"""Lists show a caller what he could call, and nothing else.

What is elsewhere: reading and shortening a list (`enforcement.list_answers`), and whether some arguments would be
allowed (`policies.listing`).

Each entry is put to the bundle in force as a call of its own, by the same caller at the same time and place, with
arguments that nobody knows; all entries of an answer as one batch. What safeguards say of a call whatever its
arguments are, the state of the tool's definition and whether the agent has a baseline, they say of its entry as well.
What the policy refuses with whatever arguments is left out. A tool whose arguments have tags is asked about once for
each set of them that a call may have. An entry without a name that could be called is left out as well.

A tool that is contained is in no list, whatever the policy says and whether it is enforced or observed.

A server or tool that is only observed is shown: there the policy's refusals are not enforced, and how many entries
would be hidden is recorded.

INVARIANT 7: if nobody can say whether an entry may be shown (no bundle, a failing engine, no time), the list is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from enforcement.argument_tags import possible_tags, tagged_arguments
from enforcement.config import ServerSettings
from enforcement.facts import tags_of
from enforcement.list_answers import LISTS, ListAnswer, ListKind, read_list, without
from enforcement.offload import off_loop
from enforcement.policy_source import PolicySource
from enforcement.signals import ToolStates
from enforcement.verdicts import Permitted
from ledger.errors import MalformedError, PolicyError
from policies.bundles import Bundle
from policies.evaluate import Evaluation
from policies.listing import Visibility, classify, listed_request
from policies.model import DecisionRequest
from policies.signals import Baseline, ToolState

__all__ = ["ListedAnswer", "ListingFailedError", "Listings"]

_LOG: Final = structlog.get_logger(__name__)
_TOOL_METHOD: Final = "tools/call"


class ListingFailedError(PolicyError):
    """A list cannot be shown; the text is the outcome's reason."""


class _Evaluator(Protocol):
    async def evaluate_many(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> Sequence[Evaluation]: ...


@dataclass(frozen=True, slots=True)
class ListedAnswer:
    """A list as one caller gets it.

    Attributes:
        body: The answer.
        hidden: How many entries it lacks; of an observed server, how many it would.
    """

    body: bytes
    hidden: int


class Listings:
    """Filters lists. Owned by the event loop."""

    def __init__(
        self,
        evaluator: _Evaluator,
        policies: PolicySource,
        *,
        evaluation_seconds: float,
        stopped: Callable[[str, str], bool] = lambda *_: False,
        tool_states: ToolStates | None = None,
        baseline_of: Callable[[str], Baseline] = lambda _: "none",
    ) -> None:
        """Take the parts.

        Args:
            evaluator: Asks a policy.
            policies: Says which policy decides.
            evaluation_seconds: It must have answered for all entries of a list by then.
            stopped: Whether a tool is contained: told server and name.
            tool_states: Knows the state of tools' definitions; None if nobody does.
            baseline_of: Says whether an agent's usual behaviour is known.
        """
        self._tool_states = tool_states
        self._baseline_of = baseline_of
        self._evaluator = evaluator
        self._policies = policies
        self._evaluation_seconds = evaluation_seconds
        self._stopped = stopped

    async def listed(self, permitted: Permitted, body: bytes) -> ListedAnswer | None:
        """Return what the caller gets of an answer; None if it holds no list.

        Args:
            permitted: The call that was answered.
            body: The answer, a JSON-RPC response with a result.

        Raises:
            ListingFailedError: The list cannot be read, or nobody could say what of it may be shown.
        """
        kind = LISTS.get(permitted.message.method)
        if kind is None or permitted.request is None or permitted.message.direction != "client":
            return None
        try:
            answer = await off_loop(len(body), read_list, kind, body)
        except MalformedError as error:
            raise ListingFailedError("malformed_answer") from error
        enforced = [_is_enforced(permitted.server, kind, entry.name) for entry in answer.entries]
        some_enforced = permitted.server.mode == "enforce" or any(enforced)
        stopped = self._contained(permitted.server, answer)
        try:
            hidden = stopped | await self._hidden(permitted.server, permitted.request, answer, stopped)
        except ListingFailedError:
            if some_enforced:
                raise
            hidden = stopped  # what is observed goes on, whatever the policy does
        left_out = stopped | {place for place in hidden if enforced[place]}
        if not (some_enforced or stopped):
            return ListedAnswer(body, len(hidden))
        return ListedAnswer(await off_loop(len(body), without, answer, left_out), len(hidden))

    def _contained(self, server: ServerSettings, answer: ListAnswer) -> set[int]:
        """Return the places of the entries that are contained."""
        if answer.kind.method != _TOOL_METHOD:
            return set()
        named = [(place, entry.name) for place, entry in enumerate(answer.entries) if entry.name is not None]
        return {place for place, name in named if self._stopped(server.name, name)}

    async def _hidden(
        self, server: ServerSettings, listing: DecisionRequest, answer: ListAnswer, stopped: set[int]
    ) -> set[int]:
        """Return the places of the entries that the policy hides, or does not see because they are stopped."""
        kind = answer.kind
        named = [place for place, entry in enumerate(answer.entries) if entry.name is not None and place not in stopped]
        asked = [
            (place, question)
            for place in named
            for question in self._questions(server, kind, listing, answer.entries[place].name or "")
        ]
        seen = [classify(evaluation.decision) for evaluation in await self._evaluate([one for _, one in asked])]
        if Visibility.FAILED in seen:
            raise ListingFailedError("listing_failed")
        shown = {place for (place, _), found in zip(asked, seen, strict=True) if found is Visibility.SHOWN}
        shown |= set(named) - {place for place, _ in asked}
        return set(range(len(answer.entries))) - shown

    def _questions(
        self, server: ServerSettings, kind: ListKind, listing: DecisionRequest, name: str
    ) -> Iterator[DecisionRequest]:
        """Yield what is asked about an entry: if any answer shows it, it is shown; nothing, if it is shown unasked."""
        # Of a template no tool's own tags are known: which resource it will be is not.
        tags = tags_of(server, None if kind.template else name)
        arguments = tagged_arguments(server, name) if kind.method == _TOOL_METHOD else ()
        state: ToolState | None = None
        if self._tool_states is not None:
            # What is no tool has no definition that could be pinned, and its calls say so.
            state = self._tool_states.state_of(server, name) if kind.method == _TOOL_METHOD else "none"
        # INVARIANT (`policies.listing`): with some arguments the call may have tags that a rule permits, or others
        # forbid.
        for more in (possible_tags(arguments) or ()) if arguments else (frozenset[str](),):
            together = tuple(sorted({*tags, *more})) if more else tags
            yield listed_request(
                listing,
                action=kind.method,
                name=name,
                tags=together,
                template=kind.template,
                tool_state=state,
                baseline=self._baseline_of(listing.principal.agent),
            )

    async def _evaluate(self, requests: Sequence[DecisionRequest]) -> Sequence[Evaluation]:
        bundle = self._policies.current()
        if not requests:
            return ()
        if not isinstance(bundle, Bundle):
            raise ListingFailedError("listing_failed")
        try:
            async with asyncio.timeout(self._evaluation_seconds):
                return await self._evaluator.evaluate_many(bundle, requests)
        except Exception as error:
            _LOG.error("listing_failed", error=type(error).__name__)
            raise ListingFailedError("listing_failed") from error


def _is_enforced(server: ServerSettings, kind: ListKind, name: str | None) -> bool:
    mode = server.mode
    if kind.method == _TOOL_METHOD:
        mode = next((tool.mode for tool in server.tools if tool.name == name and tool.mode is not None), mode)
    return mode == "enforce"
