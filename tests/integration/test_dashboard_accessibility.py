"""Every page, in both colour schemes and on a phone: structure, names, and the contrast that a person really gets.

These are our own checks of WCAG 2.2 A and AA, made in the browser on the page as it is; they need nothing from
elsewhere. They find what a machine can find, no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from playwright.sync_api import Browser, Page

from enforcement.tool_definitions import read_definition
from ledger.bodies import ToolEvent
from ledger.bodies_drift import BaselineEvent
from ledger.commitments import SALT_BYTES
from ledger.errors import AnchorError
from ledger.ports import commit
from service.auth import Role
from tests.support.browser import new_visitor
from tests.support.discoveries import a_scan, sighting
from tests.support.service import EnforcerClient, RunningService, start_service

SESSION: Final = "5" * 32

_STRUCTURE: Final = """
() => {
  const faults = [];
  const visible = (element) => element.checkVisibility({visibilityProperty: true}) && element.type !== "hidden";
  const name = (element) => {
    const by = (element.getAttribute("aria-labelledby") || "").split(/\\s+/).filter(Boolean)
      .map((id) => document.getElementById(id));
    if (by.includes(null)) faults.push(`aria-labelledby of ${element.tagName} names nothing`);
    return (by.map((e) => e && e.textContent).join(" ") || element.getAttribute("aria-label") ||
      (element.labels && element.labels.length ? element.labels[0].textContent : "") ||
      element.getAttribute("alt") || element.textContent || "").trim();
  };
  if (document.documentElement.lang !== "en") faults.push("no language");
  if (!document.title.trim()) faults.push("no title");
  for (const landmark of ["main", "header", "footer"]) {
    if (document.querySelectorAll(`body > ${landmark}`).length !== 1) faults.push(`not one ${landmark}`);
  }
  const levels = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map((h) => Number(h.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) faults.push(`h1: ${levels}`);
  const main = [...document.querySelectorAll("main h1, main h2, main h3, main h4")].map((h) => Number(h.tagName[1]));
  main.forEach((level, i) => { if (i && level > main[i - 1] + 1) faults.push(`headings jump: ${main}`); });
  if (main[0] !== 1) faults.push("main does not begin with the h1");
  for (const control of document.querySelectorAll("input, select, textarea")) {
    if (visible(control) && !name(control)) faults.push(`no label: ${control.outerHTML}`);
  }
  for (const element of document.querySelectorAll("a, button, summary")) {
    if (visible(element) && !name(element)) faults.push(`no name: ${element.outerHTML}`);
  }
  for (const image of document.querySelectorAll("img")) {
    if (!image.hasAttribute("alt")) faults.push("image without alt");
  }
  for (const drawing of document.querySelectorAll("svg")) {
    if (drawing.getAttribute("aria-hidden") !== "true") faults.push("drawing that is not hidden");
  }
  for (const region of document.querySelectorAll("section, nav, article, [role=search]")) {
    if (!name(region) || !(region.hasAttribute("aria-label") || region.hasAttribute("aria-labelledby"))) {
      faults.push(`region without a name: ${region.outerHTML.slice(0, 80)}`);
    }
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption && !table.hasAttribute("aria-labelledby")) faults.push("table without a name");
    for (const row of table.querySelectorAll("tbody tr")) {
      if (row.querySelectorAll("th[scope=row]").length !== 1) faults.push("row without one header");
    }
    for (const header of table.querySelectorAll("thead th")) {
      if (header.scope !== "col" || !header.textContent.trim()) faults.push("column without a header");
    }
  }
  for (const list of document.querySelectorAll("ul, ol")) {
    if ([...list.children].some((child) => child.tagName !== "LI")) faults.push("list with other children");
  }
  for (const list of document.querySelectorAll("dl")) {
    for (const group of list.children) {
      if (group.tagName !== "DIV" || group.children[0].tagName !== "DT" || group.children[1].tagName !== "DD") {
        faults.push("description list out of order");
      }
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`id twice: ${id}`);
  for (const link of document.querySelectorAll("[aria-describedby]")) {
    for (const id of link.getAttribute("aria-describedby").split(/\\s+/)) {
      if (!document.getElementById(id)) faults.push(`described by nothing: ${id}`);
    }
  }
  if (document.querySelectorAll("[tabindex]:not([tabindex='0']):not([tabindex='-1'])").length) {
    faults.push("a tab order of its own");
  }
  const skip = document.querySelector("a[href='#main']");
  if (document.querySelector("a, button, input") !== skip) faults.push("the skip link is not first");
  return [...new Set(faults)];
}
"""

_CONTRAST: Final = """
() => {
  const parse = (text) => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    return {rgb: numbers.slice(0, 3), alpha: numbers.length > 3 ? numbers[3] : 1};
  };
  const over = (top, under) => top.rgb.map((c, i) => c * top.alpha + under[i] * (1 - top.alpha));
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    return layers.reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faults = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const style = getComputedStyle(element);
    if (style.clipPath !== "none" || element.closest(".hidden, .skip")) continue;
    const under = ground(element);
    const colour = over(parse(style.color), under);
    const [high, low] = [luminance(colour), luminance(under)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    seen += 1;
    if (ratio < (large ? 3 : 4.5)) faults.push(`${ratio.toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
  }
  return {faults: [...new Set(faults)], seen};
}
"""

_TARGETS: Final = """
() => [...document.querySelectorAll("a, button, input:not([type=hidden]), select")]
  .filter((element) => element.checkVisibility() && !element.closest(".skip"))
  .map((element) => ({element, box: element.getBoundingClientRect(), style: getComputedStyle(element)}))
  .filter(({box, style}) => style.display !== "inline" && (box.height < 24 || box.width < 24))
  .map(({element, box}) => `${box.width.toFixed(0)} x ${box.height.toFixed(0)}: ${element.textContent.trim()}`)
"""


def furnish_behaviour(gateway: EnforcerClient) -> dict[str, str]:
    """Have departures and baselines of every kind; return the id of an open departure and of a closed one."""
    baselines: list[dict[str, Any]] = [
        {"action": "learning", "agent": "newcomer", "calls": 1, "days": 1, "needed_calls": 499, "needed_days": 6},
        {"action": "reset", "agent": "forgotten"},
        {"action": "ready", "agent": "clerk", "baseline_version": 1, "calls": 800, "days": 9, "tools": 7,
         "blind": ("saturated:targets", "sparse:weekends"), "longest_gap_ms": 1},
        {"action": "offered", "agent": "clerk", "digest": "c7" * 32, "calls": 900, "days": 12,
         "added": ("finance/refund_customer", "finance/wire")},
    ]  # fmt: skip
    long_ago = gateway.decide(agent="clerk", time_ms=1_763_000_000_000)
    for members in baselines:
        gateway.post([(gateway.record(BaselineEvent(**members)), ())]).raise_for_status()
    told = {"agent": "clerk", "baseline_version": 1, "thresholds": "d" * 64, "calls": 2, "value_milli": 1000}
    unheard = "019a9c14-6d80-7abc-8def-000000000001"
    why = {"explained": "bundle", "explained_by": "e" * 64, "unflagged": 3, "decisions": (long_ago, unheard)}
    flags = [
        gateway.flag(detector="read_then_send", previous="crm/lookup", subject="mail/send", **why, **told),
        gateway.flag(detector="unusual_hour", threshold_milli=1, decisions=(long_ago,), **told),
    ]  # fmt: skip
    with gateway._service.client(Role.RESPONDER) as responder:
        said = {"disposition": "false_alarm", "comment": "month-end, as every month"}
        responder.post(f"/v1/drift/{flags[1].record_id}/close", json=said).raise_for_status()
    return {"open": flags[0].record_id, "closed": flags[1].record_id}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningService, dict[str, str]]]:
    """Return a service with decisions of every kind, and the pages to look at."""
    with start_service(tmp_path_factory.mktemp("service")) as service:
        gateway = service.enforcer()
        for enforcement in ("allow", "deny", "ask", "kill"):
            decision = gateway.decide(enforcement=enforcement)
        gateway.decide(enforcement="allow", mode="observe")
        gateway.decide(rules=(), reason="malformed", request=None, tool=None, method=None)
        completed = gateway.decide(enforcement="allow", decision="PERMIT")
        gateway.complete(completed)
        with service.client(Role.RESPONDER) as responder:
            wanted = {"server": "finance", "tool": "refund_customer", "seconds": 14_400, "reason": "ticket 18"}
            contained = responder.post("/v1/containments", json=wanted).raise_for_status().json()["id"]
            responder.post("/v1/discoveries", json=a_scan(sighting(), sighting(standing="bypass", server="crm")))
        held = gateway.hold(gateway.decide(enforcement="ask", decision="PERMIT"))
        gateway.step(gateway.hold(completed), "expired")
        for tool, reasons in (("refund_customer", ("changed",)), ("wire", ("mentions", "invisible"))):
            texts = ('{"name":"x","description":"Pay."}', '{"name":"x","description":"Pay\\u200b all.","z":1}')
            stood, shown = map(read_definition, texts)
            why = {"previous": stood.digest, "reasons": reasons, "changes": ("text",)}
            for action, definition, more in (("first_seen", stood, {}), ("quarantined", shown, why)):
                committed, opening = commit("definition", bytes(SALT_BYTES), definition.canonical.encode())
                known = {"server": "finance", "tool": tool, "digest": definition.digest, "definition": committed}
                gateway.post(
                    [(gateway.record(ToolEvent(action=action, **known, **more)), (opening,))]
                ).raise_for_status()
        behaviour = furnish_behaviour(gateway)
        pages = {
            "behaviour": "/drift",
            "no more departures": "/drift?page=2",
            "departure": f"/drift/{behaviour['open']}",
            "closed departure": f"/drift/{behaviour['closed']}",
            "an agent's behaviour": "/drift/agents/clerk",
            "behaviour that nobody knows": "/drift/agents/finance-bot",
            "quarantines": "/tools",
            "no more quarantines": "/tools?page=2",
            "quarantined tool": "/tools/finance/refund_customer",
            "held": "/approvals",
            "held call": f"/approvals/{held}",
            "home": "/",
            "filtered": "/?enforcement=kill",
            "nothing found": "/?agent=nobody",
            "faulty filter": "/?agent=%3Cb%3E&enforcement=x",
            "killed": f"/decisions/{decision}",
            "completed": f"/decisions/{completed}",
            "session": f"/sessions/{SESSION}",
            "contained": f"/containments/{contained}",
            "packs": "/packs",
            "servers": "/inventory",
            "tools": "/inventory?show=tools",
            "nothing in the inventory": "/inventory?show=tools&server=nowhere&unowned=1",
            "agent": "/agents/finance-bot",
            "api": "/docs/api",
            "not found": "/decisions/x",
        }
        yield service, pages


class BrokenAnchor:
    """An anchor that never answers."""

    def put(self, *_: object) -> NoReturn:
        raise AnchorError("the bucket does not answer")


PAGES: Final = (
    *("home", "filtered", "nothing found", "faulty filter", "killed", "completed", "session", "contained", "packs"),
    *("held", "held call"),
    *("quarantines", "no more quarantines", "quarantined tool"),
    *("behaviour", "no more departures", "departure", "closed departure"),
    *("an agent's behaviour", "behaviour that nobody knows"),
    *("servers", "tools", "nothing in the inventory", "agent"),
    "api",
    "not found",
)
LOOKS: Final = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 800}},
}


@pytest.fixture(scope="module", params=LOOKS, ids=LOOKS)
def reader(request: pytest.FixtureRequest, chromium: Browser, stage) -> Iterator[Page]:
    """Return a page of somebody who is logged in, for each way of looking."""
    service, _ = stage
    visitor = new_visitor(chromium, service.url, **LOOKS[request.param])
    page = visitor.page()
    page.goto(service.login_url(Role.AUDITOR))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(service.url + "/")
    yield page
    visitor.close()


def faults_of(page: Page) -> dict[str, Any]:
    contrast = page.evaluate(_CONTRAST)
    assert contrast["seen"] > 5, "there was nothing to measure"
    return {
        "structure": page.evaluate(_STRUCTURE),
        "contrast": contrast["faults"],
        "targets": page.evaluate(_TARGETS),
    }


SOUND: Final = {"structure": [], "contrast": [], "targets": []}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound_in_structure_contrast_and_size_of_targets(stage, reader, name):
    _, pages = stage
    reader.goto(pages[name])
    assert faults_of(reader) == SOUND


@pytest.mark.parametrize("look", LOOKS)
def test_a_held_call_is_sound_when_it_is_opened(stage, chromium, look):
    service, pages = stage
    visitor = new_visitor(chromium, service.url, **LOOKS[look])
    page = visitor.page()
    page.goto(service.login_url(Role.APPROVER))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(service.url + "/")
    page.goto(pages["held call"])
    assert faults_of(page) == SOUND
    page.get_by_role("button", name="Show exactly what will run").click()
    page.get_by_role("button", name="Approve").wait_for()
    assert faults_of(page) == SOUND
    visitor.close()


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(("name", "button"), [("departure", "Acknowledge"), ("an agent's behaviour", "Accept what is")])
def test_what_people_say_of_behaviour_is_asked_in_a_sound_form(stage, chromium, look, name, button):
    service, pages = stage
    visitor = new_visitor(chromium, service.url, **LOOKS[look])
    page = visitor.page()
    page.goto(service.login_url(Role.RESPONDER))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(service.url + "/")
    page.goto(pages[name])
    page.get_by_role("button", name=button).wait_for()
    assert faults_of(page) == SOUND
    visitor.close()


@pytest.mark.parametrize("look", LOOKS)
def test_a_tool_is_sound_when_its_difference_is_opened(stage, chromium, look):
    service, pages = stage
    visitor = new_visitor(chromium, service.url, **LOOKS[look])
    page = visitor.page()
    page.goto(service.login_url(Role.APPROVER))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(service.url + "/")
    page.goto(pages["quarantined tool"])
    assert faults_of(page) == SOUND
    page.get_by_role("button", name="Show what differs").click()
    page.get_by_role("button", name="Approve").wait_for()
    assert page.locator("ins").count() >= 1
    assert page.locator("del").count() >= 1
    assert faults_of(page) == SOUND
    visitor.close()


@pytest.mark.parametrize("look", LOOKS)
def test_the_login_is_sound_before_and_after_an_error(stage, chromium, look):
    service, _ = stage
    visitor = new_visitor(chromium, service.url, **LOOKS[look])
    page = visitor.page()
    page.goto("/login")
    assert faults_of(page) == SOUND
    page.get_by_label("Token").fill("ts1.acme.wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").wait_for()
    assert faults_of(page) == SOUND
    page.goto(service.login_url())
    assert faults_of(page) == SOUND
    visitor.close()


@pytest.mark.parametrize("look", LOOKS)
def test_a_bar_with_troubles_is_sound(stage, chromium, look):
    service, _ = stage
    visitor = new_visitor(chromium, service.url, **LOOKS[look])
    page = visitor.page()
    page.goto(service.login_url())
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(service.url + "/")
    publisher = service.services.publishing._turns._publisher
    kept, publisher._anchor = publisher._anchor, BrokenAnchor()
    try:
        service.run(service.services.heartbeat)
        page.get_by_text("Stale or failing").wait_for()
        page.reload()
        assert page.get_by_text("the bucket does not answer").is_visible()
        assert faults_of(page) == SOUND
    finally:
        publisher._anchor = kept
        page.get_by_text("Up to date").wait_for()
    visitor.close()


def test_a_table_on_a_phone_is_still_a_table_to_assistive_technology(stage, chromium):
    service, _ = stage
    visitor = new_visitor(chromium, service.url, viewport={"width": 360, "height": 800})
    page = visitor.page()
    page.goto(service.login_url())
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(service.url + "/")
    table = page.get_by_role("table", name="Newest decisions")
    assert table.get_by_role("columnheader").count() == 7
    decisions = len(service.services.catalog.of_type(service.services.identity.log_id, "decision"))
    assert 5 < decisions < 20  # so that all of them are on the page
    assert table.get_by_role("rowheader").count() == decisions
    assert table.get_by_role("row").count() == decisions + 1
    visitor.close()


def test_the_checks_find_what_they_are_for(chromium, tmp_path: Path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><html><body style="color:#999;background:#fff"><h2>x</h2><main><h3>a</h3>'
        "<input name=a><a href=b><svg></svg></a><table><tbody><tr><td>1</table><ul><p>x</ul>"
        "<button style='width:10px;height:10px'>y</button><p>1</p><p>2</p><p>3</p><p>4</p><p>5</p><p>6</p><p>7</p>"
    )
    page = chromium.new_page()
    page.goto(bad.as_uri())
    found = faults_of(page)
    page.close()
    assert len(found["structure"]) >= 9
    assert found["contrast"]
    assert found["targets"]
