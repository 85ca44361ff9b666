"""A hostile tenant: two logs in one service and one database, and everything that one tries on the other.

The sweep asks every route of the application, as every role of the hostile tenant, for what is the other's. A route
without a case fails the suite, so that new routes are judged here before they are served. What is answered for a thing
of the other must be, to the letter, what is answered for a thing that nobody has; and afterwards the other's rows and
files are what they were.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from fastapi.routing import APIRoute
from sqlalchemy import ColumnElement, Engine, Table, event, select, update

from ledger.bodies_drift import BaselineEvent
from ledger.bodies_tools import ToolEvent
from ledger.commitments import pseudonym
from ledger.errors import CommitmentError, LedgerError
from ledger.notes import encode_base64
from ledger.records import Record, encode_record, new_record_id, sign_record
from ledger.stores import tables as ledger_tables
from service import tables as service_tables
from service.auth import Role
from service.fairness import current_log
from service.web.throttle import DEFAULT_LIMITS
from tests.support.discoveries import a_scan, sighting
from tests.support.ledger import Enforcer, make_decision
from tests.support.packs import ready_bundle
from tests.support.postgres import PostgresCluster
from tests.support.service import EnforcerClient
from tests.support.tenants import MINE, OPERATOR_TOKEN, THEIRS, RunningTenants, Tenant, start_tenants

NOBODY = "nobody"
READERS = ("auditor", "responder", "approver", "admin")
ROLES = (NOBODY, "enforcer", "client", *READERS)
NDJSON = {"content-type": "application/x-ndjson"}
CSRF = re.compile(r'name="csrf" value="([^"]+)"')
TOOL_DIGEST = "d1" * 32
PURPOSE = "an inquiry by nobody"
WITHOUT_LOG = {"enforcer_contacts", "leases"}
"""Tables of the process's housekeeping, whose rows move by themselves."""


@dataclass(frozen=True)
class Aim:
    """The names of one log's things: those of the other tenant, or those that nobody has."""

    log_id: str
    decision_id: str
    session: str
    user: str
    revision: str
    job_id: str
    token_sha256: str
    enforcer_id: str
    code: str
    key_id: str
    hold_id: str
    change_id: str
    order_id: str
    drift_id: str
    discovery_id: str
    server: str
    approval_id: str
    task_id: str
    evaluation_id: str
    batch: bytes
    record_id: str
    extra: Mapping[str, str] = field(default_factory=dict)

    def path(self, pattern: str) -> str:
        """Return a route's path with these names in it."""
        values = {
            "log_id": self.log_id,
            "decision_id": self.decision_id,
            "session": self.session,
            "session_id": self.session,
            "revision": self.revision,
            "job_id": self.job_id,
            "token_sha256": self.token_sha256,
            "enforcer_id": self.enforcer_id,
            "code": self.code,
            "key_id": self.key_id,
            "hold_id": self.hold_id,
            "change_id": self.change_id,
            "webhook_id": self.change_id,
            "order_id": self.order_id,
            "drift_id": self.drift_id,
            "discovery_id": self.discovery_id,
            "server": self.server,
            "tool": self.server,
            "agent": f"{self.log_id}-bot",
            "approval_id": self.approval_id,
            "task_id": self.task_id,
            **self.extra,
        }
        return re.sub(r"\{(\w+)(:path)?\}", lambda found: values[found[1]], pattern)

    def masked(self, text: str) -> str:
        """Return a text without these names, so that two answers can be compared."""
        names = (self.decision_id, self.session, self.user, self.revision, self.job_id, self.token_sha256)
        names += (
            self.key_id,
            self.hold_id,
            self.change_id,
            self.order_id,
            self.server,
            self.approval_id,
            self.task_id,
            self.evaluation_id,
            self.drift_id,
            self.discovery_id,
        )
        for name in sorted((*names, self.enforcer_id, self.code, self.record_id, self.log_id), key=len, reverse=True):
            text = text.replace(name, "<name>")
        return text


def unaimed() -> Aim:
    """Return names that nobody has."""
    nobody = Enforcer("initech-gateway", "initech", seed=99, tenant="initech-tenant")
    record = nobody.record(nobody.heartbeat())
    return Aim(
        log_id="initech",
        decision_id=new_record_id(1_763_546_400_000, b"n" * 10),
        session="9" * 32,
        user="a" * 32,
        revision="b" * 64,
        job_id=new_record_id(1_763_546_400_000, b"j" * 10),
        token_sha256="c" * 64,
        enforcer_id="initech-gateway",
        code="initech." + "d" * 43,
        key_id="f" * 16,
        hold_id=new_record_id(1_763_546_400_000, b"h" * 10),
        change_id=new_record_id(1_763_546_400_000, b"m" * 10),
        order_id=new_record_id(1_763_546_400_000, b"o" * 10),
        drift_id=new_record_id(1_763_546_400_000, b"d" * 10),
        discovery_id=new_record_id(1_763_546_400_000, b"s" * 10),
        server="initech-server",
        approval_id=new_record_id(1_763_546_400_000, b"a" * 10),
        task_id=new_record_id(1_763_546_400_000, b"t" * 10),
        evaluation_id=new_record_id(1_763_546_400_000, b"v" * 10),
        batch=EnforcerClient.spell([(record, ())]),
        record_id=record.record_id,
    )


@dataclass(frozen=True)
class Case:
    """What a hostile tenant sends to a route.

    Attributes:
        aimed: It asks for what is another's: the answer must be as if that were nowhere. Otherwise it asks for what
            is its own, or everybody's, and nothing of another's may be in the answer.
        sends: Further parts of the request; several where there are several ways.
        where: What stands for the path's parameters that are no names.
    """

    aimed: bool = True
    sends: Callable[[Aim], Sequence[dict[str, Any]]] = lambda _aim: ({},)
    where: Sequence[Mapping[str, str]] = ({},)


def one(**options: Any) -> Callable[[Aim], Sequence[dict[str, Any]]]:
    return lambda _aim: (options,)


ASKED_BEFORE = {"idempotency-key": "asked-by-both"}


def question_about(aim: Aim) -> dict[str, Any]:
    """Return a question about another's person and session: to one's own log they are nothing but names."""
    return {
        "subject": {"type": "agent", "id": "bot", "properties": {"user": aim.user}},
        "action": {"name": "tools/list"},
        "resource": {"type": "server", "id": "shop", "properties": {"tags": []}},
        "context": {"session": aim.session, "calls": 0, "denied": 0, "started_ms": 0},
    }


