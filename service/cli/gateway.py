"""``tallystick gateway``: running a gateway, preparing and retiring one, and letting go whom it has blocked."""

from __future__ import annotations

import asyncio
import gc
import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click
import structlog

from ledger.errors import ConfigError
from service.cli.client import ServiceClient, service_options
from service.cli.gateway_tokens import token
from service.cli.options import utc
from service.cli.output import ExitCode, echo_json, json_option, program, say, shown_path, table, with_exit_codes
from service.cli.serve import configure_logging
from service.settings import MAX_PORT, passphrase

if TYPE_CHECKING:
    from collections.abc import Callable

    from enforcement.gateway import Gateway

__all__ = ["gateway", "servers_of"]

_F = TypeVar("_F", bound="Callable[..., Any]")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _listen_option(help_text: str) -> Callable[[_F], _F]:
    return click.option(
        "--listen",
        envvar="TALLYSTICK_GATEWAY_LISTEN",
        default="127.0.0.1:8788",
        show_default=True,
        metavar="HOST:PORT",
        help=help_text,
    )


def _place(listen: str) -> tuple[str, int]:
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > MAX_PORT:
        raise ConfigError("--listen takes HOST:PORT")
    return host.strip("[]"), int(port)


@click.group(invoke_without_command=True, short_help="Run an enforcement gateway, or prepare one.")
@click.option("--config", type=_FILE, help="The gateway's configuration, gateway.yaml.")
@_listen_option("Where agents reach it.")
@click.pass_context
@with_exit_codes
def gateway(context: click.Context, config: Path | None, listen: str) -> None:
    """Run the gateway that --config describes; see docs/enforcement.md.

    It logs JSON, one object a line, to standard error.
    """
    if context.invoked_subcommand is not None:
        return
    if config is None:
        click.echo(context.get_help())
        context.exit(ExitCode.USAGE)
    host, port = _place(listen)
    configure_logging()
    asyncio.run(_run(config, host, port))


async def _run(path: Path, host: str, port: int) -> None:
    from enforcement.config_files import load_config
    from service.cli.serving import STOP_SECONDS, serve_until_stopped
    from service.cli.serving import listen as listen_on
    from service.wiring.gateways import make_gateway, make_gateway_evaluator

    settings = load_config(path)
    evaluator = make_gateway_evaluator(settings)
    try:
        running = make_gateway(settings, passphrase(), evaluator=evaluator)
        listening = listen_on(host, port)
        shown = listening.getsockname()

        def ready() -> None:
            # What was loaded stays as long as the process: no collection of garbage need look at it again.
            gc.collect()
            gc.freeze()
            structlog.get_logger().info("gateway_serving", host=shown[0], port=shown[1])

        config = running.server_config(host=host, port=port)
        config.timeout_graceful_shutdown = STOP_SECONDS
        await serve_until_stopped(
            config,
            listening,
            start=running.start,
            stop=running.stop,
            ready=ready,
        )
    finally:
        await asyncio.to_thread(evaluator.close)


def servers_of(values: tuple[str, ...]) -> dict[str, str]:
    """Return what ``--server NAME=URL`` names.

    Raises:
        ConfigError: A value is none, or a name stands twice.
    """
    servers: dict[str, str] = {}
    for value in values:
        name, separator, url = value.partition("=")
        if not separator or not name or not url:
            raise ConfigError(f"--server takes NAME=URL, not {value}")
        if name in servers:
            raise ConfigError(f"--server {name} stands twice")
        servers[name] = url
    return servers


gateway.add_command(token)


@gateway.command("init", short_help="Prepare a gateway: keys, introduction, configuration, a token.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--id", "enforcer_id", required=True, help="The gateway's name in the ledger.")
@click.option("--server", "servers", multiple=True, required=True, metavar="NAME=URL", help="An MCP server's endpoint.")
@click.option("--agent", required=True, help="A first agent that may call.")
@click.option("--role", "roles", multiple=True, help="Its roles; may be repeated.")
@click.option("--zone", default="UTC", show_default=True, help="IANA zone in which policies read the hour.")
@_listen_option("Where agents will reach it; for the commands that are printed.")
@click.option(
    "--keys-dir",
    envvar="TALLYSTICK_KEYS_DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="The installation's keys: its pseudonym key is shared.",
)
@service_options
@json_option
@with_exit_codes
def init(
    directory: Path,
    enforcer_id: str,
    servers: tuple[str, ...],
    agent: str,
    roles: tuple[str, ...],
    zone: str,
    listen: str,
    keys_dir: Path,
    url: str,
    token: str | None,
    *,
    as_json: bool,
) -> None:
    """Prepare a gateway in DIRECTORY: keys, the service's introduction, a configuration, a token for one agent.

    Needs an administrator's token. If anything is wrong, nothing stays.
    """
    from service.cli.preparing import GatewayWish, prepare_gateway

    _place(listen)
    wish = GatewayWish(
        enforcer_id=enforcer_id, servers=servers_of(servers), agent=agent, roles=roles, zone=zone, url=url
    )
    made = prepare_gateway(directory, wish, ServiceClient(url, token), keys_dir=keys_dir, passphrase=passphrase())
    endpoints = {name: f"http://{listen}/servers/{name}/mcp" for name in wish.servers}
    if as_json:
        echo_json(
            {
                "enforcer_id": enforcer_id,
                "leaf_index": made.leaf_index,
                "config": str(made.config),
                "endpoints": endpoints,
                "agent": agent,
                "token": made.agent_token,
            }
        )
        return
    say(f"{enforcer_id} is introduced at leaf {made.leaf_index}.")
    say(f"Run it:  {program()} gateway --config {shown_path(made.config)} --listen {listen}")
    for label, endpoint in zip(("Clients:", *[""] * len(endpoints)), endpoints.values(), strict=False):
        say(f"{label:8} {endpoint}")
    say(f"         Authorization: Bearer {made.agent_token}   (shown once: the token of {agent})")
    say("It lets through what the active policy permits, and nothing else: see docs/policies.md.")


