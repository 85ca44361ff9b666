"""A route of the API: who asks is known before what he sends is read; JSON is strict and bounded, bodies are timed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel, Field

from ledger.errors import NotFoundError
from service.api.common import permitted, read_body
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission, Role
from service.fairness import Places
from service.problems import UnauthenticatedError, install
from tests.support.ledger import LOG_ID

Admin = Annotated[Caller, Depends(permitted(Permission.ADMINISTER))]
LIMIT = ServiceRoute.max_json_bytes


class Thing(BaseModel):
    """A body."""

    name: Annotated[str, Field(max_length=9)]


class Tokens:
    """Knows three callers, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def authenticate(self, token: str) -> Caller:
        self.asked += 1
        roles = {"admin": (LOG_ID, Role.ADMIN), "auditor": (LOG_ID, Role.AUDITOR), "foreign": ("other", Role.ADMIN)}
        if token not in roles:
            raise UnauthenticatedError("unknown")
        log_id, role = roles[token]
        return Caller(log_id=log_id, name=token, role=role, enforcer_id=None, token_sha256="0" * 64)


class Hosting:
    """Has one log."""

    only = None

    def __init__(self, max_body_seconds: float) -> None:
        self.settings = SimpleNamespace(max_body_seconds=max_body_seconds)
        self.tokens = Tokens()
        self.places = Places(1)

    def find(self, log_id: str) -> SimpleNamespace:
        if log_id != LOG_ID:
            raise NotFoundError("no such log")
        return SimpleNamespace(identity=SimpleNamespace(log_id=LOG_ID), places=self.places)


def application(*, max_body_seconds: float = 5.0) -> FastAPI:
    router = APIRouter(route_class=ServiceRoute)

    @router.post("/things")
    async def make(caller: Admin, thing: Thing) -> str:
        return f"{caller.name} {thing.name}"

    @router.post("/raw")
    async def raw(request: Request, _caller: Admin) -> int:
        return len(await read_body(request, 10))

    @router.get("/open")
    async def everybody(first: str = "", second: str = "") -> str:
        return first + second

    app = FastAPI()
    install(app)
    app.include_router(router)
    app.state.hosting = Hosting(max_body_seconds)
    return app


class Sender:
    """Plays the server's part of ASGI: hands over a body in chunks, and notes how much of it was asked for."""

    def __init__(self, chunks: Sequence[bytes] = (b"",), *, end: str = "whole") -> None:
        self._chunks = list(chunks)
        self._end = end
        self.read = 0
        self.status = 0
        self.body = b""

    async def receive(self) -> dict[str, Any]:
        if not self._chunks:
            if self._end == "gone":
                return {"type": "http.disconnect"}
            await asyncio.sleep(60)
        self.read += 1
        chunk = self._chunks.pop(0)
        more = bool(self._chunks) or self._end != "whole"
        return {"type": "http.request", "body": chunk, "more_body": more}

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


def ask(
    app: Callable[..., Awaitable[None]],
    path: str,
    sender: Sender,
    *,
    token: str | None = "admin",
    method: str = "POST",
    query: str = "",
    **headers: str,
) -> Any:
    given = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    if token is not None:
        given.setdefault("authorization", f"Bearer {token}")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), text.encode("latin-1")) for name, text in given.items()],
        "server": ("service.example", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    asyncio.run(asyncio.wait_for(app(scope, sender.receive, sender.send), 10))
    return json.loads(sender.body)


def slug(problem: dict[str, str]) -> str:
    return problem["type"].rpartition(":")[2]


# --- who asks --------------------------------------------------------------------------------------------------------


def test_who_may_is_answered_and_his_token_looked_up_once():
    app = application()
    sender = Sender([b'{"name":', b'"x"}'])
    assert ask(app, "/things", sender) == "admin x"
    assert sender.status == 200
    assert app.state.hosting.tokens.asked == 1


@pytest.mark.parametrize(
    ("token", "status"), [(None, 401), ("", 401), ("nobody", 401), ("auditor", 403), ("foreign", 404)]
)
@pytest.mark.parametrize("path", ["/things", "/raw"])
def test_who_may_not_is_refused_before_a_byte_of_his_is_read(path, token, status):
    sender = Sender([b"not even JSON"] * 1000)
    ask(application(), path, sender, token=token)
    assert sender.status == status
    assert sender.read == 0


@pytest.mark.parametrize("token", [None, "nobody", "auditor"])
def test_who_may_not_learns_nothing_of_what_a_route_takes(token):
    refused = ask(application(), "/things", Sender([b"{}"]), token=token)
    assert "name" not in json.dumps(refused["detail"])
    assert "errors" not in refused


@pytest.mark.parametrize(
    "header", ["Basic admin", "admin", "Bearer", "Bearer ", "Bearer\tadmin", "Bearer: admin", "Token admin", "\xe9"]
)
def test_another_way_of_saying_who_one_is_is_not_heard(header):
    sender = Sender([b'{"name":"x"}'])
    ask(application(), "/things", sender, authorization=header)
    assert sender.status == 401


@pytest.mark.parametrize("header", ["Bearer admin", "bearer admin", "BEARER  admin "])
def test_the_scheme_is_read_without_regard_to_case(header):
    sender = Sender([b'{"name":"x"}'])
    ask(application(), "/things", sender, authorization=header)
    assert sender.status == 200


def test_a_log_that_has_all_its_places_taken_is_refused_before_a_byte_is_read():
    app = application()
    sender = Sender([b'{"name":"x"}'])
    with app.state.hosting.places.take():
        problem = ask(app, "/things", sender)
    assert (sender.status, slug(problem), sender.read) == (429, "overloaded", 0)


@pytest.mark.parametrize("body", [b'{"name":"x"}', b"{}", b"not JSON"])
def test_a_place_is_given_back_however_a_request_ends(body):
    app = application()
    for _ in range(3):
        sender = Sender([body])
        ask(app, "/things", sender)
        assert sender.status != 429
    assert app.state.hosting.places.taken == 0


# --- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"name":"a","name":"b"}',
        b'{"name":"a","n\\u0061me":"b"}',
        b'{"name":"\\ud800"}',
        b'{"name":NaN}',
        b'\xef\xbb\xbf{"name":"x"}',
        b'{"name":"\xff"}',
        b"[" * 10_000,
        b'{"name":1' + b"0" * 5000 + b"}",
        b'{"name":"x"}{"name":"x"}',
    ],
)
def test_json_that_two_readers_could_read_in_two_ways_is_malformed(body):
    sender = Sender([body])
    problem = ask(application(), "/things", sender)
    if body:
        assert (sender.status, slug(problem)) == (400, "malformed")
    else:
        assert (sender.status, slug(problem)) == (422, "invalid-request")


