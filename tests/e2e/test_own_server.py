"""A user's own way through the product, command by command, with real keys: his MCP server behind a gateway.

The server is of the official SDK, the agent a client of it, and everything of ours a process of its own. Operator,
agent, responder and auditor come in this order in the one long test; the short ones below are ways in which the same
commands refuse.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from ledger.clock import SystemClock
from tests.support.commands import PROGRAM, Installation, Served, Started, run
from tests.support.gateway import Tools, serve_mcp
from tests.support.mcp_messages import VERSION
from tests.support.policies import cedar_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REFUNDS = """
@id("refunds")
permit (principal in Role::"finance", action == Action::"tools/call", resource == Tool::"finance/refund_customer");
@id("refund-limit")
forbid (principal, action == Action::"tools/call", resource == Tool::"finance/refund_customer")
unless { context.args has amount && context.args.amount <= LIMIT };
@id("lists")
permit (principal, action == Action::"tools/list", resource);
"""

CASES = """
defaults: {agent: Refund-Bot, roles: [finance], server: finance, tool: refund_customer, at: 2026-11-17T10:00:00}
cases:
  - name: a small refund
    given: {arguments: '{"amount": 49}'}
    expect: {effect: PERMIT, rules: [refunds]}
  - name: a large refund
    given: {arguments: '{"amount": 5000}'}
    expect: {effect: DENY, rules: [refund-limit]}
  - name: lists
    given: {method: tools/list, tool: null}
    expect: {effect: PERMIT, rules: [lists]}
"""


def write_bundle(folder: Path, limit: int) -> Path:
    files = cedar_files(REFUNDS.replace("LIMIT", str(limit)), name="refunds")
    for path, data in {**files, "tests/refunds.yaml": CASES.encode()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


# --- the agent -------------------------------------------------------------------------------------------------------


async def call_tools(url: str, token: str) -> tuple[str, MCPError]:
    """Let an agent refund a little and a lot; return the text of the result, and the error."""
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
        transport = streamable_http_client(f"{url}/servers/finance/mcp", http_client=http)
        async with Client(transport, mode=VERSION, cache=None) as client:
            allowed = await client.call_tool("refund_customer", {"amount": 49, "note": "for dana"})
            with pytest.raises(MCPError) as refused:
                await client.call_tool("refund_customer", {"amount": 5000})
    return allowed.content[0].text, refused.value


# --- the operator ----------------------------------------------------------------------------------------------------


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Keys as an operator makes them."""
    made = Installation(folder=tmp_path)
    told = made.do("keys", "init", tmp_path / "keys", "--origin", made.origin)
    assert "7 keys are in" in told
    return made


@pytest.fixture
def served(installation: Installation) -> Iterator[Served]:
    """The service, answering."""
    with installation.serve() as answers:
        yield answers


