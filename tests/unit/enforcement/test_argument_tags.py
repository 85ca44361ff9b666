"""Tags of arguments: those of a call that has them, as JSON pointers say; refused where they are written, if at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enforcement.argument_tags import MAX_LISTED_SETS, argument_tags, possible_tags, tagged_arguments
from enforcement.config import ServerSettings
from enforcement.config_files import parse_servers
from enforcement.pointers import MAX_POINTER_CHARS, MAX_POINTER_DEPTH, is_present, parse_pointer
from enforcement.strictness import handling_of
from ledger.canonical import parse_json
from ledger.errors import ConfigError, MalformedError
from tests.unit.enforcement.test_strictness import CALL

# Source: RFC 6901 section 5.
RFC = b'{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\\\j":5,"k\\"l":6," ":7,"m~n":8}'


def server(*arguments: dict[str, Any], **members: Any) -> ServerSettings:
    tool = {"name": "pay", "arguments": list(arguments)}
    return ServerSettings.model_validate(
        {"name": "finance", "url": "http://127.0.0.1:1/mcp", "tools": [tool]} | members
    )


def argument(pointer: str, *tags: str) -> dict[str, Any]:
    return {"pointer": pointer, "tags": list(tags)}


@pytest.mark.parametrize(
    "pointer", ["", "/foo", "/foo/0", "/", "/a~1b", "/c%d", "/e^f", "/g|h", "/i\\j", '/k"l', "/ ", "/m~0n"]
)
def test_each_pointer_of_the_specification_leads_to_something(pointer: str) -> None:
    assert is_present(parse_json(RFC), parse_pointer(pointer))


@pytest.mark.parametrize("pointer", ["/bar", "/foo/2", "/foo/-", "/foo/00", "/foo/bar", "/Foo", "/foo/0/x", "/a", "//"])
def test_a_pointer_to_nothing_finds_nothing(pointer: str) -> None:
    assert not is_present(parse_json(RFC), parse_pointer(pointer))


@pytest.mark.parametrize(
    "pointer",
    ["foo", "#/foo", "/~", "/~2", "/a~", "foo/bar", "/" * (MAX_POINTER_DEPTH + 1), "/" + "x" * MAX_POINTER_CHARS],
)
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(MalformedError):
        parse_pointer(pointer)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([argument("note", "pii")], "servers[0].tools[0].arguments[0].pointer: is not a JSON pointer"),
        ([argument("/a"), argument("/~2")], "servers[0].tools[0].arguments[1].pointer: is not a JSON pointer"),
        ([argument("/a", "two words")], "servers[0].tools[0].arguments[0].tags[0]: is not a name"),
        ([{"tags": ["pii"]}], "servers[0].tools[0].arguments[0].pointer: Field required"),
        ([argument("/a"), argument("/a", "pii")], "servers[0].tools[0]: an argument is listed twice"),
        ([{"pointer": "/a", "secret": True}], "servers[0].tools[0].arguments[0].secret: Extra inputs"),
        ([argument(f"/{n}") for n in range(65)], "servers[0].tools[0].arguments: "),
        (
            [argument(f"/{n}", *(f"t{n}-{m}" for m in range(30))) for n in range(3)],
            "servers[0]: a call may have 64 tags",
        ),
    ],
)
def test_a_list_with_an_unsound_argument_is_refused_with_its_place(arguments: list[Any], line: str) -> None:
    listed = {"servers": [{"name": "finance", "tools": [{"name": "pay", "arguments": arguments}]}]}
    with pytest.raises(ConfigError) as caught:
        parse_servers(json.dumps(listed))
    (told,) = str(caught.value).splitlines()
    assert told.startswith(line)


LISTED = server(argument("/iban", "pii", "bank"), argument("/to/name", "pii", "person"), argument("/note"))


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("{}", ()),
        (None, ()),
        ('{"amount":1,"note":"x"}', ()),
        ('{"iban":"DE"}', ("bank", "pii")),
        ('{"iban":null}', ("bank", "pii")),
        ('{"to":{"name":"A"}}', ("person", "pii")),
        ('{"to":{},"iban":1,"IBAN":2}', ("bank", "pii")),
        ('{"Iban":"DE","to":"name"}', ()),
        ('{"iban":1,"iban":2}', ("bank", "person", "pii")),
        ("no JSON", ("bank", "person", "pii")),
    ],
)
def test_a_call_has_the_tags_of_the_arguments_that_are_in_it(text: str | None, tags: tuple[str, ...]) -> None:
    assert argument_tags(tagged_arguments(LISTED, "pay"), text) == tags


@pytest.mark.parametrize("name", [None, "other", "Pay"])
def test_what_is_not_that_tool_has_none(name: str | None) -> None:
    assert tagged_arguments(LISTED, name) == ()


def test_a_list_asks_about_each_set_of_tags_that_a_call_may_have() -> None:
    together = {frozenset(), frozenset({"pii", "bank"}), frozenset({"pii", "person"})}
    together |= {frozenset({"pii", "bank", "person"})}
    assert possible_tags(tagged_arguments(LISTED, "pay")) == together
    many = server(*(argument(f"/{number}", f"tag-{number}") for number in range(MAX_LISTED_SETS)))
    assert possible_tags(tagged_arguments(many, "pay")) is None


def test_an_argument_makes_recording_strict_and_never_available() -> None:
    reading = server(tags=["read"])
    assert handling_of(reading, CALL, ("read", "pii")) == ("enforce", False)
    assert handling_of(reading, CALL, ("external", "read")) == ("enforce", True)
    assert handling_of(server(), CALL, ("read",)) == ("enforce", True)
