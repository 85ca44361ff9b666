"""What is said of an unexpected error: its kind and where it happened, never its message.

An exception's message may quote what it failed on: an argument, a token, a row. Operational logs hold none of that
(invariant 10), so that neither messages nor local variables are written down, ours or any library's.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import PurePath
from typing import Final

import structlog

__all__ = ["LibraryHandler", "describe"]

_FRAMES: Final = 12
_CHAIN: Final = 8
_PATH_PARTS: Final = 3


def describe(error: BaseException) -> dict[str, object]:
    """Return log fields of an error.

    Returns:
        ``error``, its class; ``causes``, the classes of what led to it; ``frames``, where it was raised: innermost
        last.
    """
    causes: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < _CHAIN:
        causes.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    frames = [
        f"{'/'.join(PurePath(frame.filename).parts[-_PATH_PARTS:])}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    ]
    return {"error": type(error).__name__, "causes": causes, "frames": frames}


class LibraryHandler(logging.Handler):
    """Passes what libraries log on to structlog: the first line, and of an error what `describe` says.

    asyncio and uvicorn put an exception's message, with its traceback, behind the first line of theirs.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one library message."""
        try:
            said = record.getMessage().partition("\n")[0]
        except (TypeError, ValueError, KeyError):
            said = str(record.msg).partition("\n")[0]
        error = record.exc_info[1] if record.exc_info else None
        fields = {} if error is None else describe(error)
        # A library may have levels of its own between the usual ones; structlog knows the usual ones alone.
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger().log(level, "library_message", logger=record.name, said=said, **fields)