def request_for(aim: Aim) -> dict[str, Any]:
    """Return an access request for another's denied evaluation, as its own enforcement point would send it."""
    denial = {
        "decision": {"decision": False},
        "access_request": {"requestable": True},
        "evaluation_id": aim.evaluation_id,
    }
    return {**question_about(aim), "denial": denial}


def asked_with_anothers(aim: Aim) -> dict[str, Any]:
    """Return a question with the approval of another's request."""
    asked = question_about(aim)
    presented = {"authzen_access_request_approval": {"approval_id": aim.task_id}}
    return {**asked, "context": {**asked["context"], **presented}}


WINDOW = {"digest": "0" * 32, "subject": "0" * 32, "slot": 2, "first": 1, "amount": "1", "forget_ms": 3}
OWN = Case(aimed=False)
AIMED = Case()
SEARCHES = lambda aim: [  # noqa: E731  # reads as the table below
    {"params": {"session": aim.session}},
    {"params": {"bundle_revision": aim.revision}},
    {"params": {"digest": aim.revision}},
    {"params": {"agent": f"{aim.log_id}-bot"}},
    {"params": {"user": f"{aim.log_id}-jane"}},
    {"params": {"rule": f"{aim.log_id}-rule"}},
]

CASES: dict[str, Case] = {
    "GET /healthz": OWN,
    "GET /readyz": OWN,
    "GET /metrics": OWN,
    "GET /logs/{log_id}/checkpoint": AIMED,
    "GET /logs/{log_id}/minimum-index": AIMED,
    "GET /logs/{log_id}/tile/{path:path}": Case(
        where=[{"path": "0/000.p/3"}, {"path": "entries/000.p/3"}, {"path": "1/000"}]
    ),
    "POST /v1/decisions": Case(
        sends=lambda aim: [
            {"content": aim.batch, "headers": NDJSON},
            {"content": aim.batch, "headers": NDJSON, "params": {"wait": "proof"}},
        ]
    ),
    "GET /v1/decisions": Case(sends=SEARCHES),
    "GET /v1/decisions/{decision_id}": AIMED,
    "GET /v1/decisions/{decision_id}/proof": AIMED,
    "POST /v1/decisions/{decision_id}/openings": Case(
        sends=one(json={"purpose": PURPOSE, "fields": ["message", "request", "result"]})
    ),
    "GET /v1/sessions/{session}": Case(sends=lambda _aim: [{}, {"params": {"cursor": 5, "limit": 1}}]),
    "POST /v1/replays": Case(
        sends=lambda aim: [
            {"json": {"decision_ids": [aim.decision_id]}},
            {"json": {"decision_ids": [aim.decision_id], "bundle": "active"}},
            {"json": {"decision_ids": [aim.extra["mine"]], "bundle": aim.revision}},
            {"json": {"decision_ids": [aim.extra["mine"], aim.decision_id], "bundle": aim.revision}},
        ]
    ),
    "POST /v1/impacts": Case(
        aimed=False,
        sends=lambda aim: [
            {"json": {"from_ms": 1, "to_ms": 2}},
            {"json": {"from_ms": 1, "to_ms": 2, "session": aim.session, "bundle": aim.revision}},
        ],
    ),
    "GET /v1/impacts": OWN,
    "GET /v1/impacts/{job_id}": AIMED,
    "GET /v1/impacts/{job_id}.json": AIMED,
    "GET /v1/impacts/{job_id}.ndjson": AIMED,
    "GET /v1/impacts/{job_id}.html": AIMED,
    "DELETE /v1/impacts/{job_id}": AIMED,
    # What is another's by name: its decision, its windows' subjects. Both count in one's own log alone.
    "POST /v1/windows/reservations": Case(
        aimed=False, sends=lambda aim: [{"json": {"decision_id": aim.decision_id, "parts": [WINDOW]}}]
    ),
    "POST /v1/windows/exchange": Case(
        aimed=False,
        sends=lambda aim: [
            {"json": {"origin": "0" * 32, "since": 0}},
            {"json": {"origin": "0" * 32, "since": 0, "release": [aim.decision_id]}},
        ],
    ),
    "POST /v1/bundles": Case(aimed=False, sends=one(content=ready_bundle().archive())),
    "GET /v1/bundles": OWN,
    "GET /v1/bundles/active": OWN,
    "GET /v1/bundles/canary": OWN,
    "POST /v1/bundles/{revision}/canary": Case(sends=one(json={"comment": PURPOSE})),
    "GET /v1/bundles/{revision}/canary": AIMED,
    "POST /v1/bundles/canary/end": Case(aimed=False, sends=one(json={})),
    "GET /v1/bundles/{revision}": Case(sends=lambda aim: [{}, {"headers": {"if-none-match": f'"{aim.revision}"'}}]),
    "GET /v1/opa/bundles/active.tar.gz": OWN,
    "GET /v1/opa/bundles/{revision}.tar.gz": AIMED,
    "GET /v1/bundles/{revision}/status": AIMED,
    "POST /v1/bundles/{revision}/tests": AIMED,
    "POST /v1/bundles/{revision}/review": Case(sends=one(json={"verdict": "rejected"})),
    "POST /v1/bundles/{revision}/retirement": Case(sends=one(json={"comment": PURPOSE})),
    "POST /v1/bundles/{revision}/signature": Case(sends=one(content=b"{}")),
    "GET /v1/bundles/{revision}/signature": AIMED,
    "POST /v1/bundles/{revision}/activation": Case(sends=one(json={"comment": PURPOSE})),
    "POST /v1/bundles/rollback": Case(aimed=False, sends=one(json={})),
    "POST /v1/evidence-packs": Case(
        aimed=False, sends=one(json={"from_ms": 1, "to_ms": 2, "frameworks": ["soc2"], "title": "mine"})
    ),
    "GET /v1/evidence-packs": OWN,
    "GET /v1/evidence-packs/{job_id}": AIMED,
    "GET /v1/evidence-packs/{job_id}.pdf": AIMED,
    "GET /v1/evidence-packs/{job_id}.zip": AIMED,
    "POST /v1/enforcers": Case(
        aimed=False, sends=one(json={"enforcer_id": "acme-new", "public_key": encode_base64(b"k" * 32)})
    ),
    "DELETE /v1/enforcers/{enforcer_id:path}": AIMED,
    "POST /v1/enrolment-tokens": Case(aimed=False, sends=one(json={"enforcer_id": "acme-newer"})),
    "DELETE /v1/enrolment-tokens/{token_sha256}": AIMED,
    # No token of a role enrols anybody.
    "GET /v1/enrolments": OWN,
    "POST /v1/enrolments": OWN,
    "POST /v1/tokens": Case(aimed=False, sends=one(json={"role": "auditor", "name": "acme-mallory"})),
    "DELETE /v1/tokens/{token_sha256}": AIMED,
    "POST /v1/erasures": Case(sends=lambda aim: [{"json": {"pseudonym": aim.user, "basis": PURPOSE}}]),
    "POST /v1/minimum-index": Case(aimed=False, sends=one(json={"below": 256, "dry_run": True})),
    "POST /v1/expiries": Case(aimed=False, sends=one(json={})),
    "POST /v1/holds": Case(aimed=False, sends=one(json={"session": "1" * 32, "reason": PURPOSE})),
    "GET /v1/holds": OWN,
    "POST /v1/holds/{hold_id}/release": AIMED,
    "GET /v1/inventory": OWN,
    "POST /v1/inventory": Case(
        sends=lambda aim: [{"json": {"view": "privileges", "agent": f"{aim.log_id}-bot"}}],
    ),
    "GET /v1/inventory/{server}": AIMED,
    "POST /v1/inventory/{server}/tags": Case(
        sends=one(json={"tool": "Payroll-DB", "tags": ["write"], "verdict": "rejected"})
    ),
    "GET /v1/agents/{agent:path}/privileges": AIMED,
    "POST /v1/modes": Case(aimed=False, sends=one(json={"server": "finance", "reason": PURPOSE})),
    "GET /v1/webhooks": OWN,
    "POST /v1/webhooks": Case(aimed=False, sends=one(json={"url": "https://hooks.example/"})),
    "DELETE /v1/webhooks/{webhook_id}": AIMED,
    "POST /v1/webhooks/{webhook_id}/test": AIMED,
    "GET /v1/modes": OWN,
    "GET /v1/modes/approved": OWN,
    "GET /v1/approvals": OWN,
    "GET /v1/approvals/verdicts": OWN,
    "GET /v1/approvals/{approval_id}": AIMED,
    "POST /v1/approvals/{approval_id}/open": AIMED,
    "POST /v1/approvals/{approval_id}/verdict": Case(
        sends=one(json={"verdict": "granted", "binding": "0" * 64, "reason": PURPOSE})
    ),
    "POST /v1/modes/{change_id}/review": Case(sends=one(json={"verdict": "rejected"})),
    "POST /v1/containments": Case(aimed=False, sends=one(json={"agent": "mallory", "seconds": 60, "reason": PURPOSE})),
    "GET /v1/containments": OWN,
    "GET /v1/containments/{order_id}": AIMED,
    "POST /v1/containments/{order_id}/release": Case(sends=one(json={"reason": PURPOSE})),
    "POST /v1/containments/{order_id}/review": Case(sends=one(json={"verdict": "justified", "comment": PURPOSE})),
    "POST /v1/discoveries": Case(
        aimed=False, sends=lambda aim: [{"json": a_scan(sighting(f"http://{aim.log_id}.example/mcp"))}]
    ),
    "GET /v1/discoveries": Case(aimed=False, sends=one(params={"state": "all"})),
    "GET /v1/discoveries/{discovery_id}": AIMED,
    "POST /v1/discoveries/{discovery_id}/open": Case(sends=one(json={"purpose": PURPOSE})),
    "POST /v1/discoveries/{discovery_id}/dismiss": Case(sends=one(json={"comment": PURPOSE})),
    "POST /v1/discoveries/{discovery_id}/reopen": Case(sends=one(json={"comment": PURPOSE})),
    "GET /v1/drift": Case(
        aimed=False, sends=lambda aim: [{}, {"params": {"agent": f"{aim.log_id}-bot", "state": "all"}}]
    ),
    "GET /v1/drift/baselines": Case(aimed=False, sends=lambda aim: [{}, {"params": {"agent": f"{aim.log_id}-bot"}}]),
    "POST /v1/drift/baselines": Case(
        sends=lambda aim: [
            {"json": {"action": action, "agent": f"{aim.log_id}-bot", "enforcer": aim.enforcer_id, "comment": PURPOSE}}
            for action in ("accept", "reset")
        ]
    ),
    "GET /v1/drift/orders": OWN,
    "GET /v1/drift/{drift_id}": AIMED,
    "POST /v1/drift/{drift_id}/acknowledge": Case(sends=one(json={"comment": PURPOSE})),
    "POST /v1/drift/{drift_id}/close": Case(sends=one(json={"disposition": "harmless", "comment": PURPOSE})),
    "GET /v1/tools": OWN,
    "GET /v1/tools/verdicts": OWN,
    "GET /v1/tools/{server}/{tool:path}": AIMED,
    "GET /v1/tools/{server}/{tool:path}/difference": AIMED,
    "POST /v1/tools/{server}/{tool:path}/verdict": Case(
        sends=one(json={"verdict": "approved", "digest": TOOL_DIGEST, "comment": PURPOSE})
    ),
    "GET /v1/restrictions": OWN,
    "GET /.well-known/authzen-configuration": OWN,
    "POST /access/v1/evaluation": Case(
        aimed=False,
        sends=lambda aim: [
            {"json": question_about(aim)},
            {"json": question_about(aim), "headers": ASKED_BEFORE},
            {"json": asked_with_anothers(aim)},
        ],
    ),
    "POST /access/v1/evaluations": Case(
        aimed=False, sends=lambda aim: [{"json": {"evaluations": [question_about(aim)] * 2}}]
    ),
    "POST /access/v1/requests": Case(
        sends=lambda aim: [{"json": request_for(aim)}, {"json": request_for(aim), "headers": ASKED_BEFORE}]
    ),
    "GET /access/v1/requests/{task_id}": AIMED,
    "POST /access/v1/requests/{task_id}/cancel": AIMED,
    "POST /logs": Case(
        aimed=False, sends=lambda aim: [{"json": [{"labels": {"id": "opa-1"}, "decision_id": aim.decision_id}, 7]}]
    ),
    "POST /status": Case(aimed=False, sends=one(json={"labels": {"id": "opa-1"}})),
    "GET /v1/exports/ocsf": OWN,
    "GET /v1/fleet": OWN,
    "GET /v1/keys": OWN,
    "POST /v1/keys": Case(sends=lambda aim: [{"json": {"key_id": aim.key_id}}]),
    "POST /v1/keys/{key_id}/retirement": Case(sends=one(json={})),
    "POST /v1/keys/{key_id}/compromise": Case(sends=one(json={"after_size": 1, "purpose": PURPOSE})),
    # The dashboard, with the cookies of a login to one's own log.
    "GET /": Case(aimed=False, sends=lambda aim: [{}, {"params": {"before": 10_000}}, *SEARCHES(aim)[:1]]),
    "GET /live": OWN,
    "GET /decisions/{decision_id}": AIMED,
    "GET /decisions/{decision_id}/proof": AIMED,
    "GET /decisions/{decision_id}/entry": AIMED,
    "GET /sessions/{session_id}": AIMED,
    "GET /containments/{order_id}": AIMED,
    "GET /approvals": OWN,
    "GET /approvals/{approval_id}": AIMED,
    "POST /approvals/{approval_id}/open": Case(sends=one(data={"csrf": "x"})),
    "POST /approvals/{approval_id}/verdict": Case(sends=one(data={"csrf": "x", "verdict": "granted"})),
    "GET /tools": OWN,
    "GET /tools/{server}/{tool:path}": AIMED,
    "POST /tools/{server}/{tool:path}/difference": Case(sends=one(data={"csrf": "x"})),
    "POST /tools/{server}/{tool:path}/verdict": Case(
        sends=one(data={"csrf": "x", "verdict": "approve", "digest": TOOL_DIGEST, "reason": PURPOSE})
    ),
    "GET /drift": OWN,
    "GET /drift/agents/{agent:path}": AIMED,
    "POST /drift/agents/{agent:path}/order": Case(
        sends=lambda aim: [
            {"data": {"csrf": "x", "order": said, "enforcer": aim.enforcer_id, "reason": PURPOSE}}
            for said in ("accept", "reset")
        ]
    ),
    "GET /drift/{drift_id}": AIMED,
    "POST /drift/{drift_id}/acknowledge": Case(sends=one(data={"csrf": "x", "reason": PURPOSE})),
    "POST /drift/{drift_id}/close": Case(sends=one(data={"csrf": "x", "disposition": "harmless", "reason": PURPOSE})),
    "GET /inventory": OWN,
    "GET /agents/{agent:path}": AIMED,
    "GET /packs": OWN,
    "GET /packs/{job_id}.pdf": AIMED,
    "GET /packs/{job_id}.zip": AIMED,
    "GET /login": OWN,
    "POST /login": Case(
        sends=lambda aim: [
            {"data": {"token": f"ts1.{aim.log_id}." + "x" * 43, "csrf": aim.extra["csrf"], "next": "/"}},
            {"data": {"token": f"ts1.{aim.log_id}." + "x" * 43, "csrf": "made up"}},
        ]
    ),
    "GET /login/link/{code}": AIMED,
    "POST /login/link/{code}": Case(sends=lambda aim: [{"data": {"csrf": aim.extra["csrf"]}}]),
    "GET /login/provider": Case(sends=lambda aim: [{"params": {"log": aim.log_id}}]),
    "GET /login/callback": Case(sends=lambda aim: [{"params": {"state": f"{aim.log_id}." + "x" * 43, "code": "x"}}]),
    "POST /login/backchannel/{log_id}": Case(sends=one(data={"logout_token": "x"})),
    "GET /login/device": Case(sends=lambda _aim: [{"params": {"code": "BCDF-GHJK"}}]),
    "POST /login/device": Case(aimed=False),
    "POST /login/device/answer": Case(aimed=False, sends=one(data={"csrf": "made up", "code": "BCDF-GHJK"})),
    "POST /login/device/token": Case(sends=lambda aim: [{"data": {"device_code": f"{aim.log_id}." + "x" * 43}}]),
    "GET /login/device/done": OWN,
    "DELETE /login/device": Case(aimed=False),
    "POST /logout": Case(aimed=False, sends=one(data={"csrf": "made up"})),
    "GET /docs/api": OWN,
    "GET /assets/{name}": Case(aimed=False, where=[{"name": "style.css"}]),
}

