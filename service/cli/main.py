"""The root of the command line."""

from __future__ import annotations

import click

from service.cli.anchor import anchor
from service.cli.audit import audit
from service.cli.backup import backup, restore
from service.cli.containing import contain
from service.cli.demo import demo
from service.cli.engines import engines
from service.cli.enroll import enroll
from service.cli.erasing import erase, expire, hold, prune
from service.cli.evidence import evidence
from service.cli.fleet import fleet
from service.cli.gateway import gateway
from service.cli.impact import impact
from service.cli.keys import keys
from service.cli.logs import logs
from service.cli.modes import modes
from service.cli.opa import opa
from service.cli.output import ExitCode
from service.cli.policy import policy
from service.cli.rebuild import rebuild
from service.cli.records import find, open_payload, replay, session
from service.cli.serve import migrate, serve
from service.cli.servers import servers
from service.cli.tls import tls
from service.cli.verify import verify
from service.cli.witness import witness
from service.cli.wrap import wrap
from service.version import VERSION

__all__ = ["cli", "main"]

_EPILOG = """
Exit status: 0 all proven or done; 1 a proof, digest or check fails; 2 malformed; 3 valid but trust not met;
4 something could not be checked or reached; 5 a --fail-on condition hit; 64 usage.
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="tallystick")
def cli() -> None:
    """An immutable audit ledger and compliance evidence service for AI agents that call tools over MCP."""


for command in (
    demo,
    keys,
    serve,
    migrate,
    logs,
    find,
    session,
    replay,
    impact,
    open_payload,
    erase,
    hold,
    expire,
    prune,
    verify,
    audit,
    anchor,
    rebuild,
    backup,
    restore,
    evidence,
    policy,
    engines,
    gateway,
    wrap,
    servers,
    modes,
    enroll,
    fleet,
    contain,
    opa,
    tls,
    witness,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; a usage error ends with status 64."""
    try:
        # What a command leaves with by its context is returned here, and not raised.
        status = cli(standalone_mode=False)
    except click.Abort:
        click.echo("tallystick: interrupted", err=True)
        raise SystemExit(130) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(ExitCode.USAGE) from None
    if status:
        raise SystemExit(status)
