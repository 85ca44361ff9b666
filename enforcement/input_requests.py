"""Answers that ask for more: a server's questions, and the further rounds of a call in which a client answers them.

Pure. Who judges a question is said in `enforcement.rounds`, and how a round is known for one of the same call in
`enforcement.round_tokens`.

An answer that asks (line breaks are ours)::

    {"jsonrpc":"2.0","id":7,"result":{"resultType":"input_required","requestState":"…",
     "inputRequests":{"amount":{"method":"elicitation/create","params":{…}}}}}

The client makes the same call again, with ``requestState`` as it got it, and its answers in ``inputResponses``.

Source: Model Context Protocol, revision 2026-07-28, "Multi Round-Trip Requests".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from enforcement.json_slices import object_members
from enforcement.mcp import refuse_lookalikes
from ledger.errors import MalformedError

__all__ = ["MAX_QUESTIONS", "InputRequired", "Question", "read_input_required", "with_round", "with_state"]

MAX_QUESTIONS: Final = 32
"""Most questions of one answer."""

_MAX_KEY_CHARS: Final = 128
_RESULT: Final = frozenset({"resultType", "inputRequests", "requestState"})
_QUESTION: Final = frozenset({"method", "params"})


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a server asks a client.

    Attributes:
        key: Under which the client answers.
        message: The question as a JSON-RPC request whose id is the key, UTF-8; ``params`` as the server wrote them.
    """

    key: str
    message: bytes


@dataclass(frozen=True, slots=True)
class InputRequired:
    """An answer that asks.

    Attributes:
        envelope: Members of the JSON-RPC response, as text.
        result: Members of its result, as text.
        questions: What is asked, in order.
        state: What the client is to bring back; None if nothing.
    """

    envelope: Mapping[str, str]
    result: Mapping[str, str]
    questions: tuple[Question, ...]
    state: str | None


def read_input_required(body: bytes) -> InputRequired:
    """Read an answer that asks.

    Args:
        body: A JSON-RPC response whose ``result.resultType`` is ``input_required``.

    Raises:
        MalformedError: It asks nothing and gives no state, in more than one way, or too much.
    """
    envelope = object_members(body.decode())
    result = object_members(envelope["result"])
    refuse_lookalikes(result, _RESULT)
    if "inputRequests" not in result and "requestState" not in result:
        raise MalformedError("an answer asks nothing")
    asked = object_members(result["inputRequests"]) if "inputRequests" in result else {}
    if len(asked) > MAX_QUESTIONS:
        raise MalformedError(f"an answer asks more than {MAX_QUESTIONS} questions")
    questions = tuple(_question(key, text) for key, text in asked.items())
    return InputRequired(envelope, result, questions, _state(result.get("requestState")))


def with_state(answer: InputRequired, token: str) -> bytes:
    """Return an answer with another state for the client to bring back."""
    result = {**answer.result, "requestState": json.dumps(token)}
    return _object({**answer.envelope, "result": _object(result)}).encode()


def with_round(body: bytes, state: str | None, asked: Collection[str]) -> bytes:
    """Return a further round of a call as its server is to get it.

    Args:
        body: The call as the client sent it.
        state: The state that the server gave; None if it gave none.
        asked: What the server asked; answers to anything else are left out, as a server would do.
    """
    envelope = object_members(body.decode())
    params = object_members(envelope["params"])
    if state is None:
        del params["requestState"]
    else:
        params["requestState"] = json.dumps(state)
    if "inputResponses" in params:
        answers = object_members(params["inputResponses"])
        params["inputResponses"] = _object({key: text for key, text in answers.items() if key in asked})
    return _object({**envelope, "params": _object(params)}).encode()


def _question(key: str, text: str) -> Question:
    if not 0 < len(key) <= _MAX_KEY_CHARS:
        raise MalformedError("a question has no name")
    members = object_members(text)
    refuse_lookalikes(members, _QUESTION)
    if "method" not in members:
        raise MalformedError("a question has no method")
    params = members.get("params", "{}")
    message = f'{{"jsonrpc":"2.0","id":{json.dumps(key)},"method":{members["method"]},"params":{params}}}'
    return Question(key, message.encode())


def _state(text: str | None) -> str | None:
    try:
        state = None if text is None else json.loads(text)
        if state is not None:
            state.encode()
    except (ValueError, AttributeError) as error:
        raise MalformedError("the state is no text") from error
    return state if isinstance(state, str) else None


def _object(members: Mapping[str, str]) -> str:
    return f"{{{','.join(f'{json.dumps(name)}:{text}' for name, text in members.items())}}}"
