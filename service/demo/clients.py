"""The demonstration's callers: clients of the official SDK, and raw HTTP where exact bytes are the point."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from service.demo.scenario import Step

__all__ = ["Answer", "Callers"]

_PROTOCOL: Final = "2026-07-28"
_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller was told.

    Attributes:
        enforcement: ``allow``, or what the gateway said it did instead.
        reason: Machine-readable cause of a denial.
        rule: Rule that a denial names.
    """

    enforcement: str
    reason: str = ""
    rule: str = ""

    def meets(self, step: Step) -> bool:
        """Whether this is what the step expects, the named rule or reason included."""
        return self.enforcement == step.expect and (step.rule is None or step.rule in (self.rule, self.reason))

    def told(self) -> str:
        """Return the answer in words."""
        words = {"allow": "allowed", "deny": "denied", "ask": "held for approval", "kill": "killed"}
        why = f" by {self.rule}" if self.rule else f" ({self.reason})" if self.reason not in ("", "policy") else ""
        return f"{words.get(self.enforcement, self.enforcement)}{why}"


def _denied(data: Any) -> Answer:  # noqa: ANN401  # whatever the error carried
    details = data if isinstance(data, Mapping) else {}
    return Answer(
        str(details.get("enforcement", "an error")), str(details.get("reason", "")), str(details.get("rule") or "")
    )


class Callers:
    """All clients of a day; each keeps its connections and calls from its own loopback address."""

    def __init__(self, gateway_url: str, tokens: Mapping[str, str]) -> None:
        """Call through a gateway with the agents' tokens."""
        self._url = gateway_url
        self._tokens = tokens
        self._stack = AsyncExitStack()
        self._http: dict[tuple[str, str], httpx2.AsyncClient] = {}
        self._mcp: dict[tuple[str, str, str], Client] = {}

    async def __aenter__(self) -> Self:
        """Connect to nothing yet."""
        return self

    async def __aexit__(self, *details: object) -> None:
        """Close every connection."""
        await self._stack.aclose()

    async def _client(self, who: str, address: str) -> httpx2.AsyncClient:
        if (who, address) not in self._http:
            client = httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {self._tokens.get(who, 'nobody-issued-this')}"},
                transport=httpx2.AsyncHTTPTransport(local_address=address),
                timeout=_TIMEOUT_SECONDS,
                trust_env=False,
            )
            self._http[who, address] = await self._stack.enter_async_context(client)
        return self._http[who, address]

    def _endpoint(self, step: Step) -> str:
        return f"{self._url}/servers/{step.server}/mcp"

    async def send(self, step: Step) -> Answer:
        """Send one message and return what came back."""
        http = await self._client(step.who, step.address)
        return await (self._send_raw(http, step) if step.raw else self._call(http, step))

    async def _call(self, http: httpx2.AsyncClient, step: Step) -> Answer:
        key = (step.who, step.address, step.server)
        try:
            if key not in self._mcp:
                transport = streamable_http_client(self._endpoint(step), http_client=http)
                # The revision is adopted and not probed for: a client whose session has ended could not even ask.
                client = await self._stack.enter_async_context(Client(transport, mode=_PROTOCOL))
                # As agents do: first ask what there is, as far as one may. The gateway learns the tools' definitions.
                with suppress(MCPError):
                    await client.list_tools()
                self._mcp[key] = client
            result = await self._mcp[key].call_tool(step.tool, json.loads(step.arguments))
        except MCPError as error:
            return _denied(error.data)
        return Answer("a tool error" if result.is_error else "allow")

    async def _send_raw(self, http: httpx2.AsyncClient, step: Step) -> Answer:
        meta = (
            f'{{"io.modelcontextprotocol/protocolVersion":"{_PROTOCOL}",'
            '"io.modelcontextprotocol/clientInfo":{"name":"demo","version":"1"},'
            '"io.modelcontextprotocol/clientCapabilities":{}}'
        )
        call = (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
            f'{{"name":"{step.tool}","arguments":{step.arguments},"_meta":{meta}}}}}'
        )
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": _PROTOCOL,
            "Mcp-Method": "tools/call",
            "Mcp-Name": step.tool,
            **step.headers,
        }
        body = call.encode() if step.body is None else step.body
        response = await http.post(self._endpoint(step), content=body, headers=headers)
        answer = response.json()
        if "error" in answer:
            return _denied(answer["error"].get("data"))
        return Answer("a tool error" if answer["result"].get("isError") else "allow")
