"""Frames between the service and an engine's process: read back as they were written, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import MalformedError
from policies import frames
from policies.engine import EngineStoppedError, Limit
from policies.frames import (
    Decided,
    Evaluate,
    Failed,
    FrameBuffer,
    Load,
    Loaded,
    Refused,
    Started,
    UnknownBundle,
    decode_answer,
    decode_question,
    encode_frame,
)
from policies.model import Decision, Effect
from tests.support.policies import make_request

DECISION = Decision(effect=Effect.DENY, bundle_revision="00", engine="cedar", engine_version="1", rules=("a",))
QUESTIONS = [Load(archive=b"\x00\xff"), Evaluate(revision="00", requests=(make_request(arguments='{"a":1e0}'),))]
ANSWERS = [
    Started(engine="cedar", version="4.12.2"),
    Loaded(revision="00", rules=("a", "b")),
    Refused(message="policy.cedar:1: no"),
    UnknownBundle(revision="00"),
    Decided(decisions=(DECISION,)),
    Failed(error="PanicException"),
]


def content(frame: bytes) -> bytes:
    buffer = FrameBuffer()
    buffer.feed(frame)
    taken = buffer.take()
    assert taken is not None
    assert not buffer
    return taken


def test_documented_frame_is_written():
    frame = encode_frame(Started(engine="cedar", version="4.12.2"))
    assert frame == bytes.fromhex("00000036") + b'{"type":"started","engine":"cedar","version":"4.12.2"}'


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: type(question).__name__)
def test_question_is_read_as_it_was_written(question):
    assert decode_question(content(encode_frame(question))) == question


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_answer_is_read_as_it_was_written(answer):
    assert decode_answer(content(encode_frame(answer))) == answer


@pytest.mark.parametrize("cut", [1, 3, 4, 5, -1])
def test_frame_is_taken_once_it_is_whole(cut):
    frame = encode_frame(ANSWERS[0])
    buffer = FrameBuffer()
    buffer.feed(frame[:cut])
    assert buffer.take() is None
    buffer.feed(frame[cut:] + frame)
    assert buffer.take() == buffer.take() == frame[4:]
    assert buffer.take() is None


def test_frame_that_says_it_is_too_long_is_refused_before_it_arrives():
    buffer = FrameBuffer()
    buffer.feed((frames.MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(MalformedError, match="at most"):
        buffer.take()


def test_message_too_long_for_a_frame_is_stopped(monkeypatch):
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 10)
    with pytest.raises(EngineStoppedError) as caught:
        encode_frame(ANSWERS[0])
    assert caught.value.limit is Limit.SIZE


def test_text_that_no_json_can_carry_is_refused():
    with pytest.raises(MalformedError):
        encode_frame(Refused(message="\ud800"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"loaded"}',
        b'{"type":"decided","decisions":[{"effect":"PERMIT"}]}',
        b'{"type":"decided","decisions":[],"more":1}',
        b'{"type":"load","archive":"AA=="}',
        b'{"type":"failed","error":1}',
        b'{"type":"refused","message":"\xff"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_is_refused(data):
    with pytest.raises(MalformedError):
        decode_answer(data)


@given(st.binary(max_size=200))
def test_nothing_but_malformed_error_leaves_the_readers(data):
    for decode in (decode_answer, decode_question):
        try:
            decode(data)
        except MalformedError:
            continue
