"""Lists are read and shortened without touching what stays in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enforcement.json_slices import array_items
from enforcement.list_answers import LISTS, MAX_ENTRIES, MAX_TTL_MS, read_list, without
from ledger.errors import MalformedError

TOOLS = LISTS["tools/list"]


def answer_of(result: str) -> bytes:
    return f'{{"jsonrpc":"2.0","id":7,"result":{result}}}'.encode()


def names_in(body: bytes) -> list[Any]:
    return [tool["name"] for tool in json.loads(body)["result"]["tools"]]


def test_what_stays_in_a_list_stays_byte_for_byte_and_in_order() -> None:
    kept = '{ "name":"b" , "price":1.50, "x":"\\u00e4\\ud800", "x-y":[1 ,2] }'
    body = answer_of(f'{{"tools" : [ {{"name":"a"}},{kept} ,{{"name":"c"}}], "nextCursor":"\\u0041", "other":1e2}}')
    rest = without(read_list(TOOLS, body), {0})
    assert kept.encode() in rest
    assert names_in(rest) == ["b", "c"]
    assert b'"nextCursor":"\\u0041"' in rest
    assert b'"other":1e2' in rest
    assert json.loads(rest)["id"] == 7


def test_an_entry_without_a_name_that_could_be_called_has_none() -> None:
    entries = [
        "{}",
        '{"name":7}',
        '{"name":""}',
        "3",
        '{"name":"a","name":"b"}',
        '{"name":"a","Name":"b"}',
        '{"NAME":"a"}',
    ]
    entries += ['{"name":"\\ud800"}', f'{{"name":"{"x" * 3000}"}}', "null"]
    listed = read_list(TOOLS, answer_of(f'{{"tools":[{",".join(entries)}]}}'))
    assert [entry.name for entry in listed.entries] == [None] * len(entries)


@pytest.mark.parametrize(
    "result",
    [
        "[]",
        '{"tools":{}}',
        '{"tools":null}',
        '{"tools":"x"}',
        '{"tools":[],"tools":[]}',
        '{"tools":[],"Tools":[{"name":"hidden"}]}',
        '{"TOOLS":[{"name":"hidden"}]}',
        '{"tools":[],"cachescope":"public"}',
    ],
)
def test_a_result_in_which_two_readers_could_find_two_lists_is_refused(result: str) -> None:
    with pytest.raises(MalformedError):
        read_list(TOOLS, answer_of(result))


def test_a_list_of_too_many_entries_is_refused() -> None:
    read_list(TOOLS, answer_of(f'{{"tools":[{",".join(["1"] * MAX_ENTRIES)}]}}'))
    with pytest.raises(MalformedError):
        read_list(TOOLS, answer_of(f'{{"tools":[{",".join(["1"] * (MAX_ENTRIES + 1))}]}}'))


def test_a_result_without_a_list_lists_nothing() -> None:
    listed = read_list(TOOLS, answer_of('{"resultType":"complete"}'))
    assert listed.entries == ()
    assert json.loads(without(listed, set()))["result"] == {"resultType": "complete"}


@pytest.mark.parametrize(
    ("said", "kept"),
    [("0", 0), ("60000", 60_000), ("60001", MAX_TTL_MS), ("1e9", MAX_TTL_MS), ('"x"', "x")],
)
def test_a_list_made_for_one_caller_is_his_alone_and_not_for_long(said: str, kept: object) -> None:
    listed = read_list(TOOLS, answer_of(f'{{"tools":[],"cacheScope":"public","ttlMs":{said}}}'))
    result = json.loads(without(listed, set()))["result"]
    assert (result["cacheScope"], result["ttlMs"]) == ("private", kept)


def test_a_list_without_hints_gets_none() -> None:
    assert json.loads(without(read_list(TOOLS, answer_of('{"tools":[]}')), set()))["result"] == {"tools": []}


@pytest.mark.parametrize("text", ["", "{}", "[", "[1,]", "[1 2]", "1", "[1]x"])
def test_what_is_no_array_has_no_items(text: str) -> None:
    with pytest.raises(MalformedError):
        array_items(text)


def test_items_are_slices_of_the_text_whatever_stands_in_it() -> None:
    items = ['"a,]\\""', "[1, [2]]", '{"a":",", "b":[]}', "-0.0", '"\\udfff"', "null", '"ä€😀"']
    assert array_items(f" [ {' , '.join(items)} ] ") == items
    assert array_items("[ ]") == []
