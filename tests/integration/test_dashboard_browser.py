"""The dashboard in a real browser: what a person sees, with and without scripts, and that nothing breaks its policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from ledger.errors import ConfigError
from service.auth import Role
from tests.support.browser import Visitor, new_visitor
from tests.support.service import EnforcerClient, RunningService, start_service

Visit = Callable[..., Visitor]


@pytest.fixture
def visit(chromium: Browser, service: RunningService) -> Iterator[Visit]:
    """Return a function that opens a browser profile; at the end none may have complained."""
    visitors: list[Visitor] = []

    def open_profile(**options: Any) -> Visitor:
        visitor = new_visitor(chromium, service.url, **options)
        visitors.append(visitor)
        return visitor

    yield open_profile
    for visitor in visitors:
        visitor.close()


@pytest.fixture
def gateway(service: RunningService) -> EnforcerClient:
    return service.enforcer()


def log_in(service: RunningService, visitor: Visitor, role: Role = Role.AUDITOR) -> Page:
    """Log in as a person does: type the token, press Enter."""
    page = visitor.page()
    page.goto("/")
    page.get_by_label("Token").fill(service.token(role, "jane"))
    page.keyboard.press("Enter")
    page.wait_for_url(service.url + "/")
    return page


def rows(page: Page) -> Any:
    return page.locator("table.decisions tbody tr")


# --- logging in and out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_one_logs_in_sees_decisions_and_logs_out(service, gateway, visit, scripts):
    decision = gateway.decide(agent="finance-bot")
    page = log_in(service, visit(java_script_enabled=scripts))
    expect(page.get_by_role("heading", name="Decisions", exact=True)).to_be_visible()
    expect(rows(page)).to_have_count(1)
    rows(page).get_by_role("link").click()
    page.wait_for_url(f"**/decisions/{decision}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("finance-bot calls Payroll-DB on finance")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are logged out.")).to_be_visible()
    page.goto("/")
    expect(page.get_by_label("Token")).to_be_visible()


def test_after_logging_out_the_way_back_shows_nothing(service, gateway, visit):
    gateway.decide(agent="secret-agent")
    page = log_in(service, visit())
    expect(page.get_by_text("secret-agent").first).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Token")).to_be_visible()
    expect(page.get_by_text("secret-agent")).to_have_count(0)


def test_a_wrong_token_is_explained_and_the_field_is_ready_for_another(service, visit):
    page = visit().page()
    page.goto("/login")
    page.get_by_label("Token").fill("ts1.acme.wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    expect(page).to_have_title(re.compile("^Error: Log in"))
    expect(page.get_by_label("Token")).to_be_focused()
    expect(page.get_by_label("Token")).to_have_attribute("aria-invalid", "true")


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_login_link_asks_and_then_logs_in_once(service, visit, scripts):
    url = service.login_url()
    page = visit(java_script_enabled=scripts).page()
    page.goto(url)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(service.url + "/")
    second = visit().page()
    second.goto(url)
    expect(second.get_by_role("alert")).to_contain_text("was used before or has expired")


def test_with_the_settings_of_production_the_browser_keeps_the_host_bound_cookie(chromium, tmp_path):
    # Chromium counts a loopback address as safe, so that the flags can be tried without TLS.
    with start_service(tmp_path, insecure_cookies=False) as service:
        visitor = new_visitor(chromium, service.url)
        log_in(service, visitor)
        (cookie,) = visitor.context.cookies()
        visitor.close()
    assert cookie["name"] == "__Host-tallystick"
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, True, "Strict", "/")


def test_another_site_cannot_log_one_out_or_look_over_ones_shoulder(service, visit):
    visitor = visit()
    page = log_in(service, visitor)
    elsewhere = visitor.page()
    # Another port is another site to the browser's Origin header; the cookie still goes along on 127.0.0.1.
    elsewhere.route("http://127.0.0.1:9/**", lambda route: route.fulfill(
        content_type="text/html",
        body=f'<form method="post" action="{service.url}/logout"><input name="csrf" value="guess"></form>'
             f'<iframe src="{service.url}/"></iframe>',
    ))  # fmt: skip
    elsewhere.goto("http://127.0.0.1:9/")
    assert elsewhere.frames[1].url in ("chrome-error://chromewebdata/", ""), "the dashboard let itself be framed"
    with elsewhere.expect_navigation():
        elsewhere.evaluate("document.forms[0].submit()")
    expect(elsewhere.get_by_text("Not permitted")).to_be_visible()
    elsewhere.close()
    page.reload()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    visitor.foreign.clear()  # the attacker's own page
    visitor.complaints.clear()  # the browser's report that the frame was refused


# --- live ------------------------------------------------------------------------------------------------------------


def test_a_new_decision_appears_without_a_reload(service, gateway, visit):
    gateway.decide(agent="first-agent")
    page = log_in(service, visit())
    page.evaluate("window.__same_page = true")
    expect(page.get_by_text("Live, updated as decisions arrive")).to_be_visible()
    new = gateway.decide(agent="second-agent", enforcement="kill")
    expect(rows(page)).to_have_count(2)
    expect(rows(page).first).to_contain_text("second-agent")
    expect(rows(page).first).to_have_id(f"d-{new}")
    expect(page.locator(".tile-kill dd")).to_have_text("1")
    assert page.evaluate("window.__same_page")
    assert page.get_by_text("Checkpoint", exact=True).count() == 1, "the bar stays whole"


def test_the_bar_moves_on_with_the_log(service, gateway, visit):
    page = log_in(service, visit())
    before = page.locator(".bar-facts").inner_text()
    gateway.decide_many([{}] * 20)
    service.wait_until_published()
    size = service.services.sequenced_size()
    expect(page.locator(".bar-facts")).to_contain_text(f"{size} in the log")
    assert page.locator(".bar-facts").inner_text() != before


def test_many_decisions_at_once_keep_the_list_at_its_length_and_the_way_to_older_ones_right(service, gateway, visit):
    gateway.decide_many([{"agent": f"old-{number}"} for number in range(50)])
    page = log_in(service, visit())
    new = gateway.decide_many([{"agent": f"new-{number}"} for number in range(30)])
    expect(rows(page).first).to_have_id(f"d-{new[-1]}")
    expect(rows(page)).to_have_count(50)
    shown = rows(page).evaluate_all("rows => rows.map((row) => row.id.slice(2))")
    page.get_by_role("link", name="Older decisions").click()
    page.wait_for_url("**/?before=*")
    older = rows(page).evaluate_all("rows => rows.map((row) => row.id.slice(2))")
    assert len(set(shown) | set(older)) == 80


def test_updates_can_be_paused_and_resumed(service, gateway, visit):
    page = log_in(service, visit())
    page.get_by_role("button", name="Pause updates").click()
    expect(page.get_by_role("status").filter(has_text="Paused")).to_be_visible()
    gateway.decide()
    page.wait_for_timeout(3_000)
    expect(rows(page)).to_have_count(0)
    page.get_by_role("button", name="Resume updates").click()
    expect(rows(page)).to_have_count(1)


def test_focus_stays_where_it_is_while_the_list_grows(service, gateway, visit):
    first = gateway.decide(agent="first-agent")
    page = log_in(service, visit())
    page.locator(f"#d-{first} a").focus()
    gateway.decide(agent="second-agent")
    expect(rows(page)).to_have_count(2)
    expect(page.locator(f"#d-{first} a")).to_be_focused()


def test_a_filtered_list_grows_by_what_the_filter_asks_for_alone(service, gateway, visit):
    page = log_in(service, visit())
    page.get_by_label("Agent").fill("wanted-agent")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/?agent=wanted-agent*")
    expect(page.get_by_text("No decision matches these filters.")).to_be_visible()
    gateway.decide(agent="other-agent")
    gateway.decide(agent="wanted-agent")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("wanted-agent")
    expect(page.get_by_text("No decision matches these filters.")).to_have_count(0)


def test_a_page_that_stands_still_says_so(service, visit):
    visitor = visit()
    page = log_in(service, visitor)
    expect(page.get_by_text("Live, updated as decisions arrive")).to_be_visible()
    visitor.context.route("**/live**", lambda route: route.abort())
    expect(page.get_by_role("status").filter(has_text="No connection to the service.")).to_be_visible()
    visitor.context.unroute("**/live**")
    expect(page.get_by_text("No connection to the service.")).to_have_count(0)


def test_a_page_whose_login_has_ended_says_so_and_asks_no_more(service, visit):
    visitor = visit()
    page = log_in(service, visitor)
    token = next(
        row
        for row in [service.services.tokens.caller("acme", sha) for sha in _token_digests(service)]
        if row.name == "jane"
    )
    service.services.tokens.revoke("acme", token.token_sha256)
    expect(page.get_by_role("status").filter(has_text="Your login has ended")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3_000)
    assert asked == []


def _token_digests(service: RunningService) -> list[str]:
    from sqlalchemy import select

    from service import tables

    with service.services.database.connect() as connection:
        return list(connection.scalars(select(tables.api_tokens.c.token_sha256)))


def test_without_scripts_a_reload_shows_what_is_new_and_the_page_says_that(service, gateway, visit):
    page = log_in(service, visit(java_script_enabled=False))
    expect(page.get_by_text("Reload the page for what is newer.")).to_be_visible()
    expect(page.get_by_role("button", name="Pause updates")).to_have_count(0)
    gateway.decide()
    page.reload()
    expect(rows(page)).to_have_count(1)


def test_a_hidden_tab_asks_nothing(service, visit):
    visitor = visit()
    page = log_in(service, visitor)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3_000)
    assert asked == []
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: false, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(1_000)
    assert asked != []


# --- hostile text ----------------------------------------------------------------------------------------------------

HOSTILE_NAMES = ["javascript:alert/1", "a" * 128, "https://evil.example/x", "_" + "/" * 100, "data:text/html"]


def test_hostile_names_of_agents_and_tools_are_text_and_nothing_else(service, gateway, visit):
    for name in HOSTILE_NAMES:
        gateway.decide(agent=name, tool=name, server=name, rules=(name,), tags=(name,))
    page = log_in(service, visit())
    expect(rows(page)).to_have_count(len(HOSTILE_NAMES))
    links = page.locator("a").evaluate_all("links => links.map((link) => link.href)")
    assert all(link.startswith(service.url) for link in links)
    rows(page).first.get_by_role("link").click()
    page.wait_for_url("**/decisions/*")
    links = page.locator("a").evaluate_all("links => links.map((link) => link.href)")
    assert all(link.startswith(service.url) for link in links)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    "text",
    [
        "<script>window.__hit = 1</script>",
        '"><img src=x onerror="window.__hit = 1">',
        "' autofocus onfocus='window.__hit = 1",
        "</title><svg onload=window.__hit=1>",
        "\u202egnp.exe",
    ],
)
def test_hostile_text_in_an_address_is_inert(service, visit, text):
    page = log_in(service, visit())
    for field in ("agent", "tool", "rule", "enforcement"):
        page.goto(f"/?{field}={_quoted(text)}")
        assert page.evaluate("window.__hit") is None
        if field != "enforcement":
            assert page.locator(f"#filter-{field}").input_value() == text
    page.goto(f"/login?next={_quoted(text)}&said={_quoted(text)}")
    page.goto(f"/decisions/{_quoted(text)}")
    assert page.evaluate("window.__hit") is None


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def test_a_hostile_name_of_a_token_is_inert_in_the_head_of_every_page(service, visit):
    visitor = visit()
    page = visitor.page()
    hostile = "<img src=x onerror=window.__hit=1>"
    with pytest.raises(ConfigError, match="printable"):
        service.services.tokens.issue("acme", Role.AUDITOR, f"{hostile}\u202e")
    token = service.services.tokens.issue("acme", Role.AUDITOR, hostile)
    page.goto("/login")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    page.wait_for_url(service.url + "/")
    expect(page.locator(".visitor-name")).to_have_text(hostile)
    assert page.evaluate("window.__hit") is None


def test_the_policy_stops_what_an_attacker_would_add(service, visit):
    visitor = visit()
    page = log_in(service, visitor)
    page.evaluate(
        "const script = document.createElement('script'); script.textContent = 'window.__hit = 1';"
        "document.body.append(script);"
        "const image = new Image(); image.src = 'http://127.0.0.1:9/leak'; document.body.append(image);"
    )
    page.wait_for_timeout(500)
    assert page.evaluate("window.__hit") is None
    assert sorted(page.evaluate("window.__violations")) == [
        "img-src: http://127.0.0.1:9/leak",
        "script-src-elem: inline",
    ]
    assert visitor.foreign == [], "the policy stopped the request before it was made"
    page.evaluate("window.__violations = []")
    visitor.complaints.clear()


# --- seeing and reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/login", "/packs", "/docs/api", "/decisions/x"])
def test_a_simulated_log_is_stamped_on_every_page(service, visit, path):
    page = log_in(service, visit())
    page.goto(path)
    expect(page.get_by_role("region", name="Simulated")).to_contain_text("SIMULATED")
    expect(page).to_have_title(re.compile("SIMULATED"))


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_colour_scheme_is_the_visitors(service, visit, scheme, dark):
    page = log_in(service, visit(color_scheme=scheme))
    colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    channels = [int(number) for number in re.findall(r"\d+", colour)[:3]]
    assert (sum(channels) < 3 * 64) is dark


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 1600])
def test_no_page_is_wider_than_its_window(service, gateway, visit, width):
    name = "x" * 128
    decision = gateway.decide(agent=name, tool=name, server=name, rules=(name,), failed_condition=name)
    page = log_in(service, visit(viewport={"width": width, "height": 800}))
    for path in ("/", f"/decisions/{decision}", f"/sessions/{'5' * 32}", "/packs", "/docs/api", "/decisions/x"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_whole_way_can_be_gone_by_keyboard(service, gateway, visit):
    gateway.decide()
    page = log_in(service, visit())
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    reached: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"no visible focus on {reached[-1]}"
        if "decision on finance-bot" in reached[-1]:
            break
    assert reached[:1] == ["Pause updates"]
    assert {"agent", "tool", "rule"} <= set(reached)
    page.keyboard.press("Enter")
    page.wait_for_url("**/decisions/*")


def test_motion_is_for_those_who_did_not_ask_for_stillness(service, gateway, visit):
    page = log_in(service, visit(reduced_motion="reduce"))
    gateway.decide()
    expect(rows(page)).to_have_count(1)
    assert page.locator("tr.arrived th").first.evaluate("cell => getComputedStyle(cell).animationName") == "none"


def test_with_forced_colours_the_verdicts_keep_icon_and_word(service, gateway, visit):
    gateway.decide(enforcement="kill")
    page = log_in(service, visit(forced_colors="active"))
    expect(rows(page).locator(".verdict")).to_have_text("Killed")
    expect(rows(page).locator(".verdict svg")).to_be_visible()


def test_the_downloads_work_from_the_page(service, gateway, visit):
    decision = gateway.decide()
    page = log_in(service, visit())
    page.goto(f"/decisions/{decision}")
    with page.expect_download() as proof:
        page.get_by_role("link", name="Inclusion proof").click()
    assert proof.value.suggested_filename == f"{decision}.tlog-proof"
    with page.expect_download() as entry:
        page.get_by_role("link", name="Entry").click()
    assert entry.value.suggested_filename == f"{decision}.entry.json"
