"""``tallystick intermediary``: the suite for whatever stands between MCP clients and servers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from ledger.errors import ConfigError
from service.cli.output import ExitCode, echo_json, json_option, say, table, with_exit_codes

if TYPE_CHECKING:
    from enforcement.intermediaries.suite import Finding

__all__ = ["intermediary"]

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_MAX_PORT: Final = 65_535
_MAX_TOKEN_BYTES: Final = 64 << 10


@click.group(short_help="Try out an MCP proxy or gateway.")
def intermediary() -> None:
    """Try out whatever stands between MCP clients and servers; see docs/intermediaries.md."""


@intermediary.command(short_help="List the cases.")
@json_option
@with_exit_codes
def cases(*, as_json: bool) -> None:
    """List the cases: what an intermediary has to do, and where that is said."""
    from enforcement.intermediaries.suite import CASES

    if as_json:
        listed = [{"name": one.name, "requirement": one.requirement, "source": one.source} for one in CASES]
        echo_json({"cases": listed})
        return
    table(("case", "requirement", "source"), [(one.name, one.requirement, one.source) for one in CASES])


@intermediary.command(short_help="Run the cases against an intermediary.")
@click.option("--url", required=True, help="The intermediary's MCP endpoint.")
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where the suite's own server listens: /mcp there.")
@click.option("--token-file", type=_FILE, help="A file with the bearer token that the intermediary asks for.")
@click.option("--denied-tool", metavar="NAME", help="A tool that the intermediary denies.")
@click.option("--oversize", type=click.IntRange(min=1), metavar="BYTES", help="A length of message that it refuses.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, help="Longest case.")
@click.option("--case", "names", multiple=True, metavar="NAME", help="Only this case; may be given several times.")
@json_option
@with_exit_codes
def check(
    url: str,
    listen: str,
    token_file: Path | None,
    denied_tool: str | None,
    oversize: int | None,
    seconds: float,
    names: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Start a server of the suite's own, call it through the intermediary, and report each case.

    Point the intermediary at http://HOST:PORT/mcp first, and permit everything but the tool of --denied-tool. The exit
    status is 1 if a case failed.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError("--url takes a URL of http or https")
    host, port = _place(listen)
    headers = [] if token_file is None else [("Authorization", f"Bearer {_token(token_file)}")]
    findings = asyncio.run(_run(url, host, port, headers, denied_tool, oversize, seconds, names))
    _report(findings, as_json=as_json)
    if any(one.verdict == "fail" for one in findings):
        sys.exit(ExitCode.FAILED)


async def _run(
    url: str,
    host: str,
    port: int,
    headers: list[tuple[str, str]],
    denied_tool: str | None,
    oversize: int | None,
    seconds: float,
    names: tuple[str, ...],
) -> list[Finding]:
    from enforcement.intermediaries.stub import StubServer
    from enforcement.intermediaries.suite import chosen, run_suite

    selected = chosen(names)
    stub = StubServer()
    await stub.start(host, port)
    try:
        return await run_suite(
            url,
            stub,
            headers=headers,
            denied_tool=denied_tool,
            oversize_bytes=oversize,
            seconds=seconds,
            cases=selected,
        )
    finally:
        await stub.stop()


def _place(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ConfigError("--listen takes HOST:PORT, such as 127.0.0.1:9000")
    return host.strip("[]"), int(port)


def _token(file: Path) -> str:
    with file.open("rb") as opened:
        data = opened.read(_MAX_TOKEN_BYTES + 1)
    token = data.decode("ascii", errors="replace").strip()
    if len(data) > _MAX_TOKEN_BYTES or not token or not token.isascii() or any(char.isspace() for char in token):
        raise ConfigError(f"{file.name} holds no token")
    return token


def _report(findings: list[Finding], *, as_json: bool) -> None:
    count = {verdict: sum(one.verdict == verdict for one in findings) for verdict in ("pass", "fail", "not applicable")}
    if as_json:
        listed = [
            {
                "name": one.case.name,
                "verdict": one.verdict,
                "reason": one.reason,
                "requirement": one.case.requirement,
                "source": one.case.source,
            }
            for one in findings
        ]
        totals = {"passed": count["pass"], "failed": count["fail"], "not_applicable": count["not applicable"]}
        echo_json({**totals, "cases": listed})
        return
    table(("case", "verdict", "why"), [(one.case.name, one.verdict, one.reason) for one in findings])
    say(f"{count['pass']} passed, {count['fail']} failed, {count['not applicable']} not applicable")
