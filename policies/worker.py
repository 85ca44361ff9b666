"""The process of an engine: reads questions from its one channel, asks the engine, answers.

`policies.workers` starts it, with nothing in the environment, no descriptor but the channel (as standard input), and
nothing on the import path but what an engine needs. It bounds itself before the engine is imported
(`policies.confinement`), names itself, and then answers one question after the other until its channel closes.

Whatever the engine raises is answered by the name of its class, and the process ends: what a panic of native code left
behind is not relied on. The messages of such errors may quote values and go nowhere (invariant 6).

INVARIANT: an answer belongs to the question before it; nothing is ever sent that was not asked for.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from importlib import import_module
from typing import Final

import msgspec

from ledger.errors import MalformedError, PolicySyntaxError
from policies.bundles import parse_archive
from policies.confinement import allow_seconds, confine
from policies.engine import Engine, EngineStoppedError, LoadedBundle
from policies.frames import (
    Answer,
    Decided,
    Evaluate,
    Failed,
    FrameBuffer,
    Load,
    Loaded,
    Refused,
    Started,
    UnknownBundle,
    decode_question,
    encode_frame,
)

__all__ = ["WorkerOrder", "answer_questions", "main", "make_engine"]

_CHANNEL: Final = 0
_READ_BYTES: Final = 1 << 18


class WorkerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is started for; no secret, for anybody on the machine may read it.

    Attributes:
        factory: Where the engine's class is, ``module:name``.
        parent: Process id of whoever starts it.
        memory_bytes: Most address space.
        cpu_seconds: Most processor time for one question: a backstop for a process that nobody stops.
        loaded_bundles: Bundles that are kept.
    """

    factory: str
    parent: int
    memory_bytes: int
    cpu_seconds: float
    loaded_bundles: int


def make_engine(factory: str) -> Engine:
    """Return the engine that a ``module:name`` makes."""
    module, _, name = factory.partition(":")
    engine: Engine = getattr(import_module(module), name)()
    return engine


class _Answerer:
    """Asks the engine, and keeps the bundles that were used last."""

    def __init__(self, engine: Engine, loaded_bundles: int) -> None:
        self._engine = engine
        self._loaded_bundles = loaded_bundles
        self._loaded: OrderedDict[str, LoadedBundle] = OrderedDict()

    def answer(self, frame: bytes) -> Answer:
        try:
            question = decode_question(frame)
        except MalformedError:
            # A request that no recorded one could be, such as one with a name too long; the engine never saw it.
            return Failed(error=MalformedError.__name__, ends=False)
        try:
            return self._load(question) if isinstance(question, Load) else self._evaluate(question)
        except BaseException as error:  # noqa: BLE001  # INVARIANT 7: a panic of native code is a BaseException
            return Failed(error=type(error).__name__)

    def _load(self, question: Load) -> Answer:
        try:
            loaded = self._engine.load(parse_archive(question.archive))
        except PolicySyntaxError as error:
            return Refused(message=str(error).encode(errors="backslashreplace").decode())
        self._loaded[loaded.revision] = loaded
        while len(self._loaded) > self._loaded_bundles:
            self._loaded.popitem(last=False)
        return Loaded(revision=loaded.revision, rules=loaded.rules)

    def _evaluate(self, question: Evaluate) -> Answer:
        loaded = self._loaded.get(question.revision)
        if loaded is None:
            return UnknownBundle(revision=question.revision)
        self._loaded.move_to_end(question.revision)
        return Decided(decisions=tuple(self._engine.evaluate(loaded, question.requests)))


def _next_frame(channel: socket.socket, buffer: FrameBuffer) -> bytes | None:
    """Return the next question's frame; None once the parent has closed the channel."""
    while (frame := buffer.take()) is None:
        data = channel.recv(_READ_BYTES)
        if not data:
            return None
        buffer.feed(data)
    return frame


def answer_questions(channel: socket.socket, engine: Engine, *, cpu_seconds: float, loaded_bundles: int) -> None:
    """Answer until the channel closes or the engine fails.

    Raises:
        MalformedError: The parent sent a frame beyond all bounds.
    """
    answerer = _Answerer(engine, loaded_bundles)
    buffer = FrameBuffer()
    channel.sendall(encode_frame(Started(engine=engine.name, version=engine.version)))
    while (frame := _next_frame(channel, buffer)) is not None:
        allow_seconds(cpu_seconds)
        answer = answerer.answer(frame)
        channel.sendall(_framed(answer))
        if isinstance(answer, Failed) and answer.ends:
            return


def _framed(answer: Answer) -> bytes:
    try:
        return encode_frame(answer)
    except (MalformedError, EngineStoppedError) as error:
        return encode_frame(Failed(error=type(error).__name__, ends=False))


def main(order: str) -> None:
    """Be an engine's process.

    Args:
        order: JSON text of a `WorkerOrder`.
    """
    wanted = msgspec.json.decode(order, type=WorkerOrder)
    allow_seconds(wanted.cpu_seconds)
    confine(memory_bytes=wanted.memory_bytes, parent=wanted.parent)
    with socket.socket(fileno=_CHANNEL) as channel:
        answer_questions(
            channel,
            make_engine(wanted.factory),
            cpu_seconds=wanted.cpu_seconds,
            loaded_bundles=wanted.loaded_bundles,
        )
