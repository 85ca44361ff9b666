"""``tallystick tools``: manifests made, signed and held to by a gateway; what changed, shown and said."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from enforcement.config import ServerSettings
from enforcement.pin_desk import pins_of, say_of_tool
from enforcement.tool_definitions import read_definition
from enforcement.tool_manifests import manifest_of
from ledger.bodies_tools import ToolEvent
from ledger.errors import ConfigError, ConflictError, NotFoundError
from service.auth import Role
from service.cli.main import cli
from tests.integration.test_tool_pins import EVERY, POISONED, day, described, events, listed, refused
from tests.integration.test_tools_api import NEW, changed
from tests.support.gateway import Surroundings
from tests.support.service import RunningService, start_service

REFUND = {"name": "refund", "description": "Pay money back.", "inputSchema": {"type": "object"}}
LOOKUP = {"name": "lookup", "description": "Find somebody.", "inputSchema": {"type": "object"}}


def run(*arguments: str | Path, code: int = 0, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(cli, ["tools", *map(str, arguments)], env=env)
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def listing(path: Path, *tools: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": list(tools)}}))
    return path


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A folder with keys, and a manifest of two tools that they signed."""
    run("manifest", "keygen", tmp_path / "keys", "--name", "acme")
    tools = listing(tmp_path / "tools.json", REFUND, LOOKUP)
    run("manifest", "make", "--server", "crm", "--tools", tools, "--output", tmp_path / "crm.json")
    run("manifest", "sign", tmp_path / "crm.json", "--keys", tmp_path / "keys", "--output", tmp_path / "crm.dsse")
    return tmp_path


def settings(folder: Path, **members: Any) -> ServerSettings:
    pins = {
        "mode": "listed",
        "manifest": str(folder / "crm.dsse"),
        "trusted_keys": str(folder / "keys" / "tools.trust"),
    }
    return ServerSettings.model_validate({"name": "crm", "url": "http://127.0.0.1:9", "pins": pins, **members})


# --- manifests


def test_a_manifest_is_signed_by_both_algorithms_and_read_by_a_gateway(signed: Path) -> None:
    trust = signed / "keys" / "tools.trust"
    out = run("manifest", "verify", signed / "crm.dsse", "--trust", trust, "--server", "crm", "--json").output
    digests = json.loads(out)["tools"]
    assert digests == {one["name"]: read_definition(json.dumps(one)).digest for one in (REFUND, LOOKUP)}
    assert manifest_of(settings(signed)) == digests
    assert len(json.loads((signed / "crm.dsse").read_text())["signatures"]) == 2
    run("manifest", "verify", signed / "crm.dsse", "--trust", trust, "--tools", signed / "tools.json")


def test_a_server_that_lists_something_else_than_was_signed_is_told(signed: Path) -> None:
    other = listing(signed / "other.json", {**REFUND, "description": "Another."})
    command = ("manifest", "verify", signed / "crm.dsse", "--trust", signed / "keys" / "tools.trust", "--tools", other)
    assert "lookup, refund" in run(*command, code=1).stderr


def spoil_payload(envelope: dict[str, Any]) -> None:
    envelope["payload"] = envelope["payload"][:-8] + "AAAA" + envelope["payload"][-4:]


def spoil_signature(envelope: dict[str, Any]) -> None:
    signature = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = ("B" if signature[0] != "B" else "C") + signature[1:]


def drop_signature(envelope: dict[str, Any]) -> None:
    envelope["signatures"].pop()


@pytest.mark.parametrize("spoil", [spoil_payload, spoil_signature, drop_signature])
def test_a_manifest_that_was_touched_stops_the_gateway(signed: Path, spoil: Any) -> None:
    envelope = json.loads((signed / "crm.dsse").read_text())
    spoil(envelope)
    (signed / "crm.dsse").write_text(json.dumps(envelope, separators=(",", ":"), sort_keys=True))
    with pytest.raises(ConfigError):
        manifest_of(settings(signed))


def test_keys_of_one_algorithm_alone_are_not_enough(signed: Path) -> None:
    trust = signed / "keys" / "tools.trust"
    for line in trust.read_text().splitlines():
        trust.write_text(line + "\n")
        with pytest.raises(ConfigError, match="a key of each"):
            manifest_of(settings(signed))


def test_a_manifest_of_another_server_is_refused(signed: Path) -> None:
    with pytest.raises(ConfigError, match="is about the server crm"):
        manifest_of(settings(signed, name="payments"))


