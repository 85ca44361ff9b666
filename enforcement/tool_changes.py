"""What changed in a tool's definition: for a person who must say whether it may.

Pure. A change is graded by what it *brings in*, for most changes of definitions are harmless, and a person who is shown
a hundred of them with one mark on all looks at none. What went is shown in the difference and brings in nothing.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from enforcement.skeletons import shown
from enforcement.tool_definitions import texts_of
from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError

__all__ = ["CHANGES", "difference", "introduced", "outline", "similarity"]

CHANGES: Final[Mapping[str, str]] = {
    "destination": "names an address, host or mailbox that it did not name",
    "instruction": "tells the model to do, hide or prefer something",
    "other_tool": "speaks of another tool",
    "schema": "takes or returns other values",
    "hint": "says something else of what it does (annotations)",
    "text": "is described in other words",
    "label": "is shown under another title, icon or version",
}
"""What a change brings in → in words; the gravest first."""

_MAX_LINES: Final = 2000
_DESTINATION: Final = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>]+"
    r"|\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}\b"
    r"|\b(?:[a-z0-9-]{1,63}\.){1,8}(?:com|net|org|io|dev|app|ai|co|xyz|info|site|top|cloud|link|ru|cn)\b"
    r"|(?:~|\$HOME|/etc|/root|/home|/var)/[\w./-]+",
    re.IGNORECASE,
)
_INSTRUCTION: Final = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}"
    r"\b(?:previous|prior|above|other|all|any|instructions?|rules?)\b"
    r"|\b(?:do not|don't|never|without)\b[^.\n]{0,20}"
    r"\b(?:tell|mention|inform|reveal|show|ask|notify|warn|disclose)\w*"
    r"|\b(?:before|after|when|whenever|every time|first)\b[^.\n]{0,30}"
    r"\b(?:you use|using|you call|calling|this tool|any tool|other tools?)\b"
    r"|\byou (?:must|should|have to|need to|are required)\b"
    r"|\b(?:always|must|secretly|silently)\b[^.\n]{0,20}"
    r"\b(?:send|include|pass|read|call|use|add|copy|forward|append|bcc|upload|fetch|invoke)\b"
    r"|<\s*/?\s*(?:important|system|instructions?|admin|secret|hidden)\b"
    r"|\b(?:system prompt|developer message|conversation history|as an? (?:ai|assistant|model))\b"
    r"|\binstead of\b[^.\n]{0,40}\btool\b",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"\w+")


def introduced(
    before: Mapping[str, JSONValue] | None,
    after: Mapping[str, JSONValue] | None,
    mentions: Callable[[str], bool] = lambda _: False,
) -> tuple[str, ...]:
    """Return what a definition brings in that the one before did not have, sorted; see `CHANGES`.

    Args:
        before: The one that stood; None if none did.
        after: The new one; None if it cannot be read.
        mentions: Whether a text speaks of another server's tool.
    """
    if after is None:
        return ()
    old = before or {}
    old_texts = set(texts_of(dict(old)))
    new_texts = [text for text in texts_of(dict(after)) if text not in old_texts]
    known = {found.casefold() for text in old_texts for found in _found(_DESTINATION, text)}
    told = {found.casefold() for text in old_texts for found in _found(_INSTRUCTION, text)}
    changes: set[str] = set()
    if any(found.casefold() not in known for text in new_texts for found in _found(_DESTINATION, text)):
        changes.add("destination")
    if any(found.casefold() not in told for text in new_texts for found in _found(_INSTRUCTION, text)):
        changes.add("instruction")
    if any(mentions(text) for text in new_texts) and not any(mentions(text) for text in old_texts):
        changes.add("other_tool")
    if before is not None:
        changes |= {what for what, names in _MEMBERS if any(old.get(name) != after.get(name) for name in names)}
    return tuple(sorted(changes))


_MEMBERS: Final = (
    ("schema", ("inputSchema", "outputSchema")),
    ("hint", ("annotations", "trust", "execution")),
    ("text", ("description",)),
    ("label", ("title", "icons", "version", "_meta")),
)


def _found(pattern: re.Pattern[str], text: str) -> list[str]:
    return [match[0] for match in pattern.finditer(text)]


def similarity(one: Mapping[str, JSONValue], other: Mapping[str, JSONValue]) -> float:
    """Return how much two definitions have in common, whatever they are called: 0 to 1.

    Half of it is the properties that they take, with their types, half the words of their descriptions; where neither
    takes or says anything, the other half is all.
    """
    parts = [(a, b) for (_, a), (_, b) in zip(outline(one), outline(other), strict=True)]
    scores = [len(a & b) / len(a | b) for a, b in parts if a or b]
    return sum(scores) / len(scores) if scores else 0.0


def outline(definition: Mapping[str, JSONValue]) -> tuple[tuple[str, frozenset[object]], ...]:
    """Return what a tool takes, with types, and the words that describe it: by kind, ``parameters`` and ``words``."""
    schema = definition.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    taken = properties if isinstance(properties, dict) else {}
    parameters = {(name, str(item.get("type")) if isinstance(item, dict) else "") for name, item in taken.items()}
    text = definition.get("description")
    words = {word.casefold() for word in _WORD.findall(text)} if isinstance(text, str) else set()
    return ("parameters", frozenset(parameters)), ("words", frozenset(words))


def difference(before: str, after: str) -> list[str]:
    """Return the difference of two definitions as lines that begin with ``-``, ``+``, a space or ``@@``.

    What nobody would see stands as its code point and name; texts of several lines are shown line by line.

    Args:
        before: Canonical JSON; empty if nothing stood.
        after: The same; what is no JSON is shown as it is.
    """
    lines = difflib.unified_diff(_lines(before), _lines(after), lineterm="", n=3)
    found = [line for line in lines if not line.startswith(("---", "+++"))]
    return found if len(found) <= _MAX_LINES else [*found[:_MAX_LINES], "@@ the difference goes on @@"]


def _lines(text: str) -> list[str]:
    if not text:
        return []
    try:
        value = parse_json(text.encode(errors="surrogatepass"))
    except MalformedError:
        return [shown(line) for line in text.split("\n")][:_MAX_LINES]
    printed = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=_number)
    # A line feed inside of a text is written as two characters, behind which the text goes on in the next line.
    return [shown(part) for line in printed.split("\n") for part in line.replace("\\n", "\\n\n").split("\n")][
        :_MAX_LINES
    ]


def _number(value: object) -> float:
    assert isinstance(value, Decimal)
    return float(value)
