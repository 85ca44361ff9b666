"""What heartbeats say of a gateway, and what its configuration's fingerprint tells two gateways apart by."""

from __future__ import annotations

from typing import Any

import pytest

from enforcement.batches import Depth
from enforcement.config import BundleSettings, GatewayConfig
from enforcement.vitals import Vitals, config_fingerprint, contact_ms, count_modes, heartbeat
from ledger.bodies import Heartbeat

KEY = bytes(32)


def config(**members: Any) -> GatewayConfig:
    settings: dict[str, Any] = {
        "enforcer_id": "gateway-1",
        "log_id": "acme",
        "tenant": "acme",
        "environment": "test",
        "zone": "UTC",
        "state_directory": "state",
        "service": {"url": "http://127.0.0.1:1", "token": "env:A"},
        "keys": {"signing": "env:B", "pseudonym": "env:C", "spool": "env:D"},
        "servers": [{"name": "finance", "url": "http://127.0.0.1:2/mcp"}],
    }
    return GatewayConfig.model_validate({**settings, **members})


def server(**members: Any) -> dict[str, Any]:
    return {"name": "finance", "url": "http://127.0.0.1:2/mcp", **members}


def test_what_is_not_known_is_left_out_as_a_gateway_of_version_0_1_does() -> None:
    made = heartbeat("periodic", Vitals(), version="0.1.0", depth=Depth(0, 0, 0), oldest_ms=None)
    assert made == Heartbeat(kind="periodic", version="0.1.0", spool_depth=0)


def test_servers_and_the_tools_with_a_mode_of_their_own_are_counted_by_mode() -> None:
    tools = [{"name": "a", "mode": "observe"}, {"name": "b"}, {"name": "c", "mode": "enforce"}]
    assert count_modes(config(servers=[server(tools=tools)])) == (2, 1)
    assert count_modes(config(servers=[server(mode="observe")])) == (0, 1)


@pytest.mark.parametrize(
    ("wait", "poll", "beat", "expected"),
    [(30, 5, 60, 30_000), (0, 5, 60, 5_000), (30, 3600, 60, 60_000), (60, 5, 20, 20_000)],
)
def test_the_service_hears_of_a_gateway_by_questions_and_by_heartbeats(
    wait: float, poll: float, beat: float, expected: int
) -> None:
    assert contact_ms(BundleSettings(wait_seconds=wait, poll_seconds=poll), beat) == expected


@pytest.mark.parametrize(
    "own",
    [
        {"enforcer_id": "gateway-2"},
        {"state_directory": "elsewhere"},
        {"service": {"url": "http://127.0.0.1:9", "token": "env:X"}},
        {"bundles": {"trusted_keys": "elsewhere"}},
    ],
)
def test_gateways_that_judge_alike_have_one_fingerprint_wherever_they_are(own: dict[str, Any]) -> None:
    assert config_fingerprint(config(**own), KEY) == config_fingerprint(config(), KEY)


@pytest.mark.parametrize(
    "other",
    [
        {"zone": "Europe/Berlin"},
        {"servers": [server(mode="observe")]},
        {"servers": [server(), server(name="crm")]},
        {"principals": [{"token_sha256": "a" * 64, "agent": "Bot"}]},
        {"networks": [{"label": "office", "cidrs": ["10.0.0.0/8"]}]},
        {"limits": {"evaluation_seconds": 1.5}},
        {"sessions": {"idle_seconds": 60}},
        {"allowed_origins": ["https://example.com"]},
    ],
)
def test_gateways_that_judge_otherwise_have_another(other: dict[str, Any]) -> None:
    assert config_fingerprint(config(**other), KEY) != config_fingerprint(config(), KEY)


def test_who_lacks_the_tenants_key_cannot_guess_a_configuration_by_its_fingerprint() -> None:
    assert config_fingerprint(config(), KEY) != config_fingerprint(config(), b"1" * 32)
