"""Every route of the API against every role: what each is answered, and that nothing else is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from ledger.notes import encode_base64
from service.api import (
    access,
    access_requests,
    approvals,
    authzen,
    bundle_canary,
    bundle_steps,
    bundles,
    containments,
    decisions,
    discoveries,
    drift,
    enrolments,
    erasures,
    exports,
    fleet,
    fleet_windows,
    health,
    holds,
    impacts,
    inventory,
    keys,
    logs,
    modes,
    opa,
    opa_bundles,
    packs,
    pruning,
    replays,
    sessions,
    tools,
    webhooks,
)
from service.auth import Role
from service.impacts import ImpactJobs
from service.packs import PackJobs
from tests.support.discoveries import SCAN
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer
from tests.support.packs import ready_bundle
from tests.support.service import EnforcerClient, RunningService, start_service

SESSION = "5" * 32
_JOBS_SECONDS = 120.0
QUESTION = {
    "subject": {"type": "agent", "id": "bot"},
    "action": {"name": "tools/list"},
    "resource": {"type": "server", "id": "shop", "properties": {"tags": []}},
}

PART = {"digest": "0" * 32, "subject": "0" * 32, "slot": 2, "first": 1, "amount": "1", "forget_ms": 3}

ROUTES = """
method route                                     nobody enforcer client auditor responder approver admin
GET    /healthz                                  200    200      200    200     200       200      200
GET    /readyz                                   200    200      200    200     200       200      200
GET    /metrics                                  200    200      200    200     200       200      200
GET    /logs/{log_id}/checkpoint                 401    200      200    200     200       200      200
GET    /logs/{log_id}/minimum-index              401    200      200    200     200       200      200
GET    /logs/{log_id}/tile/{path:path}           401    200      200    200     200       200      200
GET    /logs/{log_id}/tile/entries/000.p/{width} 401    403      403    200     403       403      200
POST   /v1/decisions                             401    201      403    403     403       403      403
GET    /v1/decisions                             401    403      403    200     200       200      200
GET    /v1/exports/ocsf                          401    403      403    200     200       200      200
GET    /v1/decisions/{decision_id}               401    403      403    200     200       200      200
GET    /v1/decisions/{decision_id}/proof         401    200      200    200     200       200      200
POST   /v1/decisions/{decision_id}/openings      401    403      403    403     200       403      200
GET    /v1/sessions/{session}                    401    403      403    200     200       200      200
POST   /v1/replays                               401    403      403    403     200       403      200
POST   /v1/impacts                               401    403      403    403     202       403      202
GET    /v1/impacts                               401    403      403    403     200       403      200
GET    /v1/impacts/{job_id}                      401    403      403    403     404       403      404
GET    /v1/impacts/{job_id}.json                 401    403      403    403     404       403      404
GET    /v1/impacts/{job_id}.ndjson               401    403      403    403     404       403      404
GET    /v1/impacts/{job_id}.html                 401    403      403    403     404       403      404
DELETE /v1/impacts/{job_id}                      401    403      403    403     404       403      404
POST   /v1/bundles                               401    403      403    403     403       403      201
GET    /v1/bundles                               401    403      403    200     200       200      200
GET    /v1/bundles/active                        401    200      200    403     403       403      200
GET    /v1/bundles/{revision}                    401    403      403    200     200       200      200
GET    /v1/opa/bundles/active.tar.gz             401    200      200    403     403       403      200
GET    /v1/opa/bundles/{revision}.tar.gz         401    403      403    200     200       200      200
GET    /v1/bundles/{revision}/status             401    403      403    200     200       200      200
POST   /v1/bundles/{revision}/tests              401    403      403    403     403       200      200
POST   /v1/bundles/{revision}/review             401    403      403    403     403       200      200
POST   /v1/bundles/{revision}/retirement         401    403      403    403     403       409      409
POST   /v1/bundles/{revision}/signature          401    403      403    403     403       403      400
GET    /v1/bundles/{revision}/signature          401    404      404    404     404       404      404
POST   /v1/bundles/{revision}/activation         401    403      403    403     403       200      200
GET    /v1/bundles/canary                        401    404      404    403     403       403      404
POST   /v1/bundles/{revision}/canary             401    403      403    403     403       409      409
GET    /v1/bundles/{revision}/canary             401    403      403    200     200       200      200
POST   /v1/bundles/canary/end                    401    403      403    403     403       200      200
POST   /v1/bundles/rollback                      401    403      403    403     403       200      200
POST   /v1/evidence-packs                        401    403      403    202     403       403      202
GET    /v1/evidence-packs                        401    403      403    200     403       403      200
GET    /v1/evidence-packs/{job_id}               401    403      403    404     403       403      404
GET    /v1/evidence-packs/{job_id}.pdf           401    403      403    404     403       403      404
GET    /v1/evidence-packs/{job_id}.zip           401    403      403    404     403       403      404
POST   /v1/windows/reservations                  401    200      403    403     403       403      403
POST   /v1/windows/exchange                      401    200      403    403     403       403      403
POST   /v1/erasures                              401    403      403    403     403       403      404
POST   /v1/holds                                 401    403      403    403     403       403      201
GET    /v1/holds                                 401    403      403    403     403       403      200
POST   /v1/holds/{hold_id}/release               401    403      403    403     403       403      404
POST   /v1/modes                                 401    403      403    403     201       403      201
GET    /v1/webhooks                              401    403      403    200     200       200      200
POST   /v1/webhooks                              401    403      403    403     403       403      409
DELETE /v1/webhooks/{webhook_id}                 401    403      403    403     403       403      404
POST   /v1/webhooks/{webhook_id}/test            401    403      403    403     403       403      404
GET    /v1/modes                                 401    403      403    200     200       200      200
GET    /v1/modes/approved                        401    200      403    403     403       403      403
POST   /v1/modes/{change_id}/review              401    403      403    403     403       404      404
GET    /v1/inventory                             401    403      403    200     200       200      200
POST   /v1/inventory                             401    403      403    201     403       403      201
GET    /v1/inventory/{server}                    401    403      403    200     200       200      200
POST   /v1/inventory/{server}/tags               401    403      403    403     403       201      201
GET    /v1/agents/{agent:path}/privileges        401    403      403    200     200       200      200
POST   /v1/containments                          401    403      403    403     201       403      201
GET    /v1/containments                          401    403      403    200     200       200      200
GET    /v1/containments/{order_id}               401    403      403    404     404       404      404
POST   /v1/containments/{order_id}/release       401    403      403    403     404       404      404
POST   /v1/containments/{order_id}/review        401    403      403    403     404       404      404
POST   /v1/discoveries                           401    403      201    403     201       403      201
GET    /v1/discoveries                           401    403      403    200     200       200      200
GET    /v1/discoveries/{discovery_id}            401    403      403    404     404       404      404
POST   /v1/discoveries/{discovery_id}/open       401    403      403    403     404       404      404
POST   /v1/discoveries/{discovery_id}/dismiss    401    403      403    403     404       404      404
POST   /v1/discoveries/{discovery_id}/reopen     401    403      403    403     404       404      404
GET    /v1/drift                                 401    403      403    200     200       200      200
GET    /v1/drift/baselines                       401    403      403    200     200       200      200
POST   /v1/drift/baselines                       401    403      403    403     404       404      404
GET    /v1/drift/orders                          401    200      403    403     403       403      403
GET    /v1/drift/{drift_id}                      401    403      403    404     404       404      404
POST   /v1/drift/{drift_id}/acknowledge          401    403      403    403     404       404      404
POST   /v1/drift/{drift_id}/close                401    403      403    403     404       404      404
GET    /v1/tools                                 401    403      403    200     200       200      200
GET    /v1/tools/verdicts                        401    200      403    403     403       403      403
GET    /v1/tools/{server}/{tool:path}            401    403      403    404     404       404      404
GET    /v1/tools/{server}/{tool:path}/difference 401    403      403    403     404       404      404
POST   /v1/tools/{server}/{tool:path}/verdict    401    403      403    403     403       404      404
GET    /v1/approvals                             401    403      403    200     200       200      200
GET    /v1/approvals/verdicts                    401    304      403    403     403       403      403
GET    /v1/approvals/{approval_id}               401    403      403    404     404       404      404
POST   /v1/approvals/{approval_id}/open          401    403      403    403     403       404      404
POST   /v1/approvals/{approval_id}/verdict       401    403      403    403     403       404      404
GET    /v1/restrictions                          401    200      403    403     403       403      403
POST   /v1/expiries                              401    403      403    403     403       403      200
POST   /v1/minimum-index                         401    403      403    403     403       403      409
POST   /v1/enforcers                             401    403      403    403     403       403      201
DELETE /v1/enforcers/{enforcer_id:path}          401    403      403    403     403       403      404
POST   /v1/enrolment-tokens                      401    403      403    403     403       403      201
DELETE /v1/enrolment-tokens/{token_sha256}       401    403      403    403     403       403      404
GET    /v1/enrolments                            401    401      401    401     401       401      401
POST   /v1/enrolments                            401    401      401    401     401       401      401
POST   /v1/tokens                                401    403      403    403     403       403      201
DELETE /v1/tokens/{token_sha256}                 401    403      403    403     403       403      404
GET    /v1/fleet                                 401    403      403    200     200       200      200
GET    /v1/keys                                  401    200      200    200     200       200      200
POST   /v1/keys                                  401    403      403    403     403       403      404
POST   /v1/keys/{key_id}/retirement              401    403      403    403     403       403      404
POST   /v1/keys/{key_id}/compromise              401    403      403    403     403       403      404
GET    /.well-known/authzen-configuration       200    200      200    200     200       200      200
POST   /access/v1/evaluation                    401    403      200    403     403       403      403
POST   /access/v1/evaluations                   401    403      200    403     403       403      403
POST   /access/v1/requests                      401    403      400    403     403       403      403
GET    /access/v1/requests/{task_id}            401    403      404    403     403       403      403
POST   /access/v1/requests/{task_id}/cancel     401    403      404    403     403       403      403
POST   /logs                                    401    403      200    403     403       403      403
POST   /status                                  401    403      200    403     403       403      403
"""
"""A 404 is what a role that may is told of a thing that is not there; a 409, of a log that keeps everything, and of the
active bundle, which is not retired and has no shadow."""

HEADER, *ROWS = [line.split() for line in ROUTES.strip().splitlines()]
CELLS = [
    (method, route, role, int(status))
    for method, route, *statuses in ROWS
    for role, status in zip(HEADER[2:], statuses, strict=True)
]


@dataclass(frozen=True)
class Furnished:
    """A service in which there is one of everything."""

    service: RunningService
    stranger: httpx.Client
    enforcer: EnforcerClient
    decision_id: str
    revisions: tuple[str, str]
    size: int
    tokens: Mapping[str, str]

    def request(self, method: str, route: str) -> tuple[str, dict[str, object]]:
        """Return a path, and what makes a sound request of it."""
        width = min(256, self.size)
        values = {
            "log_id": LOG_ID,
            "path:path": f"0/000.p/{width}",
            "width": width,
            "decision_id": self.decision_id,
            "session": SESSION,
            "revision": self.revisions[1],
            "job_id": self.decision_id,
            "token_sha256": "0" * 64,
            "enforcer_id:path": "nobody",
            "key_id": "nobodys",
            "hold_id": self.decision_id,
            "change_id": self.decision_id,
            "agent:path": "finance-bot",
            "webhook_id": self.decision_id,
            "order_id": self.decision_id,
            "server": "finance",
            "tool:path": "nobodys",
            "approval_id": self.decision_id,
            "drift_id": "019a9c14-6d80-7abc-8def-ffffffffffff",
            "discovery_id": "019a9c14-6d80-7abc-8def-ffffffffffff",
        }
        path = route
        for name, value in values.items():
            path = path.replace("{" + name + "}", str(value))
        return path, self._body(method, route)

    def _body(self, method: str, route: str) -> dict[str, object]:
        if (method, route) == ("POST", "/v1/decisions"):
            record = self.enforcer.record(self.enforcer.enforcer.heartbeat())
            return {"content": self.enforcer.spell([(record, ())]), "headers": {"content-type": "application/x-ndjson"}}
        bodies: dict[str, dict[str, object]] = {
            "/v1/decisions/{decision_id}/openings": {"json": {"purpose": "an inquiry by the board"}},
            "/v1/replays": {"json": {"decision_ids": [self.decision_id]}},
            "/v1/impacts": {"json": {"from_ms": NOW_MS, "to_ms": NOW_MS + 1}},
            "/v1/bundles": {"content": ready_bundle().archive()},
            "/v1/bundles/{revision}/review": {"json": {"verdict": "approved"}},
            "/v1/bundles/{revision}/signature": {"content": b"{}"},
            "/v1/bundles/{revision}/activation": {"json": {}},
            "/v1/bundles/rollback": {"json": {}},
            "/v1/evidence-packs": {"json": {"from_ms": NOW_MS, "to_ms": NOW_MS + 1, "frameworks": ["soc2"]}},
            "/v1/enforcers": {"json": {"enforcer_id": "another", "public_key": encode_base64(b"k" * 32)}},
            "/v1/enrolment-tokens": {"json": {"enforcer_id": "gateway-7"}},
            "/v1/windows/reservations": {"json": {"decision_id": self.decision_id, "parts": [PART]}},
            "/v1/windows/exchange": {"json": {"origin": "0" * 32, "since": 0}},
            "/v1/erasures": {"json": {"user": "nobody", "basis": "an inquiry by the board"}},
            "/v1/holds": {"json": {"session": "0" * 32, "reason": "an inquiry by the board"}},
            "/v1/inventory": {"json": {"view": "inventory"}},
            "/v1/inventory/{server}/tags": {"json": {"tool": "Payroll-DB", "tags": ["write"], "verdict": "confirmed"}},
            "/v1/webhooks": {"json": {"url": "https://hooks.example/"}},
            "/v1/modes": {"json": {"server": "finance", "reason": "month-end is denied"}},
            "/v1/modes/{change_id}/review": {"json": {"verdict": "approved"}},
            "/v1/containments": {"json": {"agent": "stopped", "seconds": 60, "reason": "an inquiry by the board"}},
            "/v1/containments/{order_id}/release": {"json": {"reason": "an inquiry by the board"}},
            "/v1/containments/{order_id}/review": {"json": {"verdict": "justified", "comment": "as it should be"}},
            "/v1/drift/baselines": {
                "json": {"action": "reset", "agent": "nobodys", "enforcer": "gateway-1", "comment": "as it should be"}
            },
            "/v1/discoveries": {"json": SCAN},
            "/v1/discoveries/{discovery_id}/open": {"json": {"purpose": "an inquiry by the board"}},
            "/v1/discoveries/{discovery_id}/dismiss": {"json": {"comment": "as it should be"}},
            "/v1/discoveries/{discovery_id}/reopen": {"json": {"comment": "as it should be"}},
            "/v1/drift/{drift_id}/acknowledge": {"json": {"comment": "as it should be"}},
            "/v1/drift/{drift_id}/close": {"json": {"disposition": "harmless", "comment": "as it should be"}},
            "/v1/tools/{server}/{tool:path}/verdict": {
                "json": {"verdict": "approved", "digest": "0" * 64, "comment": "as it should be"}
            },
            "/v1/approvals/{approval_id}/verdict": {
                "json": {"verdict": "granted", "binding": "0" * 64, "reason": "an inquiry by the board"}
            },
            "/v1/expiries": {"json": {"dry_run": True}},
            "/v1/minimum-index": {"json": {"below": 256}},
            "/v1/tokens": {"json": {"role": "auditor", "name": "jane"}},
            "/v1/keys": {"json": {"key_id": "nobodys"}},
            "/access/v1/evaluation": {"json": QUESTION},
            "/access/v1/requests": {"json": QUESTION},
            "/logs": {"json": []},
            "/status": {"json": {"labels": {"id": "opa-1"}}},
            "/access/v1/evaluations": {"json": {"evaluations": [QUESTION]}},
            "/v1/keys/{key_id}/compromise": {"json": {"after_size": 1, "purpose": "it was stolen"}},
        }
        return bodies.get(route, {}) if method == "POST" else {}


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Furnished]:
    with start_service(tmp_path_factory.mktemp("roles")) as service, service.stranger() as stranger:
        enforcer = service.enforcer()
        decision_id = enforcer.decide()
        rules = [f'@id("only") {effect} (principal, action, resource);' for effect in ("permit", "forbid")]
        revisions = [service.put_in_force(ready_bundle(rule)) for rule in rules]
        service.wait_until_published()
        size = service.services.publishing.published.head.size
        tokens = {role.value: service.token(role) for role in Role if role is not Role.ENFORCER}
        yield Furnished(
            service=service,
            stranger=stranger,
            enforcer=enforcer,
            decision_id=decision_id,
            revisions=tuple(revisions),
            size=size,
            tokens={**tokens, "enforcer": enforcer.token},
        )


def activate_both(furnished: Furnished) -> None:
    """Leave the second bundle active after the first, so that every step on bundles has somewhere to go."""
    with furnished.service.client(token=furnished.tokens["admin"]) as admin:
        for revision in furnished.revisions:
            admin.post(f"/v1/bundles/{revision}/activation", json={}).raise_for_status()


def ask(furnished: Furnished, method: str, route: str, token: str | None) -> httpx.Response:
    path, options = furnished.request(method, route)
    headers = {**options.pop("headers", {}), **({} if token is None else {"authorization": f"Bearer {token}"})}
    return furnished.stranger.request(method, path, headers=headers, **options)


@pytest.mark.parametrize(("method", "route", "role", "status"), CELLS)
def test_a_role_is_answered_as_the_table_says(furnished, method, route, role, status):
    if "active" in route or route in (
        "/v1/bundles/rollback",
        "/v1/bundles/{revision}/retirement",
        "/v1/bundles/{revision}/canary",
    ):
        activate_both(furnished)
    answer = ask(furnished, method, route, furnished.tokens.get(role))
    assert answer.status_code == status, answer.text
    if status >= 400:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["status"] == status
        assert ("www-authenticate" in answer.headers) is (status == 401)
    if status == 403:
        assert problem["detail"].startswith(f"the role {role} may not ")


def test_the_table_has_every_route_of_the_api():
    modules = (access, authzen, bundle_steps, bundles, decisions, erasures, health, holds, keys, logs, packs, pruning)
    modules += (
        access_requests,
        bundle_canary,
        approvals,
        containments,
        enrolments,
        exports,
        fleet,
        fleet_windows,
        impacts,
        inventory,
        modes,
        opa,
        opa_bundles,
        replays,
        sessions,
        tools,
        discoveries,
        drift,
        webhooks,
    )
    routes = [route for module in modules for route in module.router.routes if isinstance(route, APIRoute)]
    there = {(method, route.path) for route in routes for method in route.methods}
    said = {(method, route) for method, route, *_ in ROWS} - {("GET", "/logs/{log_id}/tile/entries/000.p/{width}")}
    assert said == there


@pytest.mark.parametrize(("method", "route"), [(row[0], row[1]) for row in ROWS if row[2] == "401"])
@pytest.mark.parametrize("token", ["x", "ts1.acme." + "x" * 43, "ts1.other." + "x" * 43, "revoked", "expired"])
def test_a_token_that_does_not_count_is_as_good_as_none(furnished, method, route, token):
    tokens = furnished.service.services.tokens
    if token == "revoked":
        token = tokens.issue(LOG_ID, Role.ADMIN, "gone")
        tokens.revoke(LOG_ID, tokens.authenticate(token).token_sha256)
    elif token == "expired":
        token = tokens.issue(LOG_ID, Role.ADMIN, "old", lifetime_days=-1)
    answer = ask(furnished, method, route, token)
    assert answer.status_code == 401
    assert len(token) < 5 or token not in answer.text


@pytest.mark.parametrize(("method", "route"), [(row[0], row[1]) for row in ROWS if row[2] == "401" != row[-1]])
def test_an_administrator_of_another_log_in_the_same_database_has_no_log_here(furnished, method, route):
    token = furnished.service.services.tokens.issue("other", Role.ADMIN, "mallory")
    answer = ask(furnished, method, route, token)
    assert answer.status_code == 404
    assert answer.json()["detail"] in ("this service has no such log", "no such tile")


async def _finished(packs: PackJobs, jobs: ImpactJobs) -> None:
    async with asyncio.timeout(_JOBS_SECONDS):
        await asyncio.gather(*packs._tasks, *jobs._tasks.values())


def test_a_refused_request_leaves_nothing_behind(furnished):
    services = furnished.service.services
    furnished.service.run(lambda: _finished(services.packs, services.impacts), _JOBS_SECONDS)
    before = furnished.service.services.sequenced_size()
    for method, route, role, status in CELLS:
        if status in (401, 403):
            ask(furnished, method, route, furnished.tokens.get(role))
    records = [
        furnished.service.services.reader.record(index)
        for index in range(before, furnished.service.services.sequenced_size())
    ]
    assert [record.body for record in records if type(record.body).__name__ != "Heartbeat"] == []


def test_a_public_log_shows_checkpoint_and_tiles_to_everybody_and_entries_to_auditors_still(tmp_path: Path):
    with start_service(tmp_path, public_log=True) as service:
        service.enforcer().decide()
        service.wait_until_published()
        size = service.services.publishing.published.head.size
        with service.stranger() as stranger:
            for path in ("checkpoint", f"tile/0/000.p/{size}"):
                answer = stranger.get(f"/logs/{LOG_ID}/{path}")
                assert answer.status_code == 200
                assert answer.headers["cache-control"].startswith("public, ")
            assert stranger.get(f"/logs/{LOG_ID}/tile/entries/000.p/{size}").status_code == 401
            assert stranger.get("/logs/other/checkpoint").status_code == 404
        with service.client(Role.RESPONDER) as responder:
            assert responder.get(f"/logs/{LOG_ID}/tile/entries/000.p/{size}").status_code == 403


def test_the_openapi_document_names_the_roles_that_the_table_says(furnished):
    document = furnished.stranger.get("/openapi.json").json()
    for method, route, nobody, *statuses in ROWS:
        operation = document["paths"].get(route.replace(":path", ""), {}).get(method.lower())
        if operation is None or "tile" in route:
            continue
        said = {role for requirement in operation.get("security", []) for role in requirement["token"]}
        allowed = {role for role, status in zip(HEADER[3:], statuses, strict=True) if status not in ("401", "403")}
        assert said == (set() if nobody == "200" else allowed), route


def test_a_token_is_dead_the_moment_it_is_revoked_over_http(furnished):
    service = furnished.service
    with service.client(Role.ADMIN) as admin:
        issued = admin.post("/v1/tokens", json={"role": "auditor", "name": "jane"}).json()
        with service.client(token=issued["token"]) as jane:
            assert jane.get("/v1/bundles").status_code == 200
            assert admin.delete(f"/v1/tokens/{issued['token_sha256']}").status_code == 204
            assert jane.get("/v1/bundles").status_code == 401
        assert admin.delete(f"/v1/tokens/{issued['token_sha256']}").status_code == 404


def test_one_enforcers_token_brings_no_record_of_another(furnished):
    other = furnished.service.enforcer("gateway-2", seed=22)
    thief = Enforcer("gateway-1", LOG_ID, seed=22, epoch="f" * 32)
    with furnished.service.client(token=other.token) as client:
        for record in (
            furnished.enforcer.record(furnished.enforcer.enforcer.heartbeat()),
            thief.record(thief.heartbeat()),
        ):
            answer = client.post(
                "/v1/decisions",
                content=other.spell([(record, ())]),
                headers={"content-type": "application/x-ndjson"},
            )
            assert answer.status_code == 403
            assert "another enforcer" in answer.json()["detail"]
