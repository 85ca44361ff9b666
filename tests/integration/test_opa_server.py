"""An operator's OPA server: what is asked, what its answers become, and that no failure of it permits."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from ledger.errors import ConfigError, PolicyError, PolicySyntaxError
from policies.bundles import Bundle, bundle_from_files
from policies.engine import EngineStoppedError, LoadedBundle, Reason
from policies.engines.opa_server import OPAServer, OPAServerEngine
from policies.engines.rego import RegoEngine
from policies.engines.rego_modules import read_source
from policies.model import Decision, Effect
from tests.support.policies import make_request, rego_bundle

CONTRACT = {
    "format": "tallystick.opa/1",
    "permits": ["finance"],
    "denies": ["late", "early"],
    "obligations": ["approval"],
}
PROVENANCE = {"version": "1.22.2", "build_commit": "x", "bundles": {"main": {"revision": "r-1"}}}


def opa_bundle(contract: object = None, *, more: Mapping[str, bytes] | None = None, **manifest: object) -> Bundle:
    members = {
        "format": "tallystick.bundle/1",
        "name": "outside",
        "engine": "opa_server",
        "policies": ["rules.json"],
        "package": "acme.tools",
        **manifest,
    }
    rules = json.dumps(CONTRACT if contract is None else contract).encode()
    return bundle_from_files({**(more or {}), "rules.json": rules, "manifest.json": json.dumps(members).encode()})


class Stub:
    """A server that answers as a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda _: None
        self.asked: list[tuple[str, str | None, object]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                stub.asked.append((self.path, self.headers["Authorization"], json.loads(body)))
                stub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def says(self, value: object, status: int = 200) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        self.answer = answer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.close()


def decide(stub: Stub, bundle: Bundle | None = None, *, token: str | None = None, **members) -> Decision:
    engine = OPAServerEngine(OPAServer(url=stub.url, token=token, timeout_seconds=30))
    (decision,) = engine.evaluate(engine.load(bundle or opa_bundle()), [make_request(**members)])
    return decision


def told(decision: Decision) -> tuple[str, str, str]:
    return decision.effect, decision.reason, decision.detail


# --- what is asked, and what comes of it -----------------------------------------------------------------------------


def test_server_is_asked_for_the_package_with_the_input_of_our_own_engine(stub):
    stub.asked.clear()
    stub.says({"result": {"allow": True}})
    decide(stub, token="swordfish", arguments='{"n": 5e2}')
    ((path, authorization, body),) = stub.asked
    assert path == "/v1/data/acme/tools?provenance=true&strict-builtin-errors=true"
    assert authorization == "Bearer swordfish"
    request = make_request(arguments='{"n": 5e2}')
    ours = read_source(rego_bundle("allow := true", parameters=[])).input_document(request)
    assert body == {"input": ours}


def test_decision_names_engine_version_and_the_servers_bundles(stub):
    stub.says({"result": {"allow": True, "permits": ["finance"]}, "provenance": PROVENANCE})
    decision = decide(stub)
    assert (decision.effect, decision.rules, decision.engine) == (Effect.PERMIT, ("finance",), "opa_server")
    assert decision.engine_version.startswith("1.22.2+")
    other = {**PROVENANCE, "bundles": {"main": {"revision": "r-2"}}}
    stub.says({"result": {"allow": True}, "provenance": other})
    assert decide(stub).engine_version.startswith("1.22.2+")
    assert decide(stub).engine_version != decision.engine_version
    stub.says({"result": {"allow": True}, "provenance": {"version": "1.22.2"}})
    assert decide(stub).engine_version == "1.22.2"


@pytest.mark.parametrize("provenance", [None, [], {}, {"version": 3}, {"version": "a b"}, {"version": "x" * 200}])
def test_version_that_the_server_does_not_say_is_unknown(stub, provenance):
    stub.says({"result": {"allow": True}, "provenance": provenance})
    assert decide(stub).engine_version == "unknown"


def test_denies_and_obligations_mean_what_they_mean_in_our_engine(stub):
    stub.says({"result": {"allow": True, "denies": ["early", "late"], "other": {"x": 1}}})
    decision = decide(stub)
    assert (decision.effect, decision.rules, decision.failed_condition) == (Effect.DENY, ("early", "late"), "late")
    stub.says({"result": {"allow": True, "obligations": ["approval"]}})
    assert decide(stub).obligations == ("approval",)
    stub.says({"result": {"permits": ["finance"]}})
    decision = decide(stub)
    assert (decision.effect, decision.reason, decision.failed_condition) == (
        Effect.NOT_APPLICABLE,
        Reason.NO_PERMIT,
        "allow",
    )


def test_revision_that_the_bundle_wants_must_be_the_servers(stub):
    stub.says({"result": {"allow": True}, "provenance": PROVENANCE})
    assert decide(stub, opa_bundle({**CONTRACT, "revision": "r-1"})).permitted
    assert told(decide(stub, opa_bundle({**CONTRACT, "revision": "r-2"})))[1:] == (Reason.EVALUATION_ERROR, "revision")
    stub.says({"result": {"allow": True}})
    assert not decide(stub, opa_bundle({**CONTRACT, "revision": "r-1"})).permitted


# --- every failure denies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        ({}, Reason.EVALUATION_ERROR, "package"),
        ({"result": None}, Reason.EVALUATION_ERROR, "package"),
        ({"result": True}, Reason.EVALUATION_ERROR, "package"),
        ({"result": {"allow": "true"}}, Reason.EVALUATION_ERROR, "allow"),
        ({"result": {"allow": 1}}, Reason.EVALUATION_ERROR, "allow"),
        ({"result": {"allow": None}}, Reason.EVALUATION_ERROR, "allow"),
        ({"result": {"allow": True, "denies": "late"}}, Reason.EVALUATION_ERROR, "denies"),
        ({"result": {"allow": True, "denies": {"late": True}}}, Reason.EVALUATION_ERROR, "denies"),
        ({"result": {"allow": True, "denies": ["alice@example.com"]}}, Reason.EVALUATION_ERROR, "denies"),
        ({"result": {"allow": True, "permits": [1]}}, Reason.EVALUATION_ERROR, "permits"),
        ({"result": {"allow": True, "obligations": ["end_session"]}}, Reason.EVALUATION_ERROR, "obligations"),
        ([], Reason.ENGINE_ERROR, "answer"),
        (b"", Reason.ENGINE_ERROR, "answer"),
        (b"true", Reason.ENGINE_ERROR, "answer"),
        (b'{"result": {"allow": false, "allow": true}}', Reason.ENGINE_ERROR, "answer"),
        (b'{"result": {"allow": true}', Reason.ENGINE_ERROR, "answer"),
        (b"<html>", Reason.ENGINE_ERROR, "answer"),
        (b"\xff", Reason.ENGINE_ERROR, "answer"),
    ],
)
def test_answer_that_is_not_one_denies_and_says_so_without_a_value(stub, answer, reason, detail):
    stub.says(answer)
    assert told(decide(stub)) == (Effect.INDETERMINATE, reason, detail)


