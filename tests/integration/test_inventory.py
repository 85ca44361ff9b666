"""The inventory of a real service, on both databases: what there is, what people say of it, what an agent can reach."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785
import yaml
from click.testing import CliRunner

from enforcement.config import ServerSettings
from ledger.bodies import AccessEvent, Facts
from ledger.bodies_inventory import InventoryEvent
from service.auth import Role
from service.cli.main import cli
from tests.support.forgery import slip_in
from tests.support.packs import ready_bundle
from tests.support.service import EnforcerClient, RunningService, start_service

POLICY = """
@id("reads") permit (principal, action == Action::"tools/call", resource) when { resource in Tag::"read" };
@id("pays") @obligation("approval")
permit (principal, action == Action::"tools/call", resource) when { resource.name == "refund" };
@id("by-day") permit (principal, action == Action::"tools/call", resource)
when { resource.name == "export_all" && context.time.hour >= 8 && context.time.hour < 18 };
@id("lists") permit (principal, action == Action::"tools/list", resource);
"""
FACTS = Facts(
    authn="api_token",
    zone="Europe/Berlin",
    local_hour=11,
    local_minute=0,
    weekday=3,
    network="office",
    session_calls=0,
    roles=("tester",),
)
ALLOWED: dict[str, Any] = {"decision": "PERMIT", "enforcement": "allow", "failed_condition": None, "facts": FACTS}


def listed(server: str, **members: Any) -> InventoryEvent:
    return InventoryEvent(action="registered", server=server, **members)


def suggested(server: str, tool: str, **members: Any) -> InventoryEvent:
    return InventoryEvent(action="suggested", server=server, tool=tool, definition="d1" * 32, **members)


def tell(enforcer: EnforcerClient, *events: InventoryEvent) -> None:
    enforcer.post([(enforcer.record(event), ()) for event in events]).raise_for_status()


@pytest.fixture(autouse=True)
def _databases_are_closed() -> None:
    """Leave the database alone that the running service has open from one test to the next; it closes it itself."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    changes: dict[str, object] = {}
    if request.param == "postgresql":
        changes = {"database_url": request.getfixturevalue("postgres").new_schema(), "migrate": True}
    with start_service(tmp_path_factory.mktemp("inventory"), **changes) as running:
        fill(running)
        yield running


def fill(service: RunningService) -> None:
    """Put in three servers, one of them unowned and one on no list, and an agent that uses a part of what it may."""
    service.put_in_force(ready_bundle(POLICY))
    gateway = service.enforcer("gateway-1", seed=31)
    other = service.enforcer("gateway-2", seed=32)
    tell(
        gateway,
        listed("shop", owner="team-shop", tags=("internal",)),
        listed("shop", tool="search", tags=("read",)),
        listed("crm"),
        suggested("shop", "search", tags=("read",), rules=("read:name",)),
        suggested(
            "shop",
            "refund",
            tags=("irreversible", "payment", "write"),
            rules=("irreversible:name", "payment:name", "write:name"),
            disagreements=("readOnlyHint",),
        ),
        suggested("shop", "export_all", tags=("bulk",), rules=("bulk:name",)),
        suggested("crm", "drop_everything", tags=("irreversible", "write"), rules=("irreversible:name",)),
    )
    tell(other, listed("shop", owner="team-other", tags=("internal",)))
    for tool, times in (("search", 3), ("refund", 1)):
        for _ in range(times):
            gateway.decide(agent="shop-bot", server="shop", tool=tool, **ALLOWED)
    gateway.decide(agent="shop-bot", server="crm", tool="drop_everything", facts=FACTS)
    gateway.decide(agent="other-bot", server="wiki", tool="read_page", **ALLOWED)
    gateway.decide(agent="shop-bot", server="shop", method="tools/list", tool=None, **ALLOWED)


def get(service: RunningService, path: str, role: Role = Role.AUDITOR, **params: object) -> Any:
    with service.client(role) as client:
        answer = client.get(path, params={name: str(value) for name, value in params.items()})
    answer.raise_for_status()
    return answer.json()