class Way:
    """One user's way through an installation; each method is what one person does."""

    def __init__(self, installation: Installation, url: str) -> None:
        self.installation = installation
        self.folder = installation.folder
        self.tools = Tools()
        self.begin_ms = SystemClock().now_ms()
        self._url = url

    def acting_as(self, role: str) -> dict[str, str]:
        return {"TALLYSTICK_URL": self._url, "TALLYSTICK_TOKEN": self.installation.token(role, role)}

    def publish_policy(self) -> None:
        """The operator tests a policy and publishes it; a second person approves it and makes it the active one."""
        do, do_json, admin = self.installation.do, self.installation.do_json, self.acting_as("admin")
        approver = self.acting_as("approver")
        bundle = write_bundle(self.folder / "refunds", 500)
        assert do_json("policy", "test", bundle)["failures"] == []
        revision = do("policy", "revision", bundle).strip()
        assert do("policy", "publish", bundle, **admin).startswith(f"published refunds {revision}\n")
        assert do_json("policy", "review", revision, "--approve", **approver)["stage"] == "reviewed"
        assert do("policy", "activate", revision, "--comment", "first", **approver) == f"active: {revision}\n"
        listed = do_json("policy", "list", **admin)
        assert listed["active"] == revision
        steps = [(step["action"], step["revision"]) for step in listed["history"]]
        assert steps == [(step, revision) for step in ("published", "tested", "reviewed", "activated")]
        assert do("policy", "list", **admin).startswith(f"active: {revision}\n")

    def prepare_gateway(self, upstream: str) -> str:
        """He prepares a gateway before his server and gets a token for his agent."""
        told = self.installation.do(
            *("gateway", "init", self.folder / "gw", "--id", "gateway-1", "--server", f"finance={upstream}"),
            *("--agent", "Refund-Bot", "--role", "finance", "--zone", "Europe/Berlin"),
            *("--keys-dir", self.folder / "keys"),
            **self.acting_as("admin"),
        )
        token = re.search(r"Bearer (\S+)", told)
        assert token is not None
        return token[1]

    async def play(self) -> tuple[str, MCPError]:
        """The gateway runs, an agent calls, and Ctrl-C ends the gateway."""
        async with serve_mcp(self.tools) as upstream:
            token = await asyncio.to_thread(self.prepare_gateway, upstream)
            command = [PROGRAM, "gateway", "--config", self.folder / "gw" / "gateway.yaml", "--listen", "127.0.0.1:0"]
            with Started(command, cwd=self.folder, variables={}, ignored=True) as gateway:
                ready = json.loads(await asyncio.to_thread(gateway.wait_for_line, '"event": "gateway_serving"'))
                answers = await call_tools(f"http://127.0.0.1:{ready['port']}", token)
                gateway.signal_all(signal.SIGINT)
                assert await asyncio.to_thread(gateway.wait) == 0, gateway.text
                assert gateway.left_behind() == []
            for secret in (token, "for dana"):
                assert secret not in gateway.text
            return answers

    def respond(self) -> None:
        """A responder finds both calls and asks what another policy would have said."""
        run_, do, responder = self.installation.run, self.installation.do, self.acting_as("responder")
        find = ("find", "--agent", "Refund-Bot", "--tool", "refund_customer")
        denied, permitted = self.installation.do_json(*find, **responder)["items"]
        assert [call["record"]["body"]["enforcement"] for call in (denied, permitted)] == ["deny", "allow"]
        assert not any(call["record"].get("simulated") for call in (denied, permitted))
        assert "refund-limit" in do(*find, "--enforcement", "deny", **responder)
        told = do("session", permitted["record"]["body"]["session"], **responder)
        assert "outcome: completed" in told
        assert "no record is missing" in told
        decision = denied["record"]["record_id"]
        assert f"{decision}: SAME (exact)" in do("replay", decision, "--fail-on", "deny:permit", **responder)
        generous = write_bundle(self.folder / "generous", 10_000)
        proposed = ("replay", decision, "--bundle", generous, "--fail-on", "deny:permit")
        assert run_(*proposed, **responder).status == 64, "rules that somebody proposes read a request: say what for"
        replayed = run_(*proposed, "--purpose", "would a higher limit have let it pass?", **responder)
        assert f"{decision}: DIFFERENT (exact)" in replayed.output
        assert replayed.status == 5

    def check_evidence(self) -> None:
        """An auditor has a pack made, and checks it."""
        do, auditor = self.installation.do, self.acting_as("auditor")
        begin, end = (
            datetime.fromtimestamp(moment / 1000, tz=UTC).isoformat()
            for moment in (self.begin_ms - 60_000, SystemClock().now_ms() + 1000)
        )
        period = ("--from", begin, "--to", end, "--framework", "soc2", "--title", "Refunds")
        do("evidence", "build", *period, "--out", self.folder / "evidence", **auditor)
        (pack,) = (self.folder / "evidence").glob("*.zip")
        (report,) = (self.folder / "evidence").glob("*.pdf")
        assert report.read_bytes().startswith(b"%PDF-")
        (job,) = self.installation.do_json("evidence", "list", **auditor)["items"]
        assert (job["state"], job["zip_sha256"]) == ("done", hashlib.sha256(pack.read_bytes()).hexdigest())
        verified = do("verify", pack, "--trust", self.installation.trust)
        assert verified.splitlines()[-1] == "PROVEN"
        assert "SIMULATED" not in verified
        assert self.installation.run("verify", pack).status == 3

    def audit(self) -> None:
        """The operator audits his whole installation."""
        found = self.installation.do_json("audit")
        assert (found["findings"], found["not_checked"]) == ([], [])
        streams = {stream["enforcer_id"]: stream["verdict"] for stream in found["streams"]}
        assert streams["gateway-1"] == "complete"


