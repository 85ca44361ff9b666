"""Errors over HTTP: one status for each error, the shape of RFC 9457, and nothing in it that is nobody's to know."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Annotated, Any

import httpx
import pytest
import structlog
from fastapi import FastAPI, Query
from fastapi.responses import StreamingResponse
from structlog.testing import capture_logs

from ledger import errors
from ledger.errors import (
    MalformedError,
    OverloadedError,
    RootMismatchError,
    StorageError,
    TallystickError,
    WitnessSizeError,
)
from service.app import AnswerBrokenOffError, _Outermost
from service.health import Metrics
from service.problems import (
    ForbiddenError,
    PersonNeededError,
    Problem,
    UnauthenticatedError,
    install,
    kind_of,
    problem_response,
)

SECRET = "patient 4711 has measles"

STATUSES = """
TallystickError           -    -
LedgerError               -    -
ConfigError               -    -
MalformedError            400  malformed
VerificationError         422  unverifiable
ProofError                422  unverifiable
RootMismatchError         422  unverifiable
RollbackError             422  unverifiable
SplitViewError            422  unverifiable
SignatureError            422  unverifiable
SignatureInvalidError     422  unverifiable
SignatureUncheckedError   422  unverifiable
TrustPolicyError          422  unverifiable
CommitmentError           422  commitment
StateError                503  unavailable
ConflictError             409  conflict
SwapLostError             409  conflict
StaleKeysError            409  conflict
NotFoundError             404  not-found
OverloadedError           429  overloaded
ErasedError               410  erased
HeldError                 409  held
PrunedError               410  pruned
DependencyError           503  unavailable
StorageError              503  unavailable
AnchorError               503  unavailable
WitnessError              503  unavailable
WitnessSizeError          503  unavailable
TimestampError            503  unavailable
UpstreamError             503  unavailable
PolicyError               422  policy
PolicySyntaxError         422  policy
UnknownBundleError        404  unknown-bundle
EvidenceError             422  evidence
IncompletePopulationError 422  evidence
"""
"""``-``: never the answer to a request, so that it says nothing if it happens."""

TABLE = [line.split() for line in STATUSES.strip().splitlines()]


def make(name: str, message: str = "what is wrong") -> TallystickError:
    kind = getattr(errors, name)
    if kind is RootMismatchError:
        return RootMismatchError(message, expected=b"e", calculated=b"c")
    if kind is WitnessSizeError:
        return WitnessSizeError(message, size=3)
    made: TallystickError = kind(message)
    return made


def application(error: Exception | None = None) -> FastAPI:
    """Return an application whose route fails with an error, in our outermost layer."""
    app = FastAPI()
    install(app)

    @app.get("/things/{name:path}")
    def thing(name: str, limit: Annotated[int, Query(ge=1)] = 1) -> str:
        if error is not None:
            raise error
        return name * limit

    @app.get("/stream")
    def stream() -> StreamingResponse:
        async def body():
            yield b"half"
            raise ValueError(SECRET)

        return StreamingResponse(body())

    app.add_middleware(_Outermost, hosting=SimpleNamespace(metrics=Metrics()))
    return app


def ask(app: FastAPI, path: str = "/things/a", method: str = "GET", **options: Any) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.example") as client:
            return await client.request(method, path, **options)

    return asyncio.run(call())


def document(answer: httpx.Response) -> Mapping[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == answer.status_code
    assert found["type"].startswith("urn:tallystick:problem:")
    assert {"type", "title", "status", "detail", "instance"} <= set(found)
    return found


# --- the mapping -----------------------------------------------------------------------------------------------------


def test_the_table_names_every_error_of_the_core_once():
    classes = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TallystickError)}
    assert {row[0] for row in TABLE} == classes
    assert len(TABLE) == len(classes)


@pytest.mark.parametrize(("name", "status", "slug"), TABLE)
def test_each_error_of_the_core_has_its_status_and_type(name, status, slug):
    found = kind_of(make(name))
    assert (None if found is None else (str(found[0]), found[1])) == (None if status == "-" else (status, slug))


@pytest.mark.parametrize(("name", "status", "slug"), [row for row in TABLE if row[1] != "-"])
def test_an_error_is_answered_with_a_problem_document(name, status, slug):
    answer = ask(application(make(name)))
    assert answer.status_code == int(status)
    found = document(answer)
    assert found["type"] == f"urn:tallystick:problem:{slug}"
    assert found["detail"].startswith("what is wrong")
    assert found["instance"] == "/things/a"


@pytest.mark.parametrize("name", [row[0] for row in TABLE if row[1] == "-"])
def test_an_error_that_has_no_status_says_nothing_of_its_cause(name):
    with capture_logs() as logged:
        answer = ask(application(make(name, SECRET)))
    assert answer.status_code == 500
    assert SECRET not in answer.text
    assert SECRET not in str(logged)
    assert [entry["error"] for entry in logged] == [name]


def test_a_subclass_of_tomorrow_is_answered_as_its_parent():
    class LaterError(OverloadedError):
        pass

    assert ask(application(LaterError("later"))).status_code == 429


@pytest.mark.parametrize(
    ("error", "status"),
    [(ForbiddenError("no"), 403), (PersonNeededError("no"), 403), (UnauthenticatedError("who?"), 401)],
)
def test_who_may_not_and_who_is_not_known_are_told_apart(error, status):
    answer = ask(application(error))
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) is (status == 401)


@pytest.mark.parametrize("error", [OverloadedError("full"), StorageError("down")])
def test_what_is_worth_trying_again_says_when(error):
    assert int(ask(application(error)).headers["retry-after"]) >= 1


@pytest.mark.parametrize("name", ["MalformedError", "ConflictError", "NotFoundError", "ErasedError"])
def test_what_will_fail_again_does_not_ask_to_be_tried_again(name):
    assert "retry-after" not in ask(application(make(name))).headers


def test_a_routes_own_problem_carries_its_members():
    problem = Problem(413, "too-large", "Too large", "at most 5 bytes", limit_bytes=5)
    found = document(ask(application(problem)))
    assert (found["status"], found["type"], found["limit_bytes"]) == (413, "urn:tallystick:problem:too-large", 5)


# --- what never stands in one ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError(SECRET), KeyError(SECRET), RuntimeError(SECRET), MemoryError(SECRET)])
def test_an_unexpected_error_is_a_500_that_says_nothing_in_answer_or_log(error):
    with capture_logs() as logged:
        answer = ask(application(error))
    assert answer.status_code == 500
    assert document(answer)["detail"] == "the request failed; nothing of it was acknowledged"
    assert SECRET not in answer.text
    assert SECRET not in str(logged)
    assert [(entry["event"], entry["error"]) for entry in logged] == [("request_failed", type(error).__name__)]
    assert any(" thing" in frame for frame in logged[0]["frames"])


def test_an_error_in_the_middle_of_an_answer_breaks_it_off_without_its_message():
    with capture_logs() as logged, pytest.raises(AnswerBrokenOffError) as caught:
        ask(application(), "/stream")
    assert SECRET not in str(logged)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("value", [SECRET, "0", "-1", "1e9", "1\x00", ""])
def test_an_invalid_parameter_is_named_and_its_value_is_not_quoted(value):
    answer = ask(application(), params={"limit": value})
    assert answer.status_code == 422
    found = document(answer)
    assert [item["at"] for item in found["errors"]] == ["query.limit"]
    assert SECRET not in answer.text


def test_a_detail_and_the_list_of_errors_have_an_end():
    found = document(ask(application(MalformedError("x" * 100_000))))
    assert len(found["detail"]) < 600


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/things/%3Cscript%3E", "/things/%3Cscript%3E"),
        ("/things/a%20b", "/things/a%20b"),
        ("/things/%1B%5B2J", "/things/%1B%5B2J"),
        ("/things/%22", "/things/%22"),
        ("/things/%E2%80%AE", "/things/%E2%80%AE"),
        ("/things/%ff", "/things/%EF%BF%BD"),
        ("/things/a/b:c@d", "/things/a/b:c@d"),
    ],
)
def test_an_instance_is_a_uri_reference_whatever_the_path_holds(path, shown):
    assert document(ask(application(MalformedError("bad")), path))["instance"] == shown


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/things/a", 405)])
def test_what_the_framework_refuses_is_a_problem_document_too(method, path, status):
    answer = ask(application(), path, method)
    assert document(answer)["type"] == f"urn:tallystick:problem:http-{status}"
    if status == 405:
        assert answer.headers["allow"] == "GET"


def test_a_header_that_was_given_is_not_overruled():
    answer = problem_response(429, "x", "X", "x", instance="/", headers={"Retry-After": "300"})
    assert answer.headers["retry-after"] == "300"
    assert json.loads(answer.body)["status"] == 429


# --- the outermost layer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, MalformedError("bad"), ValueError("bad")])
def test_every_answer_has_the_security_headers(error):
    answer = ask(application(error))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_requests_are_counted_by_pattern_so_that_no_caller_makes_new_series():
    app = application()
    metrics = Metrics()
    app.user_middleware.clear()
    app.add_middleware(_Outermost, hosting=SimpleNamespace(metrics=metrics))
    for path in ("/things/a", "/things/b", "/nowhere/1", "/nowhere/2"):
        ask(app, path)
    ask(app, "/things/a", "BREW")
    ask(app, "/things/a?limit=0")
    counted = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for family in metrics.requests.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert counted == {
        ("GET", "/things/{name:path}", "200"): 2,
        ("GET", "unmatched", "404"): 2,
        ("other", "/things/{name:path}", "405"): 1,
        ("GET", "/things/{name:path}", "422"): 1,
    }


@pytest.fixture(autouse=True)
def _no_configuration_of_structlog_is_left():
    structlog.reset_defaults()