def test_other_keys_than_those_that_are_trusted_sign_nothing(signed: Path) -> None:
    run("manifest", "keygen", signed / "more", "--name", "mallory")
    run("manifest", "sign", signed / "crm.json", "--keys", signed / "more", "--output", signed / "forged.dsse")
    run("manifest", "verify", signed / "forged.dsse", "--trust", signed / "keys" / "tools.trust", code=3)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"tools":[{"description":"no name"}]}', '{"tools":[],"nextCursor":"2"}',
     '{"tools":[{"name":"a","x":1},{"name":"a","x":2}]}', '{"tools":[{"name":"a","name":"b"}]}'],
)  # fmt: skip
def test_what_is_no_sound_list_makes_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "tools.json").write_text(text)
    command = ("manifest", "make", "--server", "crm", "--tools", tmp_path / "tools.json", "--output", tmp_path / "out")
    result = CliRunner().invoke(cli, ["tools", *map(str, command)])
    assert result.exit_code in (2, 64), result.output
    assert not (tmp_path / "out").exists()


# --- the service's desk


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    with start_service(tmp_path_factory.mktemp("tools-command")) as running:
        yield running


def at(service: RunningService, role: Role) -> dict[str, str]:
    return {"TALLYSTICK_URL": service.url, "TALLYSTICK_TOKEN": service.person_token(role, "jane")}


def test_an_approver_looks_at_the_difference_and_approves_what_he_saw(service: RunningService) -> None:
    gateway = service.enforcer()
    changed(gateway, "crm")
    env = at(service, Role.APPROVER)
    assert "quarantined" in run("list", "--waiting", env=env).output
    shown = run("diff", "crm", "refund", env=env).output
    assert "U+200B ZERO WIDTH SPACE" in shown
    assert "names an address, host or mailbox" in shown
    assert "\u200b" not in shown
    comment = ("--comment", "looked at it with the vendor")
    run("approve", "crm", "refund", "--digest", "0" * 64, *comment, env=env, code=4)
    run("approve", "crm", "refund", "--digest", "ab", *comment, env=env, code=64)
    done = run("approve", "crm", "refund", "--digest", (NEW.digest or "")[:16], *comment, "--json", env=env)
    assert json.loads(done.output)["verdict"] == "approved"
    assert "approved" in run("show", "crm", "refund", env=env).output
    assert run("list", "--waiting", "--json", env=env).output.split() == ["{", '"items":', "[]", "}"]
    run("reject", "crm", "refund", "--digest", NEW.digest or "", "--comment", "on second thoughts", env=env)
    run("show", "crm", "nobodys", env=env, code=4)


# --- a gateway's own desk


def test_an_operator_approves_at_a_gateway_without_a_service_while_it_runs(tmp_path: Path) -> None:
    async def first(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            await listed(client)

    async def second(world: Surroundings) -> None:
        async with world.running() as gateway, world.client() as client:
            await listed(client)
            assert await refused(client, "refund_customer") == "tool_quarantined"
            desk = world.build().core
            pin = pins_of(desk)["finance"]["refund_customer"]

            def say(verdict: Any, digest: str, tool: str = "refund_customer") -> None:
                say_of_tool(
                    desk, "finance", tool, digest=digest, verdict=verdict, actor="jane", comment="with the vendor",
                    pseudonyms=desk.pseudonyms,
                )  # fmt: skip

            for digest in (pin.digest, "0" * 64, ""):
                with pytest.raises(ConflictError):
                    await asyncio.to_thread(say, "approved", digest)
            with pytest.raises(NotFoundError):
                await asyncio.to_thread(say, "approved", pin.seen, "nobodys")
            await asyncio.to_thread(say, "approved", pin.seen)
            pins = gateway.core.require().pins
            await world.settle(lambda: pins.objection("finance", "refund_customer") is None)
            await client.call_tool("refund_customer", {"amount": 1})
            assert await listed(client) == EVERY
            await asyncio.to_thread(say, "rejected", pin.seen)
            await world.settle(lambda: pins.objection("finance", "refund_customer") is not None)
            gateway.core.require().recorder.beat_soon()
            await world.settle(lambda: {"approved", "rejected"} <= {event.action for event in events(world)})
        said = [event for event in events(world) if event.action in ("approved", "rejected")]
        assert all(isinstance(event, ToolEvent) and event.actor_role == "operator" for event in said)
        assert world.tools.calls == ["refund_customer"]

    day(tmp_path, first)
    with described(POISONED):
        day(tmp_path, second)
