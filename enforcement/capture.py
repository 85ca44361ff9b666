"""How much of a call and of its answer goes into the vault: ``full``, ``redacted`` or ``digest``.

Pure. Which of them holds for a message is said by the list of servers, for a server and for single tools; what is
captured is committed to and sealed as any payload is (`ledger.vault`), so that erasure, expiry, holds and proofs treat
all three alike.

* ``full``: the bytes as received.
* ``redacted``: the same JSON with every string, number and truth value replaced by its kind. What stays: names of
  members, the protocol's own words (`_WORDS`), and the arguments that the tool's settings say to keep.
* ``digest``: nothing of it.

The last two say length and keyed fingerprint (`ledger.commitments`) of the bytes as received, so that whoever holds the
key and a document can show that this was it, and nobody else can find it out by trying::

    {"capture":"digest","fingerprint":"4f0c…","size_bytes":182}
    {"capture":"redacted","fingerprint":"4f0c…","redacted":{"id":"[number]",…},"size_bytes":182}

INVARIANT: nothing is captured more fully than was configured. A message that names none of its server's tools, or that
cannot be read, may hold what belongs to any of them: it is captured like the strictest. What cannot be read in one way,
and so not be redacted, and what is longer than `MAX_CAPTURED_BYTES`, becomes a digest, and the record says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from enforcement.config import ServerSettings
from enforcement.config_capture import Capture
from enforcement.json_slices import MAX_JSON_NODES, exceeds_nodes
from enforcement.mcp import Message
from enforcement.pointers import parse_pointer
from ledger import body_fields
from ledger.canonical import MAX_SAFE_INTEGER, JSONValue, parse_json
from ledger.errors import MalformedError
from policies.model import DecisionRequest, encode_request

__all__ = [
    "MAX_CAPTURED_BYTES",
    "NAMED_METHODS",
    "Captured",
    "Capturing",
    "captured",
    "captured_request",
    "capturing_of",
    "strictest",
    "strictest_of",
]

MAX_CAPTURED_BYTES: Final = 8 << 20
"""Longest message or answer that is captured otherwise than as a digest: with the rest of its record it must fit into
one request to the ledger, in base64."""

NAMED_METHODS: Final = ("tools/call", "prompts/get")
"""Methods whose ``name`` may stand in the open; a resource's URI may name a person."""

_TOOL_METHOD: Final = "tools/call"
_STRICTNESS: Final[tuple[Capture, ...]] = ("full", "redacted", "digest")
_ANY: Final = "*"
_WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}")
_Path: TypeAlias = tuple[str, ...]

