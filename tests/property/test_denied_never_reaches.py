"""Whatever a client sends, and in whatever order, a call that the policy denies never reaches the server.

The server behind the enforcement point is the most careless one: it takes as a call whatever any reader could take as
one. It reads JSON with the first and with the last of two equal keys, without regard to letter case, in batches, in
several encodings, and it believes headers. If any reading of what reaches it is a call of the forbidden tool, the test
fails.

About ten thousand messages in all, through the whole enforcement point: reading, sessions, policy, spool, forwarding.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from starlette.types import Receive, Scope, Send

from enforcement.asgi import TallystickMiddleware
from enforcement.core import Core, CoreKeys
from enforcement.ports import ActiveBundle, BundleAnswer, Unavailable, UnchangedBundle
from ledger.bodies import Decision
from ledger.clock import SimulatedClock
from ledger.records import decode_entry
from tests.support.gateway import TOKENS, ScriptedEvaluator, config_of, deny_tool, simple_bundle
from tests.support.gateway_keys import NOON_MS, PSEUDONYM_KEY, SIGNING_KEY, SPOOL_KEY
from tests.support.mcp_messages import META, VERSION
from tests.support.spools import MemoryLedger

FORBIDDEN: Final = "transfer_funds"
ALLOWED: Final = "refund_customer"
EXAMPLES, STEPS = 26, 500
STATEFUL: Final = "2025-11-25"
_T = TypeVar("_T")


# --- what a careless server would read -------------------------------------------------------------------------------


def readings(body: bytes) -> Iterator[Any]:
    """Yield what different readers make of bytes."""
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"):
        try:
            text = body.decode(encoding)
        except UnicodeDecodeError:
            continue
        for keep_first in (False, True):
            for fold in (False, True):
                yield from _parsed(text, keep_first=keep_first, fold=fold)


def _parsed(text: str, *, keep_first: bool, fold: bool) -> Iterator[Any]:
    def members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            name = key.casefold() if fold else key
            if not (keep_first and name in found):
                found[name] = value
        return found

    decoder = json.JSONDecoder(object_pairs_hook=members)
    position = 0
    while position < len(text):  # one value after the other: what is behind the first counts as well
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            position += 1
            continue
        yield value


def calls(value: Any) -> bool:
    """Whether a value is, or holds, a call of the forbidden tool."""
    if isinstance(value, list):
        return any(map(calls, value))
    if not isinstance(value, dict):
        return False
    params = value.get("params")
    return value.get("method") == "tools/call" and isinstance(params, dict) and params.get("name") == FORBIDDEN


class CarelessServer:
    """Notes what reaches it, and answers anything."""

    def __init__(self) -> None:
        self.reached = 0
        self.taken: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        more = scope["type"] == "http"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.reached += scope["method"] == "POST"  # the gateway ends sessions of the protocol by itself
        named = {value for name, value in scope["headers"] if name == b"mcp-name"}
        if FORBIDDEN.encode() in named or any(map(calls, readings(body))):
            self.taken.append(body)
        answer = json.dumps({"jsonrpc": "2.0", "id": _id_of(body), "result": {"content": []}}).encode()
        headers = [(b"content-type", b"application/json"), (b"mcp-session-id", b"of-the-server")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _id_of(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value.get("id") if isinstance(value, dict) else None


# --- what a hostile client sends -------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in text)


TOOLS = st.sampled_from([ALLOWED, FORBIDDEN])
IDS = st.one_of(st.integers(-5, 5), st.sampled_from(["a", "", None, True, 1.5, {}, []]))
SPELLINGS = st.sampled_from([json.dumps, lambda text: f'"{escaped(text)}"'])
METHODS = st.sampled_from(["tools/call", "tools/list", "Tools/Call", "tools/call ", "ping", "initialize", "made/up"])


@st.composite
def envelopes(draw: st.DrawFn) -> str:
    """One JSON-RPC message as text: mostly a sound call of either tool, with something wrong or doubled in it."""
    spell = draw(SPELLINGS)
    tool, other = draw(TOOLS), draw(TOOLS)
    method = "tools/call" if draw(st.integers(0, 3)) else draw(METHODS)
    params = [f'"name":{spell(tool)}', f'"_meta":{json.dumps(META)}']
    if draw(st.booleans()):
        params.append('"arguments":{"amount":1}')
    extra = draw(
        st.sampled_from(
            [
                "",
                f'"name":{spell(other)}',
                f'"Name":{spell(other)}',
                f'"NAME":{spell(other)}',
                '"cursor":"x"',
                '"task":{}',
            ]
        )
    )
    if extra:
        params.insert(draw(st.integers(0, len(params))), extra)
    held = f'"params":{{{",".join(params)}}}'
    members = ['"jsonrpc":"2.0"', f'"method":{spell(method)}', held]
    if draw(st.integers(0, 9)):
        members.append(f'"id":{json.dumps(draw(IDS))}')
    double = draw(
        st.sampled_from(
            [
                "",
                f'"method":{spell("tools/call")}',
                f'"Method":{spell("tools/call")}',
                f'"params":{{"name":{spell(other)},"_meta":{json.dumps(META)}}}',
                f'"Params":{{"name":{spell(other)}}}',
                '"result":{}',
            ]
        )
    )
    if double and draw(st.booleans()):
        members.insert(draw(st.integers(0, len(members))), double)
    return "{" + ",".join(members) + "}"


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A request's body: one message, several, or one with something before or behind it, in some encoding."""
    text = draw(envelopes())
    shape = draw(st.integers(0, 9))
    if shape == 0:
        text = f"[{text},{draw(envelopes())}]"
    elif shape == 1:
        text = text + draw(st.sampled_from([" ", "\n", "//", ",", "\x00"])) + draw(envelopes())
    elif shape == 2:
        text = draw(st.sampled_from(["\ufeff", "/**/", "\x1e", "data: "])) + text
    encoding = draw(st.sampled_from(["utf-8"] * 8 + ["utf-16", "utf-8-sig"]))
    return text.encode(encoding)


