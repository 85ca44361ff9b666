"""The API's documentation says of each operation what the code says."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from service.api import (
    access,
    access_requests,
    authzen,
    bundle_steps,
    bundles,
    decisions,
    health,
    logs,
    packs,
    replays,
    sessions,
)
from service.api.description import describe
from service.auth import Role
from service.web.apidocs import Operation, groups_of

ROUTERS = [
    module.router
    for module in (
        decisions,
        sessions,
        replays,
        bundles,
        bundle_steps,
        packs,
        logs,
        access,
        access_requests,
        health,
        authzen,
    )
]


@pytest.fixture(scope="module")
def document() -> dict:
    app = FastAPI(title="x", version="1")
    for router in ROUTERS:
        app.include_router(router)
    describe(app, ROUTERS)
    return app.openapi()


@pytest.fixture(scope="module")
def operations(document) -> dict[tuple[str, str], Operation]:
    groups = groups_of(document, "https://ledger.example/")
    return {(operation.method, operation.path): operation for group in groups for operation in group.operations}


def test_every_operation_of_the_document_is_described_once(document, operations):
    due = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert set(operations) == due
    assert len({operation.anchor for operation in operations.values()}) == len(due)


def test_every_operation_but_those_of_health_and_discovery_names_roles(operations):
    open_to_all = {path for (_, path), operation in operations.items() if not operation.roles}
    assert open_to_all == {"/healthz", "/readyz", "/metrics", "/.well-known/authzen-configuration"}


@pytest.mark.parametrize(
    ("operation", "roles"),
    [
        (("POST", "/v1/decisions"), ("enforcer",)),
        (("GET", "/v1/decisions"), ("auditor", "responder", "approver", "admin")),
        (("POST", "/v1/decisions/{decision_id}/openings"), ("responder", "admin")),
        (("POST", "/v1/evidence-packs"), ("auditor", "admin")),
        (("POST", "/v1/enforcers"), ("admin",)),
        (("GET", "/v1/bundles/active"), ("enforcer", "client", "admin")),
        (("POST", "/access/v1/evaluation"), ("client",)),
        (("GET", "/logs/{log_id}/checkpoint"), ("enforcer", "client", "auditor", "responder", "approver", "admin")),
    ],
)
def test_the_roles_are_those_that_are_let_in(operations, operation, roles):
    assert operations[operation].roles == roles


def test_the_document_names_roles_as_alternatives_of_one_scheme(document):
    requirements = document["paths"]["/v1/replays"]["post"]["security"]
    assert requirements == [{"token": [Role.RESPONDER.value]}, {"token": [Role.ADMIN.value]}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_parameters_say_where_they_stand_whether_they_must_and_their_bounds(operations):
    search = {parameter.name: parameter for parameter in operations["GET", "/v1/decisions"].parameters}
    assert search["limit"].kind == "integer, ≥ 1, ≤ 500, default 50"
    assert search["enforcement"].kind == "one of allow, deny, ask, kill"
    assert search["time_from_ms"].description == "POSIX milliseconds"
    assert not search["agent"].required
    one = operations["GET", "/v1/decisions/{decision_id}"].parameters[0]
    assert (one.place, one.required) == ("path", True)


def test_every_answer_of_success_says_what_it_brings(operations):
    """FastAPI's own words for all of them say nothing."""
    told = [
        answer.description
        for operation in operations.values()
        for answer in operation.answers
        if answer.status.startswith("2")
    ]
    assert len(told) == len(operations)
    assert all(sentence.endswith(".") and sentence != "Successful Response" for sentence in told)
    assert len(set(told)) == len(told)


def test_bodies_are_described_member_by_member(operations):
    order = {member.name: member for member in operations["POST", "/v1/evidence-packs"].body.members}
    assert order["from_ms"].required
    assert not order["title"].required
    appended = operations["POST", "/v1/decisions"].body
    assert appended.media_types == ("application/json", "application/x-ndjson")
    assert "openings[].salt" in [member.name for member in appended.members]


def test_an_optional_body_is_said_to_be_optional(operations):
    body = operations["POST", "/v1/bundles/rollback"].body
    assert not body.required
    assert [member.name for member in body.members] == ["comment"]


def test_problem_answers_are_marked(operations):
    answers = {answer.status: answer for answer in operations["POST", "/v1/decisions"].answers}
    assert answers["403"].problem
    assert not answers["201"].problem


def test_the_command_line_names_the_service_and_no_token(operations):
    curl = operations["GET", "/v1/decisions"].curl
    assert curl == (
        'curl --fail-with-body --header "Authorization: Bearer $TALLYSTICK_TOKEN" https://ledger.example/v1/decisions'
    )
    posted = operations["POST", "/v1/evidence-packs"].curl
    assert "--request POST" in posted
    assert "--data-binary @request" in posted
    assert "'Content-Type: application/json'" in posted
    assert "Authorization" not in operations["GET", "/healthz"].curl


def test_what_a_caller_fills_in_stays_visible_and_quoted(operations):
    curl = operations["GET", "/v1/decisions/{decision_id}"].curl
    assert curl.endswith("'https://ledger.example/v1/decisions/{decision_id}'")
    assert "--globoff" in curl


def test_groups_come_in_the_order_in_which_people_need_them(document):
    titles = [group.title for group in groups_of(document, "https://x")]
    assert titles[0] == "decisions"
    assert titles[-1] == "health"