@gateway.command(short_help="Say that a gateway is gone for good.")
@click.argument("enforcer_id", metavar="ID")
@click.confirmation_option(prompt="Its key will count for nothing more, and cannot be used again. Retire it?")
@service_options
@json_option
@with_exit_codes
def retire(enforcer_id: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Record that the gateway ID is gone for good: its key ends in the log, its tokens are revoked.

    Needs an administrator's token. Stop the gateway first: evidence no longer waits for a gateway that was retired, and
    if it did not stop in order, what it did last stays unknown. The ID can be introduced again, with another key.
    """
    done = ServiceClient(url, token).delete(f"/v1/enforcers/{quote(enforcer_id, safe='')}")
    if as_json:
        echo_json(done)
        return
    leaf = done["leaf_index"]
    told = "was retired before" if leaf is None else f"is retired at leaf {leaf}"
    say(f"{enforcer_id} {told}; tokens revoked: {done['tokens_revoked']}.")


# --- blocks ----------------------------------------------------------------------------------------------------------

_CONFIG_OPTION = click.option("--config", type=_FILE, required=True, help="The gateway's configuration, gateway.yaml.")


@contextmanager
def _beside(config: Path) -> Iterator[Gateway]:
    """Yield a gateway that is not started, on the state directory of one that may run."""
    from enforcement.config_files import load_config
    from service.wiring.gateways import make_gateway, make_gateway_evaluator

    settings = load_config(config)
    evaluator = make_gateway_evaluator(settings)
    try:
        yield make_gateway(settings, passphrase(), evaluator=evaluator)
    finally:
        evaluator.close()


@gateway.command(short_help="List the agents whose session was ended.")
@_CONFIG_OPTION
@json_option
@with_exit_codes
def blocks(config: Path, *, as_json: bool) -> None:
    """List the agents whose session was ended by policy, and who may not call until they are released.

    Works while the gateway runs. A user is shown by pseudonym.
    """
    with _beside(config) as opened:
        found = opened.blocks()
    if as_json:
        echo_json(
            [
                {"agent": one.agent, "user": one.user, "decision_id": one.decision_id, "since_ms": one.since_ms}
                for one in found
            ]
        )
        return
    table(
        ("since (UTC)", "agent", "user", "ended by decision"),
        [(utc(one.since_ms), one.agent, one.user or "", one.decision_id) for one in found],
    )


def _logged_in() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # a container's user may have no name
        raise ConfigError("--by says who releases it") from error


@gateway.command(short_help="Let an agent call again whose session was ended.")
@_CONFIG_OPTION
@click.option("--agent", required=True, help="The agent.")
@click.option("--user", help="Its user's name, if it called on behalf of one.")
@click.option("--purpose", required=True, help="Why; recorded, in the vault.")
@click.option("--by", "actor", help="Who releases it; without it, who is logged in here.")
@json_option
@with_exit_codes
def release(config: Path, agent: str, user: str | None, purpose: str, actor: str | None, *, as_json: bool) -> None:
    """Let an agent call again whose session was ended by policy; who did it and why becomes a record.

    Works while the gateway runs: it holds at the agent's next call, and the record is sent with the next heartbeat.
    """
    if not purpose.strip():
        raise ConfigError("--purpose says why")
    who = actor or _logged_in()
    with _beside(config) as opened:
        asyncio.run(opened.release(agent, user, actor=who, actor_role="operator", purpose=purpose))
    if as_json:
        echo_json({"agent": agent, "released": True})
    else:
        say(f"{agent} may call again; the ledger will say who released it and why.")
