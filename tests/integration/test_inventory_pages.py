"""The pages of the inventory and of an agent, over real HTTP: what they show, lead to, record, and do not obey."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ledger.bodies_inventory import InventoryEvent
from service.auth import Role
from tests.integration.test_inventory import ALLOWED, FACTS, fill, listed, suggested, tell
from tests.support.discoveries import a_scan, sighting
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service

CSRF = re.compile(r'name="csrf" value="([^"]+)"')
LONGEST = "x" * 128
ODD = "javascript:alert/1@host+a"


@pytest.fixture(autouse=True)
def _databases_are_closed() -> None:
    """Leave the database alone that the running service has open from one test to the next; it closes it itself."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("pages")) as running:
        fill(running)
        gateway = running.enforcer("gateway-9", seed=39)
        tell(gateway, listed(LONGEST, owner=LONGEST, tags=(LONGEST,)), suggested(LONGEST, LONGEST, tags=(LONGEST,)))
        gateway.decide(agent=ODD, server=ODD, tool=ODD, **ALLOWED)
        yield running


@pytest.fixture
def reader(service: RunningService) -> Iterator[httpx.Client]:
    with service.browser_client() as client:
        found = CSRF.search(client.get("/login").text)
        assert found is not None
        client.post("/login", data={"csrf": found[1], "token": service.token(Role.AUDITOR)})
        yield client