PROBE = re.compile(r"\s*SELECT logs\.log_id\s+FROM logs\s+LIMIT")
"""Readiness locks any row of the logs' table to see that it can; which one it was is not looked at."""

DOORS = {"POST /login", "POST /login/link/{code}"}
"""What is tried at a log's own door leaves a record there: a failed login is evidence, whoever failed."""


# --- the two tenants -------------------------------------------------------------------------------------------------


@dataclass
class Side:
    """One tenant with one of everything."""

    tenant: Tenant
    enforcer: EnforcerClient
    aim: Aim
    tokens: dict[str, str]

    @property
    def database(self) -> Engine:
        return self.tenant.services.database


def user_of(tenant: Tenant) -> str:
    key = tenant.services.keys.pseudonym.seed
    return pseudonym(key, "user", "jane")


def request_access(tenant: Tenant, user: str, session: str) -> tuple[str, str]:
    """Have an evaluation denied and requested; return the ids of evaluation and task."""
    tenant.put_in_force(ready_bundle('@id("ask") @obligation("approval") permit (principal, action, resource);'))
    aim = replace(unaimed(), user=user, session=session)
    with tenant.client(Role.CLIENT) as client:
        denied = client.post("/access/v1/evaluation", json=question_about(aim)).json()
        evaluation_id: str = denied["context"]["evaluation_id"]
        submission = request_for(replace(aim, evaluation_id=evaluation_id))
        task_id: str = client.post("/access/v1/requests", json=submission).json()["task"]["id"]
    return evaluation_id, task_id


