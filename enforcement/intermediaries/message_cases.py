"""Cases of single messages: what must be refused, and what must arrive as it was sent."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from enforcement.intermediaries.caller import stateless_headers, stateless_message
from enforcement.intermediaries.cases import CLASSIC, MODERN, Bench, Case, NotApplicable, case, expect
from enforcement.intermediaries.stub import STATE, STATEFUL

__all__ = ["MESSAGE_CASES"]

MESSAGE_CASES: Final[list[Case]] = []
_HEADERS: Final = f"{MODERN}: standard request headers"
_JSON: Final = "RFC 8259 section 4; JSON-RPC 2.0 section 4"
_EXACT: Final = '{"mark": "MARK", "b": 12345678901234567890123, "a": 1.0, "c": 1e2, "d": -0.0, "e": "\\u00e9\\/"}'


def _body(bench: Bench, **params: object) -> bytes:
    return json.dumps(stateless_message(bench.mark, **params)).encode()  # type: ignore[arg-type]  # as the case wants


@case(
    MESSAGE_CASES, "call-passes", "A plain call of a tool reaches the server once, and its answer the client.", MODERN
)
async def _call(bench: Bench) -> None:
    answer = await bench.caller.stateless(bench.mark)
    bench.only()
    expect(answer.text() == bench.mark, "the answer is another one")
    expect(answer.message().get("id") == 7, "the answer has another id")  # noqa: PLR2004  # as it was sent


@case(MESSAGE_CASES, "method-mismatch", "Mcp-Method that differs from the body is refused.", _HEADERS)
async def _method(bench: Bench) -> None:
    bench.refused(await bench.caller.request("POST", _body(bench), stateless_headers("tools/list")))


@case(MESSAGE_CASES, "name-mismatch", "Mcp-Name that differs from the body is refused.", _HEADERS)
async def _name(bench: Bench) -> None:
    bench.refused(await bench.caller.request("POST", _body(bench), stateless_headers(name="another")))


@case(MESSAGE_CASES, "version-mismatch", "MCP-Protocol-Version that differs from _meta is refused.", _HEADERS)
async def _version(bench: Bench) -> None:
    headers = [("MCP-Protocol-Version", STATEFUL), *stateless_headers()[1:]]
    bench.refused(await bench.caller.request("POST", _body(bench), headers))


@case(MESSAGE_CASES, "headers-missing", "A call without Mcp-Method and Mcp-Name is refused.", _HEADERS)
async def _missing(bench: Bench) -> None:
    bench.refused(await bench.caller.request("POST", _body(bench), stateless_headers()[:1]))


@case(MESSAGE_CASES, "duplicate-header", "Mcp-Name that stands twice, with two values, is refused.", "RFC 9110 5.3")
async def _header_twice(bench: Bench) -> None:
    headers = [*stateless_headers(), ("Mcp-Name", "another")]
    bench.refused(await bench.caller.request("POST", _body(bench), headers))


@case(MESSAGE_CASES, "duplicate-key", "A message in which a name stands twice is refused.", _JSON)
async def _key_twice(bench: Bench) -> None:
    body = _body(bench).replace(b'"name": "echo"', b'"name": "echo", "name": "another"')
    bench.refused(await bench.caller.request("POST", body, stateless_headers()))


@case(MESSAGE_CASES, "malformed-json", "A body that is no JSON is refused.", _JSON)
async def _malformed(bench: Bench) -> None:
    bench.refused(await bench.caller.request("POST", _body(bench)[:-1], stateless_headers()))


@case(MESSAGE_CASES, "not-utf-8", "A body that is not UTF-8 is refused.", "RFC 8259 section 8.1")
async def _utf8(bench: Bench) -> None:
    body = _body(bench).replace(b'"mark"', b'"\xff": 1, "mark"')
    bench.refused(await bench.caller.request("POST", body, stateless_headers()))


@case(MESSAGE_CASES, "batch", "An array of messages is refused in revisions that have none.", MODERN)
async def _batch(bench: Bench) -> None:
    body = b"[" + _body(bench) + b"," + _body(bench, request_id=8) + b"]"
    bench.refused(await bench.caller.request("POST", body, stateless_headers()))
    bench.refused(await bench.caller.request("POST", body, [("MCP-Protocol-Version", STATEFUL)]))


@case(MESSAGE_CASES, "content-type", "A body of another type than JSON is refused.", MODERN)
async def _type(bench: Bench) -> None:
    bench.refused(await bench.caller.request("POST", _body(bench), stateless_headers(), content_type="text/plain"))


@case(MESSAGE_CASES, "foreign-origin", "A request of a foreign web page (Origin) is refused.", f"{CLASSIC}: security")
async def _origin(bench: Bench) -> None:
    headers = stateless_headers("tools/call", "echo", ("Origin", "https://foreign.example"))
    bench.refused(await bench.caller.request("POST", _body(bench), headers))


@case(MESSAGE_CASES, "oversize", "A body that is too long is refused.", "the intermediary's own bound")
async def _oversize(bench: Bench) -> None:
    if bench.oversize_bytes is None:
        raise NotApplicable("no length was named that the intermediary refuses")
    body = _body(bench, padding="x" * bench.oversize_bytes)
    bench.refused(await bench.caller.request("POST", body, stateless_headers()))


@case(
    MESSAGE_CASES,
    "denied",
    "A call that is denied never reaches the server, and says so as JSON-RPC.",
    "JSON-RPC 2.0 5.1",
)
async def _denied(bench: Bench) -> None:
    if bench.denied_tool is None:
        raise NotApplicable("no tool was named that the intermediary denies")
    answer = await bench.caller.stateless(bench.mark, bench.denied_tool)
    bench.refused(answer)
    message = answer.message()
    expect(message.get("id") == 7 and "code" in message.get("error", {}), "no JSON-RPC error with the request's id")  # noqa: PLR2004
    conversation = await bench.caller.begin()
    bench.refused(await conversation.tool(bench.mark, bench.denied_tool))


@case(
    MESSAGE_CASES, "denied-many", "A denied call among others under way never reaches the server.", "JSON-RPC 2.0 5.1"
)
async def _denied_many(bench: Bench) -> None:
    if bench.denied_tool is None:
        raise NotApplicable("no tool was named that the intermediary denies")
    names = ["echo", bench.denied_tool] * 4
    answers = await asyncio.gather(*(bench.caller.stateless(bench.mark, name) for name in names))
    reached = [one.message()["params"]["name"] for one in bench.reached()]
    expect(reached == ["echo"] * 4, f"{reached.count(bench.denied_tool)} denied calls reached the server")
    expect([one.is_refusal() for one in answers] == [False, True] * 4, "answers are mixed up")


@case(
    MESSAGE_CASES,
    "unknown-method",
    "A method that nobody knows is answered, under the request's id.",
    "JSON-RPC 2.0 5.1",
)
async def _unknown(bench: Bench) -> None:
    message = {**stateless_message(bench.mark), "method": "example/unknown"}
    answer = await bench.caller.call(message, stateless_headers("example/unknown", None))
    found = answer.message()
    expect(found.get("id") == 7 and "error" in found, "no JSON-RPC error with the request's id")  # noqa: PLR2004


@case(MESSAGE_CASES, "parameter-headers", "Mcp-Param-* headers that nobody knows arrive.", f"{MODERN}: custom headers")
async def _parameters(bench: Bench) -> None:
    await bench.caller.stateless(bench.mark, "echo", ("Mcp-Param-Region", f"eu {bench.mark}"))
    expect(bench.only().header("mcp-param-region") == f"eu {bench.mark}", "the header did not arrive as it was sent")


@case(MESSAGE_CASES, "unknown-meta", "Members of _meta that nobody knows arrive.", f"{MODERN}: _meta")
async def _meta(bench: Bench) -> None:
    message = stateless_message(bench.mark)
    message["params"]["_meta"]["example.com/unknown"] = [bench.mark, {"x": 1}]
    await bench.caller.call(message, stateless_headers())
    meta = bench.only().message()["params"]["_meta"]
    expect(meta.get("example.com/unknown") == [bench.mark, {"x": 1}], "unknown _meta did not arrive")


@case(
    MESSAGE_CASES,
    "unknown-parameters",
    "Members of params that nobody knows arrive, or the message is refused; they are not left out.",
    "JSON-RPC 2.0 section 4.2",
)
async def _members(bench: Bench) -> None:
    unknown = {"deep": [1, {"er": None}]}
    answer = await bench.caller.stateless(bench.mark, unknown=unknown)
    if answer.is_refusal():
        bench.refused(answer)
        return
    expect(bench.only().message()["params"].get("unknown") == unknown, "an unknown parameter was left out")


@case(
    MESSAGE_CASES,
    "exact-numbers",
    "Numbers arrive as they were written: long ones, and 1.0 as 1.0.",
    "RFC 8259 section 6",
)
async def _numbers(bench: Bench) -> None:
    exact = _EXACT.replace("MARK", bench.mark)
    body = _body(bench).replace(json.dumps({"mark": bench.mark}).encode(), exact.encode())
    await bench.caller.request("POST", body, stateless_headers())
    arrived = bench.only().body
    for number in (b"12345678901234567890123", b"1.0", b"1e2", b"-0.0"):
        expect(number in arrived, f"{number.decode()} was written anew")


@case(MESSAGE_CASES, "result-members", "Members of a result that nobody knows reach the client.", f"{MODERN}: _meta")
async def _result(bench: Bench) -> None:
    answer = await bench.caller.stateless(bench.mark)
    expect(b"12345678901234567890" in answer.body, "a long number of the result was written anew")
    meta = answer.message()["result"].get("_meta", {})
    expect(meta.get("example.com/unknown", [None])[0] == bench.mark, "unknown _meta of the result is gone")


@case(MESSAGE_CASES, "ids-kept", "A request's id, number or string, is that of its answer.", "JSON-RPC 2.0 section 5")
async def _ids(bench: Bench) -> None:
    for request_id in ("7", "a b\u00e9", 0, -1, 9007199254740991):
        answer = await bench.caller.stateless(bench.mark, request_id=request_id)
        found = answer.message().get("id")
        expect(found == request_id and type(found) is type(request_id), f"the id {request_id!r} became {found!r}")


@case(MESSAGE_CASES, "same-id-at-once", "Calls under one id at once get each their own answer.", MODERN)
async def _same_id(bench: Bench) -> None:
    marks = [f"{bench.mark}-{number}" for number in range(8)]
    answers = await asyncio.gather(*(bench.caller.stateless(mark) for mark in marks))
    expect([one.text() for one in answers] == marks, "answers were given to other calls")


@case(
    MESSAGE_CASES,
    "retry",
    "A call that is sent again reaches the server again, once: nothing is answered from memory.",
    MODERN,
)
async def _retry(bench: Bench) -> None:
    for times in (1, 2):
        answer = await bench.caller.stateless(bench.mark)
        expect(answer.text() == bench.mark, "the answer is another one")
        expect(len(bench.reached()) == times, f"after {times} calls {len(bench.reached())} reached the server")


@case(
    MESSAGE_CASES,
    "rounds",
    "A further round carries the server's own state and the client's answers.",
    f"{MODERN}: input_required",
)
async def _rounds(bench: Bench) -> None:
    first = (await bench.caller.stateless(bench.mark, "rounds")).message().get("result", {})
    expect(first.get("resultType") == "input_required", "the question did not arrive")
    expect("sure" in first.get("inputRequests", {}), "the question has another name")
    answers = {"sure": {"action": "accept", "content": {"yes": True}}}
    more = {"inputResponses": answers, "requestState": first.get("requestState")}
    last = await bench.caller.stateless(bench.mark, "rounds", request_id=8, **more)
    expect(last.text() == bench.mark, "the last round has another answer")
    params = bench.reached()[-1].message()["params"]
    expect(params.get("requestState") == STATE, "the server's state did not come back to it as it was")
    expect(params.get("inputResponses") == answers, "the client's answers did not arrive")
