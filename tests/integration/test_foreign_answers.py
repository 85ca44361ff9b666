"""What commands make of a service that answers as none of ours would: one line, never a trace, never a file elsewhere.

An auditor need not trust the service that he asks, and an address may lead to something else entirely.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.main import cli

TOKEN = "ts1.acme." + "x" * 43
DECISION = "01a1fe8a-01a0-7562-88c4-04df75e72a35"
SESSION = "5" * 32
PURPOSE = "an inquiry"

COMMANDS = [
    ("find",),
    ("find", "--json"),
    ("session", SESSION),
    ("replay", DECISION),
    ("open", DECISION, "--purpose", PURPOSE),
    ("erase", "--subject", "jane", "--basis", PURPOSE, "--yes"),
    ("hold", "place", "--subject", "jane", "--reason", PURPOSE),
    ("hold", "list"),
    ("hold", "release", DECISION),
    ("expire",),
    ("prune", "--below", "256"),
    ("evidence", "build", "--from", "2026-01-01", "--to", "2026-02-01"),
    ("evidence", "list"),
    ("evidence", "download", DECISION),
    ("policy", "activate", "a" * 64),
    ("policy", "rollback"),
    ("policy", "list"),
    ("gateway", "retire", "gateway-1", "--yes"),
    ("keys", "list"),
]


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """Yield the URL of something that answers everything with 200 and the same bytes."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815  # names that http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def ask(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--url", url, "--token", TOKEN])


def test_an_answer_without_what_it_should_have_is_told_in_one_line_by_every_command(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = {}
    with answering(b"{}") as url:
        for command in COMMANDS:
            result = ask(url, *command)
            lines = result.stderr.splitlines()
            if result.exit_code != 4 or len(lines) != 1 or not lines[0].startswith("tallystick: the service"):
                told[command] = (result.exit_code, lines, result.exception)
    assert told == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b"[" * 200_000], ids=["list", "null", "number", "deep"])
def test_an_answer_that_is_no_object_is_told_in_one_line(body):
    with answering(body) as url:
        result = ask(url, "hold", "list")
    assert (result.exit_code, len(result.stderr.splitlines())) == (4, 1)
    assert result.stderr.startswith("tallystick: the service")


@pytest.mark.parametrize("job_id", ["../../escaped", "/etc/escaped", "..", "", DECISION + "\n", 7, None])
def test_the_service_does_not_say_where_an_auditors_files_are_saved(job_id, tmp_path: Path, monkeypatch):
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    job = {"job_id": job_id, "state": "done", "step": "ended", "error": None, "links": {"zip": "/x", "profile": "/y"}}
    with answering(json.dumps(job).encode()) as url:
        built = ask(url, "evidence", "build", "--from", "2026-01-01", "--to", "2026-02-01")
        fetched = ask(url, "evidence", "download", DECISION)
    assert (built.exit_code, built.stderr) == (4, "tallystick: the service's answer names no evidence pack\n")
    assert fetched.exit_code == 0, fetched.stderr
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == [f"a/b/{DECISION}.pdf", f"a/b/{DECISION}.zip"]


@pytest.mark.parametrize("job_id", ["../x", "x?y=1", "", DECISION.upper()])
def test_a_job_that_is_spelt_like_none_is_an_error_of_usage(job_id):
    result = ask("http://127.0.0.1:1", "evidence", "download", job_id)
    assert "is written as" in result.stderr


def test_a_hold_up_to_a_time_that_no_calendar_has_is_listed():
    latest = 2**53 - 1
    item = {
        "hold_id": DECISION,
        "placed_ms": 1_763_546_400_000,
        "subject": None,
        "session": None,
        "also": [],
        "from_ms": 0,
        "to_ms": latest,
        "release_requested_by": None,
    }
    with answering(json.dumps({"items": [item]}).encode()) as url:
        result = ask(url, "hold", "list")
    assert result.exit_code == 0, result.exception
    assert f"from 1970-01-01 00:00:00, to {latest} ms after 1970" in result.stdout
