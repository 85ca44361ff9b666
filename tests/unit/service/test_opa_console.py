"""The lines of an OPA's console, as the events that it uploads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger.errors import MalformedError
from service.opa_console import console_events
from service.opa_events import parse_event

EVENT: dict[str, Any] = {
    "labels": {"id": "opa-1", "version": "1.22.2"},
    "decision_id": "d-1",
    "path": "tallystick/allow",
    "input": {"x": 9007199254740993},
    "result": True,
}
LOGGER = {"level": "info", "msg": "Decision Log", "time": "2026-11-21T18:53:46Z"}
KIND = "openpolicyagent.org/decision_logs"


def line(**changes: Any) -> bytes:
    return (
        json.dumps({**EVENT, **LOGGER, "type": KIND, **changes}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    )


def test_a_line_is_the_event_that_is_uploaded():
    (event,) = console_events([line()])
    assert parse_event(event).sha256 == parse_event(json.dumps(EVENT).encode()).sha256


def test_numbers_stay_as_they_were_written():
    (event,) = console_events([line().replace(b"9007199254740993", b"1.10")])
    assert b'"x":1.10' in event


def test_other_messages_of_an_opa_are_passed_over():
    others = [
        b"",
        b"plain words",
        b'{"level":"error","msg":"x"}',
        line(type="another"),
        b'{"msg":"' + KIND.encode() + b'"}',
    ]
    assert list(console_events([*others, line(), *others])) == list(console_events([line()]))


def test_a_line_in_the_middle_of_which_the_opa_was_killed_is_no_decision_that_was_answered():
    assert list(console_events([line(), line()[:-1]])) == list(console_events([line()]))
    assert list(console_events([line(), line()[:90]])) == list(console_events([line()]))


@pytest.mark.parametrize("broken", [line()[:-2] + b"\n", line()[20:], b"\xff" + line()])
def test_a_line_that_is_not_whole_is_named_by_its_number(broken):
    with pytest.raises(MalformedError, match="line 2 "):
        list(console_events([line(), broken]))