def line_of(service: RunningService, server: str, tool: str) -> dict[str, Any]:
    (found,) = [line for line in get(service, f"/v1/inventory/{server}")["tools"] if line["tool"] == tool]
    return dict(found)


# --- servers and tools


def test_servers_are_listed_unowned_first_with_what_lists_and_calls_say(service: RunningService) -> None:
    found = get(service, "/v1/inventory")
    assert [(line["name"], line["state"], line["owners"]) for line in found["items"]] == [
        ("crm", "registered", []),
        ("wiki", "unlisted", []),
        ("shop", "registered", ["team-other", "team-shop"]),
    ]
    assert (found["totals"]["unowned"], found["totals"]["unlisted"], found["totals"]["never_used"]) == (1, 1, 1)
    shop = found["items"][2]
    assert (shop["differing"], shop["enforcers"], shop["unused_tools"]) == (True, ["gateway-1", "gateway-2"], 1)
    assert (shop["use"]["calls"], shop["use"]["passed"], shop["agents"]) == (4, 4, 1)
    crm = found["items"][0]
    assert (crm["use"]["calls"], crm["use"]["refused"], crm["use"]["passed"]) == (1, 1, 0)
    assert (found["counted"]["from_leaf"], found["counted"]["complete"], found["counted"]["calls"]) == (0, True, 6)


def test_first_and_last_use_name_the_leaves_that_say_so(service: RunningService) -> None:
    use = line_of(service, "shop", "search")["use"]
    first, last = (service.services.reader.record(use[name]) for name in ("first_leaf", "last_leaf"))
    assert {(record.body.server, record.body.tool) for record in (first, last)} == {("shop", "search")}
    assert (first.time_ms, last.time_ms) == (use["first_ms"], use["last_ms"])
    assert use["calls"] == 3


def test_pages_follow_one_another_and_leave_nothing_out(service: RunningService) -> None:
    whole = get(service, "/v1/inventory", kind="tools")["items"]
    found: list[Any] = []
    cursor: str | None = None
    while True:
        page = get(service, "/v1/inventory", kind="tools", limit=2, **({"cursor": cursor} if cursor else {}))
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [(one["server"], one["tool"]) for one in found] == [(one["server"], one["tool"]) for one in whole]
    assert len(whole) == 5


@pytest.mark.parametrize(
    ("params", "tools"),
    [
        ({"unused": True}, {"export_all"}),
        ({"server": "crm"}, {"drop_everything"}),
        ({"unowned": True}, {"drop_everything", "read_page"}),
        ({"disputed": True}, {"refund"}),
        ({"server": "nowhere"}, set()),
    ],
)
def test_filters_restrict_and_say_how_many_match(
    service: RunningService, params: dict[str, object], tools: set[str]
) -> None:
    found = get(service, "/v1/inventory", kind="tools", **params)
    assert {line["tool"] for line in found["items"]} == tools
    assert found["matching"] == len(tools)


@pytest.mark.parametrize(
    "params",
    [{"kind": "owners"}, {"limit": 0}, {"limit": 501}, {"server": "a b"}, {"cursor": "x" * 301}, {"unowned": "maybe"}],
)
def test_a_question_that_makes_no_sense_is_refused(service: RunningService, params: dict[str, Any]) -> None:
    with service.client() as client:
        answer = client.get("/v1/inventory", params=params)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_server_that_nobody_knows_is_not_found(service: RunningService) -> None:
    with service.client() as client:
        assert client.get("/v1/inventory/nowhere").status_code == 404
        assert client.get("/v1/agents/nobody/privileges").status_code == 404


def test_every_reading_is_recorded_with_who_and_what(service: RunningService) -> None:
    before = len(service.access_events("view"))
    get(service, "/v1/inventory/shop")
    get(service, "/v1/agents/shop-bot/privileges")
    events: list[AccessEvent] = service.access_events("view")[before:]
    assert [(event.target_kind, event.target_id, event.items) for event in events] == [
        ("inventory", "shop", 3),
        ("privileges", "shop-bot", 4),
    ]


# --- what people say


