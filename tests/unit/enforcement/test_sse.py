"""Event streams: every cut gives the same events, and what is written anew is read the same by every client."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from enforcement.sse import COMMENT, Event, EventStream, encode_cursor, encode_event
from ledger.errors import MalformedError


def events_of(data: bytes, *cuts: int, limit: int = 1000) -> list[Event]:
    stream = EventStream(max_event_bytes=limit)
    edges = [0, *cuts, len(data)]
    return [event for start, end in pairwise(edges) for event in stream.feed(data[start:end])]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_cut_of_a_stream_gives_the_same_events(end: bytes) -> None:
    lines = [b"\xef\xbb\xbfevent: x", b"data: 1", b"data:2", b"", b": ping", b"", b"data", b"id: 4", b"", b""]
    data = end.join(lines)
    expected = [("x", b"1\n2"), ("message", None), ("message", b"")]
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            events = events_of(data, first, second)
            assert [(event.kind, event.data) for event in events] == expected


@pytest.mark.parametrize("text", ["{}", '{"a":\n1}', '{"a":"\u2028data: {}\u2028\u2028","b":"\u0085\u2029"}'])
def test_an_event_written_anew_has_one_line_of_data_to_every_reader(text: str) -> None:
    event = encode_event(text.encode())
    assert event.decode().splitlines()[::2] == ["event: message", ""]
    (read,) = events_of(event)
    assert read.kind == "message"
    assert json.loads(read.data or b"") == json.loads(text)


def test_an_unfinished_event_is_not_one() -> None:
    assert events_of(b"data: 1\n") == []


def test_only_one_space_is_cut_off_and_a_mark_of_byte_order_only_at_the_start() -> None:
    assert [event.data for event in events_of(b"data:  a\n\n\xef\xbb\xbfdata: b\n\n")] == [b" a", None]


def test_an_event_longer_than_allowed_is_refused_as_soon_as_it_is_seen() -> None:
    stream = EventStream(max_event_bytes=20)
    stream.feed(b"data: 1\n\n")
    with pytest.raises(MalformedError):
        stream.feed(b"data: " + b"x" * 15)


def test_a_complete_event_longer_than_allowed_is_refused() -> None:
    with pytest.raises(MalformedError):
        events_of(b"data: " + b"x" * 20 + b"\n\n", limit=20)


def test_events_of_the_allowed_length_pass_one_after_another() -> None:
    data = b"data: 1234\n\n"
    assert len(events_of(data * 50, limit=len(data))) == 50


def test_ids_and_pauses_are_read_and_written_again() -> None:
    (read,) = EventStream(max_event_bytes=1000).feed(b'id: e-1\nretry: 250\ndata: {"a":1}\n\n')
    assert (read.event_id, read.retry_ms, read.data) == ("e-1", 250, b'{"a":1}')
    written = encode_event(b'{"a":1}', event_id="e-1", retry_ms=250)
    assert EventStream(max_event_bytes=1000).feed(written) == [read]


def test_what_says_from_where_to_go_on_says_nothing_else() -> None:
    (read,) = EventStream(max_event_bytes=1000).feed(encode_cursor(event_id="e-1"))
    assert (read.event_id, read.data) == ("e-1", b"")
    assert encode_cursor() == COMMENT


@pytest.mark.parametrize("value", [b"a\x00b", b"\xc3\xa9", b"x" * 513, b"a\tb"])
def test_an_id_that_no_client_could_send_back_is_left_out(value: bytes) -> None:
    (read,) = EventStream(max_event_bytes=1000).feed(b"id: " + value + b"\ndata: {}\n\n")
    assert (read.event_id, read.data) == (None, b"{}")


@pytest.mark.parametrize("value", [b"soon", b"-1", b"1.5", b"9" * 10, b""])
def test_a_pause_that_is_no_number_is_none(value: bytes) -> None:
    (read,) = EventStream(max_event_bytes=1000).feed(b"retry: " + value + b"\ndata: {}\n\n")
    assert read.retry_ms is None
