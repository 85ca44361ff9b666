"""What of a call goes into the vault, and what is said of single arguments.

Pure. What the words mean for a message is `enforcement.capture`'s part; what tags do, `enforcement.argument_tags`'.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator

from enforcement.config_types import Names, Settings
from enforcement.pointers import MAX_POINTER_CHARS, MAX_POINTER_DEPTH, parse_pointer
from ledger.errors import MalformedError

__all__ = ["MAX_ARGUMENTS", "ArgumentSettings", "Capture", "Pointer"]

Capture: TypeAlias = Literal["full", "redacted", "digest"]
"""How much of a call goes into the vault; see `enforcement.capture`."""

MAX_ARGUMENTS: Final = 64
"""Most arguments of a tool of which something is said."""


def _as_pointer(value: str) -> str:
    try:
        parse_pointer(value)
    except MalformedError:
        raise ValueError(
            "is not a JSON pointer (RFC 6901): empty, or / and names, in which ~ is ~0 and / is ~1; "
            f"at most {MAX_POINTER_CHARS} characters and {MAX_POINTER_DEPTH} names"
        ) from None
    return value


Pointer: TypeAlias = Annotated[str, AfterValidator(_as_pointer)]


class ArgumentSettings(Settings):
    """What holds for one argument of a tool.

    Attributes:
        pointer: Where it stands in the call's arguments: a JSON pointer.
        tags: Tags of a call in which it is present, beside those of server and tool.
        keep: The redacted form keeps its value; else it keeps none.
    """

    pointer: Pointer
    tags: Names = ()
    keep: bool = False