def speak(service: RunningService, role: Role, verdict: str, *tags: str, tool: str = "refund") -> Any:
    with service.client(role) as client:
        body = {"tool": tool, "tags": list(tags), "verdict": verdict, "comment": "as agreed with the team"}
        return client.post("/v1/inventory/shop/tags", json=body)


def test_a_tag_is_suggested_confirmed_and_rejected_and_in_force_by_the_list_alone(service: RunningService) -> None:
    states = {term["tag"]: term["state"] for term in line_of(service, "shop", "refund")["terms"]}
    assert states == {"internal": "in_force", "irreversible": "suggested", "payment": "suggested", "write": "suggested"}
    assert speak(service, Role.APPROVER, "confirmed", "payment", "irreversible").status_code == 201
    assert speak(service, Role.APPROVER, "rejected", "write", "internal").status_code == 201
    line = line_of(service, "shop", "refund")
    assert {term["tag"]: term["state"] for term in line["terms"]} == {
        "internal": "contested",
        "irreversible": "confirmed",
        "payment": "confirmed",
        "write": "rejected",
    }
    assert line["tags"] == ["internal"]  # nothing that somebody says puts a tag in force
    tell(gateway_of(service), listed("shop", tool="refund", tags=("irreversible", "payment")))
    states = {term["tag"]: term["state"] for term in line_of(service, "shop", "refund")["terms"]}
    assert (states["payment"], states["irreversible"]) == ("in_force", "in_force")


def gateway_of(service: RunningService) -> EnforcerClient:
    """Return one more gateway: lists of several are taken together."""
    number = len(service.services.keyring.keys) + 40
    return service.enforcer(f"gateway-{number}", seed=number)


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.RESPONDER])
def test_who_may_not_confirm_is_refused_and_nothing_is_recorded(service: RunningService, role: Role) -> None:
    before = line_of(service, "shop", "search")["terms"]
    assert speak(service, role, "confirmed", "bulk", tool="search").status_code == 403
    assert line_of(service, "shop", "search")["terms"] == before


def test_a_machine_confirms_nothing_whatever_its_role(service: RunningService) -> None:
    token = service.machine_token(Role.ADMIN, "a-script")
    with service.client(token=token) as client:
        answer = client.post(
            "/v1/inventory/shop/tags", json={"tool": "search", "tags": ["bulk"], "verdict": "confirmed"}
        )
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:tallystick:problem:person-needed")


@pytest.mark.parametrize("action", ["confirmed", "rejected"])
def test_a_confirmation_that_a_gateway_claims_is_none(service: RunningService, action: str) -> None:
    claimed = InventoryEvent(action=action, server="shop", tool="search", tags=("bulk",))  # type: ignore[arg-type]
    gateway = gateway_of(service)
    record = gateway.record(claimed)
    answer = gateway.post([(record, ())])
    assert answer.status_code == 403
    assert "says what people said" in answer.json()["detail"]
    slip_in(service, record)  # nor would it count if it were in the log
    assert {term["tag"] for term in line_of(service, "shop", "search")["terms"]} == {"internal", "read"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tool": "nowhere", "tags": ["x"], "verdict": "confirmed"}, 404),
        ({"tool": "refund", "tags": [], "verdict": "confirmed"}, 422),
        ({"tool": "refund", "tags": ["a b"], "verdict": "confirmed"}, 422),
        ({"tool": "refund", "tags": ["x"], "verdict": "perhaps"}, 422),
        ({"tool": "refund", "tags": ["x"] * 17, "verdict": "confirmed"}, 422),
        ({"tool": "refund", "tags": ["x"], "verdict": "confirmed", "owner": "me"}, 422),
    ],
)
def test_what_cannot_be_said_of_a_tool_is_refused(service: RunningService, body: dict[str, Any], status: int) -> None:
    with service.client(Role.APPROVER) as client:
        assert client.post("/v1/inventory/shop/tags", json=body).status_code == status


# --- privileges


