"""``tallystick wrap``: a server that speaks over standard input and output, with the enforcement point before it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import click

from ledger.errors import ConfigError
from service.cli.output import with_exit_codes
from service.cli.serve import configure_logging
from service.settings import passphrase

__all__ = ["wrap"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command(
    short_help="Run an MCP server over stdio behind an enforcement point.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--config", type=_FILE, required=True, help="The enforcement point's configuration, gateway.yaml.")
@click.option("--server", metavar="NAME", help="Which of its servers this is; its only one if not given.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@with_exit_codes
def wrap(config: Path, server: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND, an MCP server, and judge every message between it and the client on standard input and output.

    Give COMMAND after --. Its exit status becomes this one's. Logs are JSON on standard error, beside what the server
    writes there. See docs/transports.md.
    """
    configure_logging()
    sys.exit(asyncio.run(_run(config, server, command)))


async def _run(path: Path, name: str | None, command: tuple[str, ...]) -> int:
    from enforcement.child import child_environment, start_child
    from enforcement.config_files import load_config
    from enforcement.embedded import caller
    from enforcement.std_streams import own_pipe
    from enforcement.stdio import StdioWrapper
    from service.wiring.gateways import make_core

    config = load_config(path)
    settings = config.stdio
    if settings is None:
        raise ConfigError("stdio: says who calls, and is not in the configuration")
    who = settings.principal
    identity = caller(who.agent, user=who.user, roles=who.roles, mfa=who.mfa, authn="stdio")
    core = await asyncio.to_thread(make_core, config, passphrase())
    server = core.server_name(name)
    async with core as running:
        pipe = await own_pipe()
        child = await start_child(command, child_environment(os.environ, settings.inherit))
        wrapper = StdioWrapper(running, config.limits, server=server, identity=identity, client=pipe, child=child.pipe)
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, wrapper.halt)
        try:
            await wrapper.run(stop_seconds=settings.stop_seconds)
        finally:
            status = await child.stop(settings.stop_seconds)
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
    return status
