"""Cedar policies in the layout of Cedar's own formatter.

INVARIANT: what is laid out anew is the same policies with the same comments, or it is not handed out.
"""

from __future__ import annotations

from typing import Final

import cedarpy

from ledger.errors import PolicySyntaxError
from policies.engines.cedar_text import comments, split_policies

__all__ = ["LINE_CHARS", "format_cedar"]

LINE_CHARS: Final = 100
"""Characters of a line that the formatter aims at."""

_INDENT_CHARS: Final = 2


def format_cedar(path: str, text: str) -> str:
    """Return a policy file laid out anew.

    Args:
        path: Its path in the bundle, for messages.
        text: The file.

    Raises:
        PolicySyntaxError: It does not parse, is beyond a limit, or the formatter would change more than its layout.
    """
    split_policies(path, text)
    try:
        before = cedarpy.policies_to_pst(text)
        formatted = cedarpy.format_policies(text, LINE_CHARS, _INDENT_CHARS)
        after = cedarpy.policies_to_pst(formatted)
    except ValueError as error:
        raise PolicySyntaxError(f"{path}: {error}") from error
    if before != after or comments(text) != comments(formatted):
        raise PolicySyntaxError(f"{path}: Cedar's formatter would change more than the layout; it is left as it is")
    return formatted