def furnish(server: RunningTenants, log_id: str, session: str, seed: int) -> Side:
    """Put one of everything into a log, all of it named after the log."""
    tenant = server.tenant(log_id)
    enforcer = tenant.enforcer(f"{log_id}-gateway", seed=seed)
    names = {
        "agent": f"{log_id}-bot",
        "server": f"{log_id}-server",
        "rules": (f"{log_id}-rule",),
        "failed_condition": f"{log_id}-rule",
    }
    user = user_of(tenant)
    decision_id = enforcer.decide(session=session, user=user, **names)
    seen = ToolEvent(action="quarantined", server=f"{log_id}-server", tool=f"{log_id}-server", digest=TOOL_DIGEST)
    enforcer.post([(enforcer.record(seen), ())]).raise_for_status()
    learned = BaselineEvent(action="learning", agent=f"{log_id}-bot")
    enforcer.post([(enforcer.record(learned), ())]).raise_for_status()
    flag = enforcer.flag(agent=f"{log_id}-bot", detector="new_tool", decisions=(decision_id,))
    evaluation_id, task_id = request_access(tenant, user, session)
    rules = [f'@id("{log_id}-only") {effect} (principal, action, resource);' for effect in ("permit", "forbid")]
    revisions = [tenant.put_in_force(ready_bundle(rule)) for rule in rules]
    approval_id = enforcer.hold(decision_id)
    with tenant.client(Role.ADMIN) as admin:
        ordered = admin.post(
            "/v1/evidence-packs", json={"from_ms": 1, "to_ms": 2, "frameworks": ["soc2"], "title": f"{log_id}-pack"}
        ).json()
        hold = admin.post("/v1/holds", json={"session": session, "reason": PURPOSE}).json()
        proposed = admin.post("/v1/modes", json={"server": f"{log_id}-server", "reason": PURPOSE}).json()
        stopped = {"agent": f"{log_id}-stopped", "seconds": 3600, "reason": PURPOSE}
        order = admin.post("/v1/containments", json=stopped).json()
        scanned = admin.post("/v1/discoveries", json=a_scan(sighting(f"http://{log_id}.example/mcp"))).json()
        for _ in range(600):
            if admin.get(f"/v1/evidence-packs/{ordered['job_id']}").json()["state"] == "done":
                break
            time.sleep(0.1)
        else:
            pytest.fail("the pack was not made")
    tenant.wait_until_published()
    tokens = {role: tenant.token(Role(role), f"{log_id}-{role}") for role in ("client", *READERS)}
    theirs = tenant.services.tokens.authenticate(tokens["auditor"])
    record = enforcer.record(enforcer.enforcer.heartbeat())
    aim = Aim(
        log_id=log_id,
        decision_id=decision_id,
        session=session,
        user=user,
        revision=revisions[-1],
        job_id=ordered["job_id"],
        token_sha256=theirs.token_sha256,
        enforcer_id=enforcer.enforcer.enforcer_id,
        code=f"{log_id}." + "e" * 43,
        key_id=tenant.services.keys.pack[0].key_id,
        hold_id=hold["hold_id"],
        change_id=proposed["change_id"],
        order_id=order["id"],
        drift_id=flag.record_id,
        discovery_id=scanned["unregistered"][0],
        server=f"{log_id}-server",
        approval_id=approval_id,
        task_id=task_id,
        evaluation_id=evaluation_id,
        batch=enforcer.spell([(record, ())]),
        record_id=record.record_id,
    )
    return Side(tenant, enforcer, aim, {**tokens, "enforcer": enforcer.token})


