"""Which tags the definition of a tool suggests: rules over its name, its schema and its annotations.

Pure, and no model of language: each suggestion names the rule that made it, so that a person can weigh it. Nothing is
decided by a suggestion. A tag is in force because an operator's list of servers has it.

What a server says of its own tool in ``annotations`` is a hint and no promise. A hint may raise what is suggested
(``destructiveHint``: irreversible) and never lower it: where it says less than the rest of the definition does
(``readOnlyHint`` on ``delete_user``), that is a *disagreement*, for a person to look at.

Source of the hints: Model Context Protocol, revision 2026-07-28, "Tool Annotations".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from ledger.canonical import JSONValue

__all__ = ["SUGGESTIBLE", "TagAdvice", "advise", "words_of"]

SUGGESTIBLE: Final = (
    "bulk",
    "code-execution",
    "external",
    "filesystem",
    "irreversible",
    "payment",
    "personal-data",
    "read",
    "write",
)
"""Tags that rules suggest."""

_MAX_TEXT: Final = 4096
_MAX_PROPERTIES: Final = 256
_MAX_DEPTH: Final = 4
_MANY: Final = 1000
_BOUNDARY: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD: Final = re.compile(r"[a-z]+")
_FINAL: Final = re.compile(
    r"\b(?:irreversibl[ey]|permanently|(?:can ?not|can't|cannot) be (?:undone|reversed|recovered))\b", re.IGNORECASE
)

_Words: TypeAlias = frozenset[str]


def _known(words: str) -> _Words:
    return frozenset(words.split())


_NAME_WORDS: Final[Mapping[str, _Words]] = {
    "read": _known(
        "check count describe download fetch find get inspect list lookup query read retrieve search show view"
    ),
    "write": _known(
        "add append approve archive assign cancel change charge close copy create credit debit delete drop edit erase "
        "import insert merge modify move patch pay post publish purge put refund remove rename replace "
        "reset revoke save schedule send set store submit transfer truncate update upload upsert wipe "
        "write"
    ),
    "irreversible": _known(
        "delete destroy drop erase pay payout publish purge refund remove revoke send terminate transfer "
        "truncate uninstall wipe"
    ),
    "external": _known(
        "browse browser email http mail message notify post publish send share slack sms tweet upload url web webhook"
    ),
    "personal-data": _known(
        "applicant candidate citizen contact customer employee guest member patient people person "
        "profile salary subscriber user"
    ),
    "payment": _known(
        "billing charge credit debit invoice pay payment payments payout payroll price purchase refund transfer"
    ),
    "code-execution": _known(
        "bash command eval exec execute javascript powershell python run script shell spawn terminal"
    ),
    "filesystem": _known("dir directories directory file files filesystem folder folders path"),
    "bulk": _known("all archive backup batch bulk dump everything export"),
}
"""Words of a tool's name, and what each suggests. ``read`` counts for the first word alone: what a tool does first."""

_PROPERTY_WORDS: Final[Mapping[str, _Words]] = {
    "external": _known("bcc cc domain email host recipient recipients uri url webhook"),
    "personal-data": _known(
        "birth birthday birthdate dob email firstname lastname passport patient phone salary ssn surname"
    ),
    "payment": _known("bic card cvv currency iban invoice payment payee price"),
    "code-execution": _known("code command script shell sql"),
    "filesystem": _known("dir directory file filename filepath folder path"),
}
"""Words of the names of arguments."""