def test_reachable_is_what_the_policy_says_and_used_is_what_the_log_says(service: RunningService) -> None:
    report = get(service, "/v1/agents/shop-bot/privileges")
    lines = {(line["server"], line["tool"]): line for line in report["lines"]}
    search, export = lines["shop", "search"], lines["shop", "export_all"]
    assert (search["reach"], search["rules"], search["within"], search["unused"]) == (
        "allowed",
        ["reads"],
        [3, 3, 3],
        False,
    )
    assert (export["reach"], export["rules"], export["unused"]) == ("allowed", ["by-day"], True)
    assert 0 < export["circumstances"] < export["asked"]  # not at night
    refund = lines["shop", "refund"]
    assert (refund["reach"], refund["rules"], refund["unapproved"]) == ("approval", ["pays"], 0)
    drop = lines["crm", "drop_everything"]
    assert (drop["reach"], drop["use"]["refused"], drop["within"]) == ("refused", 1, [0, 0, 0])
    assert ("wiki", "read_page") not in lines  # on no list, and not called by this agent
    totals = report["totals"]
    assert (totals["tools"], totals["reachable"], totals["approval"], totals["unused"]) == (4, 3, 1, 1)
    assert len(report["bundle"]) == 64


def test_the_worklist_begins_with_what_is_granted_and_unused(service: RunningService) -> None:
    report = get(service, "/v1/agents/shop-bot/privileges")
    assert report["lines"][0]["tool"] == "export_all"
    grants = {grant["rule"]: grant for grant in report["grants"]}
    assert grants["by-day"] == {"rule": "by-day", "tools": 1, "unused": 1, "calls": 0}
    assert (grants["reads"]["unused"], grants["reads"]["calls"]) == (0, 3)  # these would break without it


def test_the_circumstances_are_those_in_which_the_agent_was_seen(service: RunningService) -> None:
    asked = get(service, "/v1/agents/shop-bot/privileges")["circumstances"]
    assert [one["when"] for one in asked] == ["now", "Wednesday 11:00", "Sunday 03:00"]
    assert {(one["authn"], one["network"], one["zone"]) for one in asked} == {("api_token", "office", "Europe/Berlin")}
    assert "6" * 32 not in json.dumps(asked)  # the user's pseudonym was asked about, and is not told


def test_an_agent_that_was_never_seen_with_facts_is_asked_about_in_no_circumstance(service: RunningService) -> None:
    gateway_of(service).decide(agent="faceless", server="shop", tool="search")
    report = get(service, "/v1/agents/faceless/privileges")
    assert report["circumstances"] == []
    assert {line["reach"] for line in report["lines"]} == {"unknown"}  # and not refused, which nobody knows


# --- pinned views


@pytest.mark.parametrize("wanted", [{"view": "inventory"}, {"view": "privileges", "agent": "shop-bot"}])
def test_a_view_that_is_pinned_is_a_record_of_its_digest(service: RunningService, wanted: dict[str, str]) -> None:
    with service.client(Role.AUDITOR) as client:
        answer = client.post("/v1/inventory", json={**wanted, "comment": "for the quarter's review"})
    assert answer.status_code == 201, answer.text
    pinned = answer.json()
    assert pinned["digest"] == sha256(rfc8785.dumps(pinned["snapshot"])).hexdigest()
    body = service.services.reader.record(pinned["leaf_index"]).body
    assert isinstance(body, InventoryEvent)
    assert (body.action, body.view, body.agent, body.digest) == (
        "pinned",
        wanted["view"],
        wanted.get("agent"),
        pinned["digest"],
    )
    assert 0 < body.size <= pinned["leaf_index"]


@pytest.mark.parametrize("wanted", [{}, {"view": "privileges"}, {"view": "inventory", "agent": "shop-bot"}])
def test_a_view_of_nothing_is_not_pinned(service: RunningService, wanted: dict[str, str]) -> None:
    with service.client(Role.AUDITOR) as client:
        assert client.post("/v1/inventory", json=wanted).status_code == 422