@st.composite
def header_lines(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """The header lines of a request: those that belong to it, those of the other call, none, or two of one."""
    token = TOKENS["Finance-Bot"] if draw(st.integers(0, 19)) else "a-strangers"
    lines = [("authorization", f"Bearer {token}"), ("accept", "application/json, text/event-stream")]
    lines.append(("content-type", draw(st.sampled_from(["application/json"] * 9 + ["text/plain"]))))
    version = draw(st.sampled_from([VERSION] * 3 + [STATEFUL, "2025-03-26", None]))
    if version is not None:
        lines.append(("mcp-protocol-version", version))
    lines += [("mcp-method", value) for value in draw(st.sampled_from([["tools/call"]] * 8 + [[], ["tools/list"]]))]
    names: list[list[str]] = (
        [[ALLOWED]] * 4 + [[FORBIDDEN]] * 3 + [[], [ALLOWED, FORBIDDEN], [f"{ALLOWED},{FORBIDDEN}"]]
    )
    lines += [("mcp-name", value) for value in draw(st.sampled_from(names))]
    if draw(st.integers(0, 9)) == 0:
        lines.append(("mcp-session-id", draw(st.sampled_from(["of-the-server", "made-up"]))))
    return [(name.encode(), value.encode()) for name, value in lines]


# --- the machine -----------------------------------------------------------------------------------------------------


class OneBundle:
    """The bundle in force, without a service."""

    async def fetch(self, known_revision: str | None, *, wait_seconds: float = 0.0) -> BundleAnswer:
        del wait_seconds
        bundle = simple_bundle()
        return (
            UnchangedBundle() if known_revision == bundle.revision else ActiveBundle(bundle.revision, bundle.archive())
        )

    async def signature(self, revision: str) -> bytes | Unavailable:
        raise AssertionError(revision)


class Client(RuleBasedStateMachine):
    """A client that sends what it likes to an enforcement point in front of a careless server."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.server = CarelessServer()
        self.ledger = MemoryLedger()
        self.session: str | None = None
        self.sent = 0
        folder = Path(self.folder.name)
        core = Core(
            config_of(
                folder / "state", "http://127.0.0.1:9", "http://127.0.0.1:9/mcp", server={"recording": "available"}
            ),
            evaluator=ScriptedEvaluator(deny_tool(FORBIDDEN)),
            clock=SimulatedClock(NOON_MS),
            keys=CoreKeys(signing=SIGNING_KEY, pseudonym=PSEUDONYM_KEY, spool=SPOOL_KEY),
            ledger=self.ledger,
            bundles=OneBundle(),
        )
        self.door = TallystickMiddleware(self.server, core=core)
        self.running = self.door.running()
        self.do(self.running.__aenter__())

    def do(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run_until_complete(coroutine)

    @rule(body=bodies(), headers=header_lines(), cut=st.integers(0, 400), gone=st.booleans())
    def send(self, body: bytes, headers: list[tuple[bytes, bytes]], cut: int, gone: bool) -> None:
        """Send a message in two pieces; the client may be gone before it is answered."""
        self.do(self.ask("POST", [body[:cut], body[cut:]], headers, gone=gone and cut % 5 == 0))

    @rule(tool=TOOLS, revision=st.sampled_from([VERSION, STATEFUL]))
    def call(self, tool: str, revision: str) -> None:
        """Send a sound call, in either era."""
        params: dict[str, Any] = {"name": tool, "arguments": {"amount": 1}}
        headers = [
            (b"authorization", f"Bearer {TOKENS['Finance-Bot']}".encode()),
            (b"content-type", b"application/json"),
        ]
        headers += [(b"accept", b"application/json, text/event-stream"), (b"mcp-protocol-version", revision.encode())]
        if revision == VERSION:
            params["_meta"] = META
            headers += [(b"mcp-method", b"tools/call"), (b"mcp-name", tool.encode())]
        elif self.session is not None:
            headers.append((b"mcp-session-id", self.session.encode()))
        body = json.dumps({"jsonrpc": "2.0", "id": self.sent, "method": "tools/call", "params": params}).encode()
        before = self.server.reached
        status = self.do(self.ask("POST", [body], headers))
        if tool == ALLOWED and revision == VERSION:
            # A call whose client is gone may reach it meanwhile as well.
            assert status == 200, "a sound call did not pass: nothing is shown"
            assert self.server.reached > before

    @rule(known=st.booleans())
    def begin(self, known: bool) -> None:
        """Begin a session of the stateful era."""
        params = {"protocolVersion": STATEFUL, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).encode()
        token = TOKENS["Finance-Bot"] if known else "a-strangers"
        headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json")]
        headers.append((b"accept", b"application/json, text/event-stream"))
        self.do(self.ask("POST", [body], headers))

    @invariant()
    def the_forbidden_tool_was_not_reached(self) -> None:
        assert self.server.taken == []

    def teardown(self) -> None:
        try:
            self.do(self.running.__aexit__(None, None, None))
            allowed = [
                body
                for record in self.ledger.taken
                if isinstance(body := decode_entry(record.entry).body, Decision) and body.enforcement == "allow"
            ]
            assert all(body.tool != FORBIDDEN for body in allowed)
            assert self.server.reached <= len(allowed)
        finally:
            self.loop.close()
            self.folder.cleanup()

    async def ask(
        self, verb: str, pieces: Sequence[bytes], headers: list[tuple[bytes, bytes]], *, gone: bool = False
    ) -> int:
        """Send one request to the middleware, and return the status of its answer, 0 if there is none."""
        self.sent += 1
        waiting = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        ]
        over = asyncio.Event()
        status = 0

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop(0)
            if not gone:
                await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self.session = next(
                    (value.decode() for name, value in message["headers"] if name == b"mcp-session-id"), self.session
                )
            elif not message.get("more_body", False):
                over.set()

        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": verb,
            "scheme": "http",
            "path": "/mcp",
            "raw_path": b"/mcp",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "extensions": {},
        }
        await self.door(scope, receive, send)
        return status


Client.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
TestAnyClient = Client.TestCase
