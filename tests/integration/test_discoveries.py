"""Discovery on record: a scan is handed in, what nobody registered is in the inventory, and people say what it is."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from ledger.bodies_discovery import DiscoveryEvent
from ledger.bodies_inventory import InventoryEvent
from ledger.records import encode_record
from service.auth import Role
from service.cli.main import cli
from tests.support.discoveries import a_scan, sighting
from tests.support.ledger import LOG_ID
from tests.support.service import EnforcerClient, RunningService, start_service

WHY = "looked at it with the team"
SECRETS = ("10.0.0.7", "Finance of Carol", "9.1-secret", "carols-laptop", "/mnt/carol", "npx-secret", "Mallory's", WHY)


@pytest.fixture
def service(tmp_path):
    with start_service(tmp_path) as running:
        yield running


def post(service: RunningService, *servers: dict[str, Any], role: Role = Role.CLIENT, **changes: Any) -> httpx.Response:
    with service.client(role) as client:
        return client.post("/v1/discoveries", json=a_scan(*servers, **changes))


def listed(service: RunningService, state: str = "open") -> list[dict[str, Any]]:
    with service.client(Role.AUDITOR) as auditor:
        answer = auditor.get("/v1/discoveries", params={"state": state})
    answer.raise_for_status()
    return list(answer.json()["items"])


def say(service: RunningService, discovery_id: str, step: str, role: Role = Role.RESPONDER) -> httpx.Response:
    with service.client(role) as person:
        return person.post(f"/v1/discoveries/{discovery_id}/{step}", json={"comment": WHY})


def register(gateway: EnforcerClient, server: str, action: str = "registered") -> None:
    gateway.post([(gateway.record(InventoryEvent(action=action, server=server)), ())]).raise_for_status()


def records(service: RunningService) -> list[DiscoveryEvent]:
    services = service.services
    return [services.reader.record(leaf).body for leaf in services.catalog.of_type(LOG_ID, "discovery")]


def configured(file: str = "/mnt/carol/.cursor/mcp.json", **changes: Any) -> dict[str, Any]:
    return sighting(
        **{
            "place": "npx-secret",
            "source": "client",
            "transport": "stdio",
            "client": "Claude Desktop",
            "file": file,
            "eras": [],
            "revisions": [],
            **changes,
        }
    )


def test_a_scan_is_recorded_with_all_that_it_found_and_no_leaf_says_where_that_is(service):
    done = post(service, sighting(revisions=["2025-11-25", "Mallory's\nown"]), configured()).json()
    assert (done["new"], done["recorded"], len(done["unregistered"])) == (2, 2, 2)
    scan, *found = records(service)
    assert (scan.action, scan.hosts, scan.requests, scan.sightings, scan.unregistered) == ("scanned", 17, 9, 2, 2)
    assert scan.laboratory == "1a" * 32
    assert [one.action for one in found] == ["found", "found"]
    assert {one.scan_id for one in found} == {scan.scan_id} == {done["scan_id"]}
    assert found[0].revisions == ("2025-11-25",)  # what is no name is in the vault alone
    assert found[1].client == "Claude-Desktop"
    services = service.services
    leaves = b"".join(encode_record(services.reader.record(leaf)) for leaf in range(services.sequenced_size()))
    with service.client(Role.AUDITOR) as auditor:
        told = auditor.get("/v1/discoveries").text + auditor.get(f"/v1/discoveries/{done['unregistered'][0]}").text
    for secret in SECRETS:
        assert secret.encode() not in leaves, secret
        assert secret not in told, secret


def test_where_a_server_is_a_person_sees_for_a_purpose_that_is_recorded_first(service):
    (discovery_id,) = post(service, sighting()).json()["unregistered"]
    path = f"/v1/discoveries/{discovery_id}/open"
    for role in (Role.AUDITOR, Role.CLIENT):
        with service.client(role) as nobody:
            assert nobody.post(path, json={"purpose": WHY}).status_code == 403
    with service.client(token=service.machine_token(Role.RESPONDER)) as machine:
        assert machine.post(path, json={"purpose": WHY}).status_code == 403
    assert service.access_events("open_payload") == []
    with service.client(Role.APPROVER) as approver:
        assert approver.post(path, json={}).status_code == 422
        details = approver.post(path, json={"purpose": WHY}).json()["details"]
    assert details["place"] == "http://10.0.0.7:8000/mcp"
    assert details["name"] == "Finance of Carol"
    (access,) = service.access_events("open_payload")
    assert access.target_id == discovery_id


def test_what_is_found_again_is_the_same_server_and_new_only_where_it_stands_otherwise(service):
    (first,) = post(service, sighting()).json()["unregistered"]
    again = post(service, sighting(name="another name, the same place")).json()
    assert (again["new"], again["unregistered"]) == (0, [first])
    assert post(service, sighting(transport="sse")).json()["new"] == 1
    (item,) = listed(service)
    assert (item["id"], item["sightings"]) == (first, 3)
    assert [one.action for one in records(service) if one.action != "scanned"] == ["found", "seen", "found"]


def test_the_same_server_twice_in_one_scan_is_found_once(service):
    done = post(service, sighting(), sighting()).json()
    assert (done["new"], done["recorded"], len(done["unregistered"])) == (1, 2, 1)
    (item,) = listed(service)
    assert (item["id"], item["sightings"]) == (done["unregistered"][0], 2)


def test_a_program_is_another_server_under_another_name_or_in_anothers_configuration(service):
    found = [configured(), configured(name="other"), configured(file="/mnt/dave/mcp.json"), configured(client="Zed")]
    assert post(service, *found).json()["new"] == 4
    assert len(listed(service)) == 4


def test_a_server_is_unregistered_until_a_gateways_list_has_it_and_again_when_it_goes(service):
    gateway = service.enforcer()
    post(service, sighting())
    claimed = sighting(standing="registered", server="finance")
    post(service, claimed)
    assert [(one["state"], one["listed"]) for one in listed(service)] == [("open", False)]
    register(gateway, "finance")
    assert listed(service) == []
    assert [(one["state"], one["listed"]) for one in listed(service, "settled")] == [("settled", True)]
    register(gateway, "finance", "removed")
    assert len(listed(service)) == 1


def test_a_person_dismisses_with_a_reason_and_takes_it_back_and_no_machine_does(service):
    (discovery_id,) = post(service, sighting()).json()["unregistered"]
    for step in ("dismiss", "reopen"):
        with service.client(token=service.machine_token(Role.ADMIN)) as machine:
            answer = machine.post(f"/v1/discoveries/{discovery_id}/{step}", json={"comment": WHY})
        assert answer.json()["type"].endswith("person-needed")
        with service.client(Role.RESPONDER) as person:
            for said in ({}, {"comment": "short"}, {"comment": WHY, "until": 1}):
                assert person.post(f"/v1/discoveries/{discovery_id}/{step}", json=said).status_code == 422
    assert say(service, discovery_id, "reopen").status_code == 409
    assert say(service, discovery_id, "dismiss").json()["state"] == "dismissed"
    assert say(service, discovery_id, "dismiss").status_code == 409
    assert listed(service) == []
    (item,) = listed(service, "dismissed")
    assert item["dismissed_by"] == records(service)[-1].actor
    assert say(service, discovery_id, "reopen", Role.APPROVER).json()["state"] == "open"
    assert len(listed(service)) == 1
    with service.client(Role.AUDITOR) as auditor:
        steps = auditor.get(f"/v1/discoveries/{discovery_id}").json()["steps"]
    assert [step["action"] for step in steps] == ["found", "dismissed", "reopened"]


def test_a_dismissed_server_that_a_client_goes_to_past_the_gateways_is_open_again(service):
    (discovery_id,) = post(service, sighting()).json()["unregistered"]
    say(service, discovery_id, "dismiss").raise_for_status()
    assert post(service, sighting()).json()["new"] == 0
    assert listed(service) == []
    post(service, sighting(standing="bypass", server="finance"))
    assert [one["id"] for one in listed(service)] == [discovery_id]


def test_a_dismissal_outlives_the_rotation_of_the_pseudonym_key_and_a_restart(tmp_path):
    with start_service(tmp_path) as service:
        (discovery_id,) = post(service, sighting(), configured()).json()["unregistered"][:1]
        say(service, discovery_id, "dismiss").raise_for_status()
        environment = {"TALLYSTICK_KEYS_DIR": str(tmp_path / "keys"), "TALLYSTICK_LOG_ID": LOG_ID}
        environment |= {"TALLYSTICK_URL": service.url, "TALLYSTICK_TOKEN": service.token(Role.ADMIN)}
        before = service.services.keys.pseudonym_key_id
        rotated = CliRunner().invoke(cli, ["keys", "rotate", "pseudonym"], env=environment)
        assert rotated.exit_code == 0, rotated.output
        assert service.services.keys.pseudonym_key_id != before
        assert post(service, sighting()).json()["new"] == 0
        places = {one.place for one in records(service) if one.transport == "streamable_http"}
        assert len(places) == 2
    with start_service(tmp_path) as service:
        assert post(service, sighting()).json()["new"] == 0
        assert [one["id"] for one in listed(service, "dismissed")] == [discovery_id]


@pytest.mark.parametrize(
    "changes",
    [
        {"servers": [{}]},
        {"servers": [sighting(standing="unknown")]},
        {"servers": [sighting(server="finance")]},
        {"servers": [sighting(standing="registered")]},
        {"servers": [sighting(standing="bypass")]},
        {"servers": [sighting(client="Cursor")]},
        {"servers": [sighting(source="client")]},
        {"servers": [sighting(place="")]},
        {"servers": [sighting(place="x" * 5000)]},
        {"servers": [sighting(server="a b", standing="registered")]},
        {"servers": [sighting(eras=["a b"])]},
        {"servers": [sighting(tools=["pay"])]},
        {"servers": [sighting()] * 1001},
        {"laboratory": "1a"},
        {"version": ""},
        {"counts": {"hosts": -1}},
        {"counts": {"password": 1}},
        {"given": {"targets": [5]}},
        {"ended_ms": 1},
        {"started_ms": -1},
        {"servers": None},
    ],
)
def test_what_is_no_scan_is_refused_and_nothing_of_it_recorded(service, changes):
    before = service.services.sequenced_size()
    answer = post(service, **changes)
    assert answer.status_code == 422
    assert service.services.sequenced_size() == before


def test_a_text_that_json_cannot_carry_is_refused_and_nothing_recorded(service):
    before = service.services.sequenced_size()
    body = json.dumps(a_scan(sighting(name="\ud800"))).encode()
    with service.client(Role.CLIENT) as client:
        answer = client.post("/v1/discoveries", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert service.services.sequenced_size() == before


def test_an_enforcer_cannot_write_what_was_found(service):
    gateway = service.enforcer()
    forged = DiscoveryEvent(action="dismissed", actor="0e" * 16, actor_role="responder")
    assert gateway.post([(gateway.record(forged), ())]).status_code == 403


def test_a_list_is_handed_out_in_pages_and_that_it_was_is_recorded(service):
    post(service, *(sighting(f"http://10.0.0.{number}/mcp") for number in range(5)))
    with service.client(Role.AUDITOR) as auditor:
        first = auditor.get("/v1/discoveries", params={"limit": 3}).json()
        second = auditor.get("/v1/discoveries", params={"limit": 3, "offset": first["next_offset"]}).json()
    assert (len(first["items"]), len(second["items"]), second["next_offset"]) == (3, 2, None)
    assert first["open"] == 5
    assert first["scans"][0]["ports"] == 17
    viewed = [event.items for event in service.access_events("view") if event.target_kind == "discoveries"]
    assert viewed == [3, 2]


# --- from the command line


def run(service: RunningService, *arguments: str, role: Role = Role.RESPONDER) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [*arguments, "--url", service.url, "--token", service.token(role)])
    return int(result.exit_code), result.output


def test_the_command_lists_dismisses_and_shows_where_one_is(service):
    assert run(service, "inventory", "unregistered") == (0, run(service, "inventory", "unregistered")[1])
    assert "No scan was handed in" in run(service, "inventory", "unregistered")[1]
    (discovery_id,) = post(service, sighting(name="\x1b[2Jhidden")).json()["unregistered"]
    status, told = run(service, "inventory", "unregistered")
    assert (status, discovery_id in told, "OPEN" in told) == (1, True, True)
    status, told = run(service, "inventory", "where", discovery_id, "--purpose", WHY)
    assert status == 0
    assert "http://10.0.0.7:8000/mcp" in told
    assert "\x1b" not in told
    status, told = run(service, "inventory", "dismiss", discovery_id, "--reason", WHY)
    assert (status, "dismissed" in told) == (0, True)
    assert run(service, "inventory", "unregistered")[0] == 0
    assert run(service, "inventory", "dismiss", discovery_id, "--reason", WHY)[0] == 4
    assert run(service, "inventory", "reopen", discovery_id, "--reason", WHY)[0] == 0
    assert run(service, "inventory", "dismiss", "nobody", "--reason", WHY)[0] in (2, 64)
    as_json = json.loads(run(service, "inventory", "unregistered", "--json", role=Role.AUDITOR)[1])
    assert as_json["items"][0]["id"] == discovery_id


def test_discover_hands_in_what_it_found_and_shows_it_even_if_nobody_takes_it(service, tmp_path):
    home = tmp_path / "home"
    (home / ".cursor").mkdir(parents=True)
    servers = {"wiki": {"url": "https://wiki.example/mcp"}, "sh": {"command": "sh", "args": ["--key", "s3cret"]}}
    (home / ".cursor" / "mcp.json").write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    (tmp_path / "servers.yaml").write_text(
        "servers:\n  - name: wiki\n    url: https://wiki.example/mcp\n", encoding="utf-8"
    )
    register(service.enforcer(), "wiki")
    look = ["discover", "--configs", str(home), "--servers", str(tmp_path / "servers.yaml")]
    given = ["--post", service.url, "--token", service.token(Role.CLIENT)]
    runner = CliRunner()
    done = runner.invoke(cli, [*look, *given, "--json"])
    assert done.exit_code == 1, done.output  # there is a shadow server
    told = json.loads(done.output)
    assert (told["shadow"], told["recorded"]["recorded"], told["recorded"]["new"]) == (1, 2, 2)
    (item,) = listed(service)
    assert (item["standing"], item["transport"], item["client"]) == ("shadow", "stdio", "Cursor")
    assert [one["server"] for one in listed(service, "settled")] == ["wiki"]
    scan = next(one for one in records(service) if one.action == "scanned")
    assert (scan.files, scan.sightings, scan.unregistered) == (1, 2, 1)
    assert "recorded as scan" in runner.invoke(cli, [*look, *given]).output

    refused = runner.invoke(cli, [*look, "--post", service.url, "--token", service.token(Role.AUDITOR)])
    assert refused.exit_code == 64
    assert "SHADOW" in refused.output
    before = service.services.sequenced_size()
    for extra in (["--token", "no token"], ["--dry-run", *given[2:]]):
        runner.invoke(cli, [*look, "--post", service.url, *extra])
    assert service.services.sequenced_size() == before
