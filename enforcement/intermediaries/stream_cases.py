"""Cases of conversations: both eras, sessions, streams, cancellation."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp

from enforcement.intermediaries.caller import Conversation, Failed, stateless_headers, stateless_message
from enforcement.intermediaries.cases import CLASSIC, MODERN, Bench, Case, case, expect
from ledger.tasks import end

__all__ = ["STREAM_CASES"]

STREAM_CASES: Final[list[Case]] = []
_SESSIONS: Final = f"{CLASSIC}: session management"
_RESUME: Final = f"{CLASSIC}: resumability"
_GONE: Final = 404
_ACCEPTED: Final = 202


@case(STREAM_CASES, "both-eras", "Calls of both eras pass at once, each with its own answer.", f"{MODERN}; {CLASSIC}")
async def _eras(bench: Bench) -> None:
    conversation = await bench.caller.begin()
    marks = [f"{bench.mark}-{number}" for number in range(6)]
    answers = await asyncio.gather(
        *(conversation.tool(mark) if at % 2 else bench.caller.stateless(mark) for at, mark in enumerate(marks))
    )
    expect([one.text() for one in answers] == marks, "answers were given to other calls")
    for at, mark in enumerate(marks):
        (seen,) = bench.stub.reached(mark)
        expect((seen.header("mcp-session-id") is not None) == bool(at % 2), "a call changed its era on the way")


@case(STREAM_CASES, "sessions-apart", "Each session of a client is one of its own at the server.", _SESSIONS)
async def _sessions(bench: Bench) -> None:
    conversations = [await bench.caller.begin() for _ in range(3)]
    expect(len({one.session for one in conversations}) == len(conversations), "two sessions have one name")
    for number, conversation in enumerate(conversations):
        mark = f"{bench.mark}-{number}"
        expect((await conversation.tool(mark)).text() == mark, "the answer is another one")
    at_server = {bench.stub.reached(f"{bench.mark}-{number}")[0].header("mcp-session-id") for number in range(3)}
    expect(len(at_server) == len(conversations), "sessions of the client share one at the server")


@case(STREAM_CASES, "unknown-session", "A message of a session that there is not is answered with 404.", _SESSIONS)
async def _unknown(bench: Bench) -> None:
    answer = await Conversation(bench.caller, "no-such-session").tool(bench.mark)
    expect(answer.status == _GONE, f"the status is {answer.status}")


@case(STREAM_CASES, "session-ends", "DELETE ends the session at the server; after it there is none.", _SESSIONS)
async def _ends(bench: Bench) -> None:
    conversation = await bench.caller.begin()
    await conversation.tool(bench.mark)
    at_server = bench.only().header("mcp-session-id")
    answer = await bench.caller.request("DELETE", None, conversation.headers)
    expect(answer.status < 300, f"DELETE is answered with {answer.status}")  # noqa: PLR2004  # HTTP's successes
    expect(at_server in bench.stub.ended, "the server's session goes on")
    expect((await conversation.tool(bench.mark)).status == _GONE, "the session is there after its end")


@case(
    STREAM_CASES,
    "notification",
    "A notification is taken with 202 and reaches the server.",
    f"{CLASSIC}: sending messages",
)
async def _notification(bench: Bench) -> None:
    conversation = await bench.caller.begin()
    answer = await conversation.notify("notifications/roots/list_changed", {"_meta": {"mark": bench.mark}})
    expect((answer.status, answer.body) == (_ACCEPTED, b""), f"it is answered with {answer.status}")
    bench.only()


@case(STREAM_CASES, "unbuffered", "The first event of a stream reaches the client while the server goes on.", MODERN)
async def _unbuffered(bench: Bench) -> None:
    message = _with_progress(stateless_message(bench.mark, name="stream"), bench.mark)
    async with bench.caller.stream("POST", message, stateless_headers("tools/call", "stream")) as events:
        first, _ = await anext(events)
        expect(first.get("method") == "notifications/progress", "the first event is another one")
        bench.stub.go_on.set()


@case(
    STREAM_CASES, "in-order", "Events reach the client in order, with their progress token, up to the answer.", MODERN
)
async def _order(bench: Bench) -> None:
    bench.stub.go_on.set()
    message = _with_progress(stateless_message(bench.mark, name="stream"), bench.mark)
    async with bench.caller.stream("POST", message, stateless_headers("tools/call", "stream")) as events:
        found = [event async for event, _ in events]
    steps = [one["params"]["progress"] for one in found[:-1]]
    tokens = {one["params"]["progressToken"] for one in found[:-1]}
    expect(steps == [1, 2], f"the reports came as {steps}")
    expect(tokens == {f"token {bench.mark}"}, "the progress token is another one")
    expect(found[-1].get("id") == 7 and "result" in found[-1], "the last event is not the answer")  # noqa: PLR2004


@case(STREAM_CASES, "listening", "What the server reports in a session reaches the stream of that session.", CLASSIC)
async def _listening(bench: Bench) -> None:
    conversation = await bench.caller.begin()
    await conversation.tool(bench.mark)
    at_server = bench.only().header("mcp-session-id")
    async with bench.caller.stream("GET", None, conversation.headers) as events:
        report, _ = await anext(events)
        expect(report.get("params", {}).get("data") == f"for {at_server}", "the report is that of another session")
        bench.stub.go_on.set()


@case(STREAM_CASES, "resumption", "Events keep their ids, and Last-Event-ID reaches the server.", _RESUME)
async def _resumption(bench: Bench) -> None:
    bench.stub.go_on.set()
    conversation = await bench.caller.begin()
    message = _with_progress(conversation.message(bench.mark, "stream"), bench.mark)
    async with bench.caller.stream("POST", message, conversation.headers) as events:
        ids = [event_id async for _, event_id in events]
    expect(ids[:1] == [f"{bench.mark}-1"], f"the first event has the id {ids[:1]}")
    headers = [*conversation.headers, ("Last-Event-ID", str(ids[0]))]
    async with bench.caller.stream("GET", None, headers) as events:
        _, event_id = await anext(events)
    expect(event_id == f"{bench.mark}-1-replayed", "the server was not asked to go on there")


@case(STREAM_CASES, "asked-back", "A request of the server reaches the client, and the answer the server.", CLASSIC)
async def _asked(bench: Bench) -> None:
    conversation = await bench.caller.begin()
    message = conversation.message(bench.mark, "ask")
    async with bench.caller.stream("POST", message, conversation.headers) as events:
        question, _ = await anext(events)
        expect(question.get("method") == "sampling/createMessage", "the question did not arrive")
        content = {"type": "text", "text": "answered"}
        result = {"role": "assistant", "content": content, "model": "suite", "stopReason": "endTurn"}
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": result}
        accepted = await bench.caller.call(reply, conversation.headers)
        expect(accepted.status == _ACCEPTED, f"the answer is answered with {accepted.status}")
        last, _ = await anext(events)
    text = last.get("result", {}).get("content", [{}])[0].get("text")
    expect(text == f"{bench.mark} answered", "the server got another answer")


@case(STREAM_CASES, "answer-nobody-asked", "An answer to a request that nobody made is not passed on as one.", CLASSIC)
async def _unasked(bench: Bench) -> None:
    conversation = await bench.caller.begin()
    reply = {"jsonrpc": "2.0", "id": f"ask-{bench.mark}", "result": {}}
    bench.refused(await bench.caller.call(reply, conversation.headers))


@case(
    STREAM_CASES,
    "closed-connection",
    "Who closes the connection of a stateless call cancels it at the server.",
    f"{MODERN}: cancellation",
)
async def _closed(bench: Bench) -> None:
    call = asyncio.create_task(bench.caller.stateless(bench.mark, "slow"))
    await _under_way(bench, call)
    call.cancel()
    await asyncio.wait([call])
    await bench.stub.until(lambda: bench.mark in bench.stub.abandoned)


@case(
    STREAM_CASES,
    "cancelled",
    "notifications/cancelled of a session's call reaches the server.",
    f"{CLASSIC}: cancellation",
)
async def _cancelled(bench: Bench) -> None:
    conversation = await bench.caller.begin()
    call = asyncio.create_task(conversation.tool(bench.mark, "slow"))
    try:
        await _under_way(bench, call)
        await conversation.notify("notifications/cancelled", {"requestId": 7, "reason": bench.mark})
        await bench.stub.until(lambda: any(_is_cancel(one.message()) for one in bench.reached()))
    finally:
        call.cancel()
        await asyncio.wait([call])


@case(STREAM_CASES, "other-verbs", "PUT, PATCH and OPTIONS of a message reach nothing.", MODERN)
async def _verbs(bench: Bench) -> None:
    for verb in ("PUT", "PATCH", "OPTIONS"):
        try:
            await bench.caller.request(verb, bench.mark.encode(), stateless_headers())
        except aiohttp.ClientError as error:
            raise Failed(f"{verb} breaks the connection") from error
        expect(not bench.reached(), f"{verb} reached the server")


async def _under_way(bench: Bench, call: asyncio.Task[Any]) -> None:
    """Wait until a call has reached the server."""
    waiting = asyncio.create_task(bench.stub.until(lambda: bool(bench.reached())))
    try:
        await asyncio.wait([waiting, call], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(waiting)
    if not bench.reached():
        raise Failed("the call was answered before it reached the server")


def _with_progress(message: dict[str, Any], mark: str) -> dict[str, Any]:
    params = message["params"]
    meta = {**params.get("_meta", {}), "progressToken": f"token {mark}"}
    return {**message, "params": {**params, "_meta": meta}}


def _is_cancel(message: dict[str, Any]) -> bool:
    return message.get("method") == "notifications/cancelled"