@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 403, 404, 500, 503])
def test_another_status_denies_whatever_stands_beside_it(stub, status):
    stub.says({"result": {"allow": True}} if status != 204 else b"", status)
    assert told(decide(stub)) == (Effect.INDETERMINATE, Reason.ENGINE_ERROR, f"http_{status}")


def test_redirection_is_not_followed(stub):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(307)
        handler.send_header("Location", f"{stub.url}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    stub.asked.clear()
    stub.answer = answer
    assert not decide(stub).permitted
    assert len(stub.asked) == 1


def test_answer_without_end_or_cut_short_denies(stub):
    stub.says({"result": {"allow": True, "padding": "x" * 100_000}})
    with pytest.raises(EngineStoppedError):
        decide(stub)

    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"result": {"allow": true}}')
        handler.close_connection = True

    stub.answer = cut
    with pytest.raises(EngineStoppedError):
        decide(stub)


def test_server_that_does_not_answer_in_time_is_not_waited_for(stub):
    """Whether it drips or is silent: one time bounds the whole of the answer."""
    done = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not done.wait(0.02):
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return

    stub.answer = drip
    engine = OPAServerEngine(OPAServer(url=stub.url, timeout_seconds=0.2))
    with pytest.raises(EngineStoppedError):
        engine.evaluate(engine.load(opa_bundle()), [make_request()])
    done.set()


def test_no_server_denies():
    for server in (None, OPAServer(url="http://127.0.0.1:1")):
        engine = OPAServerEngine(server)
        with pytest.raises(EngineStoppedError):
            engine.evaluate(engine.load(opa_bundle()), [make_request()])


def test_request_that_is_not_exact_is_never_sent(stub):
    stub.asked.clear()
    assert told(decide(stub, arguments='{"n": 1e400}'))[1:] == (Reason.PARAMETER_ERROR, "arguments")
    assert told(decide(stub, agent="\ud800"))[1:] == (Reason.REQUEST_ERROR, "input")
    assert stub.asked == []


def test_bundle_of_another_engine_is_refused():
    with pytest.raises(PolicyError):
        OPAServerEngine(None).evaluate(LoadedBundle(revision="0" * 64, rules=(), handle=object()), [make_request()])


# --- bundles and settings --------------------------------------------------------------------------------------------


