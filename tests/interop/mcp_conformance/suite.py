"""The official conformance suite as a program: run it against one address, and read what it found."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ERAS", "Result", "Suite", "differences"]

ERAS: Final = ("2025-11-25", "2026-07-28")
_PROGRAM: Final = "@modelcontextprotocol/conformance/dist/index.js"
_SECONDS: Final = 120.0
_STAMP: Final = re.compile(r"-\d{4}-\d\d-\d\dT[\d-]+Z$")

Checks = dict[str, Counter[tuple[str, str, str]]]
"""Of each scenario, how often each check ended how: its id, its name, and its status."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the suite found.

    Attributes:
        checks: Its checks.
        errors: What was wrong, in the suite's words, by scenario.
    """

    checks: Checks
    errors: dict[str, list[str]]

    def count(self, status: str) -> int:
        """Return how many checks ended so."""
        return sum(number for checks in self.checks.values() for (_, _, how), number in checks.items() if how == status)


@dataclass(frozen=True, slots=True)
class Suite:
    """The suite, as npm has installed it.

    Attributes:
        node: The program that runs it.
        modules: The folder ``node_modules``.
        folder: Where its results go.
    """

    node: Path
    modules: Path
    folder: Path

    async def run(self, name: str, era: str, url: str) -> Result:
        """Run all scenarios of a revision that there are for servers.

        Args:
            name: Under which the results are kept.
            era: The revision.
            url: The server's MCP endpoint.

        Raises:
            RuntimeError: The suite did not run to its end.
        """
        out = self.folder / name / era
        arguments = ["server", "--url", url, "--suite", "all", "--spec-version", era, "--output-dir", str(out)]
        process = await asyncio.create_subprocess_exec(
            self.node,
            self.modules / _PROGRAM,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_SECONDS):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        result = _read(out)
        if not result.checks:
            raise RuntimeError(f"the suite found nothing: {said[-2000:].decode(errors='replace')}")
        return result


def _read(out: Path) -> Result:
    checks: Checks = {}
    errors: dict[str, list[str]] = {}
    for file in sorted(out.glob("*/checks.json")):
        scenario = _STAMP.sub("", file.parent.name).removeprefix("server-")
        found = json.loads(file.read_text())
        checks[scenario] = Counter((check["id"], check["name"], check["status"]) for check in found)
        wrong = [f"{check['id']}: {check['errorMessage']}" for check in found if check.get("errorMessage")]
        errors[scenario] = wrong
    return Result(checks, errors)


def differences(direct: Result, through: Result) -> list[str]:
    """Return the checks that one of two runs has more often than the other, with what the suite says of them."""
    lines = []
    for scenario in sorted(direct.checks.keys() | through.checks.keys()):
        one, other = direct.checks.get(scenario, Counter()), through.checks.get(scenario, Counter())
        found = [f"only directly: {' '.join(check)}" for check in (one - other)]
        found += [f"only through it: {' '.join(check)}" for check in (other - one)]
        if found:
            lines += [f"{scenario}: {line}" for line in [*found, *through.errors.get(scenario, [])]]
    return lines
