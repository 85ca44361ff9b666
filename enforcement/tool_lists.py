"""Digests of lists of tools, made once for each list: most lists are as they were the last time.

Of servers with pins definitions are read once as it is (`enforcement.pins`); this is for all others, whose calls carry
the digest of what was listed as well.

INVARIANT: a list is known again by its bytes alone, whoever sent it: the digests of other bytes are made anew.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from enforcement.answers import tool_digests
from enforcement.offload import off_loop

__all__ = ["MAX_LISTS", "ToolLists"]

MAX_LISTS: Final = 32
"""Lists that are known at once, each of at most `enforcement.answers.MAX_TOOLS` tools; the longest unseen one goes."""


class ToolLists:
    """What was listed lately. Owned by the event loop."""

    def __init__(self) -> None:
        """Know none."""
        self._known: OrderedDict[bytes, Mapping[str, str]] = OrderedDict()

    async def digests(self, result: bytes) -> Mapping[str, str]:
        """Return what `enforcement.answers.tool_digests` says of the result of ``tools/list``; not to be changed."""
        seen = await off_loop(len(result), _digest, result)
        known = self._known.get(seen)
        if known is None:
            known = self._known[seen] = await off_loop(len(result), tool_digests, result)
            while len(self._known) > MAX_LISTS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(seen)
        return known


def _digest(result: bytes) -> bytes:
    return hashlib.sha256(result).digest()
