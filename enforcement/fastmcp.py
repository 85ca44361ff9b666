"""Middleware for FastMCP 4: the same as for the official SDK, at the foot of FastMCP's own.

FastMCP runs on the SDK's server, and its own middleware sees some messages as typed models, some twice (a tool that
calls another tool) and some only after they have failed. `guard_fastmcp` therefore puts `enforcement.sdk` before all of
it, where each message of a client passes once, as it came: what FastMCP's middleware does, it does to a call that may
be made. A tool that calls another one of the same server is a matter of that process, no message, and is not judged.

FastMCP is no dependency of ours.

Source: ``fastmcp.server.low_level`` and ``fastmcp.server.middleware``, FastMCP 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from enforcement.core import Core
from enforcement.sdk import Identify, SDKMiddleware
from ledger.errors import ConfigError

if TYPE_CHECKING:
    from fastmcp import FastMCP

__all__ = ["guard_fastmcp"]

_BASE: Final = "_mcp_server"


def guard_fastmcp(server: FastMCP[Any], core: Core, identify: Identify, *, name: str | None = None) -> SDKMiddleware:
    """Let no message reach a FastMCP server unjudged; call it once, before the server runs.

    Args:
        server: The server.
        core: The enforcement point; whoever made it starts and stops it.
        identify: Says who sends a message.
        name: Which server of the configuration this is; its only one if None.

    Returns:
        The middleware that was put in place.

    Raises:
        ConfigError: It is no FastMCP server of a version that is known, is guarded already, or it cannot be told which
            server of the configuration it is.
    """
    chain = getattr(getattr(server, _BASE, None), "middleware", None)
    if not isinstance(chain, list):
        raise ConfigError("this is no FastMCP server, or one of another version than 4")
    if any(isinstance(one, SDKMiddleware) for one in chain):
        raise ConfigError("the server is guarded already")
    middleware = SDKMiddleware(core, identify, server=name)
    chain.insert(0, middleware)
    return middleware
