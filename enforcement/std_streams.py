"""Our own standard input and output as a pipe of the event loop.

Whatever else this process might print must not get between the messages: from here on, standard output of everything
else (a library, a child) goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from enforcement.stdio import Pipe
from ledger.errors import ConfigError

__all__ = ["own_pipe"]

_INPUT: Final = 0
_OUTPUT: Final = 1
_ERRORS: Final = 2
_READ_BYTES: Final = 256 << 10


async def own_pipe() -> Pipe:
    """Return the way to whoever started this process.

    Raises:
        ConfigError: Standard input or output is a file, which no client is at the other end of.
    """
    loop = asyncio.get_running_loop()
    sys.stdout.flush()
    output = os.dup(_OUTPUT)
    os.dup2(_ERRORS, _OUTPUT)
    reader = asyncio.StreamReader(limit=_READ_BYTES)
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(_INPUT), "rb"))
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.streams.FlowControlMixin(loop=loop), os.fdopen(output, "wb")
        )
    except (OSError, ValueError) as error:
        raise ConfigError("standard input and output must be pipes, with an MCP client at their other end") from error
    return Pipe(reader, asyncio.StreamWriter(transport, protocol, None, loop))