# The protocol's own words, wherever they stand in a message or an answer. "*" is any member of a list. What stands
# there and is no word (`_is_word`) is a value like any other: a server may write there what it likes.
_WORDS: Final[tuple[_Path, ...]] = (
    ("jsonrpc",),
    ("method",),
    ("error", "code"),
    ("result", "isError"),
    ("result", "resultType"),
    ("result", "content", _ANY, "type"),
    ("result", "contents", _ANY, "type"),
)
_ARGUMENTS: Final = ("params", "arguments")
_NAME: Final = ("params", "name")
_WITHHELD: Final = {str: "[string]", bool: "[boolean]", int: "[number]", Decimal: "[number]", float: "[number]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capturing:
    """How one message and its answer are captured.

    Attributes:
        mode: How much.
        kept: For ``redacted``, the arguments that stay: the names that lead to each.
        named: The message names a tool or prompt; the name stays as well.
    """

    mode: Capture = "full"
    kept: tuple[_Path, ...] = ()
    named: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What goes into the vault.

    Attributes:
        payload: It.
        capture: What the record says it is; None for everything.
        reason: Why it is less than was configured.
    """

    payload: bytes
    capture: body_fields.Capture | None = None
    reason: Literal["oversize", "unreadable"] | None = None


def strictest(modes: Iterable[Capture]) -> Capture:
    """Return the strictest of several; ``full`` of none."""
    return max(modes, key=_STRICTNESS.index, default="full")


def strictest_of(server: ServerSettings) -> Capture:
    """Return how what may belong to any tool of a server is captured."""
    return strictest((server.capture, *(tool.capture for tool in server.tools if tool.capture is not None)))


def capturing_of(server: ServerSettings | None, message: Message | None, *, strictest_known: Capture) -> Capturing:
    """Return how a message and its answer are captured.

    Args:
        server: Where it goes; None if nobody knows.
        message: As read; None if it could not be.
        strictest_known: What holds if the server is not known.
    """
    if server is None:
        return Capturing(mode=strictest_known)
    if message is None or message.name is None:
        return Capturing(mode=strictest_of(server))
    named = message.method in NAMED_METHODS
    for tool in server.tools:
        if tool.name == message.name:
            kept = tool.arguments if message.method == _TOOL_METHOD else ()
            return Capturing(
                mode=tool.capture or server.capture,
                kept=tuple(parse_pointer(argument.pointer) for argument in kept if argument.keep),
                named=named,
            )
    return Capturing(mode=server.capture, named=named)


def captured(
    capturing: Capturing, content: bytes, fingerprint: Callable[[bytes], str | None], *, readable: bool = True
) -> Captured:
    """Return what of a message or an answer goes into the vault.

    Args:
        capturing: How much.
        content: Its bytes as received.
        fingerprint: Names bytes by the tenant's key.
        readable: It was read in one way.
    """
    oversize = len(content) > MAX_CAPTURED_BYTES
    if capturing.mode == "full" and not oversize:
        return Captured(payload=content)
    told = {"fingerprint": fingerprint(content), "size_bytes": len(content)}
    if capturing.mode == "redacted" and not oversize:
        own = tuple((*_ARGUMENTS, *path) for path in capturing.kept)
        words = (*_WORDS, _NAME) if capturing.named else _WORDS
        redacted = _redacted_text(content, own, words) if readable else None
        if redacted is not None:
            return Captured(payload=_encoded({"capture": "redacted", **told, "redacted": redacted}), capture="redacted")
        return Captured(payload=_digest(told), capture="digest", reason="unreadable")
    return Captured(payload=_digest(told), capture="digest", reason="oversize" if capturing.mode != "digest" else None)


def captured_request(capturing: Capturing, request: DecisionRequest, capture: body_fields.Capture) -> bytes:
    """Return a request with what is withheld masked: the facts that a decision was made on, without the call's content.

    Args:
        capturing: How the message is captured.
        request: What the policy was asked.
        capture: What was captured of the message.
    """
    arguments = "{}"
    if capture == "redacted":
        redacted = _redacted_text(request.arguments.encode(errors="surrogatepass"), capturing.kept)
        arguments = "{}" if redacted is None else _encoded(redacted).decode()
    resource = request.resource
    if not capturing.named and resource.name is not None:
        resource = msgspec.structs.replace(resource, name=_WITHHELD[str])
    return encode_request(msgspec.structs.replace(request, arguments=arguments, resource=resource))


def _digest(told: Mapping[str, object]) -> bytes:
    return _encoded({"capture": "digest", **told})


def _redacted_text(content: bytes, kept: Sequence[_Path], words: Sequence[_Path] = ()) -> object | None:
    """Return a JSON text's redacted value; None if it cannot be read in one way."""
    if exceeds_nodes(content, MAX_JSON_NODES):
        return None
    try:
        return _redacted(parse_json(content), kept, words)
    except MalformedError:
        return None


def _redacted(value: JSONValue, kept: Sequence[_Path], words: Sequence[_Path]) -> object:
    """Return a value without its values; ``kept`` and ``words`` are the ways from here to what stays."""
    if () in kept or (() in words and _is_word(value)):
        return _exact(value)
    if isinstance(value, dict):
        return {name: _redacted(item, _below(kept, name), _below(words, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, _below(kept, str(place)), _below(words, _ANY)) for place, item in enumerate(value)]
    return None if value is None else _WITHHELD[type(value)]


def _below(paths: Sequence[_Path], name: str) -> Sequence[_Path]:
    return [path[1:] for path in paths if path and path[0] == name] if paths else paths


def _is_word(value: JSONValue) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) <= MAX_SAFE_INTEGER)


def _exact(value: JSONValue) -> object:
    """Return a value that is encoded with its numbers as they were, however large or fine."""
    if isinstance(value, dict):
        return {name: _exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if isinstance(value, Decimal) or (isinstance(value, int) and not isinstance(value, bool)):
        return msgspec.Raw(str(value).encode())
    return value


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")
