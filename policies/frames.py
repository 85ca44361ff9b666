"""What passes between the service and an engine's process: length-prefixed JSON frames.

Pure. A frame is four bytes, the length of what follows, most significant byte first, and then one JSON object with a
``type``. The parent asks, the child answers, one at a time; the child's first frame says who it is::

    00 00 00 36 {"type":"started","engine":"cedar","version":"4.12.2"}

Requests and decisions are those of `policies.model`, in their own form. A frame that is longer than `MAX_FRAME_BYTES`
is refused by its length, before a byte of it is read.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from ledger.errors import MalformedError
from policies.engine import EngineStoppedError, Limit
from policies.model import Decision, DecisionRequest

__all__ = [
    "MAX_FRAME_BYTES",
    "Answer",
    "Decided",
    "Evaluate",
    "Failed",
    "FrameBuffer",
    "Load",
    "Loaded",
    "Question",
    "Refused",
    "Started",
    "UnknownBundle",
    "decode_answer",
    "decode_question",
    "encode_frame",
]

MAX_FRAME_BYTES: Final = 64 << 20
"""Longest frame either way; the largest bundle archive, and the largest batch that the evaluator makes, fit in."""

_LENGTH_BYTES: Final = 4


class _Frame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """Common rules: immutable, keyword only, unknown members refused."""


class Load(_Frame, frozen=True, tag="load"):
    """Read a bundle.

    Attributes:
        archive: As `Bundle.archive` makes it.
    """

    archive: bytes


class Evaluate(_Frame, frozen=True, tag="evaluate"):
    """Decide.

    Attributes:
        revision: Under which bundle, of those loaded.
        requests: What.
    """

    revision: str
    requests: tuple[DecisionRequest, ...]


class Started(_Frame, frozen=True, tag="started"):
    """The child is ready.

    Attributes:
        engine: Name of the engine that it has.
        version: Its exact version.
    """

    engine: str
    version: str


class Loaded(_Frame, frozen=True, tag="loaded"):
    """The bundle was read.

    Attributes:
        revision: Its digest.
        rules: Names of its rules, in bundle order.
    """

    revision: str
    rules: tuple[str, ...]


class Refused(_Frame, frozen=True, tag="refused"):
    """The bundle cannot be used.

    Attributes:
        message: Why; file and place.
    """

    message: str


class UnknownBundle(_Frame, frozen=True, tag="unknown_bundle"):
    """The child has no such bundle, or has it no more; it wants to be told again.

    Attributes:
        revision: Which.
    """

    revision: str


class Decided(_Frame, frozen=True, tag="decided"):
    """What was decided.

    Attributes:
        decisions: One for each request, in order.
    """

    decisions: tuple[Decision, ...]


class Failed(_Frame, frozen=True, tag="failed"):
    """Something was raised.

    Attributes:
        error: The name of its class, and nothing of its message, which may quote values.
        ends: Whether the child ends after this answer, for it was the engine that failed.
    """

    error: str
    ends: bool = True


Question: TypeAlias = Load | Evaluate
Answer: TypeAlias = Started | Loaded | Refused | UnknownBundle | Decided | Failed

_ENCODER: Final = msgspec.json.Encoder()
_QUESTIONS: Final[msgspec.json.Decoder[Question]] = msgspec.json.Decoder(Question)
_ANSWERS: Final[msgspec.json.Decoder[Answer]] = msgspec.json.Decoder(Answer)


def encode_frame(message: Question | Answer) -> bytes:
    """Return a message as a frame.

    Raises:
        MalformedError: It holds text that no JSON can carry (a lone surrogate).
        EngineStoppedError: It is too long.
    """
    try:
        data = _ENCODER.encode(message)
    except (UnicodeEncodeError, msgspec.MsgspecError, OverflowError) as error:
        raise MalformedError("a message cannot be written as a frame") from error
    if len(data) > MAX_FRAME_BYTES:
        raise EngineStoppedError(Limit.SIZE)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def decode_question(data: bytes) -> Question:
    """Read what a parent asks.

    Raises:
        MalformedError: Not a question.
    """
    try:
        return _QUESTIONS.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError("not a question") from error


def decode_answer(data: bytes) -> Answer:
    """Read what a child answers.

    Raises:
        MalformedError: Not an answer.
    """
    try:
        return _ANSWERS.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError("not an answer") from error


class FrameBuffer:
    """Bytes as they arrive, until they make a frame."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._data = bytearray()

    def __bool__(self) -> bool:
        """Whether anything is there."""
        return bool(self._data)

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self._data += data

    def take(self) -> bytes | None:
        """Return the next frame's content, or None while there is more to come.

        Raises:
            MalformedError: It is too long.
        """
        if len(self._data) < _LENGTH_BYTES:
            return None
        end = _LENGTH_BYTES + int.from_bytes(self._data[:_LENGTH_BYTES], "big")
        if end > _LENGTH_BYTES + MAX_FRAME_BYTES:
            raise MalformedError(f"a frame has at most {MAX_FRAME_BYTES} bytes")
        if len(self._data) < end:
            return None
        frame = bytes(self._data[_LENGTH_BYTES:end])
        del self._data[:end]
        return frame
