"""What a server calls itself: compared wherever it says it, and what can be read in two ways is another name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enforcement.config_upstream import PinSettings
from enforcement.server_names import is_another

PIN = PinSettings(server_name="finance")
KEY = "io.modelcontextprotocol/serverInfo"


def other(result: Any, method: str = "tools/call") -> bool:
    return is_another(PIN, method, result if isinstance(result, bytes) else json.dumps(result).encode())


@pytest.mark.parametrize(
    ("result", "method"),
    [
        ({}, "tools/call"),
        ({"_meta": None}, "tools/call"),
        ({"_meta": {}}, "tools/call"),
        ({"_meta": {KEY: {"name": "finance", "version": "2"}}}, "tools/call"),
        ({"serverInfo": {"name": "finance"}}, "initialize"),
        ({"serverInfo": {"name": "payroll"}}, "tools/call"),  # a tool's own word
    ],
)
def test_the_pinned_name_and_none_at_all_are_no_other_name(result: Any, method: str) -> None:
    assert not other(result, method)


@pytest.mark.parametrize(
    ("result", "method"),
    [
        ({"_meta": {KEY: {"name": "payroll"}}}, "tools/call"),
        ({"_meta": {KEY: {"name": "Finance"}}}, "tools/call"),
        ({"_meta": {KEY: {"name": ["finance"]}}}, "tools/call"),
        ({"_meta": {KEY: {}}}, "tools/call"),
        ({"_meta": {KEY: "finance"}}, "tools/call"),
        ({"_meta": {KEY: {"name": "finance", "icons": ["x" * 20_000]}}}, "tools/call"),
        ({"serverInfo": {"name": "payroll"}}, "initialize"),
        ({"serverInfo": {"name": "finance"}, "_meta": {KEY: {"name": "payroll"}}}, "initialize"),
        (b'{"_meta":{"%b":{"name":"payroll","name":"finance"}}}' % KEY.encode(), "tools/call"),
        (b'{"_meta":{},"_meta":{"%b":{"name":"payroll"}}}' % KEY.encode(), "tools/call"),
    ],
)
def test_another_name_is_another_server(result: Any, method: str) -> None:
    assert other(result, method)


def test_without_a_pinned_name_every_name_will_do() -> None:
    assert not is_another(PinSettings(sans=("DNS:x",)), "tools/call", b'{"_meta":{"%b":{"name":"x"}}}' % KEY.encode())
