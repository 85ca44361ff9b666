"""What an answer holds, piece by piece, so that the same document is known again inside another answer.

Pure. An answer's ``result`` is taken apart where the protocol says that content stands, and each piece has a digest of
what it *is*, whatever stands around it (names, MIME types, annotations, order):

* a text (``text`` of a content block or of a resource): SHA-256 of its UTF-8 bytes;
* a document (``data`` or ``blob``, base64): SHA-256 of the decoded bytes;
* anything else (``structuredContent``, a link, a block of a kind that is not known): SHA-256 of its canonical JSON
  (RFC 8785), numbers read as doubles.

So the digest of a file is the digest of the piece that holds it. Where content stands: ``content`` and ``contents``, of
each of ``messages`` its ``content``, and ``structuredContent``. What stands in a block (the resource of an embedded
one, the content of a tool's result within a message) is taken apart likewise. A piece that stands there twice counts
once.

Keyed, these digests are the fingerprints in outcome records (`ledger.bodies.Outcome.contents`).

Source: Model Context Protocol, revisions 2025-11-25 and 2026-07-28, Tools, "Tool Result"; Resources; Prompts.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ledger.canonical import canonical_bytes, sha256
from ledger.errors import MalformedError

__all__ = ["MAX_CONTENTS", "NO_CONTENTS", "Contents", "contents_of", "json_digest"]

MAX_CONTENTS: Final = 64
"""Most pieces of one answer that have a fingerprint; how many more there are is said."""

_MAX_PIECES: Final = 50_000
"""Most pieces that are looked at; of a longer answer nothing is taken apart."""

_MAX_DEPTH: Final = 8
"""How deep content may stand in content."""

_BARE_STRING: Final = re.compile(rb'"[^"]*"')


@dataclass(frozen=True, slots=True)
class Contents:
    """The pieces of an answer.

    Attributes:
        digests: SHA-256 of each, those first that stand first, each once; at most `MAX_CONTENTS`.
        left_out: How many others there are; what cannot be read counts as one.
    """

    digests: tuple[bytes, ...] = ()
    left_out: int = 0


NO_CONTENTS: Final = Contents()
"""Of an answer that holds nothing."""


def contents_of(result: bytes) -> Contents:
    """Take an answer's result apart.

    Args:
        result: JSON text, as received. Of a name that stands twice, the last one counts.
    """
    if not _may_hold(result):
        return NO_CONTENTS
    if _exceeds(result, _MAX_PIECES):
        return Contents(left_out=1)
    try:
        value = json.loads(result)
    except (ValueError, RecursionError):
        return Contents(left_out=1)
    digests: dict[bytes, None] = {}
    left_out = 0
    for piece in _pieces(value):
        try:
            digest = _digest(piece)
        except (MalformedError, UnicodeError, RecursionError):  # read it can be, deeper than it can be gone through
            left_out += 1
            continue
        if digest not in digests and len(digests) == MAX_CONTENTS:
            left_out += 1
            continue
        digests[digest] = None
    return Contents(tuple(digests), left_out)


def json_digest(text: bytes) -> bytes | None:
    """Return the digest that a JSON text has as a piece that is no text; None if it has no canonical form."""
    try:
        return sha256(canonical_bytes(_doubles(json.loads(text))))
    except (ValueError, RecursionError, MalformedError):
        return None


def _may_hold(result: bytes) -> bool:
    # Most answers that hold nothing are lists; a name may be written with escapes.
    return any(sign in result for sign in (b"content", b"Content", b"messages", b"\\u"))


def _exceeds(result: bytes, limit: int) -> bool:
    """Whether a JSON text has more than ``limit`` commas between its values: those of a text in it do not count."""
    if result.count(b",") <= limit:
        return False
    bare = result.replace(rb"\\", b"").replace(rb"\"", b"")
    # Each value has one string at most, and one name: this many cannot belong to fewer values.
    return bare.count(b'"') > 2 * 2 * (limit + 1) or _BARE_STRING.sub(b"", bare).count(b",") > limit


def _pieces(result: object) -> Iterator[object]:
    if not isinstance(result, dict):
        return
    yield from _blocks(result.get("content"), 0)
    yield from _blocks(result.get("contents"), 0)
    messages = result.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            yield from _blocks(message.get("content"), 0)
    if result.get("structuredContent") is not None:
        yield result["structuredContent"]


def _blocks(content: object, depth: int) -> Iterator[object]:
    """Yield the pieces of one block or of a list of them."""
    for block in content if isinstance(content, list) else () if content is None else (content,):
        inside = _inside(block) if depth < _MAX_DEPTH else ()
        if not inside:
            yield block
        for one in inside:
            yield from _blocks(one, depth + 1)
        if isinstance(block, dict) and inside and block.get("structuredContent") is not None:
            yield block["structuredContent"]


def _inside(block: object) -> list[object]:
    """Return what stands in a block that holds no content of its own."""
    if not isinstance(block, dict) or isinstance(block.get("text"), str):
        return []
    return [block[name] for name in ("resource", "content") if isinstance(block.get(name), dict | list)]


def _digest(piece: object) -> bytes:
    if isinstance(piece, dict):
        if isinstance(text := piece.get("text"), str):
            return sha256(text.encode())
        for name in ("data", "blob"):
            if isinstance(document := piece.get(name), str):
                return sha256(_decoded(document))
    return sha256(canonical_bytes(_doubles(piece)))


def _decoded(document: str) -> bytes:
    """Return what base64 stands for; what is none stands for itself."""
    try:
        return base64.b64decode(document, validate=True)
    except (binascii.Error, ValueError):
        return document.encode()


def _doubles(value: object) -> object:
    """Return a value with the integers that a double does not hold exactly as the doubles that a reader takes them for.

    Raises:
        MalformedError: Larger than any double.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 53:
        try:
            return float(value)
        except OverflowError as error:
            raise MalformedError("a number is larger than any double") from error
    if isinstance(value, dict):
        return {name: _doubles(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_doubles(item) for item in value]
    return value
