"""What an agent can reach by the policy in force, asked of the engines, and what it used, counted from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from ledger.bodies import Decision as DecisionRecord
from ledger.catalog import Catalog, DecisionQuery
from ledger.errors import NotFoundError
from ledger.reader import EntryReader
from policies.bundles import Bundle
from policies.evaluate import Evaluator
from policies.listing import listed_request
from policies.model import Decision, Resource
from service.deciding import ActiveBundles
from service.inventory import Inventory
from service.inventory_view import ToolLine
from service.privilege_contexts import Circumstance, circumstances
from service.privilege_report import PrivilegeReport, report_of

__all__ = ["MAX_ASKED", "Privileges"]

MAX_ASKED: Final = 1_000
"""Tools that one report asks about."""

_SEEN: Final = 200
"""Decisions of an agent that are looked at for how it was seen."""

_BATCH: Final = 2_000
_METHOD: Final = "tools/call"
_DIGEST: Final = "sha256:"


class Privileges:
    """Reports on the agents of one log. One event loop owns it."""

    def __init__(
        self,
        log_id: str,
        *,
        inventory: Inventory,
        bundles: ActiveBundles,
        evaluator: Evaluator,
        catalog: Catalog,
        reader: EntryReader,
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            inventory: Knows tools and uses.
            bundles: Says which bundle is in force.
            evaluator: Asks it.
            catalog: Finds how an agent was seen.
            reader: Reads it.
        """
        self._log_id = log_id
        self._inventory = inventory
        self._bundles = bundles
        self._evaluator = evaluator
        self._catalog = catalog
        self._reader = reader

    async def report(self, agent: str) -> PrivilegeReport:
        """Return what an agent can reach, and what it used.

        Raises:
            NotFoundError: The log has no decision about such an agent.
            LedgerError: A store failed.
        """
        view = await self._inventory.look()
        seen = await asyncio.to_thread(self._seen, agent)
        if not seen:
            raise NotFoundError(f"the log has no decision about an agent {agent}")
        asked = circumstances(agent, seen, view.now_ms)
        uses = {(server, tool): use for (who, server, tool), use in view.counted.uses.items() if who == agent}
        # What is called is asked about first; what is on no list any more cannot be called, unless it was.
        tools = [line for line in view.tools if line.server_state == "registered" or (line.server, line.tool) in uses]
        tools.sort(key=lambda line: ((line.server, line.tool) not in uses, line.server, line.tool))
        bundle = await self._bundles.current()
        answers = {} if bundle is None else await self._ask(bundle, asked, tools[:MAX_ASKED])
        return report_of(
            agent,
            now_ms=view.now_ms,
            bundle=None if bundle is None else bundle.revision,
            size=view.counted.size,
            complete=view.counted.complete,
            circumstances=asked,
            tools=tools[:MAX_ASKED],
            answers=answers,
            uses=uses,
            left_out=max(0, len(tools) - MAX_ASKED),
        )

    def _seen(self, agent: str) -> list[tuple[int, DecisionRecord]]:
        found: list[tuple[int, DecisionRecord]] = []
        for index in self._catalog.search(self._log_id, DecisionQuery(agent=agent, limit=_SEEN)):
            body = self._reader.record(index).body
            # The catalogue only finds; what a leaf is, the leaf says (invariant 3).
            if isinstance(body, DecisionRecord) and body.agent == agent:
                found.append((index, body))
        return found

    async def _ask(
        self, bundle: Bundle, asked: Sequence[Circumstance], tools: Sequence[ToolLine]
    ) -> dict[tuple[str, str], list[Decision]]:
        """Return what the policy says of each tool in each circumstance; of what has no name here, nothing."""
        # A tool that records name by a digest would be asked about by another name than it has.
        named = [line for line in tools if not line.tool.startswith(_DIGEST)]
        questions = [
            listed_request(
                msgspec.structs.replace(one.request, resource=Resource(server=line.server)),
                action=_METHOD,
                name=line.tool,
                tags=line.tags,
            )
            for line in named
            for one in asked
        ]
        answers: list[Decision] = []
        for start in range(0, len(questions), _BATCH):
            evaluated = await self._evaluator.evaluate_many(bundle, questions[start : start + _BATCH])
            answers += [evaluation.decision for evaluation in evaluated]
        each = len(asked)
        return {
            (line.server, line.tool): answers[place * each : (place + 1) * each] for place, line in enumerate(named)
        }
