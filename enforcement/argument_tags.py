"""Tags that a call has for the arguments that are in it.

Pure. They join the tags of server and tool in what a policy is asked (`enforcement.facts`): what they are to a policy,
a window and a record, these are as well.

INVARIANT: a tag of an argument never makes recording less durable (`enforcement.strictness`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from enforcement.config import ServerSettings
from enforcement.config_capture import ArgumentSettings
from enforcement.pointers import is_present, parse_pointer
from ledger.canonical import parse_json
from ledger.errors import MalformedError

__all__ = ["MAX_LISTED_SETS", "argument_tags", "possible_tags", "tagged_arguments"]

MAX_LISTED_SETS: Final = 32
"""Most sets of tags that a list asks a policy about for one tool; with more, the tool is shown."""

_parsed: Final = lru_cache(maxsize=4096)(parse_pointer)


def tagged_arguments(server: ServerSettings, name: str | None) -> tuple[ArgumentSettings, ...]:
    """Return what is said of the arguments of a tool, where that is a tag."""
    if name is None or not server.tools:
        return ()
    return tuple(argument for tool in server.tools if tool.name == name for argument in tool.arguments if argument.tags)


def argument_tags(arguments: Iterable[ArgumentSettings], text: str | None) -> tuple[str, ...]:
    """Return the tags of those arguments that a call has, sorted.

    Args:
        arguments: What is said of arguments of its tool.
        text: The call's arguments, JSON text; None if it has none.

    Returns:
        Of arguments that no two readers need read alike, every tag: whatever may be in there counts as being there.
    """
    try:
        value = None if text is None else parse_json(text.encode(errors="surrogatepass"))
    except MalformedError:
        return tuple(sorted({tag for argument in arguments for tag in argument.tags}))
    if text is None:
        return ()
    present = (argument.tags for argument in arguments if is_present(value, _parsed(argument.pointer)))
    return tuple(sorted({tag for tags in present for tag in tags}))


def possible_tags(arguments: Iterable[ArgumentSettings]) -> frozenset[frozenset[str]] | None:
    """Return every set of tags that some call of a tool may have for its arguments; None if they are too many.

    Args:
        arguments: What is said of arguments of the tool.
    """
    found: set[frozenset[str]] = {frozenset()}
    for tags in {frozenset(argument.tags) for argument in arguments}:
        found |= {known | tags for known in found}
        if len(found) > MAX_LISTED_SETS:
            return None
    return frozenset(found)
