"""Middleware for servers built on the official Python SDK: the enforcement point inside the server's own process.

The SDK hands over every request and notification that a client sends, parsed and not yet validated, whatever the
transport. It is written as one JSON-RPC message in canonical form (RFC 8785), judged and recorded as such, and goes on
with `call_next` only if it may.

Who calls is said by the server's author, from what the server itself has verified (an access token, a client
certificate): a callable gets the SDK's context and returns a `enforcement.identity.Identity`, or None for a stranger.
What the client says of itself (``clientInfo``) is no part of it.

What this cannot do (docs/transports.md): hold a server against its own process, see bytes that the SDK has parsed
already (a key that stands twice is gone by then), judge what the server asks of the client, or hold back progress.

The SDK is no dependency of ours: it is imported when a `SDKMiddleware` is made.

Source: `mcp.server.context.ServerMiddleware` of the official SDK, 2.3.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog
from pydantic import BaseModel, ValidationError

from enforcement.answering import released, settle, withheld_reply
from enforcement.core import Core, Running
from enforcement.identity import Identity
from enforcement.mcp import Kind
from enforcement.refusals import ErrorCode
from enforcement.verdicts import Completion, Denied, Inbound, OutcomeStatus, Permitted
from ledger.canonical import canonical_bytes
from ledger.errors import ConfigError, MalformedError

if TYPE_CHECKING:
    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
    from mcp.shared.exceptions import MCPError

__all__ = ["Identify", "SDKMiddleware", "message_bytes"]

Identify: TypeAlias = "Callable[[ServerRequestContext[Any, Any]], Identity | Awaitable[Identity | None] | None]"
"""Says who sends a message, from what the server has verified; None for a stranger."""

_LOG: Final = structlog.get_logger(__name__)
_INITIALIZE: Final = "initialize"
_INVALID_PARAMS: Final = -32602
_INTERNAL_ERROR: Final = -32603
_US_PER_SECOND: Final = 1_000_000


def message_bytes(method: str, params: Mapping[str, Any] | None, request_id: int | str | None) -> bytes:
    """Return a message in canonical form.

    What has no canonical form (a number that is none, half of a surrogate pair) is written so that its reader refuses
    it.

    Args:
        method: Its method.
        params: Its parameters, JSON values; None if it has none.
        request_id: Its id; None for a notification.
    """
    message: dict[str, object] = {"jsonrpc": "2.0", "method": method}
    if request_id is not None:
        message["id"] = request_id
    if params is not None:
        message["params"] = dict(params)
    try:
        return canonical_bytes(message)
    except MalformedError:
        return json.dumps(message, default=str).encode()


def _load_error() -> type[MCPError]:
    try:
        from mcp.shared.exceptions import MCPError
    except ImportError as error:
        raise ConfigError("the official SDK is not installed, or not a version that has middleware: mcp 2.3") from error
    return MCPError


class SDKMiddleware:
    """A `ServerMiddleware` that lets no message reach a handler unjudged. Owned by one event loop."""

    def __init__(self, core: Core, identify: Identify, *, server: str | None = None) -> None:
        """Take the enforcement point; whoever made it starts and stops it.

        Args:
            core: The enforcement point.
            identify: Says who sends a message.
            server: Which server of the configuration this is; its only one if None.

        Raises:
            ConfigError: The SDK is not installed, or it cannot be told which server this is.
        """
        self._error_type = _load_error()
        self._core = core
        self._identify = identify
        self._server = core.server_name(server)
        self._in_flight = 0

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Judge a message, hand it on if it may go on, record what became of it."""
        running = self._core.running
        if running is None:
            raise self._error_type(ErrorCode.UNAVAILABLE, "The enforcement point does not run")
        self._in_flight += 1
        try:
            verdict = await running.passage.judge(await self._inbound(running, ctx))
            if isinstance(verdict, Denied):
                if ctx.request_id is None:
                    return None  # a notification has no answer; it goes no further
                raise self._error(verdict.reply.body)
            return await self._forward(running, verdict, ctx, call_next)
        finally:
            self._in_flight -= 1

    async def _inbound(self, running: Running, ctx: ServerRequestContext[Any, Any]) -> Inbound:
        config = self._core.config
        body = message_bytes(ctx.method, ctx.params, ctx.request_id)
        identity = await self._identity(ctx)
        limit = running.admission.body_limit(known=identity is not None)
        negotiated = None if ctx.method == _INITIALIZE else ctx.protocol_version
        return Inbound(
            server=self._server,
            body=body[: limit + 1],
            headers=(),
            peer=None,
            identity=identity,
            transport="sdk",
            parsed=await running.admission.read(body, self._server, negotiated=negotiated),
            overloaded=self._in_flight > config.limits.concurrent_calls,
        )

    async def _identity(self, ctx: ServerRequestContext[Any, Any]) -> Identity | None:
        try:
            found = self._identify(ctx)
            return await found if inspect.isawaitable(found) else found
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: a fault in it makes nobody known
            _LOG.error("identification_failed", server=self._server, error=type(error).__name__)
            return None

    def _error(self, body: bytes) -> Exception:
        if not body:  # while the enforcement point is being stopped
            return self._error_type(ErrorCode.UNAVAILABLE, "The enforcement point is being stopped")
        error = json.loads(body)["error"]
        return self._error_type(error["code"], error["message"], error.get("data"))

    async def _forward(
        self, running: Running, permitted: Permitted, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        started = perf_counter()
        if permitted.rewritten is not None:
            ctx = replace(ctx, params=json.loads(permitted.rewritten)["params"])
        try:
            result = await call_next(ctx)
        except asyncio.CancelledError:
            # The outcome is recorded by a task of its own, although this one is not let wait for it.
            await released(running.passage, permitted, _ended(started, "cancelled", "client_disconnected"))
            raise
        except Exception as error:
            failed = _ended(started, "failed", "jsonrpc_error", self._code(error))
            if not await released(running.passage, permitted, failed):
                raise self._error(withheld_reply(permitted).body) from error
            raise
        return await self._release(running, permitted, result, started)

    async def _release(
        self, running: Running, permitted: Permitted, result: HandlerResult, started: float
    ) -> HandlerResult:
        if permitted.message.kind is not Kind.REQUEST:
            await released(running.passage, permitted, _ended(started, "completed"))
            return result
        answer = _answer_bytes(permitted, result)
        try:
            settled = await settle(running.passage, permitted, answer, latency_us=_since(started))
        except asyncio.CancelledError:
            await released(running.passage, permitted, _ended(started, "cancelled", "client_disconnected"))
            raise
        if not await released(running.passage, permitted, settled.completion):
            raise self._error(withheld_reply(permitted).body)
        if settled.replaced:
            raise self._error(settled.body)
        return result if settled.body is answer else json.loads(settled.body)["result"]

    def _code(self, error: Exception) -> int:
        if isinstance(error, self._error_type):
            return error.code
        return _INVALID_PARAMS if isinstance(error, ValidationError) else _INTERNAL_ERROR


def _answer_bytes(permitted: Permitted, result: HandlerResult) -> bytes:
    value = result
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True, mode="json", exclude_none=True)
    answer = {"jsonrpc": "2.0", "id": permitted.message.request_id, "result": value}
    return json.dumps(answer, separators=(",", ":"), default=str).encode()


def _since(started: float) -> int:
    return int((perf_counter() - started) * _US_PER_SECOND)


def _ended(started: float, status: OutcomeStatus, reason: str | None = None, code: int | None = None) -> Completion:
    return Completion(status=status, reason=reason, latency_us=_since(started), error_code=code)