@dataclass
class World:
    server: RunningTenants
    mine: Side
    theirs: Side
    root: Path


@pytest.fixture(autouse=True)
def _databases_are_closed() -> None:
    """Leave the database alone that the running service has open from one test to the next; it closes it itself."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    changes: dict[str, Any] = {"heartbeat_interval_seconds": 3600, "access_request_seconds": 3600}
    if request.param == "postgresql":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        changes |= {"database_url": cluster.new_database(), "migrate": True}
    root = tmp_path_factory.mktemp("tenants")
    with start_tenants(root, **changes) as server:
        mine = furnish(server, MINE, "5" * 32, 21)
        theirs = furnish(server, THEIRS, "7" * 32, 22)
        yield World(server, mine, theirs, root)


# --- the sweep -------------------------------------------------------------------------------------------------------


def routes_of(routes: Sequence[Any]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from routes_of(route.original_router.routes)


@dataclass(frozen=True)
class Answer:
    """What was answered to a request for the other's things, and to the same request for nobody's."""

    key: str
    role: str
    sent: str
    theirs: httpx.Response
    nobodys: httpx.Response | None


@dataclass(frozen=True)
class Statement:
    """An SQL statement, with the log that the task worked for which sent it."""

    log_id: str
    text: str
    parameters: str


@dataclass
class Sweep:
    """All answers, and what could be seen from within meanwhile."""

    answers: list[Answer]
    statements: list[Statement]
    lines: list[Any]
    before: dict[str, Any]
    after: dict[str, Any]


@contextmanager
def listening(engine: Engine) -> Iterator[list[Statement]]:
    """Note every SQL statement of the process."""
    noted: list[Statement] = []

    def note(
        _connection: Any, _cursor: Any, text: str, parameters: Any, _context: Any, _many: bool
    ) -> None:  # SQLAlchemy's signature
        noted.append(Statement(current_log.get(), text, repr(parameters)))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(engine, "before_cursor_execute", note)


def log_tables() -> dict[str, Table]:
    """Return the tables whose rows are of one log, by its id or by its number."""
    return {
        table.name: table
        for metadata in (ledger_tables.metadata, service_tables.metadata)
        for table in metadata.tables.values()
        if {"log_id", "log_no"} & set(table.columns.keys()) and table.name not in WITHOUT_LOG
    }


def number_of(side: Side) -> int:
    """Return the number that a log has in its database."""
    table = ledger_tables.logs
    with side.database.connect() as connection:
        return int(connection.scalar(select(table.c.log_no).where(table.c.log_id == side.aim.log_id)) or 0)


def of_log(side: Side, table: Table) -> ColumnElement[bool]:
    """Return the condition that a row is of a log."""
    if "log_id" in table.c:
        return table.c.log_id == side.aim.log_id
    return table.c.log_no == number_of(side)


def state_of(side: Side) -> dict[str, Any]:
    """Return every row and the digest of every file of a log."""
    found: dict[str, Any] = {}
    with side.database.connect() as connection:
        for name, table in log_tables().items():
            query = select(table).where(of_log(side, table))
            found[name] = sorted(repr(row) for row in connection.execute(query))
    settings = side.tenant.services.settings
    for folder in (settings.data_dir, settings.keys_dir):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def log_in(client: httpx.Client, token: str) -> httpx.Response:
    found = CSRF.search(client.get("/login").text)
    assert found is not None
    return client.post("/login", data={"csrf": found[1], "token": token})


def tried_as(key: str) -> tuple[str, ...]:
    """Return the roles that try a route: a door opens so often from one address, where a client is as an enforcer."""
    return tuple(role for role in ROLES if role != "client" or key not in DOORS)


class Sweeper:
    """Sends the cases of every route as every role of the hostile tenant."""

    def __init__(self, world: World, clients: ExitStack) -> None:
        self._world = world
        self._stack = clients
        self._clients: dict[tuple[str, bool], httpx.Client] = {}
        self._csrf = ""

    def _client(self, role: str, *, web: bool) -> httpx.Client:
        key = (role, web)
        if key not in self._clients:
            server, tokens = self._world.server, self._world.mine.tokens
            client = self._stack.enter_context(server.browser_client() if web else server.stranger())
            if role != NOBODY and web and role not in ("enforcer", "client"):
                assert log_in(client, tokens[role]).status_code == 303
            elif role != NOBODY:
                client.headers["authorization"] = f"Bearer {tokens[role]}"
            self._clients[key] = client
        return self._clients[key]

    def ask(self, route: APIRoute, method: str) -> Iterator[Answer]:
        """Ask a route, as each role, for the other's things and for nobody's."""
        key = f"{method} {route.path}"
        case, web = CASES[key], not route.include_in_schema
        for role in tried_as(key):
            client = self._client(role, web=web)
            if key == "POST /logout":
                client = self._stack.enter_context(self._world.server.browser_client())
                if role in READERS:
                    log_in(client, self._world.mine.tokens[role])
            more = {"mine": self._world.mine.aim.decision_id, "csrf": self._secret(client) if "login" in key else ""}
            theirs = replace(self._world.theirs.aim, extra=more)
            nobodys = replace(unaimed(), extra=more)
            for where in case.where:
                for position in range(len(case.sends(theirs))):
                    answers = [
                        client.request(method, replace(aim, extra=where).path(route.path), **case.sends(aim)[position])
                        for aim in (theirs, *([nobodys] if case.aimed else []))
                    ]
                    sent = str(answers[0].request.url) + answers[0].request.content.decode(errors="replace")
                    yield Answer(key, role, sent, answers[0], answers[1] if case.aimed else None)

    def _secret(self, client: httpx.Client) -> str:
        found = CSRF.search(client.get("/docs/api" if "tallystick" in client.cookies else "/login").text)
        return found[1] if found else ""


@pytest.fixture(scope="module")
def sweep(world: World) -> Sweep:
    """Try everything once."""
    app = world.server._server.config.app
    before = state_of(world.theirs)
    answers: list[Answer] = []
    with (
        ExitStack() as clients,
        structlog.testing.capture_logs() as lines,
        listening(world.mine.database) as statements,
    ):
        sweeper = Sweeper(world, clients)
        tried = [
            (route, method, f"{method} {route.path}")
            for route in routes_of(app.routes)
            for method in sorted(route.methods - {"HEAD"})
        ]
        for route, method, key in tried:
            if key in CASES and key not in DOORS:
                answers += sweeper.ask(route, method)
        after = state_of(world.theirs)
        for route, method, key in tried:
            if key in DOORS:
                answers += sweeper.ask(route, method)
    return Sweep(answers, statements, lines, before, after)


def test_every_route_has_a_case_and_every_case_a_route(world):
    app = world.server._server.config.app
    there = {f"{method} {route.path}" for route in routes_of(app.routes) for method in route.methods - {"HEAD"}}
    described = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    assert {key.replace(":path", "") for key in there} >= described
    assert set(CASES) == there


def test_every_case_was_tried_as_every_role(sweep):
    assert {(answer.key, answer.role) for answer in sweep.answers} == {
        (key, role) for key in CASES for role in tried_as(key)
    }


def comparable(answer: httpx.Response, aim: Aim) -> tuple[int, str, dict[str, str]]:
    """Return an answer without the names that were asked for, what is new each time, and how far one's log is."""
    text = re.sub(r'value="[^"]+"', "", answer.text)
    text = re.sub(r'"left_out":\[.*\]', "", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
    passing = ("date", "set-cookie", "content-length", "tallystick-time")
    headers = {name: aim.masked(said) for name, said in answer.headers.items() if name not in passing}
    return answer.status_code, aim.masked(text), headers


def test_a_thing_of_anothers_is_answered_as_a_thing_that_nobody_has(sweep, world):
    theirs, nobody = world.theirs.aim, unaimed()
    different = []
    for answer in sweep.answers:
        if answer.nobodys is None:
            continue
        seen, unseen = comparable(answer.theirs, theirs), comparable(answer.nobodys, nobody)
        if seen != unseen:
            different.append((answer.key, answer.role, answer.sent, seen, unseen))
    assert different == []


def test_no_thing_of_anothers_is_handed_out(sweep):
    handed = [
        (answer.key, answer.role, answer.sent, answer.theirs.status_code)
        for answer in sweep.answers
        if answer.nobodys is not None
        and answer.theirs.status_code < 300
        and answer.key != "GET /v1/decisions"
        and "link" not in answer.key
    ]
    assert handed == []
    searches = [a.theirs.json() for a in sweep.answers if a.key == "GET /v1/decisions" and a.theirs.status_code == 200]
    assert len(searches) == len(READERS) * 6
    assert all(answer == {**answer, "items": [], "next_cursor": None} for answer in searches)


def test_no_answer_names_the_other_tenant_or_anything_of_his(sweep, world):
    aim = world.theirs.aim
    names = [THEIRS, aim.decision_id, aim.session, aim.user, aim.revision, aim.job_id, aim.token_sha256]
    leaks = [
        (answer.key, answer.role, name)
        for answer in sweep.answers
        for name in names
        if name in answer.theirs.text + repr(answer.theirs.headers.multi_items()) and name not in answer.sent
    ]
    assert leaks == []


def test_nothing_of_the_others_was_changed(sweep):
    changed = [
        name for name in sweep.before.keys() | sweep.after.keys() if sweep.before.get(name) != sweep.after.get(name)
    ]
    assert changed == []
    assert sweep.before["records"]
    assert sweep.before["vault_payloads"]


def test_what_was_tried_at_the_others_door_is_known_to_the_other_as_a_strangers_attempt(sweep, world):
    assert {answer.key for answer in sweep.answers} > DOORS
    tried = [event for event in world.theirs.tenant.access_events("login") if event.result != "ok"]
    assert {(event.actor_role, event.target_kind) for event in tried} == {("unauthenticated", "dashboard")}
    assert {event.result for event in tried} <= {"unknown_token", "dead_link"}
    # As many as the throttle lets one address leave behind, however often it tries.
    assert 1 <= len(tried) <= DEFAULT_LIMITS.failures


def test_the_services_own_log_does_not_name_the_other_tenant(sweep):
    assert [line for line in sweep.lines if THEIRS in repr(line)] == []


# --- SQL -------------------------------------------------------------------------------------------------------------


def test_no_statement_of_one_tenants_request_speaks_of_another_log(sweep):
    mine = [statement for statement in sweep.statements if statement.log_id == MINE]
    assert len(mine) > 500
    assert [statement for statement in mine if f"'{THEIRS}'" in statement.parameters] == []


def test_no_statement_speaks_of_two_logs(sweep):
    named = [set(re.findall(rf"'({MINE}|{THEIRS}|initech)'", statement.parameters)) for statement in sweep.statements]
    assert [names for names in named if len(names) > 1] == []
    assert {MINE} in named


def test_every_statement_on_a_logs_table_is_bound_to_one_log(sweep):
    tables = log_tables()
    on_log = re.compile(
        rf"\b(?:FROM|JOIN|UPDATE|INTO)\s+\"?({'|'.join(sorted(tables, key=len, reverse=True))})\"?\b", re.IGNORECASE
    )
    unbound = set()
    judged = 0
    for statement in sweep.statements:
        inserting = re.match(r"\s*INSERT", statement.text, re.IGNORECASE) is not None
        for name in on_log.findall(statement.text):
            if PROBE.match(statement.text):
                continue
            judged += 1
            column = "log_id" if "log_id" in tables[name].c else "log_no"
            bound = column in statement.text if inserting else re.search(rf"\b{column}\s*=", statement.text)
            named = re.search(rf"'({MINE}|{THEIRS}|initech)'", statement.parameters)
            if not bound or (column == "log_id" and not named):
                unbound.add((name, statement.text))
    assert judged > 500
    assert unbound == set()


def test_no_statement_of_one_tenants_request_has_the_number_of_another_log(sweep, world):
    numbers = [
        int(number)
        for statement in sweep.statements
        if statement.log_id == MINE
        for number in re.findall(r"'log_no(?:_\d+)?': (\d+)", statement.parameters)
    ]
    assert set(numbers) <= {number_of(world.mine)}
    assert number_of(world.mine) != number_of(world.theirs)
    # Nearly all name the log by its id, and the database finds the number.
    by_id = [s for s in sweep.statements if s.log_id == MINE and "SELECT logs.log_no" in s.text]
    assert len(by_id) > 100
    assert all(f"'{MINE}'" in statement.parameters for statement in by_id)


# --- records ---------------------------------------------------------------------------------------------------------


def post(side: Side, record: Record, token: str | None = None, openings: Sequence[Any] = ()) -> httpx.Response:
    with side.tenant.client(token=token or side.enforcer.token) as client:
        return client.post("/v1/decisions", content=side.enforcer.spell([(record, openings)]), headers=NDJSON)


def heartbeat(side: Side, **changes: Any) -> Record:
    """Return a heartbeat of a tenant's own enforcer, changed and signed anew."""
    made = side.enforcer.record(side.enforcer.enforcer.heartbeat())
    return sign_record(msgspec.structs.replace(made, **changes), side.enforcer.enforcer.key)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"log_id": THEIRS}, "log"),
        ({"log_id": "initech"}, "log"),
        ({"tenant": f"{THEIRS}-tenant"}, "tenant"),
        ({"environment": "elsewhere"}, "environment"),
        ({"enforcer_id": f"{THEIRS}-gateway"}, "enforcer"),
        ({"log_id": THEIRS, "tenant": f"{THEIRS}-tenant", "enforcer_id": f"{THEIRS}-gateway"}, "log"),
    ],
)
def test_a_record_that_says_to_be_of_another_log_is_refused(world, changes, what):
    answer = post(world.mine, heartbeat(world.mine, **changes))
    assert answer.status_code == 403
    assert f"is of another {what} than the token" in answer.json()["detail"]


