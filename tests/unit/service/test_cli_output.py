"""What the command line prints: exit statuses, one-line errors, and text of others that cannot move the cursor."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from ledger import errors
from ledger.errors import (
    ConfigError,
    MalformedError,
    RootMismatchError,
    TallystickError,
    TrustPolicyError,
    WitnessSizeError,
)
from service.cli.client import ServiceClient
from service.cli.main import cli, main
from service.cli.output import ExitCode, exit_code, say, table, with_exit_codes

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egpj.exe\u200b\r\n\x00\x9b31m"
CONTROL = [char for char in HOSTILE if not char.isprintable()]

STATUSES = """
TallystickError           1
LedgerError               1
ConfigError               64
MalformedError            2
VerificationError         1
ProofError                1
RootMismatchError         1
RollbackError             1
SplitViewError            1
SignatureError            1
SignatureInvalidError     1
SignatureUncheckedError   4
TrustPolicyError          3
CommitmentError           1
StateError                4
ConflictError             4
SwapLostError             4
StaleKeysError            4
NotFoundError             4
OverloadedError           4
ErasedError               4
HeldError                 4
PrunedError               4
DependencyError           4
StorageError              4
AnchorError               4
WitnessError              4
WitnessSizeError          4
TimestampError            4
UpstreamError             4
PolicyError               2
PolicySyntaxError         2
UnknownBundleError        2
EvidenceError             2
IncompletePopulationError 2
"""
TABLE = [line.split() for line in STATUSES.strip().splitlines()]


def raised(error: Exception) -> Result:
    @click.command()
    @with_exit_codes
    def command() -> None:
        raise error

    return CliRunner().invoke(command)


# --- exit statuses ---------------------------------------------------------------------------------------------------


def test_the_table_names_every_error_of_the_core():
    kinds = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TallystickError)}
    assert {name for name, _ in TABLE} == kinds


@pytest.mark.parametrize(("name", "status"), TABLE)
def test_each_error_has_its_exit_status(name, status):
    kind = getattr(errors, name)
    more = {RootMismatchError: {"expected": b"", "calculated": b""}, WitnessSizeError: {"size": 3}}.get(kind, {})
    error = kind("what is wrong", **more)
    assert exit_code(error) == int(status)
    result = raised(error)
    assert result.exit_code == int(status)
    assert result.stdout == ""
    assert result.stderr.startswith("tallystick: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("message", [HOSTILE, "a\nb\n\nc", " \t x \r\n", "x\u2028y\u2029z\x85"])
def test_an_error_is_one_line_whatever_it_quotes(message):
    result = raised(MalformedError(f"quoting {message}"))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert not [char for char in CONTROL if char in result.stderr and char != "\n"]


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/srv/pack.zip"),
        OSError(28, "No space left on device"),
        IsADirectoryError(21, "Is a directory", "/srv"),
        FileNotFoundError(2, "No such file or directory", f"/srv/{HOSTILE}"),
    ],
)
def test_a_failing_file_is_one_line_and_status_4(error):
    result = raised(error)
    assert result.exit_code == 4
    assert len(result.stderr.splitlines()) == 1
    assert error.strerror in result.stderr
    assert not [char for char in CONTROL if char in result.stderr and char != "\n"]


def test_a_defect_of_ours_is_not_dressed_up_as_an_error_of_anybodys():
    assert isinstance(raised(ZeroDivisionError("x")).exception, ZeroDivisionError)


# --- printing --------------------------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], work: Any) -> str:
    work()
    return capsys.readouterr().out


def test_a_cell_of_a_table_cannot_move_the_cursor_or_turn_the_line(capsys):
    text = printed(capsys, lambda: table(("name", "n"), [(HOSTILE, 1), ("plain", 22)]))
    assert not [char for char in CONTROL if char in text and char != "\n"]
    assert len(text.splitlines()) == 3
    assert "U+202E" in text


def test_the_columns_of_a_table_stand_under_each_other(capsys):
    lines = printed(capsys, lambda: table(("a", "long name"), [("x" * 9, 1), ("y", "")])).splitlines()
    assert lines == ["A          LONG NAME", "xxxxxxxxx  1", "y"]


def test_a_table_without_rows_is_its_header(capsys):
    assert printed(capsys, lambda: table(("a", "b"), [])) == "A  B\n"


def test_a_line_for_people_cannot_move_the_cursor_either(capsys):
    text = printed(capsys, lambda: say(f"agent {HOSTILE} calls"))
    assert not [char for char in CONTROL if char in text and char != "\n"]


def test_lines_and_letters_of_any_language_are_printed_as_they_are(capsys):
    assert printed(capsys, lambda: say("Überprüfung\n  日本語 ok")) == "Überprüfung\n  日本語 ok\n"


# --- the root command ------------------------------------------------------------------------------------------------


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


COMMANDS = commands(cli)


@pytest.mark.parametrize("name", cli.list_commands(click.Context(cli)))
def test_a_command_is_imported_by_the_name_that_it_has(name):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name


@pytest.mark.parametrize("name", ["", "main", "output", "records:find", "verify.verify", "Verify"])
def test_what_is_no_command_is_not_imported(name):
    assert cli.get_command(click.Context(cli), name) is None


def leave(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the installed command's function, and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["tallystick", *arguments])
    try:
        main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_there_are_the_commands_that_the_issues_name_and_one_that_opens_payloads():
    assert {name for name, *more in COMMANDS if not more} == {
        "anchor",
        "audit",
        "approvals",
        "backup",
        "contain",
        "controls",
        "demo",
        "discover",
        "drift",
        "engines",
        "enroll",
        "erase",
        "evidence",
        "expire",
        "find",
        "export",
        "fleet",
        "gateway",
        "hold",
        "impact",
        "inspect",
        "intermediary",
        "inventory",
        "keys",
        "login",
        "logout",
        "logs",
        "migrate",
        "modes",
        "opa",
        "open",
        "people",
        "policy",
        "privileges",
        "profile",
        "prune",
        "rebuild",
        "replay",
        "restore",
        "serve",
        "servers",
        "session",
        "tls",
        "tools",
        "verify",
        "whoami",
        "webhooks",
        "witness",
        "wrap",
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself(monkeypatch, capsys, path, flag):
    assert leave(monkeypatch, *path, flag) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert " ".join(path) in shown.out
    lines = [line.strip() for line in shown.out.splitlines()]
    assert any(line.endswith((".", ":")) and len(line) > 10 for line in lines), "a sentence says what it does"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_unknown_option_is_an_error_of_usage(monkeypatch, capsys, path):
    assert leave(monkeypatch, *path, "--no-such-option") == ExitCode.USAGE
    assert "no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["keys"],
        ["gateway"],
        ["verify"],
        ["verify", "/no/such/pack.zip"],
        ["verify", "pyproject.toml", "--accept-mapping", "soc2"],
        ["verify", "pyproject.toml", "--entry", "pyproject.toml"],
        ["verify", "pyproject.toml", "--entry", "pyproject.toml", "--known", "pyproject.toml"],
        ["verify", "pyproject.toml", "--entry", "pyproject.toml", "--log", "docs"],
        ["verify", "pyproject.toml", "--entry", "pyproject.toml", "--accept-mapping", "0" * 64],
        ["session"],
        ["replay"],
        ["find", "--limit", "0"],
        ["find", "--limit", "10001"],
        ["find", "--decision", "MAYBE"],
        ["find", "--from", "yesterday"],
        ["find", "--from", "2026-13-01"],
        ["keys", "init"],
        ["keys", "token", "--role", "enforcer", "--name", "x"],
        ["keys", "token", "--role", "admin", "--name", "x", "--lifetime-days", "0"],
        ["evidence", "build"],
        ["controls", "show", "soc2"],
        ["audit", "--log", "/no/such/log"],
        ["gateway", "--listen", "nowhere"],
        ["gateway", "init", "x"],
        ["policy", "test", "/no/such/bundle"],
        ["policy", "activate"],
    ],
    ids=" ".join,
)
def test_an_error_of_usage_ends_with_64(monkeypatch, arguments):
    monkeypatch.delenv("TALLYSTICK_ORIGIN", raising=False)
    assert leave(monkeypatch, *arguments) == 64


def test_without_a_command_the_help_is_shown(monkeypatch, capsys):
    assert leave(monkeypatch) == 64
    shown = capsys.readouterr()
    assert "Exit status" in shown.out + shown.err


def test_the_help_names_every_exit_status(monkeypatch, capsys):
    assert leave(monkeypatch, "--help") == 0
    epilog = " ".join(capsys.readouterr().out.partition("Exit status:")[2].split())
    for status in ExitCode:
        assert f" {int(status)} " in f" {epilog} "


def test_the_version_is_printed(monkeypatch, capsys):
    assert leave(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("tallystick, version ")


def test_an_interruption_ends_with_130(monkeypatch, capsys):
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[main.__module__], "cli", click.command()(interrupted))
    assert leave(monkeypatch) == 130
    assert "interrupted" in capsys.readouterr().err


# --- the client ------------------------------------------------------------------------------------------------------


def answering(response: httpx.Response) -> ServiceClient:
    client = ServiceClient("http://service.example", "ts1.acme.x")
    client._client = httpx.Client(
        base_url="http://service.example", transport=httpx.MockTransport(lambda _request: response)
    )
    return client


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 2),
        (401, 64),
        (403, 64),
        (404, 4),
        (408, 4),
        (409, 4),
        (410, 4),
        (413, 2),
        (422, 1),
        (429, 4),
        (500, 4),
        (503, 4),
    ],
)
def test_a_refusal_of_the_service_has_its_exit_status_and_words(status, code):
    problem = {"detail": "what is wrong", "errors": [{"at": "query.limit", "reason": "too small"}]}
    with pytest.raises(TallystickError, match=r"what is wrong \(query.limit: too small\)") as caught:
        answering(httpx.Response(status, json=problem)).get("/v1/decisions")
    assert exit_code(caught.value) == code


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"detail":"x","errors":[1]}',
        b'{"detail":"x","errors":{"a":1}}',
        b"\xff",
    ],
)
def test_a_refusal_in_other_words_is_told_by_its_status(body):
    with pytest.raises(TallystickError, match=r"503|x"):
        answering(httpx.Response(503, content=body)).get("/v1/decisions")


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"{"])
def test_an_answer_that_is_no_json_is_not_the_services(body):
    for call in (lambda c: c.get("/v1/decisions"), lambda c: c.post("/v1/replays", {})):
        with pytest.raises(errors.UpstreamError, match="JSON"):
            call(answering(httpx.Response(200, content=body)))


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_nothing_is_asked(token):
    with pytest.raises(ConfigError, match="TALLYSTICK_TOKEN"):
        ServiceClient("http://127.0.0.1:1", token)


@pytest.mark.parametrize("token", ["ts1.acme.ä", "a\nb", "a b", "\u202e", "x" * 4000])
def test_a_token_that_is_none_is_refused_and_not_quoted(token):
    with pytest.raises(ConfigError, match="token") as caught:
        ServiceClient("http://127.0.0.1:1", token)
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1", "ftp://x", "http://[::1", "http://\x00", "http://a:b:c", "http://x:99999"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(TallystickError) as caught:
        ServiceClient(url, "ts1.acme." + "x" * 43).get("/v1/decisions")
    assert exit_code(caught.value) == 64


def test_a_parameter_that_was_not_given_is_not_sent():
    seen = []
    client = ServiceClient("http://service.example", "ts1.acme." + "x" * 43)
    client._client = httpx.Client(
        base_url="http://service.example",
        transport=httpx.MockTransport(lambda request: seen.append(request) or httpx.Response(200, json={})),
    )
    client.get("/v1/decisions", agent="a b&c", tool=None, limit=5)
    assert str(seen[0].url) == "http://service.example/v1/decisions?agent=a+b%26c&limit=5"


def test_the_environments_proxy_is_left_alone_so_that_a_token_goes_to_the_service_only(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert ServiceClient("http://service.example", "ts1.acme." + "x" * 43)._client._mounts == {}


def test_trust_errors_are_not_confused_with_failed_proofs():
    assert exit_code(TrustPolicyError("x")) == ExitCode.TRUST_NOT_MET
    assert json.dumps(ExitCode.TRUST_NOT_MET) == "3"
