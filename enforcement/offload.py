"""Long work on a message leaves the event loop to the others.

What is short is done at once: a thread costs more than it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

__all__ = ["off_loop"]

_AT_ONCE_BYTES: Final = 64 << 10
_P = ParamSpec("_P")
_T = TypeVar("_T")


async def off_loop(size_bytes: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return what a pure function returns, called in a thread if it has much to read.

    Args:
        size_bytes: How much.
        function: What to call; it must not touch what the event loop owns.
        args: Its arguments.
        kwargs: Its named arguments.
    """
    if size_bytes <= _AT_ONCE_BYTES:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
