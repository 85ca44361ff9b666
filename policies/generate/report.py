"""What was taken of a description, what was not, and why: as text for people and as JSON.

Pure. The text is the generated bundle's ``README.md``. It quotes the description, which is the outside's word: quotes
stand in code spans, with nothing in them that could leave one.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from ledger.canonical import JSONValue
from policies.generate.model import Description, JSONObject, Note, Operation
from policies.generate.rules import Rules

__all__ = ["Report"]

_TITLES: Final = {
    "skipped": "Left out",
    "unchecked": "In it, but not enforced",
    "assumed": "Guessed: look at these",
}
_MAX_LINES: Final = 200
_ADVICE: Final = """\
Give agents the role `{reader}` for what reads, and `{writer}` for what writes. Calls that cannot be undone or are about
money wait for a person. Access and tags are guessed from names, methods and hints: look through them."""
_UNSAFE: Final = re.compile(r"[`\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200b-\u200f\ufeff|]")


def _code(text: str) -> str:
    return f"`{_UNSAFE.sub('?', text)}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of one generated bundle.

    Attributes:
        server: The server.
        kind: Form of the description.
        title: What the description calls itself.
        digest: SHA-256 of the document, in hexadecimal.
        operations: What was taken.
        notes: What was not, and why.
        notes_left_out: Notes that there was no room for.
    """

    server: str
    kind: str
    title: str
    digest: str
    operations: tuple[Operation, ...]
    notes: tuple[Note, ...]
    notes_left_out: int

    @classmethod
    def of(cls, description: Description, operations: tuple[Operation, ...], *, server: str, digest: str) -> Report:
        """Return the report on a description of which ``operations`` were taken."""
        return cls(
            server=server,
            kind=description.kind,
            title=description.title,
            digest=digest,
            operations=operations,
            notes=tuple(description.notes),
            notes_left_out=description.notes.left_out,
        )

    def json(self) -> JSONObject:
        """Return the report for programs."""
        operations: list[JSONValue] = [
            {"tool": item.tool, "operation": item.label, "access": item.access, "tags": [*item.tags]}
            for item in self.operations
        ]
        notes: list[JSONValue] = [
            {"severity": note.severity, "place": note.place, "reason": note.reason} for note in self.notes
        ]
        return {
            "server": self.server,
            "source": {"kind": self.kind, "title": self.title, "digest": self.digest},
            "operations": operations,
            "notes": notes,
            "notes_left_out": self.notes_left_out,
        }

    def summary(self) -> str:
        """Return one line."""
        counts = Counter(note.severity for note in self.notes)
        reads = sum(item.access == "read" for item in self.operations)
        return (
            f"{len(self.operations)} operations ({reads} read, {len(self.operations) - reads} write); "
            f"{counts['skipped']} left out, {counts['unchecked']} not enforced, {counts['assumed']} guessed"
        )

    def text(self) -> str:
        """Return the report for people, in Markdown."""
        rules = Rules(self.server)
        lines = [
            f"# Boundaries of {_code(self.server)}",
            "",
            f"Generated from {self.kind}, {_code(self.title or 'untitled')}, SHA-256 {_code(self.digest)}.",
            "",
            f"{self.summary()}.",
            "",
            _ADVICE.format(reader=rules.reader, writer=rules.writer),
            "",
            "| tool | operation | access | tags |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {_code(item.tool)} | {_code(item.label[:120])} | {item.access} | {', '.join(item.tags)} |"
            for item in self.operations[:_MAX_LINES]
        ]
        if len(self.operations) > _MAX_LINES:
            lines.append(f"| … | and {len(self.operations) - _MAX_LINES} more | | |")
        for severity, title in _TITLES.items():
            lines += self._section(severity, title)
        if self.notes_left_out:
            lines += ["", f"There was no room for {self.notes_left_out} further notes."]
        return "\n".join(lines) + "\n"

    def _section(self, severity: str, title: str) -> list[str]:
        notes = [note for note in self.notes if note.severity == severity]
        if not notes:
            return []
        lines = ["", f"## {title}", ""]
        lines += [f"- {_code(note.place)}: {_UNSAFE.sub('?', note.reason)}" for note in notes[:_MAX_LINES]]
        if len(notes) > _MAX_LINES:
            lines.append(f"- and {len(notes) - _MAX_LINES} more")
        return lines
