"""The bundles of docs/policies.md and docs/rego.md before a client of the official SDK: it connects, and is judged."""

from __future__ import annotations

import asyncio
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from ledger.bodies import Decision
from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.evaluate import Evaluator
from tests.support.gateway import Surroundings, surroundings
from tests.support.repository import ROOT


def files_of(page: str) -> dict[str, str]:
    """The files that a page shows."""
    text = (ROOT / "docs" / page).read_text()
    return dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


FILES = files_of("policies.md")


def documented_bundle(**changes: str) -> Bundle:
    """The page's bundle; in its rules, words are replaced."""
    files = dict(FILES)
    for old, new in changes.items():
        files["policy.cedar"] = files["policy.cedar"].replace(old, new)
    return bundle_from_files({path: text.encode() for path, text in files.items()})


async def tools_by_default(world: Surroundings) -> list[str]:
    """What a client that was told nothing but URL and token lists, and is told of a call."""
    async with world.http() as http, Client(streamable_http_client(world.mcp_url, http_client=http)) as client:
        listed = await client.list_tools()
        with pytest.raises(MCPError) as refused:
            await client.call_tool("transfer_funds", {"amount": 1})
    assert refused.value.error.data["reason"] == "no_permit"
    return [tool.name for tool in listed.tools]


def under(bundle: Bundle, tmp_path: Path) -> tuple[list[str], list[Decision]]:
    async def scenario() -> tuple[list[str], list[Decision]]:
        async with surroundings(tmp_path) as world:
            world.ledger.bundle = bundle
            world.evaluator = evaluator  # type: ignore[assignment]  # the real one
            async with world.running():
                tools = await tools_by_default(world)
            bodies = [record.body for record in world.ledger.records]
            return tools, [body for body in bodies if isinstance(body, Decision)]

    evaluator = Evaluator({"cedar": CedarEngine(), "rego": RegoEngine()})
    try:
        return asyncio.run(scenario())
    finally:
        evaluator.close()


def test_a_client_with_its_defaults_connects_and_is_neither_shown_nor_let_call_what_no_rule_permits(tmp_path: Path):
    tools, decisions = under(documented_bundle(), tmp_path)
    assert tools == []  # the rules speak of another tool than those of this server
    assert [decision.method for decision in decisions] == ["server/discover", "tools/list", "tools/call"]


def test_rego_decides_before_such_a_client_and_is_recorded_with_what_stood_against_the_call(tmp_path: Path):
    tools, decisions = under(
        bundle_from_files({path: text.encode() for path, text in files_of("rego.md").items()}), tmp_path
    )
    assert tools == []  # the rules speak of another tool than those of this server
    assert [decision.rules for decision in decisions] == [("discovery",), ("discovery",), ()]
    policy = b'package p\n\nallow if {\n\tinput.principal.authn != "none"\n\tinput.action != "tools/call"\n}\n'
    manifest = b'{"format":"tallystick.bundle/1","name":"p","engine":"rego","policies":["policy.rego"]}'
    (tmp_path / "plain").mkdir()
    _, decisions = under(bundle_from_files({"policy.rego": policy, "manifest.json": manifest}), tmp_path / "plain")
    last = decisions[-1]
    assert last.bundle is not None
    assert (last.bundle.engine, last.bundle.engine_version) == ("rego", version("gordon-to-regorus"))
    assert (last.decision, last.reason, last.failed_condition) == (
        "NOT_APPLICABLE",
        "no_permit",
        "allow@policy.rego:5",
    )


def test_a_bundle_that_does_not_permit_discovery_keeps_such_a_client_out(tmp_path: Path):
    rules = documented_bundle(**{'action in [Action::"server/discover", ': "action in ["})
    with pytest.raises(BaseExceptionGroup) as caught:
        under(rules, tmp_path)
    assert caught.group_contains(MCPError, match=".")
