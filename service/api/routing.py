"""A route that knows who asks before it reads what he sends, and reads JSON within bounds and strictly.

FastAPI reads and validates a body before it solves dependencies, the caller's permission among them; and it reads all
of it, however much that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope

from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError
from service.api.common import permitted, places_held, read_body
from service.problems import Problem

__all__ = ["ServiceRoute"]


class _BoundedRequest(Request):
    """A request whose body is bounded, and whose JSON holds nothing that two readers could read in two ways."""

    def __init__(self, scope: Scope, receive: Receive, limit_bytes: int) -> None:
        super().__init__(scope, receive)
        self._limit_bytes = limit_bytes

    async def body(self) -> bytes:
        """Return the body; see `read_body`."""
        if not hasattr(self, "_body"):
            self._body = await read_body(self, self._limit_bytes)
        return self._body

    async def json(self) -> JSONValue:
        """Return the body's JSON.

        Raises:
            Problem: It is not JSON, or has a duplicate key, a lone surrogate or the like (400).
        """
        body = await self.body()
        try:
            return await asyncio.to_thread(parse_json, body)
        except MalformedError as error:
            # FastAPI lets nothing but its own exceptions out of here.
            raise Problem(400, "malformed", "Malformed", str(error)) from error


class ServiceRoute(APIRoute):
    """A route of the API.

    Attributes:
        max_json_bytes: Largest JSON document that a caller may send.
    """

    max_json_bytes: ClassVar[int] = 64 * 1024

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()
        checks = [item.call for item in self.dependant.dependencies if isinstance(item.call, permitted)]

        async def handle(request: Request) -> Response:
            # A log that fills its places is refused before a body is read.
            with places_held(request):
                # INVARIANT: whoever has not proved that he may send something is not listened to.
                for check in checks:
                    await check(request)
                if len(request.query_params.multi_items()) != len(request.query_params):
                    raise MalformedError("a parameter is given twice")
                return await handler(_BoundedRequest(request.scope, request.receive, self.max_json_bytes))

        return handle