def test_rows_that_the_log_does_not_bear_out_are_not_pinned(tmp_path: Path) -> None:
    """Somebody bends a row, so that a call appears to be another tool's: what is shown may follow, no record does."""
    with start_service(tmp_path) as service:
        gateway = service.enforcer()
        gateway.decide(agent="bot", server="shop", tool="search")
        gateway.decide(agent="bot", server="shop", tool="refund")
        with closing(service.services.database.raw_connection()) as connection:
            connection.execute("DROP TRIGGER records_refuse_update")  # type: ignore[attr-defined]  # a SQLite connection
            connection.execute(  # type: ignore[attr-defined]
                "UPDATE records SET tool = (SELECT name_no FROM names WHERE name = 'refund') WHERE tool IS NOT NULL"
            )
            connection.commit()
        with service.client(Role.AUDITOR) as client:
            assert client.get("/v1/inventory/shop").status_code == 200
            answer = client.post("/v1/inventory", json={"view": "inventory"})
        assert answer.status_code == 422
        assert "is no call of shop/refund by bot" in answer.json()["detail"]


# --- the command line


def run(service: RunningService, role: Role, *arguments: str) -> tuple[int, str]:
    """Return exit status and output of a command."""
    environment = {"TALLYSTICK_URL": service.url, "TALLYSTICK_TOKEN": service.token(role)}
    done = CliRunner().invoke(cli, list(arguments), env=environment)
    return done.exit_code, done.output


def test_the_unowned_stand_first_and_by_name_on_the_command_line(service: RunningService) -> None:
    status, text = run(service, Role.AUDITOR, "inventory", "servers")
    assert status == 0, text
    header, first, *_ = text.splitlines()
    assert header.split()[:2] == ["SERVER", "OWNER"]
    assert first.split()[:2] == ["crm", "UNOWNED"]
    assert "Counted from leaves 0 to " in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["inventory", "servers"],
        ["inventory", "tools"],
        ["inventory", "agents"],
        ["inventory", "tags"],
        ["privileges", "shop-bot"],
    ],
)
def test_every_list_is_printed_for_people_and_for_programs(service: RunningService, arguments: list[str]) -> None:
    status, text = run(service, Role.AUDITOR, *arguments)
    assert (status, bool(text.strip())) == (0, True)
    status, text = run(service, Role.AUDITOR, *arguments, "--json")
    assert status == 0
    assert json.loads(text)["items" if "inventory" in arguments else "lines"]


def test_confirmed_tags_come_out_as_entries_for_a_list_of_servers(service: RunningService) -> None:
    status, text = run(
        service, Role.APPROVER, "inventory", "confirm", "shop", "export_all", "bulk", "external", "--comment", "agreed"
    )
    assert status == 0, text
    status, text = run(service, Role.AUDITOR, "inventory", "tags", "--yaml")
    assert status == 0
    entries = {entry["name"]: entry["tools"] for entry in yaml.safe_load(text)["servers"]}
    assert {"name": "export_all", "tags": ["bulk", "external"]} in entries["shop"]
    for name, tools in entries.items():  # a gateway takes them
        ServerSettings(name=name, url="http://127.0.0.1:1/mcp", tools=tools)


def test_a_pinned_view_is_saved_as_the_log_has_its_digest(service: RunningService, tmp_path: Path) -> None:
    output = tmp_path / "view.json"
    arguments = ["inventory", "pin", "--agent", "shop-bot", "--output", str(output), "--json"]
    status, text = run(service, Role.AUDITOR, *arguments)
    assert status == 0, text
    assert json.loads(text)["digest"] == sha256(output.read_bytes()).hexdigest()
    assert run(service, Role.AUDITOR, *arguments)[0] == 64  # it is there, and is not overwritten


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["privileges", "nobody"], 4),
        (["privileges", "a/b"], 4),
        (["privileges", ""], 64),
        (["inventory", "tools", "--server", "a b"], 64),
        (["inventory", "confirm", "shop", "search", "bulk"], 64),  # an auditor may not
        (["inventory", "confirm", "shop"], 2),
        (["inventory", "everything"], 2),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_a_status(
    service: RunningService, arguments: list[str], status: int
) -> None:
    found, text = run(service, Role.AUDITOR, *arguments)
    assert found == status, text
    assert "Traceback" not in text
