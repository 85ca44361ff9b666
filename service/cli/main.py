"""The root of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click

from service.cli.output import ExitCode
from service.version import VERSION

__all__ = ["cli", "main"]

_EPILOG = """
Exit status: 0 all proven or done; 1 a proof, digest or check fails; 2 malformed; 3 valid but trust not met;
4 something could not be checked or reached; 5 a --fail-on condition hit; 64 usage.
"""


_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "anchor": ("anchor", "anchor"),
    "approvals": ("approvals", "approvals"),
    "audit": ("audit", "audit"),
    "backup": ("backup", "backup"),
    "contain": ("containing", "contain"),
    "controls": ("controls", "controls"),
    "demo": ("demo", "demo"),
    "discover": ("discovering", "discover"),
    "drift": ("drift", "drift"),
    "engines": ("engines", "engines"),
    "enroll": ("enroll", "enroll"),
    "erase": ("erasing", "erase"),
    "evidence": ("evidence", "evidence"),
    "expire": ("erasing", "expire"),
    "export": ("exporting", "export"),
    "find": ("records", "find"),
    "fleet": ("fleet", "fleet"),
    "gateway": ("gateway", "gateway"),
    "hold": ("erasing", "hold"),
    "impact": ("impact", "impact"),
    "inspect": ("inspect", "inspect"),
    "intermediary": ("intermediary", "intermediary"),
    "inventory": ("inventory", "inventory"),
    "keys": ("keys", "keys"),
    "login": ("login", "login"),
    "logout": ("login", "logout"),
    "logs": ("logs", "logs"),
    "migrate": ("serve", "migrate"),
    "modes": ("modes", "modes"),
    "opa": ("opa", "opa"),
    "open": ("records", "open_payload"),
    "people": ("people", "people"),
    "policy": ("policy", "policy"),
    "privileges": ("inventory", "privileges"),
    "profile": ("profile", "profile"),
    "prune": ("erasing", "prune"),
    "rebuild": ("rebuild", "rebuild"),
    "replay": ("records", "replay"),
    "restore": ("backup", "restore"),
    "serve": ("serve", "serve"),
    "servers": ("servers", "servers"),
    "session": ("sessions", "session"),
    "tls": ("tls", "tls"),
    "tools": ("tools", "tools"),
    "verify": ("verify", "verify"),
    "whoami": ("login", "whoami"),
    "webhooks": ("webhooks", "webhooks"),
    "witness": ("witness", "witness"),
    "wrap": ("wrap", "wrap"),
}
"""Of each command the file of this folder that has it, and its name there."""


class _Commands(click.Group):
    """A group that imports a command when it is asked for: a third of a second less for each that is not."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # Click's signature
        """Return every command's name, sorted."""
        return sorted(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None if there is none of that name."""
        if cmd_name not in _PLACES:
            return None
        module, name = _PLACES[cmd_name]
        command = getattr(import_module(f"service.cli.{module}"), name)
        assert isinstance(command, click.Command)  # the table names nothing else
        return command


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="tallystick")
def cli() -> None:
    """An immutable audit ledger and compliance evidence service for AI agents that call tools over MCP."""


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
