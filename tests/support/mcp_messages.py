"""Builds MCP requests as a client of revision 2026-07-28 sends them, and lets a test spoil one thing at a time."""

from __future__ import annotations

import json
from typing import Any

VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}
NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def params_of(method: str, name: str | None, arguments: dict[str, Any] | None) -> dict[str, Any]:
    params: dict[str, Any] = {"_meta": META}
    if name is not None:
        params[NAMES[method]] = name
    if arguments is not None:
        params["arguments"] = arguments
    return params


def body_of(
    method: str = "tools/call",
    name: str | None = "refund_customer",
    arguments: dict[str, Any] | None = None,
    request_id: object = 7,
) -> bytes:
    envelope = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params_of(method, name, arguments)}
    return json.dumps(envelope).encode()


def headers_of(
    method: str | None = "tools/call",
    name: str | None = "refund_customer",
    version: str | None = VERSION,
    token: str | None = None,
    extra: tuple[tuple[str, str], ...] = (),
) -> list[tuple[bytes, bytes]]:
    pairs = [("content-type", "application/json"), ("accept", "application/json, text/event-stream"), *extra]
    if version is not None:
        pairs.append(("mcp-protocol-version", version))
    if method is not None:
        pairs.append(("mcp-method", method))
    if name is not None:
        pairs.append(("mcp-name", name))
    if token is not None:
        pairs.append(("authorization", f"Bearer {token}"))
    return [(key.encode(), value.encode()) for key, value in pairs]
