"""Whether a message is enforced or only observed, and how durable its records must be before it goes on.

Pure. Recording *by kind*, which is the default, is strict for whatever changes something and available for what reads:

* a call of a tool is strict, unless the tool or its server is tagged ``read`` and neither is tagged with anything that
  changes something (``write``, ``irreversible``, ``external``). A tool without tags is strict: nobody has said what it
  does;
* what the protocol itself only reads (lists, resources, prompts, completions, handshakes) is available;
* any other method, and whatever a server asks of its client, is strict.

What a server reports (its notifications) is available whatever was said: it asks nothing of anybody, and a stream must
not wait for the ledger (ADR 0034).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from enforcement.config import ServerSettings
from enforcement.config_types import Mode, Recording
from enforcement.facts import tags_of
from enforcement.mcp import Kind, Message
from enforcement.transport_requests import LISTEN, TERMINATE

__all__ = ["CHANGING_TAGS", "READ_TAG", "handling_of"]

READ_TAG: Final = "read"
CHANGING_TAGS: Final = frozenset({"write", "irreversible", "external"})
_TOOL_METHOD: Final = "tools/call"
_READING: Final = frozenset(
    {
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "subscriptions/listen",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tools/list",
        LISTEN,
        TERMINATE,
    }
)


def handling_of(server: ServerSettings, message: Message, tags: Collection[str] = ()) -> tuple[Mode, bool]:
    """Return the mode of a message, and whether its recording is strict.

    Args:
        server: The server that it is about; a tool's own settings go before the server's.
        message: The message.
        tags: Every tag of the call, those of its arguments included. These make recording strict, and never available.
    """
    mode, recording = server.mode, server.recording
    if message.method == _TOOL_METHOD:
        for tool in server.tools:
            if tool.name == message.name:
                mode, recording = tool.mode or mode, tool.recording or recording
    return mode, _strict(recording, server, message, tags)


def _strict(recording: Recording, server: ServerSettings, message: Message, told: Collection[str]) -> bool:
    if message.direction == "server" and message.kind is Kind.NOTIFICATION:
        return False
    if recording != "by_kind":
        return recording == "strict"
    if message.direction == "server":
        return True
    if message.method != _TOOL_METHOD:
        return message.method not in _READING
    tags = set(tags_of(server, message.name))
    return READ_TAG not in tags or not CHANGING_TAGS.isdisjoint({*tags, *told})
