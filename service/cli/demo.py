"""``tallystick demo``: the whole story on this machine."""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import click

from ledger.errors import ConfigError
from service.cli.output import echo_json, json_option, with_exit_codes
from service.cli.serve import configure_logging

__all__ = ["demo"]


@click.command(short_help="Show everything at work on this machine; SIMULATED.")
@click.option("--once", is_flag=True, help="Leave after the evidence instead of staying up.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Where to keep its files; an earlier demonstration's are removed.",
)
@json_option
@with_exit_codes
def demo(folder: Path, *, once: bool, as_json: bool) -> None:
    """Show everything at work: agents, servers, gateway, ledger, evidence, replay. SIMULATED keys and clock.

    Needs the extra ``demo`` (the MCP SDK). Exit status 1 if anything did not hold, 128 plus the signal's number if it
    was stopped before all had been shown. With --json the story goes to standard error, and its claims come at the end.
    """
    try:
        from service.demo.run import run_demo
        from service.demo.stage import Checks
    except ImportError as error:
        raise ConfigError(f"the demonstration needs tallystick[demo]: {error.name} is missing") from error
    configure_logging(level=logging.ERROR)
    logging.getLogger("mcp").setLevel(logging.ERROR)
    if not as_json:
        sys.exit(run_demo(folder, once=once))
    checks = Checks()
    with contextlib.redirect_stdout(sys.stderr):
        status = run_demo(folder, once=once, checks=checks)
    echo_json({"status": status, "claims": [asdict(claim) for claim in checks.made]})
    sys.exit(status)
