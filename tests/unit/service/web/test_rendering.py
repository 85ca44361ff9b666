"""Whatever a template prints is legible and escaped; no page holds anything inline or from elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files
from types import SimpleNamespace

import jinja2
import pytest

from service.auth import Caller, Permission, Role, may
from service.persons import Person
from service.web.assets import Assets
from service.web.filters import Filters
from service.web.integrity import Integrity
from service.web.rendering import _NAVIGATION, PAGE_HEADERS, Verbatim, _navigation, make_environment
from service.web.sessions import WebSession

TEMPLATES = {path.name: path.read_text() for path in files("service.web").joinpath("templates").iterdir()}
OPEN, CLOSE = "\u2039", "\u203a"
HOSTILE = [
    ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
    ('"><img src=x onerror=alert(1)>', "&#34;&gt;&lt;img src=x onerror=alert(1)&gt;"),
    ("' autofocus onfocus='alert(1)", "&#39; autofocus onfocus=&#39;alert(1)"),
    ("invoice\u202egpj.exe", f"invoice{OPEN}U+202E{CLOSE}gpj.exe"),
    ("pa\u0443roll", f"pa{OPEN}U+0443{CLOSE}roll"),
    ("a\u200bb\x1b[2J", f"a{OPEN}U+200B{CLOSE}b{OPEN}U+001B{CLOSE}[2J"),
    ("{{ 7 * 7 }}{% raw %}", "{{ 7 * 7 }}{% raw %}"),
]


def rendered(source: str, **values: object) -> str:
    return make_environment(Assets()).from_string(source).render(**values)


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_hostile_text_is_shown_and_inert(text, shown):
    assert rendered("{{ x }}", x=text) == shown


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_hostile_text_is_inert_through_a_macro_and_in_an_attribute(text, shown):
    source = '{% macro m(v) %}<a title="{{ v }}">{{ v }}</a>{% endmacro %}{{ m(x) }}'
    assert rendered(source, x=text) == f'<a title="{shown}">{shown}</a>'


def test_what_a_visitor_typed_is_escaped_and_otherwise_given_back():
    assert rendered("{{ x }}", x=Verbatim("<b>\u202e")) == "&lt;b&gt;\u202e"


def test_filters_give_back_what_was_typed_as_verbatim():
    assert isinstance(Filters(agent="\u202e").typed("agent"), Verbatim)


def test_none_and_missing_values_are_faults_of_the_template_not_words_on_a_page():
    with pytest.raises(TypeError):
        rendered("{{ x }}", x=None)
    with pytest.raises(jinja2.UndefinedError):
        rendered("{{ x }}")


STANDALONE = {"impact_report.html"}


def test_a_file_that_is_downloaded_lets_nothing_run_and_loads_nothing():
    for name in STANDALONE:
        assert "default-src 'none'; style-src 'unsafe-inline'\"" in TEMPLATES[name]
        assert "<script" not in TEMPLATES[name]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_no_template_turns_escaping_off_or_holds_anything_inline(name):
    source = TEMPLATES[name]
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", source)
    assert not re.search(r"\son[a-z]+\s*=", source)
    # A file that leaves the house has nowhere to load its style from; it holds ours and nothing else.
    inside = re.sub(r"<style>\s*\{\{ style \}\}\s*</style>", "", source, count=1) if name in STANDALONE else source
    assert not re.search(r"\sstyle\s*=|<style", inside)
    assert not re.search(r"<script(?![^>]*\ssrc=)", source)
    assert "javascript:" not in source


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_no_template_names_another_host(name):
    assert not re.search(r"(?:src|href|action)\s*=\s*[\"']?(?:https?:)?//", TEMPLATES[name])


def test_every_form_that_changes_something_carries_its_secret():
    for name, source in TEMPLATES.items():
        for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", source, flags=re.DOTALL):
            assert 'name="csrf"' in form, name


def test_the_policy_of_pages_is_exactly_this():
    assert PAGE_HEADERS["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    assert PAGE_HEADERS["Cache-Control"] == "no-store"
    assert PAGE_HEADERS["Referrer-Policy"] == "same-origin"
    assert PAGE_HEADERS["X-Content-Type-Options"] == "nosniff"


def page(template: str, *, simulated: bool, **values: object) -> str:
    common = {
        "simulated": simulated,
        "environment": "production",
        "log_id": "acme",
        "origin": "ledger.example/acme",
        "tenant": "acme",
        "navigation": (),
        "session": None,
        "integrity": None,
        "path": "/",
    }
    return make_environment(Assets()).get_template(template).render(**common, **values)


LOGIN = {
    "csrf": "x",
    "wanted": "/",
    "error": "",
    "notice": "",
    "provider": True,
    "provider_host": "",
    "log_named": True,
}


def test_a_page_of_a_simulated_log_says_so_and_that_of_a_real_one_does_not():
    assert "SIMULATED" in page("login.html", simulated=True, **LOGIN)
    assert "SIMULATED" not in page("login.html", simulated=False, **LOGIN)


def test_a_login_page_carries_no_state_of_the_log():
    assert "Checkpoint" not in page("login.html", simulated=True, **LOGIN)


@pytest.mark.parametrize("name", ["error.html", "link.html", "login.html"])
def test_pages_with_a_hostile_message_stay_inert(name):
    text = HOSTILE[1][0]
    values = {
        **LOGIN,
        "error": text,
        "title": text,
        "detail": text,
        "code": text,
        "wanted": text,
        "provider_host": text,
    }
    html = page(name, simulated=False, **values)
    assert "<img src=x" not in html


def bar(troubles: tuple[str, ...] = (), **changes: object) -> str:
    from ledger.merkle import RootHash
    from ledger.ports import AnchorReceipt
    from ledger.proofs import TreeHead

    now = 1_763_546_400_000
    values = {
        "now_ms": now,
        "sequenced": 12,
        "waiting": 0,
        "head": TreeHead(size=12, root=RootHash(b"\xab" * 32)),
        "published_ms": now - 15_000,
        "anchor": AnchorReceipt(size=12, location="<b>s3://bucket/x", anchored_ms=now - 14_000, retain_until_ms=None),
        "troubles": troubles,
        **changes,
    }
    source = '{% from "macros.html" import integrity_bar %}{{ integrity_bar(state) }}'
    return " ".join(re.sub(r"<[^>]+>", " ", rendered(source, state=Integrity(**values))).split())


def test_the_bar_says_size_root_age_lag_and_anchor():
    text = bar()
    assert "Up to date" in text
    assert "12 in the log" in text
    assert "size 12 , root abababababab… , 10 s ago" in text
    assert "0 records" in text
    assert "not locked" in text
    assert "at &lt;b&gt;s3://bucket/x" in text


def test_the_bar_says_until_when_the_anchor_is_locked():
    from ledger.ports import AnchorReceipt

    text = bar(anchor=AnchorReceipt(size=12, location="s3://b", anchored_ms=0, retain_until_ms=1_963_546_400_000))
    assert "locked until 2032-03-22 05:33:20 UTC" in text
    assert "not locked" not in text


def test_a_bar_with_trouble_says_it_in_words_and_not_that_all_is_well():
    text = bar(("The last checkpoint is 4 min old.",))
    assert "Stale or failing" in text
    assert "The last checkpoint is 4 min old." in text
    assert "Up to date" not in text


def test_a_bar_of_an_empty_log_says_that_there_is_nothing_yet():
    text = bar(head=None, published_ms=None, anchor=None, sequenced=3)
    assert text.count("none yet") == 2
    assert "3 records" in text


def test_assets_are_named_by_their_bytes():
    assets = Assets()
    for name in ("style.css", "live.js", "emblem.svg"):
        url = assets.url(name)
        assert re.fullmatch(r"/assets/[a-z]+\.[0-9a-f]{16}\.[a-z]+", url)
        found = assets.at(url)
        assert found is not None
        assert found.data == files("service.web").joinpath("static", name).read_bytes()


@pytest.mark.parametrize("url", ["/assets/style.css", "/assets/style.0000000000000000.css", "/assets/../app.py", ""])
def test_no_other_asset_is_found(url):
    assert Assets().at(url) is None


def test_the_script_makes_no_markup_of_strings():
    source = files("service.web").joinpath("static", "live.js").read_text()
    forbidden = (
        r"insertAdjacentHTML|document\.write|eval\(|new Function|(?:inner|outer)HTML\s*\+?=[^=]|setTimeout\([\"']"
    )
    assert not re.search(forbidden, source)
    assert source.count("parseFromString") == 1  # our own fragment, as a document of its own in which nothing runs


def test_a_row_of_a_hostile_decision_is_inert():
    row = SimpleNamespace(
        record_id="x", leaf=1, time_ms=2**53 - 1, local="", agent=HOSTILE[0][0], server=HOSTILE[1][0],
        called=HOSTILE[2][0], effect="DENY", enforcement="deny", observed=True, why=(HOSTILE[3][0],), by_rule=True,
    )  # fmt: skip
    html = rendered('{% from "macros.html" import decision_rows %}{{ decision_rows([row]) }}', row=row)
    assert "<script" not in html
    assert "<img" not in html
    assert "onfocus='" not in html
    assert "\u202e" not in html
    assert "9007199254740991 ms after 1970" in html
    assert 'datetime=""' not in html


ANN = Person(issuer="https://id.example", subject="ann", name="ann", method="oidc")


def session_of(role: Role, person: Person | None) -> WebSession:
    caller = Caller(
        log_id="acme", name="ann", role=role, enforcer_id=None, token_sha256="0" * 64, expires_ms=1, person=person
    )
    return WebSession(caller=caller, csrf="x", expires_ms=1)


@pytest.mark.parametrize("person", [None, ANN], ids=["machine", "person"])
@pytest.mark.parametrize("role", [Role.AUDITOR, Role.RESPONDER, Role.APPROVER, Role.ADMIN])
def test_the_navigation_leads_to_the_pages_that_open_and_to_no_other(role, person, monkeypatch):
    entries = (*_NAVIGATION, ("/people-only", "For people", Permission.REVIEW_TOOLS))
    monkeypatch.setattr("service.web.rendering._NAVIGATION", entries)
    session = session_of(role, person)
    paths = [path for path, _ in _navigation(session)]
    assert paths == [path for path, _, needed in entries if needed is None or may(session.caller, needed)]
    assert ("/people-only" in paths) is (person is not None and role in (Role.APPROVER, Role.ADMIN))


def test_strangers_are_led_to_what_everybody_may_see_alone():
    assert [path for path, _ in _navigation(None)] == ["/docs/api"]
