r"""Server-sent events: split as they arrive, and written anew so that every client reads the same.

Pure. A gateway looks into the data of each event to see whether it is the answer that it must hold back; what the data
means is `enforcement.answers`' part. What it has looked into goes on as an event of its own making (`encode_event`), of
one line of data: in the server's bytes, a client that takes other characters for the end of a line than the
specification does could find an answer where the gateway sees part of a text or of a comment.

An event::

    event: message\r\n
    data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":0.5}}\r\n
    \r\n

Source: WHATWG HTML, "Server-sent events", sections "Parsing an event stream" and "Interpreting an event stream".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ledger.errors import MalformedError

__all__ = ["COMMENT", "Event", "EventStream", "encode_cursor", "encode_event"]

COMMENT: Final = b":\r\n\r\n"
"""An event that says nothing; it keeps a connection open."""

_LF: Final = 0x0A
_EVENT_ID: Final = re.compile(rb"[\x20-\x7e]{1,512}")
_RETRY: Final = re.compile(rb"[0-9]{1,9}")
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BOM: Final = b"\xef\xbb\xbf"
# Ends of lines to some readers, and to JSON no more than characters of a text, in which an escape says the same.
_OTHER_LINE_ENDS: Final = {"\u0085".encode(): rb"\u0085", "\u2028".encode(): rb"\u2028", "\u2029".encode(): rb"\u2029"}


@dataclass(frozen=True, slots=True)
class Event:
    """One block of an event stream.

    Attributes:
        kind: The ``event`` field, ``message`` if there is none.
        data: The ``data`` lines joined by LF; None if there is none (a comment, a retry hint).
        event_id: The ``id`` field, under which a client can go on with the stream; None if there is none.
        retry_ms: The ``retry`` field, milliseconds; None if there is none.
    """

    kind: str
    data: bytes | None
    event_id: str | None = None
    retry_ms: int | None = None


def encode_event(data: bytes, *, event_id: str | None = None, retry_ms: int | None = None) -> bytes:
    """Return an event that holds a JSON text.

    Args:
        data: The text, which must have been read as JSON: other control characters than space are not in it then.
        event_id: The event's id, as it was read.
        retry_ms: Milliseconds after which a client shall come back.
    """
    for character, escape in _OTHER_LINE_ENDS.items():
        data = data.replace(character, escape)
    return _fields(event_id, retry_ms) + b"event: message\r\ndata: " + data.replace(b"\n", b" ") + b"\r\n\r\n"


def encode_cursor(*, event_id: str | None = None, retry_ms: int | None = None) -> bytes:
    """Return an event that says from where, or when, a client can go on with the stream, and nothing else."""
    if event_id is None and retry_ms is None:
        return COMMENT
    return _fields(event_id, retry_ms) + b"data: \r\n\r\n"


def _fields(event_id: str | None, retry_ms: int | None) -> bytes:
    fields = b"" if event_id is None else b"id: " + event_id.encode("ascii") + b"\r\n"
    return fields if retry_ms is None else fields + b"retry: %d\r\n" % retry_ms


class EventStream:
    """Splits chunks into events, however they are cut.

    Not safe for concurrent use: one stream, one reader.
    """

    def __init__(self, *, max_event_bytes: int) -> None:
        """Start at the beginning of a stream.

        Args:
            max_event_bytes: Longest event accepted, its field names and line ends included.
        """
        self._max_event_bytes = max_event_bytes
        self._raw = bytearray()  # the event so far
        self._line_start = 0  # where its unfinished line begins
        self._scanned = 0  # no line end stands between there and here
        self._lines: list[bytes] = []
        self._after_cr = False  # the last byte of the last chunk was a CR: an LF may follow that belongs to it
        self._at_start = True

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes and return the events that they complete.

        Raises:
            MalformedError: An event is longer than allowed; the stream cannot be read further.
        """
        events: list[Event] = []
        self._raw += chunk
        if self._after_cr and chunk:
            # The line ended with the CR and was acted on at once; its LF is part of that end.
            self._line_start += self._raw[self._line_start] == _LF
            self._scanned = self._line_start
            self._after_cr = False
        while (match := _LINE_END.search(self._raw, self._scanned)) is not None:
            line = bytes(self._raw[self._line_start : match.start()])
            self._after_cr = match[0] == b"\r" and match.end() == len(self._raw)
            self._line_start = self._scanned = match.end()
            if line:
                self._lines.append(line)
            else:
                events.append(self._finish())
        self._scanned = len(self._raw)
        self._check_length(len(self._raw))
        return events

    def _check_length(self, length: int) -> None:
        if length > self._max_event_bytes:
            raise MalformedError(f"an event has more than {self._max_event_bytes} bytes")

    def _finish(self) -> Event:
        self._check_length(self._line_start)
        lines, self._lines = self._lines, []
        if self._at_start and lines:
            lines[0] = lines[0].removeprefix(_BOM)
        self._at_start = False
        del self._raw[: self._line_start]
        self._line_start = self._scanned = 0
        return _interpret(lines)


def _interpret(lines: list[bytes]) -> Event:
    kind = b""
    data: list[bytes] = []
    event_id: str | None = None
    retry_ms: int | None = None
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            kind = value
        elif name == b"data":
            data.append(value)
        elif name == b"id":
            event_id = _event_id(value)
        elif name == b"retry" and _RETRY.fullmatch(value):
            retry_ms = int(value)
    text = kind.decode("utf-8", errors="replace") or "message"
    return Event(text, b"\n".join(data) if data else None, event_id, retry_ms)


def _event_id(value: bytes) -> str | None:
    """Return an id that a client can send back in a header; None for one that it could not."""
    return value.decode("ascii") if _EVENT_ID.fullmatch(value) else None
