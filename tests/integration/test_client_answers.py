"""What a client answers a server, and what a handler raises, is looked through like every answer, whatever the way.

The inspector is one of three rules (`tests.support.inspectors`).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import CompleteRequestParams, CreateMessageResult, PromptReference, TextContent

from enforcement.refusals import ErrorCode
from enforcement.sdk import SDKMiddleware
from ledger.bodies import Outcome
from tests.integration.test_sdk_server_messages import LEGACY, MODERN, fails
from tests.integration.test_sdk_server_messages import scene as guarded
from tests.integration.test_stdio_wrapper import STATEFUL, Peers, asks, begin, result
from tests.integration.test_stdio_wrapper import play as play_over_pipes
from tests.support.both_eras import TwoWayServer, legacy
from tests.support.both_eras import play as play_over_http
from tests.support.gateway import Surroundings, surroundings
from tests.support.inspectors import KEY, ORDER, ThreeRules
from tests.support.transports import known

pytestmark = pytest.mark.filterwarnings(
    "ignore::mcp.shared.exceptions.MCPDeprecationWarning", "ignore::mcp.MCPDeprecationWarning"
)

SAMPLING = "sampling/createMessage"
WITHHELD = "The answer was withheld on its way here"


def saying(text: str) -> Any:
    """A client's model that says something."""

    async def sampled(_context: Any, _params: Any) -> CreateMessageResult:
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text=text), model="m")

    return sampled


def outcome_of(world: Surroundings, method: str) -> Outcome:
    (decision_id,) = world.ledger.decision_ids(method)
    (outcome,) = world.ledger.outcomes(decision_id)
    return outcome


def recorded(world: Surroundings, method: str) -> bytes:
    """Return what the record says was answered."""
    (decision_id,) = world.ledger.decision_ids(method)
    (record_id,) = [
        record.record_id
        for record in world.ledger.records
        if isinstance(record.body, Outcome) and record.body.decision_id == decision_id
    ]
    return world.ledger.openings[record_id, "result"]


async def ended(world: Surroundings, method: str) -> Outcome:
    await world.settle(lambda: bool(world.ledger.outcomes(world.ledger.decision_ids(method)[0])))
    return outcome_of(world, method)


# --- what a client answers a server over HTTP


@pytest.mark.parametrize(
    ("acts", "said", "heard"),
    [
        ({"injection": "block"}, f"please {ORDER}", None),
        ({"injection": "report"}, f"please {ORDER}", f"please {ORDER}"),
        # What a client wrote goes on as it is or not at all.
        ({"secret": "redact"}, f"it is {KEY}", f"it is {KEY}"),
        ({"injection": "block"}, "because", "because"),
    ],
)
def test_what_a_client_answers_over_http_is_looked_through_before_the_server_gets_it(
    acts: dict[str, str], said: str, heard: str | None, tmp_path: Path
) -> None:
    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        async with legacy(world, sampling_callback=saying(said)) as client:
            assert await fails(client, "sample") == (heard is None)
        assert server.heard == ([] if heard is None else [heard])
        assert server.errors == ([WITHHELD] if heard is None else [])
        outcome = await ended(world, SAMPLING)
        assert outcome.inspection is not None
        assert [name for name in outcome.inspection.findings if name in {"injection/order", "secret/key"}] == (
            [] if said == "because" else ["injection/order" if ORDER in said else "secret/key"]
        )
        expected = ("failed", "result_blocked") if heard is None else ("completed", None)
        assert ((outcome.status, outcome.reason), outcome.redacted) == (expected, 0)
        assert said.encode() in recorded(world, SAMPLING)

    play_over_http(scenario, tmp_path, inspector=ThreeRules(), inspection={"acts": acts})