def test_a_record_that_the_other_tenant_signed_is_not_taken_into_ones_own_log(world):
    stolen = world.theirs.enforcer.record(world.theirs.enforcer.enforcer.heartbeat())
    assert post(world.mine, stolen).status_code == 403
    renamed = msgspec.structs.replace(stolen, log_id=MINE, tenant=f"{MINE}-tenant", enforcer_id=f"{MINE}-gateway")
    answer = post(world.mine, renamed)
    assert answer.status_code == 403
    assert "is not signed by a key of the enforcer" in answer.json()["detail"]


def test_ones_own_enforcer_key_signs_nothing_for_the_other_even_with_his_enforcers_token(world):
    forged = heartbeat(
        world.mine, log_id=THEIRS, tenant=f"{THEIRS}-tenant", enforcer_id=world.theirs.aim.enforcer_id, epoch="f" * 32
    )
    answer = post(world.mine, forged, token=world.theirs.enforcer.token)
    assert answer.status_code == 403
    assert "is not signed by a key of the enforcer" in answer.json()["detail"]


def test_a_batch_with_one_foreign_record_is_refused_as_a_whole(world):
    before = world.mine.tenant.services.sequenced_size(), world.theirs.tenant.services.sequenced_size()
    good, bad = heartbeat(world.mine), heartbeat(world.mine, log_id=THEIRS)
    answer = world.mine.enforcer.post([(good, ()), (bad, ())])
    assert answer.status_code == 403
    assert (world.mine.tenant.services.sequenced_size(), world.theirs.tenant.services.sequenced_size()) == before


