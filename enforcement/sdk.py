"""Middleware for servers built on the official Python SDK: the enforcement point inside the server's own process.

The SDK hands over every request and notification that a client sends, parsed and not yet validated, whatever the
transport. It is written as one JSON-RPC message in canonical form (RFC 8785), judged and recorded as such, and goes on
with `call_next` only if it may.

Who calls is said by the server's author, from what the server itself has verified (an access token, a client
certificate): a callable gets the SDK's context and returns a `enforcement.identity.Identity`, or None for a stranger.
What the client says of itself (``clientInfo``) is no part of it.

What the server asks of the client and tells it meanwhile is judged too (`enforcement.sdk_outbound`).

What this cannot do (docs/transports.md): hold a server against its own process, or see bytes that the SDK has parsed
already (a key that stands twice is gone by then).

The SDK is no dependency of ours: it is imported when a `SDKMiddleware` is made.

Source: `mcp.server.context.ServerMiddleware` of the official SDK, 2.3.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from enforcement.answering import released, withheld_reply
from enforcement.core import Core, Running
from enforcement.identity import Identity
from enforcement.mcp import Kind
from enforcement.refusals import ErrorCode, RequestId
from enforcement.sdk_answers import answer_bytes, ended, error_bytes, error_code, message_bytes, settled_answer
from enforcement.sdk_outbound import Guard, RequestChannel, guarded, load_errors
from enforcement.verdicts import Denied, Inbound, Permitted, Withdrawable
from enforcement.waiting import WAITS, never_gone, progress_at

if TYPE_CHECKING:
    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

__all__ = ["Identify", "SDKMiddleware"]

Identify: TypeAlias = "Callable[[ServerRequestContext[Any, Any]], Identity | Awaitable[Identity | None] | None]"
"""Says who sends a message, from what the server has verified; None for a stranger."""

_LOG: Final = structlog.get_logger(__name__)
_INITIALIZE: Final = "initialize"


class SDKMiddleware:
    """A `ServerMiddleware` that lets no message reach a handler unjudged. Owned by one event loop."""

    def __init__(self, core: Core, identify: Identify, *, server: str | None = None) -> None:
        """Take the enforcement point; whoever made it starts and stops it.

        Args:
            core: The enforcement point.
            identify: Says who sends a message.
            server: Which server of the configuration this is; its only one if None.

        Raises:
            ConfigError: The SDK is not installed, not of a version that is known, or it cannot be told which server
                this is.
        """
        self._errors = load_errors()
        self._core = core
        self._identify = identify
        self._server = core.server_name(server)
        self._in_flight = 0
        self._guard: Guard | None = None

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Judge a message, hand it on if it may go on, record what became of it."""
        running = self._core.running
        if running is None:
            raise self._errors.answer(ErrorCode.UNAVAILABLE, "The enforcement point does not run")
        self._in_flight += 1
        try:
            inbound = await self._inbound(running, ctx)
            verdict = await running.passage.judge(inbound)
            if isinstance(verdict, Denied):
                if ctx.request_id is None:
                    return None  # a notification has no answer; it goes no further
                raise self._error(verdict.reply.body)
            channel = guarded(ctx, self._guarding(running), inbound, verdict)
            try:
                return await self._forward(running, verdict, ctx, call_next, channel)
            finally:
                await channel.close()
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
            waiting=None if ctx.request_id is None else _SDKWait(ctx),
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
            return self._errors.answer(ErrorCode.UNAVAILABLE, "The enforcement point is being stopped")
        error = json.loads(body)["error"]
        # A number that was redacted is none any more.
        code = error["code"] if isinstance(error["code"], int) else ErrorCode.INTERNAL_ERROR
        return self._errors.answer(code, error["message"], error.get("data"))

    def _guarding(self, running: Running) -> Guard:
        """Return what the channels of this run share."""
        if self._guard is None or self._guard.running is not running:
            most = self._core.config.protocol.server_requests
            self._guard = Guard(running=running, errors=self._errors, most_asked=most)
        return self._guard

    async def _forward(
        self,
        running: Running,
        permitted: Permitted,
        ctx: ServerRequestContext[Any, Any],
        call_next: CallNext,
        channel: RequestChannel,
    ) -> HandlerResult:
        started = perf_counter()
        if permitted.rewritten is not None:
            ctx = replace(ctx, params=json.loads(permitted.rewritten)["params"])
        try:
            result = await call_next(ctx)
        except asyncio.CancelledError:
            # The outcome is recorded by a task of its own, although this one is not let wait for it.
            await released(running.passage, permitted, ended(started, "cancelled", "client_disconnected"))
            raise
        except Exception as error:
            instead = await self._raised(running, permitted, error, started)
            if instead is error:
                raise
            raise instead from None  # what is not released must not be a part of what is
        await channel.close()
        return await self._release(running, permitted, result, started)

    async def _raised(self, running: Running, permitted: Permitted, error: Exception, started: float) -> Exception:
        """Record what a handler has raised as the answer that it is; return what is raised instead, mostly itself."""
        if permitted.message.kind is not Kind.REQUEST:
            failed = ended(started, "failed", "jsonrpc_error", error_code(error, self._errors.answer))
            await released(running.passage, permitted, failed)
            return error
        answer = error_bytes(permitted, error, self._errors.answer)
        settled = await settled_answer(
            running.passage, permitted, answer, started=started, given_up="client_disconnected"
        )
        if settled is None:
            return self._error(withheld_reply(permitted).body)
        if settled.body is answer:
            return error
        if not settled.replaced and not isinstance(error, self._errors.answer):
            # Not all transports of the SDK tell its text; what is left of it is not worth telling it on all.
            return self._errors.answer(ErrorCode.INTERNAL_ERROR, "Internal server error")
        return self._error(settled.body)

    async def _release(
        self, running: Running, permitted: Permitted, result: HandlerResult, started: float
    ) -> HandlerResult:
        if permitted.message.kind is not Kind.REQUEST:
            await released(running.passage, permitted, ended(started, "completed"))
            return result
        answer = answer_bytes(permitted, result)
        settled = await settled_answer(
            running.passage, permitted, answer, started=started, given_up="client_disconnected"
        )
        if settled is None:
            raise self._error(withheld_reply(permitted).body)
        if settled.replaced:
            raise self._error(settled.body)
        return result if settled.body is answer else json.loads(settled.body)["result"]


class _SDKWait:
    """A client of the SDK's server while its call is held; the SDK cancels the middleware when it goes away."""

    def __init__(self, ctx: ServerRequestContext[Any, Any]) -> None:
        self._session = ctx.session

    def began(self, _: RequestId, __: Withdrawable) -> None:
        """See `enforcement.verdicts.Waiting`."""

    def ended(self, _: RequestId, __: Withdrawable) -> None:
        """Likewise."""

    async def tell(self, _: int | str | None, count: int) -> None:
        """Report that the call waits; the SDK knows whether the client wants to hear of it."""
        await self._session.report_progress(progress_at(count), None, WAITS)

    async def gone(self) -> str:
        """Wait for ever."""
        return await never_gone()