_FORMATS: Final[Mapping[str, str]] = {"uri": "external", "url": "external", "email": "personal-data"}
_CHANGES: Final = frozenset({"write", "irreversible", "code-execution"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TagAdvice:
    """What a definition suggests.

    Attributes:
        tags: The tags, sorted.
        rules: Which rule suggests which, ``tag:rule``, sorted. Rules are ``name``, ``argument``, ``format``,
            ``limit``, ``description`` and ``hint``.
        disagreements: Names of the hints that the rest of the definition gainsays, sorted.
    """

    tags: tuple[str, ...]
    rules: tuple[str, ...]
    disagreements: tuple[str, ...]


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: ``deleteUser``, ``delete_user`` and ``Delete-User`` have the same.

    Letters that look like ASCII under NFKC are read as what they look like.
    """
    return _WORD.findall(_BOUNDARY.sub(" ", unicodedata.normalize("NFKC", name[:_MAX_TEXT])).lower())


def advise(definition: Mapping[str, JSONValue]) -> TagAdvice:
    """Return what the definition of a tool suggests.

    Args:
        definition: As ``tools/list`` has it; whatever in it is not of the form that it should have suggests nothing.
    """
    found = set(_by_name(definition.get("name")))
    found.update(_by_schema(definition.get("inputSchema"), 0))
    description = definition.get("description")
    if isinstance(description, str) and _FINAL.search(description[:_MAX_TEXT]):
        found.add(("irreversible", "description"))
    said = {tag for tag, _ in found}
    hints = definition.get("annotations")
    raised, disagreements = _by_hints(hints if isinstance(hints, dict) else {}, said)
    found |= raised
    tags = {tag for tag, _ in found}
    if tags & _CHANGES:
        # What changes something is no reading tool, whatever its name begins with.
        found = {(tag, rule) for tag, rule in found if tag != "read"}
        tags.discard("read")
    return TagAdvice(
        tags=tuple(sorted(tags)),
        rules=tuple(sorted(f"{tag}:{rule}" for tag, rule in found)),
        disagreements=tuple(sorted(disagreements)),
    )


def _by_name(name: JSONValue) -> Iterator[tuple[str, str]]:
    words = words_of(name) if isinstance(name, str) else []
    for tag, known in _NAME_WORDS.items():
        if known & _with_singulars(words[:1] if tag == "read" else words):
            yield tag, "name"


def _with_singulars(words: list[str]) -> set[str]:
    return {*words, *(word.removesuffix("s") for word in words)}


def _by_schema(schema: JSONValue, depth: int) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or depth == _MAX_DEPTH:
        return
    for name in list(properties)[:_MAX_PROPERTIES]:
        words, about = _with_singulars(words_of(name)), properties[name]
        for tag, known in _PROPERTY_WORDS.items():
            if known & words:
                yield tag, "argument"
        if isinstance(about, dict):
            form = about.get("format")
            if isinstance(form, str) and form in _FORMATS:
                yield _FORMATS[form], "format"
            if "limit" in words and _is_wide(about):
                yield "bulk", "limit"
            yield from _by_schema(about, depth + 1)
            yield from _by_schema(about.get("items"), depth + 1)


def _is_wide(about: Mapping[str, JSONValue]) -> bool:
    """Whether a limit that the caller names has no bound of its own, or one that is none."""
    if about.get("type") not in ("integer", "number"):
        return False
    bound = about.get("maximum", about.get("exclusiveMaximum"))
    return isinstance(bound, bool) or not isinstance(bound, int) or bound > _MANY


def _by_hints(hints: Mapping[str, JSONValue], said: set[str]) -> tuple[set[tuple[str, str]], set[str]]:
    """Return what the hints raise, and which of them the rest of the definition gainsays."""
    raised: set[tuple[str, str]] = set()
    against: set[str] = set()
    read_only = hints.get("readOnlyHint")
    if read_only is True:
        # A claim to do no harm is no reason to believe it.
        against |= {"readOnlyHint"} if said & _CHANGES else set()
    elif read_only is False:
        raised.add(("write", "hint"))
    destructive = hints.get("destructiveHint")
    if destructive is True and read_only is not True:
        raised.add(("irreversible", "hint"))
    elif destructive is True or (destructive is False and "irreversible" in said):
        against.add("destructiveHint")
    open_world = hints.get("openWorldHint")
    if open_world is True:
        raised.add(("external", "hint"))
    elif open_world is False and "external" in said:
        against.add("openWorldHint")
    return raised, against
