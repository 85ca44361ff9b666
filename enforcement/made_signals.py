"""Which signals the safeguards of a configuration give, so that a bundle can be held against it before it decides.

Pure. What policies make of it is `policies.signal_lint`.
"""

from __future__ import annotations

from collections.abc import Sequence

from enforcement.config import GatewayConfig, ServerSettings
from enforcement.config_inspection import inspecting_of
from policies.signal_lint import MadeSignals

__all__ = ["made_signals"]

_TOOL_METHOD = "tools/call"


def made_signals(config: GatewayConfig, servers: Sequence[ServerSettings]) -> MadeSignals:
    """Return what is said of calls of any of these servers.

    Args:
        config: The gateway's settings.
        servers: Its servers, wherever they are listed.
    """
    kinds: set[str] = set()
    for server in servers:
        for tool in (None, *(tool.name for tool in server.tools)):
            inspecting = inspecting_of(config.inspection, server, _TOOL_METHOD, tool)
            kinds |= frozenset() if inspecting is None else inspecting.kinds
    inspection = config.inspection
    # Kinds of which nothing can be found without being told what.
    if inspection is None or not inspection.tenants:
        kinds.discard("tenant")
    if inspection is None or not inspection.roles:
        kinds.discard("intent")
    has = {
        "inspection": bool(kinds),
        "pins": any(server.pins.mode != "off" for server in servers),
        "profiles": config.profiles is not None,
    }
    return MadeSignals(safeguards=frozenset(name for name, there in has.items() if there), kinds=frozenset(kinds))