def page(client: httpx.Client, path: str, **params: Any) -> str:
    answer = client.get(path, params=params or None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    return answer.text


def rows(text: str) -> list[str]:
    """Return the rows of the first table, as text; of the inventory that of servers or tools, if it has one."""
    before, _, _ = text.partition('id="unregistered-title"')
    (body,) = re.findall(r"<tbody>(.*?)</tbody>", before, flags=re.DOTALL)[:1] or [""]
    found = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", row)).split()) for row in found]


def test_the_unowned_stand_first_and_are_marked_by_a_word(reader: httpx.Client) -> None:
    first, *_, last = rows(page(reader, "/inventory"))
    assert first.startswith("crm registered Unowned")
    assert "Unowned" not in last


def test_unregistered_servers_stand_on_the_page_until_a_person_dismisses_them_and_where_they_are_does_not(
    reader: httpx.Client, service: RunningService
) -> None:
    assert "No scan was handed in" in page(reader, "/inventory")
    with service.client(Role.RESPONDER) as responder:
        claimed = sighting("https://10.0.0.8/mcp", standing="registered", server="made-up")
        done = responder.post("/v1/discoveries", json=a_scan(sighting(), claimed)).json()
        text = page(reader, "/inventory")
        (discovery_id,) = done["unregistered"]
        assert f"<code>{discovery_id}</code>" in text
        assert "Unregistered</span>: in no list" in text
        assert "in the scanner&#39;s list, in no gateway&#39;s" in text
        assert "17 ports" in text
        assert "10.0.0" not in text
        assert "Finance of Carol" not in text
        said = {"comment": "looked at it with the team"}
        responder.post(f"/v1/discoveries/{discovery_id}/dismiss", json=said).raise_for_status()
    assert discovery_id not in page(reader, "/inventory")


def test_tools_show_what_is_to_be_settled(reader: httpx.Client) -> None:
    text = page(reader, "/inventory", show="tools", server="shop")
    (refund,) = [row for row in rows(text) if "refund" in row]
    assert "payment: suggested by name" in refund
    assert "the server's readOnlyHint is gainsaid by its own definition" in refund
    (export,) = [row for row in rows(text) if "export_all" in row]
    assert "never" in export


@pytest.mark.parametrize(
    ("params", "tools"),
    [
        ({"unused": "1", "server": "shop"}, ["export_all"]),
        ({"disputed": "1"}, ["refund"]),
        ({"server": "crm"}, ["drop_everything"]),
        ({"server": "nowhere"}, []),
    ],
)
def test_filters_restrict_without_a_script(reader: httpx.Client, params: dict[str, str], tools: list[str]) -> None:
    found = rows(page(reader, "/inventory", show="tools", **params))
    assert len(found) == len(tools)
    assert all(tool in row for tool, row in zip(tools, found, strict=True))


@pytest.mark.parametrize(("sort", "first"), [("calls", "shop"), ("refused", "crm"), ("name", "crm"), ("none", "crm")])
def test_lines_are_sorted_as_is_said(reader: httpx.Client, sort: str, first: str) -> None:
    assert rows(page(reader, "/inventory", sort=sort))[0].startswith(first)


def test_every_figure_leads_to_the_decisions_that_it_counts(reader: httpx.Client) -> None:
    text = page(reader, "/inventory", show="tools", server="shop")
    links = {unescape(link) for link in re.findall(r'href="(/\?[^"]+)"', text)}
    assert "/?server=shop&tool=search" in links
    listing = page(reader, "/?server=shop&tool=search")
    assert listing.count('data-label="Agent"') == 3  # as the inventory says


def test_what_figures_were_counted_from_is_said(reader: httpx.Client, service: RunningService) -> None:
    text = " ".join(page(reader, "/inventory").split())
    assert re.search(r"Counted from 7 calls of tools among leaves 0 to \d+\.", text)
    size = service.services.sequenced_size()
    assert int(re.search(r"leaves 0 to ([\d,]+)", text)[1].replace(",", "")) <= size  # type: ignore[index]  # it is there


def test_an_agents_page_sets_reach_against_use(reader: httpx.Client) -> None:
    text = page(reader, "/agents/shop-bot")
    lines = rows(text)
    assert lines[0].startswith("1. shop / export_all")
    assert "Allowed in 1 of 3" in lines[0] or "Allowed in 2 of 3" in lines[0]
    assert "Unused" in lines[0]
    (refund,) = [line for line in lines if "refund" in line]
    assert "With approval in 3 of 3 pays" in refund
    assert "by-day" in text
    drawing = re.search(r"<svg class=\"heat\".*?</svg>", text, flags=re.DOTALL)
    assert drawing is not None
    assert 'aria-hidden="true"' in drawing[0]
    assert drawing[0].count("<rect") == 3 * len(lines)


def test_every_view_is_recorded_before_it_is_shown(reader: httpx.Client, service: RunningService) -> None:
    before = len(service.access_events("view"))
    page(reader, "/inventory", show="tools")
    page(reader, "/agents/shop-bot")
    events = service.access_events("view")[before:]
    assert [(event.target_kind, event.target_id) for event in events] == [
        ("inventory", "tools"),
        ("privileges", "shop-bot"),
    ]


@pytest.mark.parametrize("typed", ['"><script>alert(1)</script>', "\u202egpj", "a" * 256, "' OR 1=1 --", "\x00"])
def test_what_somebody_types_is_shown_and_not_obeyed(reader: httpx.Client, typed: str) -> None:
    text = page(reader, "/inventory", server=typed)
    assert "<script>alert" not in text
    assert "\u202e" not in re.sub(r'value="[^"]*"', "", text)
    assert "Nothing matches." in text


def test_the_longest_and_oddest_names_are_whole_and_lead_where_they_say(reader: httpx.Client) -> None:
    assert LONGEST in page(reader, "/inventory")
    text = page(reader, "/inventory", show="tools")
    (link,) = {unescape(link) for link in re.findall(r'href="(/agents/javascript[^"]+)"', text)}
    assert link == f"/agents/{quote(ODD, safe='')}"
    assert ODD in page(reader, link)


@pytest.mark.parametrize("path", ["/agents/nobody", "/agents/", "/agents/%3Cscript%3E", "/agents/" + "x" * 129])
def test_an_agent_that_is_none_has_no_page(reader: httpx.Client, path: str) -> None:
    answer = reader.get(path)
    assert answer.status_code == 404
    assert "<script>" not in answer.text.replace('<script src="', "")


@pytest.mark.parametrize("path", ["/inventory", "/agents/shop-bot", "/inventory?show=tools&unused=1"])
def test_a_visitor_without_a_login_is_sent_to_it_and_comes_back(service: RunningService, path: str) -> None:
    with service.browser_client() as visitor:
        answer = visitor.get(path, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={quote(path, safe='')}")


def test_an_agent_of_which_no_policy_says_anything_reaches_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    with start_service(tmp_path_factory.mktemp("empty")) as empty, empty.browser_client() as client:
        found = CSRF.search(client.get("/login").text)
        assert found is not None
        client.post("/login", data={"csrf": found[1], "token": empty.token(Role.AUDITOR)})
        assert "No gateway has told of a server yet" in page(client, "/inventory")
        gateway = empty.enforcer()
        gateway.decide(agent="bot", server="shop", tool="sell", facts=FACTS)
        assert "No policy is in force: nothing can be reached." in page(client, "/agents/bot")
        empty.put_in_force(ready_bundle())
        assert "can reach" in page(client, "/agents/bot")
        tell(gateway, InventoryEvent(action="registered", server="shop"))
        assert rows(page(client, "/inventory"))[0].startswith("shop registered Unowned")