def test_rules_of_a_bundle_are_those_that_it_lists():
    engine = OPAServerEngine(None)
    assert engine.load(opa_bundle()).rules == ("finance", "late", "early")
    assert engine.load(opa_bundle({"format": "tallystick.opa/1"})).rules == ("allow",)
    assert (engine.name, engine.version) == ("opa_server", "unknown")


@pytest.mark.parametrize(
    "contract",
    [
        [],
        {},
        {"format": "tallystick.opa/2"},
        {**CONTRACT, "url": "http://169.254.169.254/"},
        {**CONTRACT, "denies": ["two words"]},
        {**CONTRACT, "denies": ["finance"]},
        {**CONTRACT, "denies": ["late", "late"]},
        {**CONTRACT, "obligations": ["unheard-of"]},
        {**CONTRACT, "revision": ""},
        {**CONTRACT, "permits": [f"r{n}" for n in range(1001)]},
    ],
)
def test_list_that_is_not_sound_is_refused(contract):
    with pytest.raises(PolicySyntaxError, match=r"rules\.json"):
        OPAServerEngine(None).load(opa_bundle(contract))


@pytest.mark.parametrize("package", [None, "", "a/b", "../v1/policies", "a.b?x=1", "a b"])
def test_package_that_is_no_name_is_refused(package):
    """It becomes part of a URL."""
    with pytest.raises(PolicySyntaxError):
        OPAServerEngine(None).load(opa_bundle(package=package))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "opa",
        "ftp://127.0.0.1",
        "http://",
        "http://opa.example",
        "http://10.0.0.1:8181",
        "https://h/?q=1",
        "https://h/#f",
    ],
)
def test_server_that_could_be_forged_or_is_none_is_refused(url):
    with pytest.raises(ConfigError):
        OPAServerEngine(OPAServer(url=url))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8181", "http://[::1]:8181", "http://localhost", "https://opa.example/a"]
)
def test_server_on_this_machine_or_by_tls_is_taken(url):
    OPAServerEngine(OPAServer(url=url, token="t"))


@pytest.mark.parametrize("token", ["a b", "a\nb", "é", ""])
def test_token_that_is_none_is_refused(token):
    with pytest.raises(ConfigError):
        OPAServerEngine(OPAServer(url="https://opa.example", token=token or "\x00"))


# --- the real one ----------------------------------------------------------------------------------------------------

POLICY = """package acme.tools

default allow := false

allow if {
  input.principal.agent == "Bot"
  input.args.price <= 500.5
}

denies contains "late" if input.time.hour >= 18

permits contains "finance" if input.args.price

denies contains input.principal.agent if input.arguments.leak

allow if input.arguments.broken == to_number("x")
"""

CALLS: list[dict[str, object]] = [
    {"arguments": '{"price": 500.5}'},
    {"arguments": '{"price": 500.5001}'},
    {"arguments": '{"price": "5.005e2"}'},
    {"arguments": "{}"},
    {"arguments": '{"price": 1}', "hour": 18},
    {"arguments": '{"price": 1}', "agent": "Other"},
]


@contextmanager
def stock_server(folder: Path) -> Iterator[str]:
    """Run the OPA that is on the path; its URL."""
    (folder / "policy.rego").write_text(POLICY)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = ["opa", "run", "--server", f"--addr={url.removeprefix('http://')}", "--skip-version-check", "policy.rego"]
    with (folder / "opa.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/health", trust_env=False).raise_for_status()
            except httpx.HTTPError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                break
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(shutil.which("opa") is None, reason="there is no opa on the path")
def test_stock_server_decides_as_our_engine_does(tmp_path):
    parameters = json.dumps({"parameters": [{"name": "price", "type": "decimal", "paths": ["price"]}]}).encode()
    outside = opa_bundle(parameters="parameters.json", more={"parameters.json": parameters})
    ours = RegoEngine()
    loaded = ours.load(rego_bundle(POLICY.split("denies contains input", maxsplit=1)[0]))
    with stock_server(tmp_path) as url:
        engine = OPAServerEngine(OPAServer(url=url, timeout_seconds=30))
        for members in CALLS:
            request = make_request(**members)
            (theirs,), (expected,) = engine.evaluate(engine.load(outside), [request]), ours.evaluate(loaded, [request])
            assert (theirs.effect, theirs.rules, theirs.obligations) == (
                expected.effect,
                expected.rules,
                expected.obligations,
            )
            assert theirs.engine_version[0].isdigit()
        for arguments in ('{"leak": true}', '{"broken": 1}'):
            (decision,) = engine.evaluate(engine.load(outside), [make_request(arguments=arguments)])
            assert decision.effect is Effect.INDETERMINATE
