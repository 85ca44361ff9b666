"""Names and guesses: what a tool is called, whether it changes anything, and what it is about.

Pure. The guesses go by word lists, which stand here to be read; ``docs/boundaries.md`` documents them, and every guess
can be changed in the generated file. Where two signs contradict each other the more careful one holds.

* *Access.* GET, HEAD, OPTIONS and TRACE read, unless the name begins with a word of `WRITES`. Any other writes, but
  POST reads if the name begins with a word of `READS` and holds none of `WRITES`. An MCP tool reads if its hint
  (``readOnlyHint``) says so and its name does not begin with a word of `WRITES`; without one, its name is read as that
  of a POST. Hints are the server's own word.
* *Tags.* ``read`` or ``write``; ``irreversible``, ``external``, ``finance``, ``pii`` by words in the names of operation
  and arguments, by formats (``email``, ``phone``, ``uri``), the method DELETE, and MCP's hints.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from policies.generate.model import Access

__all__ = [
    "EXTERNAL",
    "FINANCE",
    "IRREVERSIBLE",
    "PII",
    "READS",
    "WRITES",
    "ToolNames",
    "access_of",
    "tags_of",
    "words",
]


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


READS: Final = _listed(
    """calculate check compare count describe download estimate exists explain export fetch find get head inspect list
    lookup preview query read resolve retrieve search show simulate status summarize validate verify view"""
)
WRITES: Final = _listed(
    """add approve archive assign book cancel change charge clear close commit create delete deploy destroy disable drop
    edit enable erase execute grant import insert install invite invoke kill merge modify move order overwrite patch pay
    post publish purge push put refund register reject remove rename replace reset restart restore revoke rollback run
    save send set share start stop submit terminate transfer trigger uninstall unassign update upload upsert wipe
    withdraw write"""
)
IRREVERSIBLE: Final = _listed(
    """cancel charge delete destroy drop erase kill overwrite pay payout purge refund remove revoke send terminate
    transfer truncate unsubscribe wipe withdraw"""
)
EXTERNAL: Final = _listed(
    """callback email export fax forward invite mail message notification notify post publish send share slack sms tweet
    upload url webhook"""
)
FINANCE: Final = _listed(
    """accounting amount balance bank bic billing budget card charge cost credit currency debit discount fee
    funds iban invoice ledger loan pay payee payer payment payout payroll price pricing purchase refund
    revenue salary sale tax transaction transfer wage withdraw"""
)
PII: Final = _listed(
    """address birth birthday birthdate contact customer dob email employee firstname fullname gender iban lastname
    license mail medical mobile nationality passport patient person phone postcode race religion salary ssn
    surname telephone user username zip zipcode"""
)
_PERSONAL_FORMATS: Final = frozenset({"email", "idn-email", "phone", "phone-number"})
_ADDRESS_FORMATS: Final = frozenset({"uri", "url"})
_READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_NAME_CHARS: Final = 64


def words(name: str) -> list[str]:
    """Return the words of a name such as ``createUser``, ``create-user`` or ``CREATE_USER``, in lower case."""
    return [word.lower() for word in _WORD.findall(name)]


def _with_singulars(found: set[str]) -> set[str]:
    return found | {word.removesuffix("s") for word in found}


def access_of(name: str, *, method: str | None = None, read_only: bool | None = None) -> Access:
    """Return whether an operation reads or writes, as the module's text says.

    Args:
        name: Its name.
        method: HTTP method, in capitals, if it has one.
        read_only: MCP's ``readOnlyHint``, if it is there.
    """
    found = words(name)
    first = found[0] if found else ""
    if method in _READING_METHODS:
        return "write" if first in WRITES else "read"
    if method is not None and method != "POST":
        return "write"
    if read_only is not None:
        return "read" if read_only and first not in WRITES else "write"
    return "read" if first in READS and WRITES.isdisjoint(found) else "write"


def tags_of(
    name: str,
    access: Access,
    *,
    arguments: Iterable[str] = (),
    formats: Iterable[str] = (),
    method: str | None = None,
    destructive: bool | None = None,
    open_world: bool | None = None,
) -> tuple[str, ...]:
    """Return the tags of an operation, sorted, as the module's text says.

    Args:
        name: Its name, with its path if it has one.
        access: Whether it changes anything.
        arguments: Names of its arguments, nested ones included.
        formats: Formats of their schemas.
        method: HTTP method, in capitals.
        destructive: MCP's ``destructiveHint``, if it is there.
        open_world: MCP's ``openWorldHint``, if it is there.
    """
    own = set(words(name))
    all_words = own.union(*(words(argument) for argument in arguments))
    own, all_words = _with_singulars(own), _with_singulars(all_words)
    kinds = set(formats)
    tags = {str(access)}
    writes = access == "write"
    if FINANCE & all_words:
        tags.add("finance")
    if PII & all_words or _PERSONAL_FORMATS & kinds:
        tags.add("pii")
    if writes and (method == "DELETE" or destructive or IRREVERSIBLE & own):
        tags.add("irreversible")
    if open_world or (writes and (EXTERNAL & own or _ADDRESS_FORMATS & kinds)):
        tags.add("external")
    return tuple(sorted(tags))


class ToolNames:
    """Gives each operation a name of its own that a tool may have."""

    def __init__(self) -> None:
        """Begin without any."""
        self._given: set[str] = set()
        self._numbers: dict[str, int] = {}

    def give(self, wanted: str) -> str:
        """Return ``wanted``, changed as little as it takes to be legal and nobody else's."""
        name = _ILLEGAL.sub("_", wanted).strip("_.-") or "operation"
        if len(name) > _MAX_NAME_CHARS:
            name = f"{name[: _MAX_NAME_CHARS - 9]}_{hashlib.sha256(wanted.encode(errors='replace')).hexdigest()[:8]}"
        given, number = name, self._numbers.get(name, 2)
        while given in self._given:
            given = f"{name[: _MAX_NAME_CHARS - 6]}_{number}"
            number += 1
        self._numbers[name] = number
        self._given.add(given)
        return given
