"""What inventory records come to: each enforcer speaks for its list, the service alone for people."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.bodies import Body
from ledger.bodies_inventory import InventoryEvent
from ledger.records import Record
from service.inventory_book import InventoryBook, Said
from service.inventory_usage import Counted, Use
from service.inventory_view import InventoryView, assemble
from tests.support.ledger import Enforcer

ONE, TWO, SERVICE = Enforcer("gateway-1"), Enforcer("gateway-2", seed=2), Enforcer("service", seed=3)
OLD, NEW = "01" * 32, "02" * 32


def event(action: str, server: str = "shop", **members: Any) -> InventoryEvent:
    return InventoryEvent(action=action, server=server, **members)  # type: ignore[arg-type]  # those of the type


def book_of(*said: tuple[Enforcer, Body]) -> InventoryBook:
    book = InventoryBook("service")
    for index, (enforcer, body) in enumerate(said):
        book.take(index, record(enforcer, body))
    return book


def record(enforcer: Enforcer, body: Body) -> Record:
    return enforcer.record(body)


def view_of(book: InventoryBook, uses: dict[tuple[str, str, str], Use] | None = None) -> InventoryView:
    counted = Counted(size=9, complete=True, calls=0, left_out=0, newest_ms=0, uses=uses or {})
    return assemble(book, counted, 5)


def used(leaf: int = 1) -> Use:
    return Use(calls=2, passed=1, first_leaf=leaf, last_leaf=leaf + 1, first_ms=10, last_ms=20, days={0: 1})


def test_a_server_is_registered_while_some_list_has_it() -> None:
    book = book_of((ONE, event("registered", owner="a")), (TWO, event("registered", owner="b", tags=("x",))))
    assert (book.owners("shop"), book.tags_of("shop")) == (("a", "b"), ("x",))
    book.take(2, record(TWO, event("removed")))
    assert (book.owners("shop"), view_of(book).servers[0].state) == (("a",), "registered")
    book.take(3, record(ONE, event("removed")))
    (line,) = view_of(book).servers
    assert (line.state, line.owners, line.removed_ms) == ("removed", (), book.removed_ms["shop"])
    book.take(4, record(ONE, event("registered")))
    assert view_of(book).servers[0].state == "registered"


def test_a_change_replaces_what_that_list_said_and_keeps_since_when() -> None:
    book = book_of((ONE, event("registered", owner="a", tags=("x",))), (ONE, event("changed", tags=("y",))))
    (line,) = view_of(book).servers
    assert (line.owners, line.tags, line.list_leaf) == ((), ("y",), 1)
    listed = book.servers["shop"]["gateway-1"]
    assert listed.since_ms < listed.changed_ms


def test_tools_of_a_list_go_with_their_server_and_no_other_lists_do() -> None:
    both = [(who, event("registered", tool="sell", tags=(f"of-{who.enforcer_id}",))) for who in (ONE, TWO)]
    book = book_of((ONE, event("registered")), (TWO, event("registered")), *both, (ONE, event("removed")))
    assert book.tags_of("shop", "sell") == ("of-gateway-2",)


def test_the_latest_definition_counts_and_how_many_there_were_is_known() -> None:
    first = event("suggested", tool="sell", tags=("write",), rules=("write:name",), definition=OLD)
    second = event("suggested", tool="sell", tags=("read",), rules=("read:name",), definition=NEW)
    book = book_of((ONE, first), (TWO, first), (ONE, second))
    found = book.suggestions["shop", "sell"]
    assert (found.tags, found.definition, found.definitions, found.leaf) == (("read",), NEW, 2, 2)
    assert found.first_ms < found.since_ms


def test_a_word_of_a_person_counts_from_the_service_alone_and_the_latest_does() -> None:
    book = book_of(
        (ONE, event("confirmed", tool="sell", tags=("write",))),
        (SERVICE, event("confirmed", tool="sell", tags=("write", "bulk"), actor="0a" * 16, definition=OLD)),
        (SERVICE, event("rejected", tool="sell", tags=("bulk",), actor="0b" * 16, definition=NEW)),
    )
    assert {tag: said.confirmed for tag, said in book.said_of("shop", "sell").items()} == {"write": True, "bulk": False}
    assert book.said_of("shop", "sell")["bulk"] == Said(
        confirmed=False, definition=NEW, actor="0b" * 16, time_ms=book.said_of("shop", "sell")["bulk"].time_ms, leaf=2
    )


@pytest.mark.parametrize(
    ("who", "body"),
    [
        (SERVICE, event("registered", owner="service")),
        (SERVICE, event("suggested", tool="sell", tags=("read",))),
        (SERVICE, event("removed")),
        (ONE, event("suggested", tags=("read",))),  # of no tool
        (ONE, InventoryEvent(action="registered")),  # of no server
        (ONE, InventoryEvent(action="pinned", view="inventory", digest=OLD)),
        (ONE, ONE.heartbeat()),
        (ONE, event("removed", "never-there")),
    ],
)
def test_what_says_nothing_that_counts_is_passed_over(who: Enforcer, body: Body) -> None:
    book = book_of((ONE, event("registered", owner="a")), (who, body))
    assert (book.owners("shop"), book.known_tools) == (("a",), set())


def test_what_was_used_and_is_on_no_list_is_there_and_says_so() -> None:
    view = view_of(book_of((ONE, event("registered"))), {("bot", "wiki", "read"): used()})
    assert [(line.name, line.state, line.tools) for line in view.servers] == [
        ("shop", "registered", 0),
        ("wiki", "unlisted", 1),
    ]
    (tool,) = view.tools
    assert (tool.state, tool.server_state, tool.agents, tool.use.refused) == ("unseen", "unlisted", ("bot",), 1)
    assert (view.totals.unlisted, view.totals.never_used) == (1, 0)


def test_tags_stand_where_list_rules_and_people_put_them() -> None:
    book = book_of(
        (ONE, event("registered", tags=("listed", "wrong"))),
        (ONE, event("suggested", tool="sell", tags=("maybe", "listed"), rules=("listed:name", "maybe:hint"))),
        (SERVICE, event("confirmed", tool="sell", tags=("wanted",), definition=OLD)),
        (SERVICE, event("rejected", tool="sell", tags=("wrong", "unwanted"))),
    )
    (tool,) = view_of(book).tools
    assert {term.tag: (term.state, term.rules) for term in tool.terms} == {
        "listed": ("in_force", ("name",)),
        "maybe": ("suggested", ("hint",)),
        "unwanted": ("rejected", ()),
        "wanted": ("confirmed", ()),
        "wrong": ("contested", ()),
    }
    assert [term.tag for term in tool.terms if term.outdated] == ["wanted"]
    assert (tool.to_confirm, tool.disputed) == (True, True)
