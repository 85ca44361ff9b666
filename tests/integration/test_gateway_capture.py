"""What of calls went into the vault, and which of them received the same document: a real gateway, server and service.

One gateway plays all calls; what it wrote is posted to a service, which is asked afterwards.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mcp_types
import pytest
from click.testing import CliRunner
from mcp.shared.exceptions import MCPError

from ledger.auditor import Auditor
from ledger.bodies import Decision, Outcome
from ledger.commitments import fingerprint
from ledger.errors import ErasedError
from ledger.notes import encode_base64
from ledger.records import Record
from policies.evaluate import Evaluator
from policies.model import Effect
from policies.replay import ReplayClass, replay_many
from service.auth import Role
from service.cli.main import cli
from service.keyset import trust_policy
from service.replays import recorded_decision
from tests.support.gateway import FakeLedger, Surroundings, surroundings
from tests.support.gateway_keys import SIGNING_KEY
from tests.support.ledger import LOG_ID
from tests.support.service import RunningService, start_service

DOCUMENT: Final = "The merger is to be announced on Friday.\n"
FIGURES: Final = {"quarter": 3, "revenue": 1.5}
SECRET: Final = "DE02-1203-0000"

SERVERS: Final[dict[str, Any]] = {
    "tags": ["read"],
    "tools": [
        {
            "name": "pay",
            "capture": "redacted",
            "arguments": [
                {"pointer": "/amount", "keep": True},
                {"pointer": "/iban", "tags": ["pii", "write"]},
                {"pointer": "/to/iban", "tags": ["foreign"]},
            ],
        },
        {"name": "confess", "capture": "digest"},
    ],
}


def read_contract() -> list[mcp_types.ContentBlock]:
    """Return a document behind an introduction."""
    return [
        mcp_types.TextContent(type="text", text="Here it is:"),
        mcp_types.TextContent(type="text", text=DOCUMENT),
    ]


def search_mail(query: str) -> list[mcp_types.ContentBlock]:
    """Return the same document as an attachment, among others."""
    attached = mcp_types.TextResourceContents(uri="mail://1/contract.txt", mime_type="text/plain", text=DOCUMENT)
    return [
        mcp_types.EmbeddedResource(type="resource", resource=attached),
        mcp_types.TextContent(type="text", text=f"1 hit for {query}"),
    ]


def figures() -> dict[str, Any]:
    """Return a value."""
    return FIGURES


def pay(amount: float, iban: str = "", to: dict[str, str] | None = None) -> str:
    """Pay."""
    return f"paid {amount} to {iban or to}"


def confess(sin: str) -> str:
    """Confess."""
    return f"forgiven: {sin}"


def nothing_foreign(request: Any) -> dict[str, Any]:
    effect = Effect.DENY if "foreign" in request.resource.tags else Effect.PERMIT
    return {"effect": effect}


async def play(world: Surroundings) -> None:
    for tool in (read_contract, search_mail, figures, pay, confess):
        world.tools.server.tool()(tool)
    async with world.running():
        async with world.client() as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
            assert {"pay", "confess"} <= listed  # some arguments are allowed
            await client.call_tool("read_contract", {})
            await client.call_tool("pay", {"amount": 12.5})
            await client.call_tool("pay", {"amount": 13.5, "iban": SECRET})
            with pytest.raises(MCPError):
                await client.call_tool("pay", {"amount": 14.5, "to": {"iban": SECRET}})
            await client.call_tool("confess", {"sin": SECRET})
        async with world.client("Support-Bot") as client:
            await client.call_tool("search_mail", {"query": "merger"})
            await client.call_tool("figures", {})


def deliver(service: RunningService, written: FakeLedger) -> None:
    """Post what a gateway wrote to a service."""
    with service.client(Role.ADMIN) as admin:
        introduction = {"enforcer_id": "gateway-1", "public_key": encode_base64(bytes(SIGNING_KEY.verify_key))}
        token = admin.post("/v1/enforcers", json=introduction).raise_for_status().json()["token"]
    with service.client(token=token) as gateway:
        headers = {"content-type": "application/x-ndjson"}
        body = b"\n".join(written.lines.values())
        gateway.post("/v1/decisions", content=body, headers=headers).raise_for_status()


@dataclass(frozen=True)
class Played:
    """A service that has what the gateway wrote."""

    service: RunningService
    written: FakeLedger

    def of(self, tool: str) -> list[tuple[Record, Decision]]:
        found = [(record, record.body) for record in self.written.records if isinstance(record.body, Decision)]
        return [(record, body) for record, body in found if body.tool == tool]

    def outcome(self, record: Record) -> tuple[Record, Outcome]:
        (found,) = [
            (one, one.body)
            for one in self.written.records
            if isinstance(one.body, Outcome) and one.body.decision_id == record.record_id
        ]
        return found

    def command(self, *arguments: str, role: Role = Role.RESPONDER) -> Any:
        variables = {"TALLYSTICK_URL": self.service.url, "TALLYSTICK_TOKEN": self.service.token(role)}
        done = CliRunner().invoke(cli, [*arguments, "--json"], env=variables)
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    def opened(self, record: Record, *fields: str) -> dict[str, bytes]:
        wanted = {"purpose": "looking into it", "fields": list(fields)}
        with self.service.client(Role.RESPONDER) as responder:
            answer = responder.post(f"/v1/decisions/{record.record_id}/openings", json=wanted).raise_for_status()
        assert len(answer.json()["openings"]) == len(fields)
        return {name: self.written.openings[self._holder(record, name), name] for name in fields}

    def _holder(self, record: Record, field: str) -> str:
        return self.outcome(record)[0].record_id if field == "result" else record.record_id


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with start_service(tmp_path_factory.mktemp("service")) as service:
        key = service.services.keys.pseudonym.seed

        async def run() -> FakeLedger:
            directory = tmp_path_factory.mktemp("gateway")
            async with surroundings(directory, answer=nothing_foreign, server=SERVERS) as world:
                world.pseudonym_key = key
                await play(world)
                return world.ledger

        written = asyncio.run(run())
        deliver(service, written)
        yield Played(service, written)


# --- capture ---------------------------------------------------------------------------------------------------------


def test_by_default_message_request_and_answer_are_in_the_vault_as_they_were(played: Played) -> None:
    ((record, decision),) = played.of("search_mail")
    _, outcome = played.outcome(record)
    assert (decision.capture, outcome.capture, decision.masked_request) == (None, None, None)
    found = played.opened(record, "message", "request", "result")
    assert json.loads(found["message"])["params"]["arguments"] == {"query": "merger"}
    assert DOCUMENT.encode() not in found["message"]
    assert "merger" in json.loads(found["request"])["arguments"]
    assert json.loads(found["result"])["result"]["content"][0]["resource"]["text"] == DOCUMENT


def test_redacted_calls_have_their_shape_and_what_is_to_be_kept(played: Played) -> None:
    record, decision = played.of("pay")[1]
    _, outcome = played.outcome(record)
    assert (decision.capture, decision.capture_reason, decision.request) == ("redacted", None, None)
    assert (outcome.capture, outcome.capture_reason) == ("redacted", None)
    found = played.opened(record, "message", "masked_request", "result")
    params = json.loads(found["message"])["redacted"]["params"]
    assert (params["name"], params["arguments"]) == ("pay", {"amount": 13.5, "iban": "[string]"})
    assert json.loads(json.loads(found["masked_request"])["arguments"]) == params["arguments"]
    answered = json.loads(found["result"])["redacted"]["result"]
    assert answered["content"] == [{"type": "text", "text": "[string]"}]
    assert not any(SECRET.encode() in payload for payload in found.values())


def test_of_a_call_that_is_captured_as_a_digest_nothing_but_digests_is_kept(played: Played) -> None:
    ((record, decision),) = played.of("confess")
    _, outcome = played.outcome(record)
    assert (decision.capture, outcome.capture) == ("digest", "digest")
    found = played.opened(record, "message", "masked_request", "result")
    assert set(json.loads(found["message"])) == {"capture", "fingerprint", "size_bytes"}
    assert json.loads(json.loads(found["masked_request"])["arguments"]) == {}
    assert set(json.loads(found["result"])) == {"capture", "fingerprint", "size_bytes"}
    everything = b"".join(payload for payload in played.written.openings.values())
    assert SECRET.encode() not in everything
    # Whoever has the tenant's key and the arguments can show that these were they.
    sent = json.dumps({"sin": SECRET}, separators=(",", ":")).encode()
    key = played.service.services.keys.pseudonym.seed
    assert decision.arguments_fingerprint == fingerprint(key, hashlib.sha256(sent).digest())


def test_a_message_that_names_no_tool_is_captured_like_the_strictest(played: Played) -> None:
    bodies = [record.body for record in played.written.records if isinstance(record.body, Decision)]
    assert {body.capture for body in bodies if body.method == "tools/list"} == {"digest"}


def test_what_was_withheld_is_said_by_a_replay_and_never_guessed(played: Played) -> None:
    vault = played.service.services.vault
    originals = [recorded_decision(played.of(tool)[0][0], vault) for tool in ("pay", "confess")]
    for told in asyncio.run(replay_many(originals, None, Evaluator({}))):
        assert (told.classification, told.same) == (ReplayClass.MASKED, None)
        assert "withheld before it was recorded" in told.explanation


def test_erasure_reaches_what_was_captured_and_every_proof_still_holds(played: Played, tmp_path: Path) -> None:
    with start_service(tmp_path) as service:
        deliver(service, played.written)
        record, decision = played.of("pay")[0]
        order = {"pseudonym": decision.user, "basis": "asked for in letter 7"}
        with service.client(Role.ADMIN) as admin:
            admin.post("/v1/erasures", json=order).raise_for_status()
            opening = {"purpose": "looking into it", "fields": ["message"]}
            assert admin.post(f"/v1/decisions/{record.record_id}/openings", json=opening).status_code == 410
        parts = service.services
        _, outcome = played.outcome(record)
        for one, field in ((record, "message"), (record, "masked_request"), (played.outcome(record)[0], "result")):
            with pytest.raises(ErasedError):
                parts.vault.open(one, field)
        assert outcome.user == decision.user
        service.wait_until_published()
        report = Auditor(
            LOG_ID, parts.tiles, trust_policy(parts.keys), catalog=parts.catalog, vault=parts.vault
        ).audit()
        assert report.findings == []


# --- tags of arguments -----------------------------------------------------------------------------------------------


def test_the_tags_of_arguments_that_are_there_are_facts_of_the_call(played: Played) -> None:
    without, written, foreign = (decision for _, decision in played.of("pay"))
    assert (without.tags, without.decision) == (("read",), "PERMIT")
    assert (written.tags, written.decision) == (("pii", "read", "write"), "PERMIT")
    assert (foreign.tags, foreign.decision) == (("foreign", "read"), "DENY")
    record, _ = played.of("pay")[2]
    masked = json.loads(played.opened(record, "masked_request")["masked_request"])
    assert masked["resource"]["tags"] == ["foreign", "read"]


# --- the same document -----------------------------------------------------------------------------------------------


def sessions_of(played: Played, *tools: str) -> set[str]:
    return {decision.session for tool in tools for _, decision in played.of(tool)}


def test_both_sessions_that_received_a_document_among_others_are_found(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "merger.txt"
    file.write_text(DOCUMENT)
    both = sessions_of(played, "read_contract", "search_mail")
    assert len(both) == 2
    for way in (("--seen-file", str(file)), ("--seen", hashlib.sha256(DOCUMENT.encode()).hexdigest())):
        found = played.command("find", *way, "--sessions")["sessions"]
        assert {one["session"] for one in found} == both
        assert [one["decisions"] for one in found] == [1, 1]


def test_a_value_is_found_by_a_file_that_spells_it_otherwise(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text('{\n  "revenue": 1.50,\n  "quarter": 3\n}\n')
    found = played.command("find", "--seen-file", str(file))["items"]
    assert [item["record"]["body"]["tool"] for item in found] == ["figures"]


@pytest.mark.parametrize("content", [DOCUMENT.strip(), "Here it is", "", json.dumps({**FIGURES, "more": 1})])
def test_what_nobody_received_is_found_nowhere(played: Played, tmp_path: Path, content: str) -> None:
    file = tmp_path / "other"
    file.write_text(content)
    assert played.command("find", "--seen-file", str(file))["items"] == []


def test_no_leaf_holds_the_digest_of_a_document(played: Played) -> None:
    digest = hashlib.sha256(DOCUMENT.encode()).hexdigest().encode()
    assert not any(digest in line or digest[:32] in line for line in played.written.lines.values())
