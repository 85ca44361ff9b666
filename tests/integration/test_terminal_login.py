"""A command line that logs in: who may say yes, how often, and what it is given."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from service.auth import Caller, Role
from service.cli.main import cli
from service.persons import CONSOLE
from tests.support.service import RunningService, start_service

ORDER = {"agent": "Bot", "seconds": 300, "reason": "it runs wild"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("terminal")) as running:
        yield running


def field(page: str, name: str) -> str:
    return page.partition(f'name="{name}" value="')[2].partition('"')[0]


@contextmanager
def person(service: RunningService, token: str | None = None) -> Iterator[httpx.Client]:
    """Yield a browser in which a responder is logged in."""
    with service.server.browser_client() as browser:
        page = browser.get("/login").text
        token = token or service.person_token(Role.RESPONDER, "rita")
        answer = browser.post("/login", data={"csrf": field(page, "csrf"), "next": "/", "token": token})
        assert answer.status_code == 303
        yield browser


def asked(service: RunningService) -> dict:
    with service.server.stranger() as terminal:
        answer = terminal.post("/login/device", data={"log": "acme"})
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def say(browser: httpx.Client, code: str, word: str = "yes") -> int:
    csrf = field(browser.get("/login/device", params={"code": code}).text, "csrf")
    return browser.post("/login/device/answer", data={"csrf": csrf, "code": code, "answer": word}).status_code


def poll(service: RunningService, device_code: str) -> tuple[int, dict]:
    with service.server.stranger() as terminal:
        answer = terminal.post("/login/device/token", data={"device_code": device_code})
    return answer.status_code, answer.json()


def test_a_person_lets_a_command_line_in_and_it_speaks_for_the_person_no_longer_than_the_login(service):
    request = asked(service)
    assert poll(service, request["device_code"]) == (400, {"error": "authorization_pending"})
    token = service.person_token(Role.RESPONDER, "rita", seconds=600)
    with person(service, token) as browser:
        page = browser.get("/login/device", params={"code": request["user_code"]})
        assert request["user_code"] in page.text
        assert say(browser, request["user_code"]) == 303
    status, given = poll(service, request["device_code"])
    assert (status, given["name"], given["role"]) == (200, "rita", "responder")
    assert given["access_token"] != token
    parent = service.services.tokens.authenticate(token)
    assert given["expires_ms"] <= parent.expires_ms
    with service.client(token=given["access_token"]) as client:
        assert client.post("/v1/containments", json=ORDER).status_code == 201
    login = service.access_events("login")[-1]
    assert (login.target_kind, login.actor_role) == ("command_line", "responder")
    # Once.
    assert poll(service, request["device_code"]) == (400, {"error": "expired_token"})


def test_who_says_no_lets_nobody_in(service):
    request = asked(service)
    with person(service) as browser:
        assert say(browser, request["user_code"], "no") == 303
        # And it is answered: a later yes is too late.
        assert browser.get("/login/device", params={"code": request["user_code"]}).status_code == 404
    assert poll(service, request["device_code"]) == (400, {"error": "access_denied"})


def test_a_code_is_answered_once(service):
    request = asked(service)
    with person(service) as browser:
        csrf = field(browser.get("/login/device", params={"code": request["user_code"]}).text, "csrf")
        form = {"csrf": csrf, "code": request["user_code"], "answer": "yes"}
        assert browser.post("/login/device/answer", data=form).status_code == 303
        assert browser.post("/login/device/answer", data=form).status_code == 404


def test_who_logs_out_before_it_is_fetched_takes_it_back(service):
    request = asked(service)
    token = service.person_token(Role.RESPONDER, "rita")
    with person(service, token) as browser:
        say(browser, request["user_code"])
    service.services.tokens.revoke("acme", service.services.tokens.authenticate(token).token_sha256)
    assert poll(service, request["device_code"]) == (400, {"error": "access_denied"})


def test_who_leaves_the_dashboard_before_it_is_fetched_takes_it_back(service):
    request = asked(service)
    with person(service) as browser:
        say(browser, request["user_code"])
        csrf = field(browser.get("/").text, "csrf")
        assert browser.post("/logout", data={"csrf": csrf}).status_code == 303
    assert poll(service, request["device_code"]) == (400, {"error": "access_denied"})


def test_whose_login_ends_while_it_is_fetched_lets_nobody_in(service, monkeypatch):
    request, people, handed = asked(service), service.services.people, []
    parent = service.person_token(Role.RESPONDER, "rita")
    with person(service, parent) as browser:
        say(browser, request["user_code"])

    def issue(*arguments: Any, **options: Any) -> tuple[str, Caller]:
        people.tokens.end(CONSOLE, subject="rita")  # as the provider's word does, at the last moment
        handed.append(genuine(*arguments, **options))
        return handed[-1]

    with monkeypatch.context() as patched:
        genuine = people.issue
        patched.setattr(people, "issue", issue)
        assert poll(service, request["device_code"]) == (400, {"error": "access_denied"})
    ((token, _),) = handed
    with service.client(token=token) as client:
        assert client.get("/v1/decisions").status_code == 401


def test_a_machine_at_the_dashboard_lets_nothing_in(service):
    request = asked(service)
    with person(service, service.machine_token(Role.ADMIN, "wallboard")) as browser:
        csrf = field(browser.get("/").text, "csrf")
        assert browser.get("/login/device", params={"code": request["user_code"]}).status_code == 403
        form = {"csrf": csrf, "code": request["user_code"], "answer": "yes"}
        assert browser.post("/login/device/answer", data=form).status_code == 403
    assert poll(service, request["device_code"]) == (400, {"error": "authorization_pending"})


def test_another_site_says_no_yes(service):
    request = asked(service)
    with person(service) as browser:
        csrf = field(browser.get("/").text, "csrf")
        form = {"csrf": csrf, "code": request["user_code"], "answer": "yes"}
        elsewhere = {"origin": "https://evil.example"}
        assert browser.post("/login/device/answer", data=form, headers=elsewhere).status_code == 403
        assert browser.post("/login/device/answer", data={**form, "csrf": "x"}).status_code == 403
    assert poll(service, request["device_code"]) == (400, {"error": "authorization_pending"})


def test_who_is_not_logged_in_is_led_to_the_login_and_back(service):
    code = asked(service)["user_code"]
    with service.server.browser_client() as browser:
        answer = browser.get("/login/device", params={"code": code})
        assert answer.status_code == 303
        assert f"code%3D{code}" in answer.headers["location"]
        assert browser.post("/login/device/answer", data={"code": code, "answer": "yes"}).status_code == 303
    assert "/login" in answer.headers["location"]


@pytest.mark.parametrize("code", ["", "x", "BCDF-GHJK", "bcdf-ghjk", "____-____", "%-%", "BCDF-GHJ%"])
def test_a_code_that_nobody_was_given_is_none(service, code):
    with person(service) as browser:
        assert browser.get("/login/device", params={"code": code}).status_code in (400, 404)
        csrf = field(browser.get("/").text, "csrf")
        form = {"csrf": csrf, "code": code, "answer": "yes"}
        assert browser.post("/login/device/answer", data=form).status_code == 404


@pytest.mark.parametrize("code", ["", "x", "acme." + "x" * 43, "globex." + "x" * 43])
def test_a_device_code_that_nobody_was_given_is_none(service, code):
    assert poll(service, code) == (400, {"error": "expired_token"})


def test_the_secret_of_a_dashboard_login_is_no_device_code(service):
    with person(service) as browser:
        session = browser.cookies["tallystick"]
    assert poll(service, session) == (400, {"error": "expired_token"})


def test_nobody_fills_the_table(tmp_path: Path):
    with start_service(tmp_path) as mine, mine.server.stranger() as terminal:
        statuses = [terminal.post("/login/device", data={"log": ""}).status_code for _ in range(70)]
    assert statuses[:64] == [200] * 64
    assert set(statuses[64:]) == {429}


def test_the_commands_log_in_use_it_and_log_out(service, tmp_path: Path, monkeypatch):
    file = tmp_path / "settings" / "login.json"
    monkeypatch.setenv("TALLYSTICK_LOGIN_FILE", str(file))
    monkeypatch.delenv("TALLYSTICK_TOKEN", raising=False)
    monkeypatch.setattr("service.cli.login.time.sleep", lambda _: None)
    found: list[str] = []
    shown = threading.Event()

    def opened(url: str) -> bool:
        found.append(url)
        shown.set()
        with person(service) as browser:
            say(browser, url.rpartition("=")[2])
        return True

    monkeypatch.setattr("service.cli.login.webbrowser.open", opened)
    runner, url = CliRunner(), ["--url", service.url]
    assert runner.invoke(cli, ["whoami", *url]).exit_code == 64
    done = runner.invoke(cli, ["login", *url, "--json"])
    assert done.exit_code == 0, done.output
    assert shown.is_set()
    assert json.loads(done.stdout)["name"] == "rita"
    assert "tp1." not in done.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "rita, responder of acme" in runner.invoke(cli, ["whoami", *url]).stdout
    used = runner.invoke(cli, ["find", *url, "--json"])
    assert used.exit_code == 0, used.output
    token = json.loads(file.read_text())[service.url]["access_token"]
    assert runner.invoke(cli, ["logout", *url]).exit_code == 0
    with service.client(token=token) as client:
        assert client.get("/v1/decisions").status_code == 401
    assert runner.invoke(cli, ["whoami", *url]).exit_code == 64
    assert runner.invoke(cli, ["logout", *url]).exit_code == 64


def test_a_login_that_others_can_read_is_not_used(service, tmp_path: Path, monkeypatch):
    file = tmp_path / "login.json"
    file.write_text(json.dumps({service.url: {"access_token": "tp1.acme." + "x" * 43}}))
    file.chmod(0o644)
    monkeypatch.setenv("TALLYSTICK_LOGIN_FILE", str(file))
    refused = CliRunner().invoke(cli, ["whoami", "--url", service.url])
    assert refused.exit_code == 64
    assert "can be read by others" in refused.output
