"""How well a scan tells MCP servers from everything else: ``python -m tests.discovery.measure`` writes the document.

The numbers between the marks of ``docs/discovery.md`` are made here, from a run over the laboratory.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enforcement.discovery.method import method_digest
from enforcement.discovery.probing import Limits
from enforcement.discovery.scan import Scan, scan
from enforcement.discovery.scope import DEFAULT_PATHS, parse_scope
from tests.discovery.laboratory import Laboratory, laboratory

__all__ = ["DOCUMENT", "Measurement", "main", "measure", "written"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "discovery.md"
BEGIN, END = "<!-- laboratory: python -m tests.discovery.measure -->", "<!-- end of laboratory -->"
PATHS = (*DEFAULT_PATHS, "/hidden/tools")
LIMITS = Limits(connect_seconds=2.0, request_seconds=4.0, port_seconds=90.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a scan of the laboratory came to, exhibit by exhibit."""

    rows: Sequence[tuple[str, str | None, tuple[str, ...]]]

    @property
    def servers(self) -> int:
        return sum(wanted is not None for _, wanted, _ in self.rows)

    @property
    def decoys(self) -> int:
        return len(self.rows) - self.servers

    @property
    def found(self) -> int:
        return sum(wanted in seen for _, wanted, seen in self.rows)

    @property
    def wrong(self) -> int:
        """Reports of what is no server, or of a server where it is not."""
        return sum(len([one for one in seen if one != wanted]) for _, wanted, seen in self.rows)

    @property
    def recall(self) -> float:
        return self.found / self.servers

    @property
    def precision(self) -> float:
        return self.found / (self.found + self.wrong) if self.found else 0.0


def compare(place: Laboratory, result: Scan) -> Measurement:
    """Hold a scan against what is there."""
    seen: dict[str, list[str]] = {}
    for port in result.ports:
        seen[port.endpoint.authority] = [one.url for one in port.servers]
    return Measurement(rows=[(title, url, tuple(seen[authority])) for title, authority, url in place.places])


async def measure(folder: Path) -> Measurement:
    """Scan the laboratory."""
    async with laboratory(folder) as place:
        return compare(place, await scan(parse_scope(place.targets, paths=PATHS), rate=500, limits=LIMITS, per_host=12))


def table(measured: Measurement) -> str:
    """Return what stands between the marks."""
    lines = [
        f"{measured.servers} servers and {measured.decoys} others; {measured.found} found, {measured.wrong} wrongly:",
        f"recall {measured.recall:.2f}, precision {measured.precision:.2f}.",
        "",
        f"Scanner: `{method_digest()}`. The record of a scan has this digest, if it was made with this scanner.",
        "",
        "| exhibit | an MCP server? | reported |",
        "| --- | --- | --- |",
    ]
    for title, wanted, seen in measured.rows:
        said = "no" if not seen else "yes" if wanted in seen else "wrongly"
        lines.append(f"| {title} | {'no' if wanted is None else 'yes'} | {said} |")
    return "\n".join(lines)


def written(document: str, measured: Measurement) -> str:
    """Return the document with the numbers of a run."""
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table(measured)}\n\n{END}{tail}"


def main() -> None:
    """Measure, and write the document."""
    with tempfile.TemporaryDirectory() as folder:
        measured = asyncio.run(measure(Path(folder)))
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), measured), encoding="utf-8")
    sys.stdout.write(f"recall {measured.recall:.2f}, precision {measured.precision:.2f}\n")
    for title, wanted, seen in measured.rows:
        if set(seen) != ({wanted} - {None}):
            sys.stdout.write(f"  {title}: wanted {wanted}, reported {list(seen)}\n")


if __name__ == "__main__":
    main()