def test_a_user_puts_his_own_server_behind_a_gateway_and_an_auditor_checks_what_happened(installation, served):
    way = Way(installation, served.url)
    way.publish_policy()
    allowed, refused = asyncio.run(way.play())
    assert allowed == "refunded 49.0 for dana"
    assert refused.error.data["rule"] == "refund-limit"
    assert way.tools.calls == ["refund_customer"], "a denied call reached the server"
    way.respond()
    way.check_evidence()
    way.audit()
    assert "for dana" not in served.started.text


# --- refusals --------------------------------------------------------------------------------------------------------


def test_without_a_token_nothing_is_asked_and_the_way_to_one_is_named(tmp_path):
    done = run("find", cwd=tmp_path, TALLYSTICK_URL="http://127.0.0.1:9")
    told = "tallystick: a token is needed: set TALLYSTICK_TOKEN, or log in with `tallystick login`\n"
    assert (done.status, done.errors) == (64, told)


def test_a_service_that_does_not_answer_is_something_that_could_not_be_reached(tmp_path):
    done = run("find", cwd=tmp_path, TALLYSTICK_URL="http://127.0.0.1:9", TALLYSTICK_TOKEN="t")
    assert (done.status, done.errors.count("\n")) == (4, 1)
    assert "does not answer" in done.errors


def test_what_a_role_may_not_do_is_refused_in_one_line(installation, served):
    variables = {"TALLYSTICK_URL": served.url, "TALLYSTICK_TOKEN": installation.token("auditor")}
    bundle = write_bundle(installation.folder / "refunds", 500)
    published = installation.run("policy", "publish", bundle, **variables)
    assert (published.status, published.output, published.errors.count("\n")) == (64, "", 1)
    prepared = installation.run(
        *("gateway", "init", installation.folder / "gw", "--id", "gateway-1", "--server", "finance=http://127.0.0.1:9"),
        *("--agent", "Refund-Bot"),
        **variables,
    )
    assert (prepared.status, prepared.errors.count("\n")) == (64, 1)
    assert installation.do_json("policy", "list", **variables)["history"] == []


def test_a_condition_that_cannot_be_read_is_an_error_of_usage(tmp_path):
    done = run(
        "replay", "01234567-89ab-7cde-8f01-23456789abcd", "--fail-on", "never", cwd=tmp_path, TALLYSTICK_TOKEN="t"
    )
    assert (done.status, done.errors.count("\n")) == (64, 1)


def test_a_bundle_whose_cases_fail_is_not_ready(tmp_path):
    bundle = write_bundle(tmp_path / "refunds", 10_000)
    done = run("policy", "test", bundle, cwd=tmp_path)
    assert done.status == 1
    assert "FAILED tests/refunds.yaml: a large refund" in done.output


def test_a_bundle_without_cases_was_not_checked(tmp_path):
    bundle = write_bundle(tmp_path / "refunds", 500)
    (bundle / "tests" / "refunds.yaml").unlink()
    assert run("policy", "test", bundle, cwd=tmp_path).status == 4
