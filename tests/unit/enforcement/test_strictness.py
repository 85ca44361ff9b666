"""What is recorded strictly by its kind: whatever changes something, and whatever nobody has described."""

from __future__ import annotations

from typing import Any

import pytest

from enforcement.config import ServerSettings
from enforcement.mcp import Kind, Message
from enforcement.strictness import handling_of


def message(method: str, name: str | None = None, **members: Any) -> Message:
    given: dict[str, Any] = {
        "kind": Kind.REQUEST,
        "request_id": 1,
        "method": method,
        "name": name,
        "arguments": None,
        "protocol_version": "2026-07-28",
    }
    return Message(**given | members)


def server(*tags: str, tool: tuple[str, ...] | None = None, **members: Any) -> ServerSettings:
    tools = [] if tool is None else [{"name": "pay", "tags": tool}]
    settings = {"name": "finance", "url": "http://127.0.0.1:1/mcp", "tags": tags, "tools": tools, **members}
    return ServerSettings.model_validate(settings)


CALL = message("tools/call", "pay")


@pytest.mark.parametrize(
    ("listed", "strict"),
    [
        (server(), True),
        (server("finance", "pii"), True),
        (server("read"), False),
        (server(tool=("read",)), False),
        (server("read", tool=("write",)), True),
        (server("read", tool=("irreversible",)), True),
        (server("external", tool=("read",)), True),
        (server("read", "write"), True),
    ],
)
def test_a_tool_is_available_only_where_it_is_known_to_read_and_nothing_else(
    listed: ServerSettings, strict: bool
) -> None:
    assert handling_of(listed, CALL) == ("enforce", strict)


@pytest.mark.parametrize(
    "method", ["tools/list", "resources/read", "prompts/get", "ping", "initialize", "tasks/result"]
)
def test_what_the_protocol_only_reads_is_available(method: str) -> None:
    assert handling_of(server("write"), message(method)) == ("enforce", False)


@pytest.mark.parametrize("method", ["tasks/cancel", "elsewhere/do", "Tools/List", "resources/write", ""])
def test_a_method_that_is_not_known_to_read_is_strict(method: str) -> None:
    assert handling_of(server("read"), message(method)) == ("enforce", True)


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "roots/list", "ping"])
def test_what_a_server_asks_of_its_client_is_strict(method: str) -> None:
    assert handling_of(server("read"), message(method, direction="server")) == ("enforce", True)


@pytest.mark.parametrize(("recording", "strict"), [("strict", True), ("available", False)])
def test_what_is_said_of_a_server_or_tool_goes_before_its_kind(recording: str, strict: bool) -> None:
    assert handling_of(server("read", recording=recording), CALL)[1] is strict
    opposite = "available" if strict else "strict"
    tools = [{"name": "pay", "recording": recording, "mode": "observe"}]
    assert handling_of(server("read", recording=opposite, tools=tools), CALL) == ("observe", strict)
    assert handling_of(server("read", recording=opposite, tools=tools), message("tools/list"))[1] is not strict
