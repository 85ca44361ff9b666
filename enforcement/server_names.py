"""What a server calls itself, in its answers: ``serverInfo`` of stateless results, and of the answer to ``initialize``.

Pure. It is the server's own word, and proves nothing: whoever wants to pass for a server says its name. Held against
what is pinned, it shows that another server has taken its place unannounced. Who a server *is* is proved by its
certificate (`enforcement.server_pins`).

Source: Model Context Protocol, revision 2026-07-28, ``io.modelcontextprotocol/serverInfo``; revision 2025-11-25,
``InitializeResult``.
"""

from __future__ import annotations

from typing import Final

from enforcement.config_upstream import PinSettings
from enforcement.json_slices import object_members
from ledger.canonical import parse_json
from ledger.errors import MalformedError

__all__ = ["is_another"]

_META: Final = "_meta"
_STATELESS: Final = "io.modelcontextprotocol/serverInfo"
_STATEFUL: Final = "serverInfo"
_INITIALIZE: Final = "initialize"
_JSON_DEPTH: Final = 16
_MAX_CHARS: Final = 16 << 10


def is_another(pin: PinSettings, method: str, result: bytes) -> bool:
    """Whether a result names another server than the one that is pinned; one that names none does not.

    Args:
        pin: What is pinned.
        method: The method that was called.
        result: The result's bytes.
    """
    if pin.server_name is None:
        return False
    try:
        return any(name != pin.server_name for name in _names(method, result))
    except MalformedError:
        return True  # what can be read in two ways is not the name that is pinned


def _names(method: str, result: bytes) -> list[object]:
    members = object_members(result.decode())
    described = [members[_STATEFUL]] if method == _INITIALIZE and _STATEFUL in members else []
    if members.get(_META, "").startswith("{"):
        described += [value for name, value in object_members(members[_META]).items() if name == _STATELESS]
    return [_name(text) for text in described]


def _name(text: str) -> object:
    if len(text) > _MAX_CHARS:
        raise MalformedError("a server says too much of itself")
    value = parse_json(text.encode(), max_depth=_JSON_DEPTH)
    return value.get("name") if isinstance(value, dict) else None
