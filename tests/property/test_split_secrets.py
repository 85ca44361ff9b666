"""A secret in pieces: wherever it is cut, over pieces of content or notifications, a client gets no piece of it.

The inspector is the real one. What of a secret goes when it stands in one piece must go when it stands in several.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.answer_inspection import AnswerInspection
from enforcement.config_inspection import InspectionSettings
from enforcement.inspection.json_text import text_values
from enforcement.inspectors import ConfiguredInspector, inspector_of
from enforcement.looking import look_through
from enforcement.mcp import Kind, Message
from enforcement.redaction import redacted
from enforcement.stream_inspection import StreamInspection
from enforcement.verdicts import Permitted
from policies.signals import FINDING_KINDS
from tests.support.gateway import config_of

_NOISE = base64.b64encode(b"".join(hashlib.sha256(bytes([n])).digest() for n in range(100))).decode()
ARMOUR = "\n".join(
    [
        "-----BEGIN RSA PRIVATE KEY-----",
        *(_NOISE[place : place + 64] for place in range(0, 64 * 24, 64)),
        "-----END RSA PRIVATE KEY-----",
    ]
)
_LETTERS = _NOISE.replace("+", "-").replace("/", "_")
SECRETS = {
    "aws": "AKIAQ7WZ3XV9TR2LMN4P",
    "github": "ghp_" + "a1B2c3D4e5F6g7H8i9" * 2,
    "web token": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI{_LETTERS[:500]}.{_LETTERS[600:942]}",
    "armour": ARMOUR,
}
# Whoever reads the words before and after a key knows nothing of it; they may be told before it is clear what follows.
KEPT = {
    "armour": ARMOUR.removeprefix("-----BEGIN RSA PRIVATE KEY-----\n").removesuffix("\n-----END RSA PRIVATE KEY-----")
}
AROUND = ["", "the words are: ", "and what follows it is long. " * 40]
RULES = InspectionSettings(acts={"secret": "redact"})


@cache
def inspector() -> ConfiguredInspector:
    return inspector_of(RULES)


def look(data: bytes) -> Any:
    return look_through(inspector(), data, kinds=FINDING_KINDS, max_bytes=1 << 22)


@st.composite
def split(draw: st.DrawFn) -> tuple[str, list[str]]:
    """What nobody may see, and a text with it in pieces of which each holds a part of the secret."""
    name = draw(st.sampled_from(sorted(SECRETS)))
    secret = SECRETS[name]
    cuts = draw(st.sets(st.integers(1, len(secret) - 1), min_size=1, max_size=8))
    places = [0, *sorted(cuts), len(secret)]
    pieces = [secret[start:end] for start, end in pairwise(places)]
    pieces[0] = draw(st.sampled_from(AROUND)) + pieces[0]
    pieces[-1] += draw(st.sampled_from(["", " and so on", " what comes after it is long" * 40]))
    return KEPT.get(name, secret), pieces


def longest_left(secret: str, shown: str) -> int:
    """Return how many letters of a secret, one after the other, are shown."""
    most = 0
    for start in range(len(secret)):
        while start + most < len(secret) and secret[start : start + most + 1] in shown:
            most += 1
    return most


def shapes(piece: str, shape: int) -> list[dict[str, Any]]:
    """A piece of content in one of the shapes that it may have, and what may stand beside it."""
    text = {"type": "text", "text": piece}
    possible: list[list[dict[str, Any]]] = [
        [text],
        [{"text": piece, "annotations": {"audience": ["user"], "priority": 0.5}, "type": "text"}],
        [{"type": "resource", "resource": {"uri": "file:///a", "mimeType": "text/plain", "text": piece}}],
        [{"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"}, text],
        [{"type": "text", "text": ""}, text],
    ]
    return possible[shape]


def texts(content: list[dict[str, Any]]) -> str:
    return "".join(one.get("text") or one.get("resource", {}).get("text", "") for one in content)


@settings(max_examples=60, deadline=None)
@given(split(), st.data(), st.booleans())
def test_no_piece_of_a_secret_that_is_split_over_content_is_released(
    case: tuple[str, list[str]], data: st.DataObject, spelt: bool
) -> None:
    secret, pieces = case
    content = [one for piece in pieces for one in shapes(piece, data.draw(st.integers(0, 4)))]
    sent = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": content}})
    if spelt:  # to a reader that is the same name
        sent = sent.replace('"text":', '"t\\u0065xt":', 2)
    found = look(sent.encode())
    released, _ = redacted(sent.encode(), [one for one in found.stretches if one.kind == "secret"])
    assert longest_left(secret, texts(json.loads(released)["result"]["content"])) <= 5


def streamed(pieces: list[str], spelt: bool) -> tuple[str, Any]:
    config = config_of(Path("state"), "http://127.0.0.1:1", "http://127.0.0.1:1")
    message = Message(
        kind=Kind.REQUEST, request_id=1, method="tools/call", name="echo", arguments=None, protocol_version="2026-07-28"
    )
    permitted = Permitted(
        decision_id="d", message=message, server=config.servers[0], session="s", user=None, strict=False
    )
    looking: StreamInspection[int] = StreamInspection(AnswerInspection(inspector(), RULES), permitted)

    async def run() -> str:
        passed = []
        for number, piece in enumerate(pieces):
            params = {"progressToken": 1, "progress": number, "message": piece}
            data = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            if spelt and number % 2:
                data = data.replace('"message"', '"mess\\u0061ge"')
            passed += await looking.take("notifications/progress", data.encode(), number)
        passed += looking.flush()
        assert [tag for _, tag in passed] == list(range(len(pieces)))
        return "".join(json.loads(one)["params"]["message"] for one, _ in passed if one is not None)

    return asyncio.run(run()), looking


@settings(max_examples=60, deadline=None)
@given(split(), st.booleans())
def test_no_piece_of_a_secret_that_is_told_in_notifications_passes(case: tuple[str, list[str]], spelt: bool) -> None:
    secret, pieces = case
    shown, looking = streamed(pieces, spelt)
    # A word of a few letters that ends a text is no beginning of anything that is waited for.
    assert longest_left(secret, shown) <= 6
    assert looking.signals.findings
    assert looking.redacted >= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["plain words. ", "more ", "and the end", "one two three "]), min_size=2, max_size=9))
def test_pieces_without_a_secret_are_released_as_they_were_sent(pieces: list[str]) -> None:
    content = [{"type": "text", "text": piece} for piece in pieces]
    assert look(json.dumps({"result": {"content": content}}).encode()).stretches == ()
    shown, looking = streamed(pieces, spelt=False)
    assert (shown, looking.redacted) == ("".join(pieces), 0)


@pytest.mark.parametrize("name", ["text", "t\\u0065xt", "\\u0074\\u0065\\u0078\\u0074", "d\\u0065lta", "delta"])
def test_a_text_is_one_however_its_name_is_written(name: str) -> None:
    other = '{"texts":"no","note":"\\u0074ext\\":"}'
    data = f'{{"a":["x",{{"{name}" : "one"}},{other}],"{name}":"two","b":"three"}}'.encode()
    assert [data[start:end] for start, end in text_values(data)] == [b"one", b"two"]