@pytest.mark.parametrize("name", ["x" * 10, 5, None, [], True])
def test_json_that_does_not_fit_is_refused_by_place_and_not_quoted(name):
    sender = Sender([json.dumps({"name": name}).encode()])
    problem = ask(application(), "/things", sender)
    assert (sender.status, slug(problem)) == (422, "invalid-request")
    assert [error["at"] for error in problem["errors"]] == ["body.name"]
    assert "x" * 10 not in json.dumps(problem)


def test_a_declared_length_beyond_the_bound_is_refused_unread():
    sender = Sender([b"{}"])
    problem = ask(application(), "/things", sender, content_length=str(LIMIT + 1))
    assert (sender.status, slug(problem), sender.read) == (413, "too-large", 0)


@pytest.mark.parametrize("declared", [None, "2", "0", "-1", "x", "\xb2"])
def test_an_undeclared_or_wrongly_declared_length_is_counted(declared):
    sender = Sender([b" " * 1024] * 1000)
    headers = {} if declared is None else {"content_length": declared}
    problem = ask(application(), "/things", sender, **headers)
    assert (sender.status, slug(problem)) == (413, "too-large")
    assert sender.read == LIMIT // 1024 + 1


def test_a_body_of_exactly_the_bound_is_read():
    text = b'{"name":"x"}'
    sender = Sender([text + b" " * (LIMIT - len(text))])
    assert ask(application(), "/things", sender) == "admin x"


@pytest.mark.parametrize(("size", "status"), [(0, 200), (10, 200), (11, 413)])
def test_a_route_that_reads_its_body_itself_has_a_bound_of_its_own(size, status):
    sender = Sender([b"x"] * size or [b""])
    ask(application(), "/raw", sender)
    assert sender.status == status


@pytest.mark.parametrize("path", ["/things", "/raw"])
@pytest.mark.parametrize("sent", [[], [b"{"]])
def test_a_body_that_does_not_come_is_given_up(path, sent):
    sender = Sender(sent, end="never")
    problem = ask(application(max_body_seconds=0.1), path, sender)
    assert (sender.status, slug(problem)) == (408, "too-slow")
    assert "0.1 s" in problem["detail"]


@pytest.mark.parametrize("path", ["/things", "/raw"])
@pytest.mark.parametrize("sent", [[], [b"{"]])
def test_a_body_that_breaks_off_is_no_failure_of_ours(path, sent):
    sender = Sender(sent, end="gone")
    problem = ask(application(), path, sender)
    assert (sender.status, slug(problem)) == (400, "incomplete")


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["first=a&first=b", "first=a&first=a", "x=1&x=2", "first=a&f%69rst=b"])
def test_a_parameter_that_is_given_twice_is_refused(query):
    sender = Sender()
    problem = ask(application(), "/open", sender, method="GET", query=query)
    assert (sender.status, slug(problem)) == (400, "malformed")
    assert problem["detail"] == "a parameter is given twice"


@pytest.mark.parametrize(("query", "answer"), [("", ""), ("first=a&second=b", "ab"), ("first=&second=b", "b")])
def test_parameters_that_are_given_once_are_read(query, answer):
    sender = Sender()
    assert ask(application(), "/open", sender, method="GET", query=query, token=None) == answer