@pytest.mark.parametrize("partial", ["block", "pass"])
def test_an_answer_over_http_that_nobody_could_look_through_reaches_no_server_unless_that_is_wanted(
    partial: str, tmp_path: Path
) -> None:
    inspector = ThreeRules()

    def failing() -> None:
        inspector.before = lambda: None
        raise RuntimeError(KEY)

    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        async def sampled(_context: Any, _params: Any) -> CreateMessageResult:
            inspector.before = failing  # the request was looked at; the answer is next
            return CreateMessageResult(role="assistant", content=TextContent(type="text", text="why not"), model="m")

        async with legacy(world, sampling_callback=sampled) as client:
            assert await fails(client, "sample") == (partial == "block")
        assert server.heard == ([] if partial == "block" else ["why not"])
        outcome = await ended(world, SAMPLING)
        assert outcome.inspection is not None
        assert (outcome.inspection.extent, outcome.reason) == (
            "partial",
            "result_not_inspected" if partial == "block" else None,
        )

    inspection = {"acts": {"secret": "block"}, "partial": partial}
    play_over_http(scenario, tmp_path, inspector=inspector, inspection=inspection)


def test_the_error_that_a_client_answers_over_http_is_looked_through_as_well(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        async def sampled(_context: Any, _params: Any) -> CreateMessageResult:
            raise MCPError(code=-1, message=f"no: {ORDER}")

        async with legacy(world, sampling_callback=sampled) as client:
            assert await fails(client, "sample")
        assert server.errors == [WITHHELD]
        outcome = await ended(world, SAMPLING)
        assert outcome.inspection is not None
        assert (outcome.status, outcome.inspection.findings) == ("failed", ("injection/order",))

    play_over_http(scenario, tmp_path, inspector=ThreeRules(), inspection={"acts": {"injection": "block"}})


# --- what a client answers a wrapped server


@pytest.mark.parametrize(("act", "heard"), [("redact", True), ("block", False)])
def test_what_a_client_answers_a_wrapped_server_goes_on_as_it_is_or_not_at_all(
    act: str, heard: bool, tmp_path: Path
) -> None:
    said = result(1, role="assistant", text=f"it is {KEY}")

    async def scenario(peers: Peers) -> None:
        await begin(peers)
        peers.answer(asks())
        assert (await peers.heard())["method"] == SAMPLING
        peers.say(json.dumps(said).encode())
        got = await peers.got()
        assert got == said if heard else got["error"]["message"] == WITHHELD
        (decision_id,) = await peers.decided(1, SAMPLING)
        outcome = await peers.outcome(decision_id)
        assert (outcome.reason, outcome.redacted) == (None if heard else "result_blocked", 0)
        assert outcome.inspection.findings == ("secret/key",)

    rules = {"inspector": ThreeRules(), "inspection": {"acts": {"secret": act}}}
    play_over_pipes(scenario, tmp_path, **STATEFUL, **rules)


# --- what a client answers a server within its own process


@pytest.mark.parametrize("make", ["sdk", "fastmcp"])
@pytest.mark.parametrize("code", [-1, -32000], ids=["any", "as-if-it-had-gone"])
@pytest.mark.parametrize("act", ["block", "report"])
def test_the_error_that_a_client_answers_a_guarded_server_is_looked_through_as_well(
    make: str, code: int, act: str, tmp_path: Path
) -> None:
    async def run() -> None:
        rules = {"inspector": ThreeRules(), "inspection": {"acts": {"injection": act}}}
        async with guarded(make, tmp_path, answer=None, mode=LEGACY, **rules) as stage:
            stage.desk.answer = MCPError(code=code, message=f"no: {ORDER}")
            assert await fails(stage.client, "sample")
            (heard,) = stage.asker.errors
            assert (ORDER in str(heard)) == (act == "report")
            outcome = await ended(stage.world, SAMPLING)
            assert outcome.inspection is not None
            assert (outcome.status, outcome.reason) == ("failed", "jsonrpc_error")
            assert outcome.inspection.findings == ("injection/order",)

    asyncio.run(run())


# --- what a handler raises


class StrangeError(Exception):
    """No exception of the SDK's."""


class MuteError(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


RAISED = {
    "own": MCPError(code=-32050, message=f"cannot: {KEY}", data={"hint": f"{KEY} again"}),
    "other": StrangeError(f"cannot: {KEY}"),
    "ordered": MCPError(code=-32050, message=f"cannot: {ORDER}"),
    "mute": MuteError(),
    "numbered": MCPError(code=-32050, message="cannot", data={"card": 4111111111111111}),
    "clean": MCPError(code=-32050, message="cannot", data={"hint": "later"}),
}


async def raising(directory: Path, which: str, *, mode: str, acts: dict[str, str]) -> tuple[MCPError, Surroundings]:
    """Ask for a completion whose handler raises; return what the client gets."""
    rules = {"inspector": ThreeRules(), "inspection": {"acts": acts}}
    async with surroundings(directory, server={"recording": "strict"}, **rules) as world:
        core = world.build().core
        server: Server[Any] = Server("finance")
        server.middleware.append(SDKMiddleware(core, known))

        async def complete(*_: Any) -> Any:
            raise RAISED[which]

        server.add_request_handler("completion/complete", CompleteRequestParams, complete)
        async with core, Client(server, mode=mode, cache=None) as client:
            with pytest.raises(MCPError) as caught:
                await client.complete(PromptReference(name="greet"), {"name": "name", "value": "A"})
        return caught.value, world


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
def test_an_error_that_a_handler_raises_is_redacted_like_a_result(mode: str, tmp_path: Path) -> None:
    error, world = asyncio.run(raising(tmp_path, "own", mode=mode, acts={"secret": "redact"}))
    assert (error.code, error.message) == (-32050, "cannot: [redacted: secret]")
    assert error.data == {"hint": "[redacted: secret] again"}
    outcome = outcome_of(world, "completion/complete")
    assert (outcome.status, outcome.reason, outcome.error_code) == ("failed", "jsonrpc_error", -32050)
    assert outcome.inspection is not None
    assert (outcome.inspection.findings, outcome.redacted) == (("secret/key",), 2)
    assert KEY.encode() in recorded(world, "completion/complete")


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
def test_of_an_exception_that_is_none_of_the_protocol_nothing_is_told_once_something_was_found(
    mode: str, tmp_path: Path
) -> None:
    error, world = asyncio.run(raising(tmp_path, "other", mode=mode, acts={"secret": "redact"}))
    assert (error.code, error.message, error.data) == (ErrorCode.INTERNAL_ERROR, "Internal server error", None)
    outcome = outcome_of(world, "completion/complete")
    assert outcome.inspection is not None
    assert outcome.inspection.findings == ("secret/key",)


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
def test_an_error_that_is_blocked_is_replaced_and_its_outcome_says_why(mode: str, tmp_path: Path) -> None:
    error, world = asyncio.run(raising(tmp_path, "ordered", mode=mode, acts={"injection": "block"}))
    assert (error.code, error.data["reason"]) == (ErrorCode.RESULT_WITHHELD, "result_blocked")
    assert ORDER not in str(error)
    outcome = outcome_of(world, "completion/complete")
    assert (outcome.status, outcome.error_code) == ("failed", -32050)
    assert outcome.inspection is not None
    assert outcome.inspection.findings == ("injection/order",)


@pytest.mark.parametrize("which", ["clean", "own", "ordered"])
def test_what_is_only_reported_is_raised_as_it_was(which: str, tmp_path: Path) -> None:
    error, world = asyncio.run(raising(tmp_path, which, mode=MODERN, acts={}))
    raised = RAISED[which]
    assert isinstance(raised, MCPError)
    assert (error.code, error.message, error.data) == (raised.code, raised.message, raised.data)
    outcome = outcome_of(world, "completion/complete")
    assert outcome.inspection is not None
    assert (bool(outcome.inspection.findings), outcome.redacted) == (which != "clean", 0)


def test_a_number_in_an_error_becomes_a_string_and_the_error_stays_one(tmp_path: Path) -> None:
    error, _ = asyncio.run(raising(tmp_path, "numbered", mode=MODERN, acts={"personal": "redact"}))
    assert (error.code, json.dumps(error.data)) == (-32050, '{"card": "[redacted: personal]"}')


def test_an_exception_without_words_has_an_outcome_all_the_same(tmp_path: Path) -> None:
    error, world = asyncio.run(raising(tmp_path, "mute", mode=MODERN, acts={"secret": "redact"}))
    assert error.code == ErrorCode.INTERNAL_ERROR
    assert outcome_of(world, "completion/complete").status == "failed"
