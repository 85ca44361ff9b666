"""Admission: what a gateway remembers of servers' tools is what they listed last, and no more than it can hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcement.admission import Admission
from enforcement.answers import MAX_TOOLS
from enforcement.facts import Pseudonyms
from enforcement.mcp import Kind, Message
from enforcement.server_list import Servers
from enforcement.sessions import Sessions
from enforcement.state import StateDatabase
from enforcement.verdicts import Permitted
from ledger.clock import SimulatedClock
from tests.support.gateway import config_of
from tests.support.gateway_keys import NOON_MS, PSEUDONYM_KEY


@pytest.fixture(name="admission")
def _admission(tmp_path: Path) -> Iterator[Admission]:
    config = config_of(tmp_path / "state", "http://127.0.0.1:1", "http://127.0.0.1:1/mcp")
    state = StateDatabase(tmp_path / "state")
    yield Admission(
        config, Servers(config.servers), Sessions(state, Pseudonyms(PSEUDONYM_KEY), idle_ms=1), SimulatedClock(NOON_MS)
    )
    state.close()


def listing(admission: Admission, *, continues: bool = False) -> Permitted:
    message = Message(
        kind=Kind.REQUEST,
        request_id=1,
        method="tools/list",
        name=None,
        arguments=None,
        protocol_version="2026-07-28",
        continues=continues,
    )
    server = admission._servers.get("finance")
    assert server is not None
    return Permitted(decision_id="d", message=message, server=server, session="s", user=None, strict=False)


def test_a_list_replaces_the_one_before(admission: Admission) -> None:
    admission.learn_tools(listing(admission), {"a": "1", "b": "1"})
    admission.learn_tools(listing(admission), {"b": "2"})
    assert admission._digests["finance"] == {"b": "2"}


def test_further_pages_belong_to_the_first(admission: Admission) -> None:
    admission.learn_tools(listing(admission), {"a": "1", "b": "1"})
    admission.learn_tools(listing(admission, continues=True), {"b": "2", "c": "2"})
    assert admission._digests["finance"] == {"a": "1", "b": "2", "c": "2"}


def test_a_server_that_lists_ever_new_tools_does_not_fill_the_memory(admission: Admission) -> None:
    for page in range(10):
        digests = {f"{page}-{number}": "1" for number in range(MAX_TOOLS // 2)}
        admission.learn_tools(listing(admission, continues=page > 0), digests)
    assert len(admission._digests["finance"]) == MAX_TOOLS
    admission.learn_tools(listing(admission), {"a": "1"})
    assert admission._digests["finance"] == {"a": "1"}
