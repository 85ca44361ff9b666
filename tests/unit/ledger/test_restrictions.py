"""A set of restrictions: what it covers, how it is written, and that it never stops less than was asked for."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ledger.errors import MalformedError
from ledger.restrictions import (
    MAX_DOCUMENT_BYTES,
    MAX_LIFTED,
    MAX_RESTRICTIONS,
    NO_VERSION,
    Restriction,
    RestrictionSet,
    bounded,
    parse_restrictions,
)

KEY, OTHER_KEY = "1" * 16, "2" * 16
USER, OTHER_USER, SESSION, OTHER_SESSION = "a" * 32, "b" * 32, "c" * 32, "d" * 32
CALL: dict[str, Any] = {
    "agent": "bot",
    "server": "bank",
    "tool": "pay",
    "user": lambda: USER,
    "session": lambda: SESSION,
    "key_id": KEY,
}


def ident(number: int) -> str:
    return f"01990000-0000-7000-8000-{number:012x}"


def restriction(scope: str, number: int = 1, **members: Any) -> Restriction:
    kind = "kill" if scope == "principal" else "containment"
    return Restriction(restriction_id=ident(number), kind=kind, scope=scope, since_ms=1, **members)


def covers(one: Restriction, **changes: Any) -> bool:
    return list(RestrictionSet([one]).covering(**{**CALL, **changes})) == [one]


@pytest.mark.parametrize(
    ("members", "changes", "covered"),
    [
        ({"scope": "all"}, {}, True),
        ({"scope": "all"}, {"server": None, "tool": None}, True),
        ({"scope": "agent", "agent": "bot"}, {}, True),
        ({"scope": "agent", "agent": "bot"}, {"server": None, "tool": None}, True),
        ({"scope": "agent", "agent": "Bot"}, {}, False),
        ({"scope": "server", "server": "bank"}, {}, True),
        ({"scope": "server", "server": "bank"}, {"tool": None}, True),
        ({"scope": "server", "server": "bank"}, {"server": None, "tool": None}, False),
        ({"scope": "server", "server": "shop"}, {}, False),
        ({"scope": "tool", "server": "bank", "tool": "pay"}, {}, True),
        ({"scope": "tool", "server": "bank", "tool": "pay"}, {"tool": None}, False),
        ({"scope": "tool", "server": "bank", "tool": "list"}, {}, False),
        ({"scope": "tool", "server": "shop", "tool": "pay"}, {}, False),
        ({"scope": "session", "session": SESSION, "key_id": KEY}, {}, True),
        ({"scope": "session", "session": OTHER_SESSION, "key_id": KEY}, {}, False),
        ({"scope": "principal", "agent": "bot", "user": USER, "key_id": KEY}, {}, True),
        ({"scope": "principal", "agent": "bot", "user": OTHER_USER, "key_id": KEY}, {}, False),
        ({"scope": "principal", "agent": "other", "user": USER, "key_id": KEY}, {}, False),
        ({"scope": "principal", "agent": "bot"}, {}, False),
        ({"scope": "principal", "agent": "bot"}, {"user": lambda: None}, True),
        ({"scope": "principal", "agent": "bot", "user": USER, "key_id": KEY}, {"user": lambda: None}, False),
    ],
)
def test_a_restriction_covers_what_it_names_and_nothing_else(members, changes, covered):
    assert covers(restriction(**members), **changes) is covered


@pytest.mark.parametrize(
    ("members", "changes", "covered"),
    [
        ({"scope": "principal", "agent": "bot", "user": OTHER_USER}, {}, True),
        ({"scope": "principal", "agent": "bot", "user": OTHER_USER}, {"user": lambda: None}, False),
        ({"scope": "principal", "agent": "other", "user": OTHER_USER}, {}, False),
        ({"scope": "session", "agent": "bot", "session": OTHER_SESSION}, {}, True),
        ({"scope": "session", "agent": "other", "session": OTHER_SESSION}, {}, False),
        ({"scope": "session", "session": OTHER_SESSION}, {}, True),
    ],
)
def test_what_another_pseudonym_key_named_stops_the_agent_for_nobody_can_tell_who_was_meant(members, changes, covered):
    assert covers(restriction(**members, key_id=OTHER_KEY), **changes) is covered


def test_what_stops_one_tool_is_found_and_nothing_wider():
    one, wide = restriction("tool", server="bank", tool="pay"), restriction("server", 2, server="bank")
    found = RestrictionSet([one, wide, restriction("all", 3)])
    assert list(found.of_tool("bank", "pay")) == [one]
    assert list(found.of_tool("bank", "list")) == list(found.of_tool("shop", "pay")) == []


def test_an_empty_set_is_false_and_asks_for_no_pseudonym():
    empty = RestrictionSet()
    assert (bool(empty), empty.version) == (False, NO_VERSION)
    servers = RestrictionSet([restriction("server", server="shop")])
    assert list(servers.covering(**{**CALL, "user": pytest.fail, "session": pytest.fail})) == []


def test_a_document_is_read_back_as_it_was_written():
    one = RestrictionSet(
        [restriction("tool", server="bank", tool="pay", until_ms=9), restriction("principal", 2, agent="bot")],
        version=4711,
        lifted=[ident(3)],
    )
    read = parse_restrictions(one.document)
    assert (read.restrictions, read.version, read.lifted) == (one.restrictions, one.version, one.lifted)
    assert read.digest == one.digest != RestrictionSet(one.restrictions, version=4712, lifted=one.lifted).digest


DOCUMENT = {
    "format": "tallystick.restrictions/1",
    "version": 7,
    "restrictions": [{"id": ident(1), "kind": "containment", "scope": "agent", "agent": "bot", "since_ms": 1}],
    "lifted": [],
}


def changed(**members: Any) -> dict[str, Any]:
    return {**DOCUMENT, **members}


def with_member(**members: Any) -> dict[str, Any]:
    (only,) = DOCUMENT["restrictions"]
    return changed(restrictions=[{**only, **members}])


def test_the_document_that_the_next_cases_break_is_sound():
    data = json.dumps(DOCUMENT, separators=(",", ":"), sort_keys=True).encode()
    assert parse_restrictions(data).version == 7


@pytest.mark.parametrize(
    "value",
    [
        [],
        changed(format="tallystick.restrictions/2"),
        changed(version=-2),
        changed(version=1.5),
        changed(version="7"),
        changed(more=1),
        {name: value for name, value in DOCUMENT.items() if name != "lifted"},
        changed(lifted=["no-id"]),
        changed(lifted=[ident(1)] * (MAX_LIFTED + 1)),
        changed(restrictions=DOCUMENT["restrictions"] * (MAX_RESTRICTIONS + 1)),
        with_member(scope="planet"),
        with_member(kind="permit"),
        with_member(agent=None),
        with_member(agent="a b"),
        with_member(user="alice"),
        with_member(unless="monday"),
        with_member(scope="session"),
        with_member(scope="tool", server="bank"),
        with_member(scope="server"),
        with_member(id="x"),
    ],
)
def test_a_document_that_is_not_understood_is_refused_as_a_whole(value):
    with pytest.raises(MalformedError):
        parse_restrictions(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        json.dumps(DOCUMENT).encode(),
        json.dumps(DOCUMENT, separators=(",", ":"), sort_keys=True).replace("7", "7 ").encode(),
        b'{"format":"tallystick.restrictions/1","format":"x","lifted":[],"restrictions":[],"version":7}',
        b" " * (MAX_DOCUMENT_BYTES + 1),
    ],
    ids=["nothing", "broken", "spaced", "padded", "twice", "long"],
)
def test_a_document_that_is_spelt_in_another_way_is_refused(data):
    with pytest.raises(MalformedError):
        parse_restrictions(data)


def test_a_full_set_fits_into_a_document():
    name = "n" * 128
    widest = [
        restriction(
            "session", number, agent=name, session=SESSION, server=name, tool=name, key_id=KEY, until_ms=2**53 - 1
        )
        for number in range(MAX_RESTRICTIONS)
    ]
    whole = RestrictionSet(widest, version=2**53 - 1, lifted=[ident(number) for number in range(MAX_LIFTED)])
    assert len(whole.document) <= MAX_DOCUMENT_BYTES
    assert len(parse_restrictions(whole.document).restrictions) == MAX_RESTRICTIONS


# --- bounds ----------------------------------------------------------------------------------------------------------


def kills(agent: str, count: int, start: int) -> list[Restriction]:
    return [
        restriction("principal", start + number, agent=agent, user=f"{number:032x}", key_id=KEY)
        for number in range(count)
    ]


def test_few_restrictions_stay_as_they_are():
    few = [restriction("all"), *kills("bot", 3, 10)]
    assert bounded(few) == tuple(few)


def test_too_many_kills_of_one_agent_stop_the_agent_and_leave_others_alone():
    others = kills("other", 10, 0)
    found = bounded([*others, *kills("bot", MAX_RESTRICTIONS, 1000)])
    assert found == (*others, restriction("agent", 1000, agent="bot").__class__(
        restriction_id=ident(1000), kind="kill", scope="agent", agent="bot", since_ms=1
    ))  # fmt: skip


def test_too_many_kills_of_different_agents_stop_everything():
    found = bounded(
        msgspec.structs.replace(one, agent=f"bot-{number}")
        for number, one in enumerate(kills("bot", MAX_RESTRICTIONS + 1, 0))
    )
    assert [one.scope for one in found] == ["all"]
