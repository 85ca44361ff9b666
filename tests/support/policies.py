"""Builders for tests of `policies`: small Cedar bundles, and requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from policies.bundles import Bundle, bundle_from_files
from policies.model import DecisionRequest, Environment, Principal, Resource, SessionState, Time

SCHEMA = """
entity Role; entity Tag;
entity Agent in [Role] { name: String, level?: Long };
entity Server in [Tag] { name: String };
entity Tool in [Server, Tag] { name: String, server: Server, owner?: Role };
entity PriceList { unlisted: decimal } tags decimal;
type Facts = {
  identity: { user?: String, authn: String, mfa: Bool, roles: Set<String> },
  time: { now_ms: Long, zone: String, local_date: String, hour: Long, minute: Long, weekday: Long },
  environment: { address: String, network: String },
  state: { session: String, calls: Long, denied: Long, started_ms: Long },
  args: { amount?: Long, price?: decimal, sku?: String, dry?: Bool },
};
action "tools/list" appliesTo { principal: Agent, resource: Server, context: Facts };
action "tools/call" appliesTo { principal: Agent, resource: Tool, context: Facts };
action "reading";
action "resources/read" in ["reading"] appliesTo { principal: Agent, resource: [Tool, Server], context: Facts };
"""

PARAMETERS: list[dict[str, Any]] = [
    {"name": "amount", "type": "long", "paths": ["amount"]},
    {"name": "price", "type": "decimal", "paths": ["price", "item.price"]},
    {"name": "sku", "type": "string", "paths": ["sku"]},
    {"name": "dry", "type": "bool", "paths": ["dry"]},
]


def cedar_files(
    policy: str | Mapping[str, str],
    *,
    schema: str = SCHEMA,
    entities: object = None,
    parameters: object = None,
    **manifest: object,
) -> dict[str, bytes]:
    """Return the files of a Cedar bundle."""
    policies = {"policy.cedar": policy} if isinstance(policy, str) else dict(policy)
    files = {path: text.encode() for path, text in policies.items()}
    files["schema.cedarschema"] = schema.encode()
    files["parameters.json"] = json.dumps({"parameters": PARAMETERS if parameters is None else parameters}).encode()
    members: dict[str, object] = {
        "format": "tallystick.bundle/1",
        "name": "test",
        "engine": "cedar",
        "policies": list(policies),
        "schema": "schema.cedarschema",
        "parameters": "parameters.json",
    }
    if entities is not None:
        files["entities.json"] = json.dumps(entities).encode()
        members["entities"] = "entities.json"
    files["manifest.json"] = json.dumps({**members, **manifest}).encode()
    return files


PASSING_CASE: Mapping[str, bytes] = {
    "tests/always.yaml": b"""cases:
  - name: no schema declares this method, so that no rule is asked
    given: {agent: Bot, server: shop, method: tests/always, at: 2026-11-17T10:00:00}
    expect: {effect: INDETERMINATE, rules: []}
"""
}
"""The file of one test case that passes whatever the policies of a Cedar bundle say."""


def cedar_bundle(policy: str | Mapping[str, str], **options: Any) -> Bundle:
    """Return a Cedar bundle."""
    return bundle_from_files(cedar_files(policy, **options))


def make_request(**members: Any) -> DecisionRequest:
    """Return a request; members are those of its parts, flat."""
    return DecisionRequest(
        version=1,
        principal=Principal(
            agent=members.get("agent", "Bot"),
            user=members.get("user"),
            roles=members.get("roles", ("tester",)),
            authn=members.get("authn", "api_token"),
            mfa=members.get("mfa", False),
        ),
        action=members.get("action", "tools/call"),
        resource=Resource(
            server=members.get("server", "shop"), name=members.get("name", "sell"), tags=members.get("tags", ())
        ),
        time=Time(
            now_ms=members.get("now_ms", 1_763_546_400_000),
            zone="UTC",
            local_date=members.get("local_date", "2025-11-19"),
            hour=members.get("hour", 10),
            minute=0,
            weekday=members.get("weekday", 3),
        ),
        environment=Environment(address=members.get("address", "127.0.0.1"), network=members.get("network", "office")),
        state=SessionState(
            session=members.get("session", "s"),
            calls=members.get("calls", 0),
            started_ms=members.get("started_ms", 0),
        ),
        arguments=members.get("arguments", "{}"),
    )


def rego_files(
    policy: str | Mapping[str, str],
    *,
    data: object = None,
    parameters: object = None,
    **manifest: object,
) -> dict[str, bytes]:
    """Return the files of a Rego bundle; one policy without a package line is of ``package test``."""
    if isinstance(policy, str):
        policies = {"policy.rego": policy if "package " in policy else f"package test\n{policy}"}
    else:
        policies = dict(policy)
    files = {path: text.encode(errors="surrogatepass") for path, text in policies.items()}
    files["parameters.json"] = json.dumps({"parameters": PARAMETERS if parameters is None else parameters}).encode()
    members: dict[str, object] = {
        "format": "tallystick.bundle/1",
        "name": "test",
        "engine": "rego",
        "policies": list(policies),
        "parameters": "parameters.json",
    }
    if data is not None:
        files["data.json"] = data if isinstance(data, bytes) else json.dumps(data).encode()
        members["data"] = "data.json"
    files["manifest.json"] = json.dumps({**members, **manifest}).encode()
    return files


def rego_bundle(policy: str | Mapping[str, str], **options: Any) -> Bundle:
    """Return a Rego bundle."""
    return bundle_from_files(rego_files(policy, **options))
