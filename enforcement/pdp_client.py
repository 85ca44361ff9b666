"""Asking the service for decisions from one's own program: `Tallystick`, and `AsyncTallystick` for an event loop.

::

    with Tallystick("https://ledger.example", token) as tallystick:
        answer = tallystick.evaluate(Question(
            agent="finance-bot", method="tools/call", server="bank", name="transfer", tags=("write",),
            arguments='{"amount": 12.50}',
        ))
        if answer.permitted:
            ...

INVARIANT 7: fail closed. `Answer.permitted` is true for a permit without obligations and for nothing else, and whatever
is no answer is an exception: there is no value that a caller could mistake for a permit. Each call has an idempotency
key of its own, so that trying again decides and records nothing twice.

No redirect is followed, no cookie kept, no proxy taken from the environment: the token goes to the configured service
and nowhere else. What the service makes of a question is in ``service.authzen``, and in docs/interfaces.md.

Source: OpenID AuthZEN, Authorization API 1.0.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import httpx
import msgspec

from enforcement.questions import Answer, Question, Semantic, boxed, read_one, read_several
from ledger.errors import ConfigError, ConflictError, MalformedError, OverloadedError, TallystickError, UpstreamError

__all__ = ["Answer", "AsyncTallystick", "Question", "Tallystick"]

_EVALUATION: Final = "/access/v1/evaluation"
_EVALUATIONS: Final = "/access/v1/evaluations"
_ATTEMPTS: Final = 4
_PAUSE_SECONDS: Final = 0.1
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_ERRORS: Final[Mapping[int, type[TallystickError]]] = {
    400: MalformedError,
    401: ConfigError,
    403: ConfigError,
    404: ConfigError,
    409: ConflictError,
    413: MalformedError,
    429: OverloadedError,
}
"""What a refusal means, by its status; anything else is an `UpstreamError`."""


def _judge(response: httpx.Response, *, last: bool) -> bytes | None:
    """Return an answer's body; None if the request is to be sent again.

    Raises:
        TallystickError: The service refused, or has no answer.
    """
    if response.status_code == httpx.codes.OK:
        return response.content
    if response.status_code in _AGAIN and not last:
        return None
    kind = _ERRORS.get(response.status_code, UpstreamError)
    try:
        detail = " ".join(str(response.json()["detail"]).split())
    except (ValueError, KeyError, TypeError, RecursionError):
        detail = "it gave no reason"
    raise kind(f"the service answered {response.status_code}: {detail}")


@dataclass(frozen=True, slots=True)
class _Call:
    """One request, the same at every attempt."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    )


def _options(url: str, token: str, seconds: float) -> dict[str, object]:
    """Return what both clients are made with.

    Raises:
        ConfigError: No address of a service, or no token.
    """
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError("the URL of a service starts with http:// or https://") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise ConfigError("the URL of a service starts with http:// or https://")
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError("that is no token: a token has the form ts1.…")
    return {
        "base_url": address,
        "headers": {"Authorization": f"Bearer {token}"},
        "timeout": seconds,
        "trust_env": False,
        "follow_redirects": False,
    }


def _pause(attempt: int) -> float:
    return _PAUSE_SECONDS * 2.0**attempt


class Tallystick:
    """Asks one service with one token; safe for any thread, closed by whoever made it."""

    def __init__(self, url: str, token: str, *, timeout_seconds: float = 5.0) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            url: The service.
            token: Of the role ``client``.
            timeout_seconds: For one attempt, of four.

        Raises:
            ConfigError: No address of a service, or no token.
        """
        self._client = httpx.Client(**_options(url, token, timeout_seconds))  # type: ignore[arg-type]  # httpx's own

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def evaluate(self, question: Question) -> Answer:
        """Return the decision; it is recorded.

        Raises:
            UpstreamError: There is no answer: deny.
            OverloadedError: The service had no room, four times: deny.
            MalformedError: The question is none.
            ConfigError: The token does not count, or may not ask.
        """
        return read_one(self._send(_Call(_EVALUATION, msgspec.json.encode(question.encoded()))))

    def evaluate_many(self, questions: Sequence[Question], *, semantic: Semantic = "execute_all") -> list[Answer]:
        """Return decisions in order: all, or up to the one that settles it; they are recorded as one batch.

        Raises:
            TallystickError: As of `evaluate`, for all of them.
        """
        return read_several(self._send(_Call(_EVALUATIONS, boxed(questions, semantic))), len(questions), semantic)

    def _send(self, call: _Call) -> bytes:
        for attempt in range(_ATTEMPTS):
            last = attempt + 1 == _ATTEMPTS
            try:
                response = self._client.post(call.path, content=call.body, headers=call.headers)
            except httpx.HTTPError as error:
                if last:
                    raise UpstreamError(f"the service does not answer ({type(error).__name__})") from error
            else:
                body = _judge(response, last=last)
                if body is not None:
                    return body
            time.sleep(_pause(attempt))
        raise AssertionError  # the loop returns or raises


class AsyncTallystick:
    """As `Tallystick`, for one event loop."""

    def __init__(self, url: str, token: str, *, timeout_seconds: float = 5.0) -> None:
        """See `Tallystick`."""
        self._client = httpx.AsyncClient(**_options(url, token, timeout_seconds))  # type: ignore[arg-type]  # httpx's own

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def evaluate(self, question: Question) -> Answer:
        """See `Tallystick.evaluate`."""
        return read_one(await self._send(_Call(_EVALUATION, msgspec.json.encode(question.encoded()))))

    async def evaluate_many(self, questions: Sequence[Question], *, semantic: Semantic = "execute_all") -> list[Answer]:
        """See `Tallystick.evaluate_many`."""
        body = await self._send(_Call(_EVALUATIONS, boxed(questions, semantic)))
        return read_several(body, len(questions), semantic)

    async def _send(self, call: _Call) -> bytes:
        for attempt in range(_ATTEMPTS):
            last = attempt + 1 == _ATTEMPTS
            try:
                response = await self._client.post(call.path, content=call.body, headers=call.headers)
            except httpx.HTTPError as error:
                if last:
                    raise UpstreamError(f"the service does not answer ({type(error).__name__})") from error
            else:
                body = _judge(response, last=last)
                if body is not None:
                    return body
            await asyncio.sleep(_pause(attempt))
        raise AssertionError  # the loop returns or raises
