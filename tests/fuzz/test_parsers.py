"""Bytes from outside: only `MalformedError` may leave a parser, and what it takes it writes back to the same bytes.

Arbitrary bytes rarely get past a parser's first line; valid inputs with a few changes get everywhere. The valid inputs
are those of the vectors, so that a new family of vectors is fuzzed too.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.canonical import canonical_bytes, parse_canonical, parse_json
from ledger.checkpoints import parse_body, parse_unverified_checkpoint
from ledger.envelopes import parse_envelope
from ledger.errors import MalformedError
from ledger.notes import decode_base64, encode_base64, parse_note, parse_vkey
from ledger.proof_files import parse_proof_file
from ledger.records import decode_entry, encode_record
from ledger.tiles import TILE_WIDTH, pack_bundle, pack_tile, parse_tile_path, unpack_bundle, unpack_tile
from ledger.trust import parse_trust_policy
from policies.model import (
    DecisionRequest,
    Environment,
    Principal,
    Resource,
    SessionState,
    Time,
    decode_request,
    encode_request,
    with_windows,
)
from service.authzen import parse_box
from service.opa_console import console_events
from service.opa_events import inflate, parse_event, split
from tests.vectors.vector import ACCEPT, ROOT, load, unblob


def _text(data: bytes) -> str:
    """Return bytes as the text that a caller would have made of them, lone surrogates included."""
    return data.decode("utf-8", errors="surrogateescape")


def _read_canonical(data: bytes) -> bytes | None:
    parse_canonical(data)
    return data


def _read_json(data: bytes) -> None:
    parse_json(data)


def _read_envelope(data: bytes) -> bytes:
    envelope = parse_envelope(data)
    lines = [{"keyid": key_id, "sig": encode_base64(item)} for key_id, item in envelope.signatures.items()]
    payload = encode_base64(envelope.payload)
    return canonical_bytes({"payload": payload, "payloadType": envelope.payload_type, "signatures": lines})


def _read_policy(data: bytes) -> None:
    policy = parse_trust_policy(data)
    assert parse_trust_policy(policy.encode().encode(errors="surrogateescape")) == policy


def _with_width(read: Callable[[bytes, int], bytes], data: bytes) -> bytes:
    """Read with the width that the first byte gives: the width is outside input too."""
    return data[:1] + read(data[1:], data[0] * 2 - 100 if data else 0)


@dataclass(frozen=True)
class Parser:
    """A parser under test.

    Attributes:
        read: Reads bytes and writes them back, or returns None where several spellings are read.
        seeds: Valid inputs.
    """

    read: Callable[[bytes], bytes | None]
    seeds: list[bytes]


def _seeds(pattern: str, member: str) -> list[bytes]:
    found = []
    for path in sorted(Path(ROOT).glob(pattern)):
        vector = load(path)
        if vector.expect == ACCEPT and member in vector.input:
            value = vector.input[member]
            found.append(unblob(value) if isinstance(value, dict) else str(value).encode())
    assert found, pattern
    return found


def _widths(pattern: str, member: str) -> list[bytes]:
    found = []
    for path in sorted(Path(ROOT).glob(pattern)):
        vector = load(path)
        if vector.expect == ACCEPT and member in vector.input and vector.input["width"] % 2 == 0:
            code = (vector.input["width"] + 100) // 2
            found.append(bytes([code]) + base64.b64decode(vector.input[member]))
    assert found, pattern
    return found


_REQUEST = encode_request(
    DecisionRequest(
        version=1,
        principal=Principal(agent="finance-bot", user="alice", roles=("finance",), authn="api_token"),
        action="tools/call",
        resource=Resource(server="finance", name="Payroll-DB", tags=("pii",)),
        time=Time(now_ms=1, zone="UTC", local_date="2025-11-19", hour=10, minute=0, weekday=3),
        environment=Environment(address="192.0.2.1"),
        state=SessionState(session="s", calls=2),
        arguments='{"amount": 1.10}',
    )
)

_REQUEST_WITH_WINDOWS = encode_request(
    with_windows(decode_request(_REQUEST), {"spent": "12.5000", "calls": 3, "tainted": True}, {"calls": "0" * 32})
)

_NOTES = _seeds("notes/*/*.json", "note")
_CHECKPOINTS = _seeds("checkpoints/*/*.json", "checkpoint")
_VKEYS = _seeds("notes/vkey-*/*.json", "vkey")


def _read_box(data: bytes) -> None:
    parse_box(data, 0)


def _read_upload(data: bytes) -> None:
    for event in split(inflate(data, "gzip", limit_bytes=100_000)):
        parse_event(event)


def _read_event(data: bytes) -> None:
    parse_event(data)


def _read_console(data: bytes) -> None:
    for event in console_events(data.splitlines(keepends=True)):
        parse_event(event)


_QUESTION = (
    b'{"subject":{"type":"agent","id":"bot","properties":{"roles":["r"],"mfa":true}},"action":{"name":"tools/call"},'
    b'"resource":{"type":"tool","id":"t","properties":{"server":"s","tags":[]}},'
    b'"context":{"time":"2026-10-05T22:30:00Z","zone":"UTC","arguments":{"a":1.50}}}'
)
_EVENT = (
    b'{"bundles":{"b":{"revision":"r"}},"decision_id":"d","erased":["/input/x"],"input":{"principal":{"user":"u"}},'
    b'"labels":{"id":"i","version":"1"},"metrics":{"timer_rego_query_eval_ns":1},"path":"a/b","requested_by":"127.0.0.1:1",'
    b'"result":true,"timestamp":"2026-11-21T18:36:42.079496312Z"}'
)

PARSERS = {
    "parse_box": Parser(_read_box, [b'{"evaluations":[' + _QUESTION + b',{}],"action":{"name":"tools/list"}}']),
    "opa_upload": Parser(_read_upload, [gzip.compress(b"[" + _EVENT + b",7]", mtime=0)]),
    "opa_event": Parser(_read_event, [_EVENT]),
    "opa_console": Parser(
        _read_console, [_EVENT[:-1] + b',"type":"openpolicyagent.org/decision_logs","level":"info"}\n']
    ),
    "parse_json": Parser(_read_json, _seeds("canonical/*/*.json", "json")),
    "parse_canonical": Parser(
        _read_canonical, [b'{"a":[1.5,"\\u0000\xc3\xa4"],"b":{"":null}}', b"1e+21", b'"\xf0\x9f\x94\x92"']
    ),
    "decode_base64": Parser(lambda data: encode_base64(decode_base64(_text(data))).encode(), [b"AQIDBA==", b"AQID"]),
    "decode_entry": Parser(lambda data: encode_record(decode_entry(data)), _seeds("records/*/*.json", "entry")),
    "parse_note": Parser(lambda data: parse_note(data).encode(), _NOTES + _CHECKPOINTS),
    "parse_vkey": Parser(lambda data: parse_vkey(_text(data)).encode().encode(), _VKEYS),
    "parse_body": Parser(
        lambda data: parse_body(_text(data)).body().encode(),
        [data.split(b"\n\n")[0] + b"\n" for data in _CHECKPOINTS],
    ),
    "parse_unverified_checkpoint": Parser(lambda data: parse_unverified_checkpoint(data).note.encode(), _CHECKPOINTS),
    "parse_trust_policy": Parser(_read_policy, _seeds("trust/*/*.json", "policy")),
    "parse_proof_file": Parser(lambda data: parse_proof_file(data).encode(), _seeds("proof-files/*/*.json", "proof")),
    "parse_tile_path": Parser(
        lambda data: parse_tile_path(_text(data)).path.encode(), _seeds("tiles/path/*.json", "path")
    ),
    "parse_envelope": Parser(_read_envelope, _seeds("envelopes/*/*.json", "envelope")),
    "unpack_tile": Parser(
        partial(_with_width, lambda data, width: pack_tile(unpack_tile(data, width))),
        _widths("tiles/bytes-*/*.json", "tile"),
    ),
    "unpack_bundle": Parser(
        partial(_with_width, lambda data, width: pack_bundle(unpack_bundle(data, width))),
        _widths("bundles/*/*.json", "bundle"),
    ),
    "decode_request": Parser(lambda data: encode_request(decode_request(data)), [_REQUEST, _REQUEST_WITH_WINDOWS]),
}

_INTERESTING = [
    b"",
    b"\x00",
    b"\n",
    b"\n\n",
    b" ",
    b"+",
    b"=",
    b"/",
    b"0",
    b"9" * 30,
    b"-1",
    b"1e999999999999",
    b'"',
    b"\\ud800",
    b"\\u0000",
    b"[" * 80,
    b'{"a":' * 80,
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc2\xa0",
    b"\xe2\x80\x94 ",
    b"x001/" * 50,
    b"none",
    b"null",
    b"true",
]
_pieces = st.binary(max_size=6) | st.sampled_from(_INTERESTING)


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return a valid input with one to four changes: bits, bytes, pieces, cuts, repetitions, splices."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8) | st.integers(0, 100)))
        match draw(st.integers(0, 5)):
            case 0 if start < len(data):
                data = data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
            case 1:
                data = data[:start] + draw(_pieces) + data[start:]
            case 2:
                data = data[:start] + draw(_pieces) + data[end:]
            case 3:
                data = data[:start] + data[end:]
            case 4:
                data = data[:end] + data[start:end] * draw(st.integers(1, 3)) + data[end:]
            case _:
                other = draw(st.sampled_from(seeds))
                data = data[:start] + other[draw(st.integers(0, len(other))) :]
    return data


def feed(parser: Parser, data: bytes) -> None:
    try:
        written = parser.read(data)
    except MalformedError:
        return
    assert written is None or written == data


@pytest.mark.parametrize("name", PARSERS)
def test_the_seeds_are_taken(name) -> None:
    for seed in PARSERS[name].seeds:
        assert PARSERS[name].read(seed) in {None, seed}


@pytest.mark.parametrize("name", PARSERS)
def test_changed_valid_input_is_malformed_or_written_back_unchanged(name) -> None:
    @settings(max_examples=200)
    @given(mutations(PARSERS[name].seeds))
    def fuzz(data: bytes) -> None:
        feed(PARSERS[name], data)

    fuzz()


@pytest.mark.parametrize("name", PARSERS)
def test_arbitrary_bytes_are_malformed_or_written_back_unchanged(name) -> None:
    @settings(max_examples=100)
    @given(st.binary(max_size=300) | st.lists(_pieces, max_size=12).map(b"".join))
    def fuzz(data: bytes) -> None:
        feed(PARSERS[name], data)

    fuzz()


@pytest.mark.parametrize("name", PARSERS)
def test_every_truncation_and_every_flipped_bit_is_malformed_or_written_back_unchanged(name) -> None:
    for seed in PARSERS[name].seeds[:3]:
        step = max(1, len(seed) // 120)
        for position in range(0, len(seed), step):
            feed(PARSERS[name], seed[:position])
            for bit in (0, 5, 7):
                altered = bytearray(seed)
                altered[position] ^= 1 << bit
                feed(PARSERS[name], bytes(altered))


@settings(max_examples=200)
@given(st.binary(max_size=600), st.integers(-3, TILE_WIDTH + 3))
def test_a_tile_or_bundle_of_any_width_is_malformed_or_written_back_unchanged(data, width) -> None:
    for pack, unpack in ((pack_tile, unpack_tile), (pack_bundle, unpack_bundle)):
        try:
            parts = unpack(data, width)
        except MalformedError:
            continue
        assert len(parts) == width
        assert pack(parts) == data


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_text_with_lone_surrogates_is_malformed_or_written_back_unchanged(text) -> None:
    readers: list[Callable[[str], str]] = [
        lambda value: parse_vkey(value).encode(),
        lambda value: parse_body(value).body(),
        lambda value: parse_tile_path(value).path,
        lambda value: encode_base64(decode_base64(value)),
    ]
    for read in readers:
        for value in (text, f"tile/0/{text}", f"log.example\n1\n{text}\n", f"{text}+00000000+AQ=="):
            try:
                written = read(value)
            except MalformedError:
                continue
            assert written == value
