"""What a call asks for, against what its agent is there for: topics, verbs and paths of a declared role.

Pure. Topics are told by rules (``rules/intent.yar``); here are verbs, by the words of a tool's name, and paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from enforcement.inspection.patterns import linear
from enforcement.inspection.settings import Role

__all__ = ["strange_paths", "verb_of"]

_WORDS: Final = {
    "read": "get read list search find fetch show view query lookup describe download browse count check",
    "write": "create write update set put add edit modify patch insert upload save append rename move change upsert",
    "delete": "delete remove drop purge destroy erase truncate clear wipe revoke cancel",
    "send": "send mail email post publish notify message forward share reply tweet broadcast",
    "execute": "execute exec run eval shell spawn invoke deploy start restart stop kill build install",
    "pay": "pay refund transfer charge payout wire purchase buy order withdraw invoice",
    "grant": "grant promote assign invite authorize approve elevate impersonate",
}
_VERB: Final = {word: verb for verb, words in _WORDS.items() for word in words.split()}
_SPLIT: Final = re.compile(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])")
_PATH: Final = linear(
    rb"(?:^|[\s\"'`(=,:\[>])(?P<path>(?:~|\.{1,2})?(?:/[A-Za-z0-9._@+-]+)+/?|~/|[A-Za-z]:\\[^\s\"'<>|]{0,400}"
    rb"|(?:\.\./)+[A-Za-z0-9._/-]{0,300})"
)
_SYSTEM: Final = re.compile(
    r"(?:/(?:etc|var|home|root|usr|proc|sys|opt|boot|dev|mnt|srv|Users|private)(?:/|$)|~|\.\.|[A-Za-z]:\\)"
)


def verb_of(tool: str) -> str:
    """Return what a tool's name says that it does; empty if it does not say."""
    for word in _SPLIT.split(tool):
        verb = _VERB.get(word.lower())
        if verb:
            return verb
    return ""


@lru_cache(maxsize=256)
def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", path)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts))


def strange_paths(data: bytes, role: Role) -> Iterator[tuple[str, int, int]]:
    """Yield rule, start and end of each path that the role does not declare.

    A role that declares paths may name no others; one that does not, none of the system's.
    """
    for match in _PATH.finditer(data):
        path = match.group("path").decode(errors="replace")
        if ".." not in path and any(_pattern(allowed).fullmatch(path) for allowed in role.paths):
            continue
        if _SYSTEM.match(path) or (role.paths and path.count("/") > 1):
            yield "path", *match.span("path")
