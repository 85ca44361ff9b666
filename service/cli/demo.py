"""``tallystick demo``: the whole story on this machine."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from ledger.errors import ConfigError
from service.cli.output import with_exit_codes
from service.cli.serve import configure_logging

__all__ = ["demo"]


@click.command()
@click.option("--once", is_flag=True, help="Leave after the evidence instead of staying up.")
@click.option(
    "--dir", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path(".demo"), show_default=True
)
@with_exit_codes
def demo(folder: Path, *, once: bool) -> None:
    """Show everything at work: agents, servers, gateway, ledger, evidence, replay. SIMULATED keys and clock.

    Needs the extra ``demo`` (the MCP SDK). Exit status 1 if anything did not hold, 128 plus the signal's number if it
    was stopped before all had been shown.
    """
    try:
        from service.demo.run import run_demo
    except ImportError as error:
        raise ConfigError(f"the demonstration needs tallystick[demo]: {error.name} is missing") from error
    configure_logging(level=logging.ERROR)
    logging.getLogger("mcp").setLevel(logging.ERROR)
    sys.exit(run_demo(folder, once=once))
