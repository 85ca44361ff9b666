"""What becomes of a request that is answered inside a server's own process, where no bytes come back.

An answer is written as one JSON-RPC response, looked through and recorded as such; what the SDK's own exceptions say
is read here too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from enforcement.answering import Settled, released, settle
from enforcement.passage import Passage
from enforcement.refusals import ErrorCode
from enforcement.verdicts import Completion, OutcomeStatus, Permitted
from ledger.canonical import canonical_bytes
from ledger.errors import MalformedError

__all__ = ["answer_bytes", "ended", "error_bytes", "error_code", "message_bytes", "settled_answer"]

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


def answer_bytes(permitted: Permitted, result: object) -> bytes:
    """Return a result as the JSON-RPC response that it is on the wire."""
    value = result
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True, mode="json", exclude_none=True)
    answer = {"jsonrpc": "2.0", "id": permitted.message.request_id, "result": value}
    return json.dumps(answer, separators=(",", ":"), default=str).encode()


def error_code(error: Exception, known: type[Exception]) -> int:
    """Return the JSON-RPC error code that an exception becomes.

    Args:
        error: What was raised.
        known: The SDK's exception that carries a code of its own.
    """
    if isinstance(error, known):
        return int(error.code)  # type: ignore[attr-defined]  # the SDK's, which is imported where it is installed
    return ErrorCode.INVALID_PARAMS if isinstance(error, ValidationError) else ErrorCode.INTERNAL_ERROR


def error_bytes(permitted: Permitted, error: Exception, known: type[Exception]) -> bytes:
    """Return what was raised as the JSON-RPC response that it is on the wire.

    What is no error of the SDK's is told by some of its transports in its own words, so that these count.

    Args:
        permitted: The request that failed.
        error: What was raised.
        known: The SDK's exception that carries an error of its own.
    """
    said: object = {"code": error_code(error, known), "message": _words(error)}
    if isinstance(error, known):
        try:
            said = to_jsonable_python(
                error.error,  # type: ignore[attr-defined]  # the SDK's, as above
                by_alias=True,
                exclude_none=True,
            )
        except Exception:  # noqa: BLE001  # whatever its data are: the SDK cannot send them either, and says so
            said = {"code": error_code(error, known), "message": _words(error)}
    answer = {"jsonrpc": "2.0", "id": permitted.message.request_id, "error": said}
    return json.dumps(answer, separators=(",", ":"), default=str).encode()


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return ""  # the SDK tells nothing of it
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # it is somebody's exception: how it fails to say what it is, does not matter
        return ""


def ended(started: float, status: OutcomeStatus, reason: str | None = None, code: int | None = None) -> Completion:
    """Return an outcome without an answer.

    Args:
        started: When the message went on, by `time.perf_counter`.
        status: As in the outcome record.
        reason: Likewise.
        code: JSON-RPC error code.
    """
    return Completion(status=status, reason=reason, latency_us=_since(started), error_code=code)


async def settled_answer(
    passage: Passage, permitted: Permitted, answer: bytes, *, started: float, given_up: str
) -> Settled | None:
    """Look through an answer and record it; return what may be released of it, None if nothing may.

    If the caller is cancelled meanwhile, the outcome is recorded by a task of its own, although this one is not let
    wait for it.

    Args:
        passage: The way of a message.
        permitted: The request.
        answer: One JSON-RPC response.
        started: When the request went on, by `time.perf_counter`.
        given_up: The outcome's reason if the caller is cancelled.
    """
    try:
        settled = await settle(passage, permitted, answer, latency_us=_since(started))
    except asyncio.CancelledError:
        await released(passage, permitted, ended(started, "cancelled", given_up))
        raise
    return settled if await released(passage, permitted, settled.completion) else None


def _since(started: float) -> int:
    return int((perf_counter() - started) * _US_PER_SECOND)
