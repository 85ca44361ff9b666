"""Certificates on both hops: who calls by an exact name in one, and that a server is the one that is pinned."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.integration.test_gateway_tls import hybrid, listener_settings, port_of, serve_mcp_by_tls
from tests.support.gateway import WAIT_SECONDS, Surroundings, deny_tool, surroundings
from tests.support.mcp_messages import body_of, headers_of
from tests.support.pki import AGENT, PKI

OTHER = "spiffe://acme/agent/other"
CERTIFICATES = [{"san": AGENT, "agent": "Finance-Bot", "user": "alice", "roles": ["finance"]}]


@pytest.fixture(name="pki", scope="module")
def _pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


def spki_of(certificate: Path) -> str:
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def play(scenario: Callable[[Surroundings], Awaitable[None]], directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world:
            await scenario(world)

    asyncio.run(run())


async def post(
    world: Surroundings, context: ssl.SSLContext, token: str | None = None, name: str = "refund_customer"
) -> Any:
    async with httpx2.AsyncClient(timeout=WAIT_SECONDS, verify=context) as http:
        url = f"https://127.0.0.1:{port_of(world)}/servers/finance/mcp"
        answer = await http.post(
            url, content=body_of(name=name, arguments={"amount": 1}), headers=headers_of(name=name, token=token)
        )
    return answer.json()


def reason(answer: Any) -> str:
    return str(answer["error"]["data"]["reason"])


def test_a_certificate_names_its_agent_and_with_a_token_both_must_name_the_same(tmp_path: Path, pki: PKI) -> None:
    known, stranger = hybrid(pki.client("known", AGENT), pki.ca), hybrid(pki.client("other", OTHER), pki.ca)

    async def scenario(world: Surroundings) -> None:
        identity = {"certificates": CERTIFICATES}
        async with world.running(tls=listener_settings(pki), identity=identity):
            assert (await post(world, known))["result"]
            assert (await post(world, known, "finance-token"))["result"]
            assert (await post(world, stranger, "finance-token"))["result"]  # the token alone
            assert reason(await post(world, known, "support-token")) == "unauthenticated"
            assert reason(await post(world, known, "wrong")) == "unauthenticated"
            assert reason(await post(world, stranger)) == "unauthenticated"
        facts = [decision.facts for decision in world.ledger.decisions()]
        assert [one.authn for one in facts if one is not None] == ["mtls", "api_token+mtls", "api_token"]
        assert len(world.tools.calls) == 3

    play(scenario, tmp_path)


def test_where_certificates_are_demanded_a_token_from_elsewhere_is_worth_nothing(tmp_path: Path, pki: PKI) -> None:
    known, stranger = hybrid(pki.client("known", AGENT), pki.ca), hybrid(pki.client("other", OTHER), pki.ca)

    async def scenario(world: Surroundings) -> None:
        identity = {"certificates": CERTIFICATES, "require_certificate": True}
        async with world.running(tls=listener_settings(pki), identity=identity):
            assert reason(await post(world, stranger, "finance-token")) == "unauthenticated"
            assert (await post(world, known, "finance-token"))["result"]
        assert len(world.tools.calls) == 1

    play(scenario, tmp_path)


def test_a_killed_principal_does_not_come_back_with_a_certificate_or_a_renewed_one(tmp_path: Path, pki: PKI) -> None:
    contexts = [hybrid(pki.client(name, AGENT), pki.ca) for name in ("first", "renewed")]

    async def scenario(world: Surroundings) -> None:
        async with world.running(tls=listener_settings(pki), identity={"certificates": CERTIFICATES}):
            assert (await post(world, contexts[0]))["result"]
            killed = await post(world, contexts[0], "finance-token", "transfer_funds")
            assert killed["error"]["data"]["enforcement"] == "kill"
            for context in contexts:
                assert reason(await post(world, context)) == "session_ended"
        assert world.tools.calls == ["refund_customer"]

    play(scenario, tmp_path, answer=deny_tool("transfer_funds", obligations=("end_session",)))


def test_a_server_that_is_not_the_pinned_one_is_sent_nothing(tmp_path: Path, pki: PKI) -> None:
    files = pki.server("mcp")

    async def scenario(world: Surroundings) -> None:
        async with serve_mcp_by_tls(world.tools, pki, files) as port:
            server = {"url": f"https://127.0.0.1:{port}/mcp", "tls": {"ca": str(pki.ca)}}
            outcomes = []
            for pin in (
                {"spki_sha256": ["00" * 32]},
                {"sans": ["spiffe://acme/server/finance"]},
                {"spki_sha256": ["00" * 32, spki_of(files.certificate)], "sans": ["DNS:localhost"]},
            ):
                async with world.running(server={**server, "pin": pin}), world.http() as http:
                    body = body_of(arguments={"amount": 1})
                    answer = (await http.post(world.mcp_url, content=body, headers=headers_of())).json()
                    outcomes.append(reason(answer) if "error" in answer else "result")
        assert outcomes == ["server_identity", "server_identity", "result"]
        recorded = [(outcome.status, outcome.reason) for outcome in world.ledger.outcomes()]
        assert recorded == [("failed", "server_identity"), ("failed", "server_identity"), ("completed", None)]
        assert world.tools.calls == ["refund_customer"]

    play(scenario, tmp_path)


@pytest.mark.parametrize(
    ("pin", "status", "why"),
    [
        ({"server_name": "finance"}, "completed", None),
        ({"server_name": "payroll"}, "failed", "server_identity"),
        ({"server_name": "payroll", "other_name": "record"}, "completed", "server_identity"),
    ],
)
def test_the_answers_of_a_server_that_calls_itself_otherwise_are_withheld_or_recorded(
    tmp_path: Path, pin: dict[str, str], status: str, why: str | None
) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(server={"url": world.upstream, "pin": pin}), world.http() as http:
            body = body_of(arguments={"amount": 1})
            answer = (await http.post(world.mcp_url, content=body, headers=headers_of())).json()
        assert ("result" in answer) is (status == "completed")
        (outcome,) = world.ledger.outcomes()
        assert (outcome.status, outcome.reason) == (status, why)

    play(scenario, tmp_path)
