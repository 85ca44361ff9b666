"""What a whole answer means for the outcome of its call, and what stands in the place of one that may not be released.

For transports that have the answer as one JSON text; that of an HTTP exchange is read in `enforcement.exchange`, for it
may be a stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import structlog

from enforcement.answers import parse_answer
from enforcement.offload import off_loop
from enforcement.passage import Passage
from enforcement.refusals import ErrorCode, Reply, error_reply
from enforcement.verdicts import Completion, Permitted
from ledger.errors import LedgerError, MalformedError

__all__ = ["Settled", "failed_reply", "released", "settle", "withheld_reply"]

_LOG: Final = structlog.get_logger(__name__)
_FAILED: Final = "The server did not answer as it must"
_UNSHOWN: Final = "The answer may not be shown, or nobody can say whether it may"
_WITHHELD: Final = "The call was made, but its outcome could not be recorded; the result is withheld"


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a request that was answered, before that is recorded.

    Attributes:
        completion: Its outcome.
        body: What the client gets: the server's answer or what may be shown of it, or an error in its place.
        replaced: It is an error in its place.
    """

    completion: Completion
    body: bytes
    replaced: bool = False


async def settle(passage: Passage, permitted: Permitted, data: bytes, *, latency_us: int) -> Settled:
    """Return what becomes of a request that was answered.

    Args:
        passage: Says what the client gets of an answer.
        permitted: The call.
        data: The answer, one JSON-RPC response in UTF-8.
        latency_us: From forwarding to the answer, microseconds.
    """
    request_id = permitted.message.request_id
    assert request_id is not None  # a notification has no answer
    outcome = Completion(status="failed", reason="malformed_answer", latency_us=latency_us, answer=data)
    try:
        answer = await off_loop(len(data), parse_answer, data, request_id)
    except MalformedError:
        return Settled(outcome, failed_reply(permitted, "malformed_answer").body, replaced=True)
    reviewed = await passage.review(permitted, answer, data)
    failed = answer.error_code is not None
    outcome = replace(
        outcome,
        status="failed" if failed or reviewed.failed else "completed",
        reason="jsonrpc_error" if failed else reviewed.reason,
        result=answer.result,
        error_code=answer.error_code,
        tool_error=answer.tool_error,
        hidden=reviewed.hidden,
        signals=reviewed.signals,
        redacted=reviewed.redacted,
    )
    if reviewed.body is None:
        reply = _reply(permitted, ErrorCode.RESULT_WITHHELD, _UNSHOWN, reviewed.reason or "internal_error")
        return Settled(outcome, reply.body, replaced=True)
    return Settled(outcome, reviewed.body, replaced=reviewed.failed)


async def released(passage: Passage, permitted: Permitted, completion: Completion) -> bool:
    """Record an outcome and return whether the answer may be released."""
    try:
        await passage.complete(permitted, completion)
    except LedgerError as error:
        _LOG.error("result_withheld", decision_id=permitted.decision_id, error=type(error).__name__)
        return False
    return True


def failed_reply(permitted: Permitted, reason: str) -> Reply:
    """Return what a client gets when the server failed."""
    return _reply(permitted, ErrorCode.UPSTREAM_FAILED, _FAILED, reason)


def withheld_reply(permitted: Permitted) -> Reply:
    """Return what a client gets when the outcome could not be recorded."""
    return _reply(permitted, ErrorCode.RESULT_WITHHELD, _WITHHELD, "ledger_unavailable")


def _reply(permitted: Permitted, code: int, text: str, reason: str) -> Reply:
    data = {"reason": reason, "decision_id": permitted.decision_id}
    return error_reply(permitted.message.request_id, status=502, code=code, text=text, data=data)
