"""What an MCP server answers: a result, an error, or a message of a stream before it.

Pure. How the answer travels (one JSON body, or server-sent events, see `enforcement.sse`) is the transport's part; what
is recorded of it is `enforcement.pep`'s.

An answer is read less strictly than a request: nothing is decided by it, and servers that send, say, half of a
surrogate pair in a text must not break. What is *recorded* of it must be sound, though: the envelope has each name
once, in one spelling, and ``result`` is recorded as a slice of the bytes that the server sent.

Source: JSON-RPC 2.0 section 5; Model Context Protocol, revision 2026-07-28, Streamable HTTP, "Receiving Messages".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from enforcement.json_slices import MAX_JSON_NODES, exceeds_nodes, object_members
from enforcement.mcp import refuse_lookalikes
from enforcement.refusals import RequestId
from enforcement.tool_definitions import Definition, definition_digest
from ledger.canonical import MAX_SAFE_INTEGER, parse_json
from ledger.errors import MalformedError

__all__ = ["MAX_TOOLS", "Answer", "digests_of", "parse_answer", "parse_stream_message", "tool_digests"]

MAX_TOOLS: Final = 1000
"""Most tools whose digests are learned of one server."""

_RESULT_TYPE: Final = "resulttype"
_ENVELOPE: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A server's answer to one request.

    Attributes:
        result: The ``result`` member's bytes exactly as received; None for an error.
        error_code: The JSON-RPC error's code; None for a result.
        tool_error: The tool reports an error of its own (``isError``).
        input_required: It asks the client for more, to any reader (``resultType``).
    """

    result: bytes | None
    error_code: int | None
    tool_error: bool
    input_required: bool = False


def parse_answer(data: bytes, request_id: RequestId) -> Answer:
    """Read a server's answer.

    Args:
        data: One JSON-RPC response, UTF-8.
        request_id: Id of the request that it must answer.

    Raises:
        MalformedError: It is not a response, or not to this request.
    """
    return _answer(_envelope(data), request_id)


def parse_stream_message(data: bytes, request_id: RequestId) -> Answer | None:
    """Read a message of the stream that answers a request.

    Args:
        data: One JSON-RPC message, UTF-8.
        request_id: Id of the request that the stream belongs to.

    Returns:
        The answer, which ends the stream, or None for a notification before it.

    Raises:
        MalformedError: It is neither; a server may not send requests of its own on this stream.
    """
    envelope = _envelope(data)
    if "method" not in envelope:
        return _answer(envelope, request_id)
    if not {"id", "result", "error"}.isdisjoint(envelope) or envelope["method"][:1] != '"':
        raise MalformedError("a stream carries notifications and one response, nothing else")
    return None


def tool_digests(result: bytes) -> dict[str, str]:
    """Return the digest of each tool definition in the result of ``tools/list``.

    What the digest covers is in `enforcement.tool_definitions`: equal definitions have equal digests, in whatever order
    or spelling a server sends them.

    Returns:
        Tool name → 64 hexadecimal digits. A definition without canonical form has none; a result that is no list of
        tools, or that names a tool twice with two definitions, gives none for what is ambiguous. Nothing is learned
        from a list with more than `MAX_TOOLS` tools, or more values than `enforcement.json_slices.MAX_JSON_NODES`.
    """
    if exceeds_nodes(result, MAX_JSON_NODES):
        return {}
    try:
        value = parse_json(result)
    except MalformedError:
        return {}
    tools = value.get("tools") if isinstance(value, dict) else None
    if isinstance(tools, list) and len(tools) > MAX_TOOLS:
        return {}
    digests: dict[str, str] = {}
    ambiguous: set[str] = set()
    for tool in tools if isinstance(tools, list) else ():
        name = tool.get("name") if isinstance(tool, dict) else None
        digest = definition_digest(tool)
        if not isinstance(name, str) or digest is None:
            continue
        if digests.setdefault(name, digest) != digest:
            ambiguous.add(name)
    return {name: digest for name, digest in digests.items() if name not in ambiguous}


def digests_of(definitions: Iterable[Definition]) -> dict[str, str]:
    """Return the digests of definitions that were read, as `tool_digests` does."""
    digests: dict[str, str] = {}
    ambiguous: set[str] = set()
    for one in definitions:
        if one.name is not None and one.digest is not None and digests.setdefault(one.name, one.digest) != one.digest:
            ambiguous.add(one.name)
    return {name: digest for name, digest in digests.items() if name not in ambiguous}


def _envelope(data: bytes) -> dict[str, str]:
    """Return the members of a JSON-RPC message as the text in which they stand."""
    try:
        members = object_members(data.decode())
    except UnicodeDecodeError as error:
        raise MalformedError("an answer is not UTF-8") from error
    refuse_lookalikes(members, _ENVELOPE)
    if _value(members.get("jsonrpc")) != "2.0":
        raise MalformedError("an answer is not JSON-RPC 2.0")
    return members


def _value(text: str | None) -> object:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError("an answer is not JSON") from error


def _answer(envelope: Mapping[str, str], request_id: RequestId) -> Answer:
    if "method" in envelope or ("result" in envelope) == ("error" in envelope):
        raise MalformedError("an answer has either a result or an error")
    answered = _value(envelope.get("id"))
    same = type(answered) is type(request_id) and answered == request_id
    if "error" in envelope:
        if not same and answered is not None:  # a server that could not read the id answers with null
            raise MalformedError("an answer belongs to another request")
        return Answer(result=None, error_code=_error_code(envelope["error"]), tool_error=False)
    if not same:
        raise MalformedError("an answer belongs to another request")
    members = object_members(envelope["result"])
    return Answer(
        result=envelope["result"].encode(),
        error_code=None,
        tool_error=members.get("isError") == "true",
        input_required=any(
            name.casefold() == _RESULT_TYPE and _value(text) == "input_required" for name, text in members.items()
        ),
    )


def _error_code(error: str) -> int:
    code = _value(object_members(error).get("code"))
    if not isinstance(code, int) or isinstance(code, bool) or abs(code) > MAX_SAFE_INTEGER:
        raise MalformedError("an error answer has no code")
    return code
