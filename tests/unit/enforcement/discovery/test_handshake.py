"""Which answers only an MCP server gives: positive ones of both eras, and near misses of everything else."""

from __future__ import annotations

import json

import pytest

from enforcement.discovery.handshake import (
    Handshake,
    discover_request,
    events_of,
    initialize_request,
    judge,
    message_of,
    metadata_place,
    names_resource,
)

ID = "0123456789abcdef"
INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "finance", "version": "3"},
}
DISCOVERED = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"}


def answer(result: object, **members: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": ID, "result": result, **members}


def refusal(code: object, data: object, **members: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": ID, "error": {"code": code, "message": "no", "data": data}, **members}


def test_a_stateful_server_is_known_by_its_answer():
    wanted = Handshake(era="stateful", revisions=("2025-11-25",), name="finance", version="3")
    assert judge(answer(INITIALIZED), ID, "stateful") == wanted


def test_a_stateless_server_is_known_by_its_answer():
    meta = {"io.modelcontextprotocol/serverInfo": {"name": "finance", "version": "3"}}
    wanted = Handshake(era="stateless", revisions=("2026-07-28",), name="finance", version="3")
    assert judge(answer({**DISCOVERED, "_meta": meta}), ID, "stateless") == wanted
    assert judge(answer(DISCOVERED), ID, "stateless") == Handshake(
        era="stateless", revisions=("2026-07-28",), name="", version=""
    )


@pytest.mark.parametrize("era", ["stateful", "stateless"])
def test_a_refusal_that_names_revisions_is_one_of_mcp(era):
    found = judge(refusal(-32022, {"supported": ["2024-11-05", "2025-03-26"]}), ID, era)
    assert found is not None
    assert found.revisions == ("2024-11-05", "2025-03-26")


@pytest.mark.parametrize(
    "message",
    [
        None,
        {},
        answer(None),
        answer([]),
        answer({}),
        answer({**INITIALIZED, "protocolVersion": 3}),
        answer({**INITIALIZED, "protocolVersion": "1.0"}),
        answer({**INITIALIZED, "protocolVersion": ["2025-11-25"]}),
        answer({**INITIALIZED, "capabilities": []}),
        answer({**INITIALIZED, "serverInfo": "finance"}),
        answer({**INITIALIZED, "serverInfo": {"version": "3"}}),
        answer({name: value for name, value in INITIALIZED.items() if name != "protocolVersion"}),  # LSP
        answer({name: value for name, value in INITIALIZED.items() if name != "serverInfo"}),
        answer(json.loads(initialize_request(ID))["params"]),  # an echo of what was asked
        json.loads(initialize_request(ID)),
        {**answer(INITIALIZED), "id": 1},
        {**answer(INITIALIZED), "id": None},
        {**answer(INITIALIZED), "id": ID.upper()},
        {**answer(INITIALIZED), "jsonrpc": "1.0"},
        {**answer(INITIALIZED), "method": "initialize"},
        {**answer(INITIALIZED), "error": {"code": 1, "message": ""}},
        refusal(-32601, None),
        refusal(-32601, {"supported": []}),
        refusal(-32601, {"supported": ["eth_call"]}),
        refusal(-32601, {"supported": "2025-11-25"}),
        refusal(True, {"supported": ["2025-11-25"]}),
        refusal("x", {"supported": ["2025-11-25"]}),
        refusal(-32022, {"supported": ["2025-11-25"]}, result={}),
        refusal(-32022, {"supported": ["2025-11-25"] * 33}),
    ],
)
def test_near_misses_of_a_stateful_answer_are_none(message):
    assert judge(message, ID, "stateful") is None


@pytest.mark.parametrize(
    "result",
    [
        {},
        {**DISCOVERED, "supportedVersions": []},
        {**DISCOVERED, "supportedVersions": "2026-07-28"},
        {**DISCOVERED, "supportedVersions": ["1", "2"]},
        {**DISCOVERED, "supportedVersions": ["2026-07-28", 3]},
        {**DISCOVERED, "capabilities": None},
        {"supportedVersions": ["2026-07-28"]},
        INITIALIZED,
        json.loads(discover_request(ID))["params"],
    ],
)
def test_near_misses_of_a_stateless_answer_are_none(result):
    assert judge(answer(result), ID, "stateless") is None


def test_a_strangers_name_is_one_short_printable_line():
    info = {"name": "a\x1b[2J\u202eb\n" + "x" * 1000, "version": 7}
    found = judge(answer({**INITIALIZED, "serverInfo": info}), ID, "stateful")
    assert found is not None
    assert found.name.isprintable()
    assert len(found.name) == 128
    assert found.version == ""


def test_what_is_asked_is_what_our_own_gateway_takes_for_the_handshakes():
    for request, method in ((initialize_request(ID), "initialize"), (discover_request(ID), "server/discover")):
        assert json.loads(request)["method"] == method
        assert b"2026-07-28" in discover_request(ID)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", "[" * 100_000, '{"a":1}x', "NaN"])
def test_what_is_no_json_object_is_none(text):
    assert message_of(text) is None


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        ("event: endpoint\ndata: /messages\n\n", [("endpoint", "/messages")]),
        ("data: a\ndata: b\r\n\r\n: ping\n\ndata:c\r\rdata: unfinished", [("message", "a\nb"), ("message", "c")]),
        ("\ufeffdata: a\n\n", [("message", "a")]),
        ("event: x\n\n", []),
        ("", []),
    ],
)
def test_events_are_read_as_far_as_they_ended(stream, wanted):
    assert list(events_of(stream)) == wanted


@pytest.mark.parametrize(
    ("challenges", "wanted"),
    [
        (['Bearer resource_metadata="https://a/b"'], "https://a/b"),
        (["Basic realm=x", 'bearer error="invalid_token", resource_metadata="/p", scope="a"'], "/p"),
        (["Bearer resource_metadata=/p, scope=a"], "/p"),
        (["Bearer"], None),
        (['Basic resource_metadata="/p"'], None),
        (["Bearer resource_metadata="], None),
        ([], None),
    ],
)
def test_where_metadata_is_stands_in_a_bearer_challenge(challenges, wanted):
    assert metadata_place(challenges) == wanted


METADATA = {"resource": "https://public.example/mcp", "authorization_servers": ["https://login.example"]}


def test_metadata_counts_for_exactly_the_path_that_was_asked():
    assert names_resource(METADATA, "/mcp")
    assert names_resource({**METADATA, "resource": "https://public.example/mcp/"}, "/mcp")
    assert names_resource({**METADATA, "resource": "https://public.example"}, "/")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {**METADATA, "resource": "https://public.example"},
        {**METADATA, "resource": "https://public.example/mcp2"},
        {**METADATA, "resource": "https://public.example/files/mcp"},
        {**METADATA, "resource": "ftp://public.example/mcp"},
        {**METADATA, "resource": "/mcp"},
        {**METADATA, "resource": "https://[/mcp"},
        {**METADATA, "resource": 3},
        {**METADATA, "authorization_servers": []},
        {**METADATA, "authorization_servers": "https://login.example"},
        {"resource": METADATA["resource"]},
    ],
)
def test_metadata_of_something_else_counts_for_nothing(metadata):
    assert not names_resource(metadata, "/mcp")
