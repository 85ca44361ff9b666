"""Run the official MCP conformance suite directly and through each transport, and compare check by check.

``python -m tests.interop.mcp_conformance NODE MODULES FOLDER``: the program, the folder ``node_modules`` with the
suite, and an empty folder for what it finds. Ends with status 1 if a check ends otherwise through a transport than
without it, or if anything reaches the server when all is denied.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from pathlib import Path
from typing import Final

import structlog
from mcp.shared.exceptions import MCPDeprecationWarning

from policies.model import DecisionRequest, Effect
from tests.interop.mcp_conformance.places import PLACES, Place
from tests.interop.mcp_conformance.server import Conformance
from tests.interop.mcp_conformance.suite import ERAS, Result, Suite, differences
from tests.support.gateway import surroundings

_STATUSES: Final = ("SUCCESS", "FAILURE", "WARNING", "SKIPPED", "INFO")
_DENIED: Final = "denied"
_GUARDED: Final = ("gateway", "asgi", "wrap")

Results = dict[tuple[str, str], Result]


def _deny(_: DecisionRequest) -> dict[str, object]:
    return {"effect": Effect.DENY}


async def _visit(suite: Suite, name: str, place: Place, found: Results, *, deny: bool = False) -> list[str]:
    """Run the suite in both eras; return what of its records and of the server is not as it must be."""
    home = suite.folder / f"home-{name}"
    home.mkdir(parents=True)
    server = Conformance()
    async with surroundings(home, answer=_deny if deny else None) as world:
        async with place(world, server) as url:
            for era in ERAS:
                found[name, era] = await suite.run(name, era, url)
        decided = world.ledger.decisions(None)
        lacking = [stream for stream in world.ledger.streams() if stream.verdict.name != "COMPLETE"]
    wrong = [f"records of {stream.enforcer_id} are {stream.verdict.name}" for stream in lacking]
    if deny and server.reached:
        wrong.append(f"all was denied, and the server was reached: {dict(server.reached)}")
    if deny and not decided:
        wrong.append("nothing was decided")
    return wrong


def _report(name: str, era: str, result: Result, wrong: list[str]) -> None:
    numbers = "".join(f"{result.count(status):>9}" for status in _STATUSES)
    print(f"{'FAIL' if wrong else 'ok  '} {name:<8} {era} {len(result.checks):>9}{numbers}", flush=True)
    for line in wrong:
        print(f"       {line}", flush=True)


async def main(suite: Suite) -> int:
    """Run everything; return the exit status."""
    found: Results = {}
    failed = False
    print(f"     {'':<8} {'':<10} {'scenarios':>9}{''.join(f'{status:>9}' for status in _STATUSES)}", flush=True)
    for name, (place, other) in PLACES.items():
        wrong = await _visit(suite, name, place, found)
        for era in ERAS:
            wrong += differences(found[other, era], found[name, era])
            _report(name, era, found[name, era], wrong)
            failed, wrong = failed or bool(wrong), []
    denied = [_visit(suite, f"{name}-{_DENIED}", PLACES[name][0], found, deny=True) for name in _GUARDED]
    for name, wrong in zip(_GUARDED, await asyncio.gather(*denied), strict=True):
        failed = failed or bool(wrong)
        print(f"{'FAIL' if wrong else 'ok  '} {name:<8} with all denied, nothing reaches the server", flush=True)
        for line in wrong:
            print(f"       {line}", flush=True)
    return int(failed)


if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sys.exit(asyncio.run(main(Suite(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))))