def test_one_record_id_in_two_logs_names_two_records(world):
    record_id = new_record_id(1_763_546_400_000, secrets.token_bytes(10))
    found = {}
    for side, agent in ((world.mine, "one-bot"), (world.theirs, "other-bot")):
        body, openings = make_decision(agent=agent, session=side.aim.session)
        record = side.enforcer.record(body)
        record = sign_record(msgspec.structs.replace(record, record_id=record_id), side.enforcer.enforcer.key)
        answer = post(side, record, openings=openings)
        assert answer.status_code == 201, answer.text
        assert answer.json()["results"][0]["duplicate"] is False
    for side in (world.mine, world.theirs):
        with side.tenant.client(Role.RESPONDER) as client:
            found[side.aim.log_id] = client.get(f"/v1/decisions/{record_id}").json()["record"]
            opened = client.post(f"/v1/decisions/{record_id}/openings", json={"purpose": PURPOSE})
            assert opened.status_code == 200
    assert found[MINE]["body"]["agent"] == "one-bot"
    assert found[THEIRS]["body"]["agent"] == "other-bot"


# --- logins ----------------------------------------------------------------------------------------------------------


def test_a_session_renamed_after_the_other_log_is_no_session(world):
    with world.server.browser_client() as client:
        log_in(client, world.mine.tokens["admin"])
        session_id = client.cookies["tallystick"]
        assert session_id.startswith(f"{MINE}.")
        client.cookies.clear()
        for made_up in (session_id.replace(MINE, THEIRS), session_id.replace(MINE, "initech"), session_id[5:]):
            answer = client.get("/", headers={"cookie": f"tallystick={made_up}"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert client.get("/", headers={"cookie": f"tallystick={session_id}"}).status_code == 200


def test_a_login_link_renamed_after_the_other_log_logs_nobody_in_and_is_not_spent(world):
    code = world.mine.tenant.services.login_links.issue(world.mine.tokens["auditor"])
    with world.server.browser_client() as client:
        csrf = CSRF.search(client.get("/login").text)
        assert csrf is not None
        refused = client.post(f"/login/link/{code.replace(MINE, THEIRS)}", data={"csrf": csrf[1]})
        assert refused.status_code == 403
        assert client.post(f"/login/link/{code}", data={"csrf": csrf[1]}).status_code == 303
        assert client.cookies["tallystick"].startswith(f"{MINE}.")


def test_logging_in_to_another_log_ends_the_login_before(world):
    with world.server.browser_client() as client:
        log_in(client, world.mine.tokens["auditor"])
        first = client.cookies["tallystick"]
        assert f"Log <code>service.example/{MINE}-origin" in client.get("/").text
        # The same browser, and a person who works for both.
        page = client.get("/login", headers={"cookie": ""})
        csrf = CSRF.search(page.text)
        assert csrf is not None
        form = page.headers["set-cookie"].partition(";")[0]
        headers = {"cookie": f"tallystick={first}; {form}"}
        client.cookies.clear()
        answer = client.post("/login", data={"csrf": csrf[1], "token": world.theirs.tokens["auditor"]}, headers=headers)
        assert answer.status_code == 303
        assert client.get("/", headers={"cookie": f"tallystick={first}"}).status_code == 303


def test_a_failed_login_is_recorded_in_the_log_that_it_named_and_nowhere_else(world):
    def failures(side: Side) -> int:
        return [event.result for event in side.tenant.access_events("login")].count("unknown_token")

    before = failures(world.mine), failures(world.theirs)
    with world.server.browser_client() as client:
        for log_id in (MINE, "initech"):
            log_in(client, f"ts1.{log_id}." + "x" * 43)
    after = failures(world.mine), failures(world.theirs)
    # At most one: the throttle may have had enough of the sweep.
    assert after[0] - before[0] in (0, 1)
    assert after[1] == before[1]


# --- keys and the vault ----------------------------------------------------------------------------------------------


def test_one_users_pseudonym_and_payload_key_differ_between_the_logs(world):
    assert user_of(world.mine.tenant) != user_of(world.theirs.tenant)
    keys = [side.tenant.services.keys for side in (world.mine, world.theirs)]
    assert not {key.seed for key in keys[0]} & {key.seed for key in keys[1]}
    subjects = [side.tenant.services.vault._keys for side in (world.mine, world.theirs)]
    for log_id in (MINE, THEIRS):
        assert subjects[0].get_or_create(log_id, "d" * 32) != subjects[1].get_or_create(log_id, "d" * 32)


def test_a_sealed_payload_that_is_moved_into_the_others_row_opens_nothing(world):
    table = ledger_tables.vault_payloads

    def place(side: Side) -> ColumnElement[bool]:
        index = side.tenant.services.catalog.index_of(side.aim.log_id, side.aim.decision_id)
        return of_log(side, table) & (table.c.leaf_index == index) & (table.c.field == "message")

    def sealed(side: Side) -> bytes:
        with side.database.connect() as connection:
            found = connection.scalar(select(table.c.ciphertext).where(place(side)))
        assert found
        return bytes(found)

    def put(ciphertext: bytes) -> None:
        with world.theirs.database.begin() as connection:
            connection.execute(update(table).where(place(world.theirs)).values(ciphertext=ciphertext))

    services = world.theirs.tenant.services
    record = services.reader.record(services.catalog.index_of(THEIRS, world.theirs.aim.decision_id))
    kept, moved = sealed(world.theirs), sealed(world.mine)
    assert moved != kept
    put(moved)
    try:
        with pytest.raises(LedgerError) as caught:
            services.vault.open(record, "message")
        assert isinstance(caught.value, CommitmentError)
    finally:
        put(kept)
    assert services.vault.open(record, "message").payload


def test_ones_own_vault_does_not_open_the_others_payload(world):
    services = world.theirs.tenant.services
    record = services.reader.record(services.catalog.index_of(THEIRS, world.theirs.aim.decision_id))
    with pytest.raises(LedgerError):
        world.mine.tenant.services.vault.open(record, "message")


# --- what the operator sees, and what a tenant does ------------------------------------------------------------------


def test_health_names_logs_to_the_operator_alone(world):
    with world.server.stranger() as stranger:
        operator = {"authorization": f"Bearer {OPERATOR_TOKEN}"}
        states = stranger.get("/readyz", headers=operator).json()["logs"]
        assert [(state["log_id"], state["ready"]) for state in states] == [(MINE, True), (THEIRS, True)]
        text = stranger.get("/metrics", headers=operator).text
        assert f'tallystick_log_open{{log="{THEIRS}"}} 1.0' in text
        assert f'tallystick_published_size{{log="{MINE}"}}' in text
        for path in ("/v1/decisions", f"/logs/{MINE}/checkpoint", "/v1/bundles"):
            assert stranger.get(path, headers=operator).status_code == 401
        for token in (OPERATOR_TOKEN + "x", OPERATOR_TOKEN[:-1], "x"):
            assert stranger.get("/metrics", headers={"authorization": f"Bearer {token}"}).status_code == 401
        anybody = stranger.get("/readyz")
        assert anybody.status_code == 200
        assert MINE not in anybody.text


def test_a_tenants_metrics_count_his_own_requests_alone(world):
    with world.mine.tenant.client(Role.AUDITOR) as client:
        text = client.get("/metrics").text
        before = re.findall(r"^tallystick_published_size (\S+)$", text, flags=re.MULTILINE)
        assert len(before) == 1
        for _ in range(3):
            client.get("/v1/bundles")
    with world.theirs.tenant.client(Role.AUDITOR) as client:
        client.get("/v1/bundles")
        found = re.search(
            r'tallystick_http_requests_total\{method="GET",route="/v1/bundles",status="200"\} (\S+)',
            client.get("/metrics").text,
        )
    assert found is not None
    assert float(found[1]) < 3


def test_pages_for_strangers_name_no_log(world):
    with world.server.browser_client() as client:
        for path in ("/login", "/docs/api", "/nowhere", "/openapi.json", f"/login/link/{THEIRS}." + "e" * 43):
            text = client.get(path).text.replace(f"{THEIRS}." + "e" * 43, "")
            assert MINE not in text
            assert THEIRS not in text


def test_a_records_bytes_are_the_same_whoever_serves_them(world):
    services = world.theirs.tenant.services
    index = services.catalog.index_of(THEIRS, world.theirs.aim.decision_id)
    assert encode_record(services.reader.record(index)) == next(services.reader.entries(index, index + 1))
