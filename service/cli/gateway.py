"""``tallystick gateway``: running an enforcement gateway, and preparing one."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
from pathlib import Path

import click
import structlog
import yaml

from ledger.clock import SystemClock
from ledger.envelopes import ED25519
from ledger.errors import ConfigError
from ledger.files import create_durably
from ledger.keys import generate_key, save_key
from ledger.notes import encode_base64
from service.cli.client import ServiceClient, service_options
from service.cli.output import ExitCode, say, with_exit_codes
from service.cli.serve import configure_logging
from service.settings import MAX_PORT, passphrase

__all__ = ["gateway"]

_DEFAULT_LISTEN = "127.0.0.1:8788"


@click.group(invoke_without_command=True)
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="gateway.yaml")
@click.option(
    "--listen",
    envvar="TALLYSTICK_GATEWAY_LISTEN",
    default=_DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
)
@click.pass_context
@with_exit_codes
def gateway(context: click.Context, config: Path | None, listen: str) -> None:
    """Run the gateway that --config describes; see docs/enforcement.md."""
    if context.invoked_subcommand is not None:
        return
    if config is None:
        click.echo(context.get_help())
        context.exit(ExitCode.USAGE)
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > MAX_PORT:
        raise ConfigError("--listen takes HOST:PORT")
    configure_logging()
    asyncio.run(_run(config, host.strip("[]"), int(port)))


async def _run(path: Path, host: str, port: int) -> None:
    from enforcement.config_files import load_config
    from service.cli.serving import STOP_SECONDS, serve_until_stopped
    from service.cli.serving import listen as listen_on
    from service.wiring import make_gateway

    running = make_gateway(load_config(path), passphrase())
    listening = listen_on(host, port)
    shown = listening.getsockname()
    config = running.server_config(host=host, port=port)
    config.timeout_graceful_shutdown = STOP_SECONDS
    await serve_until_stopped(
        config,
        listening,
        start=running.start,
        stop=running.stop,
        ready=lambda: structlog.get_logger().info("gateway_serving", host=shown[0], port=shown[1]),
    )


def _servers(values: tuple[str, ...]) -> list[dict[str, str]]:
    servers = []
    for value in values:
        name, separator, url = value.partition("=")
        if not separator or not name or not url:
            raise ConfigError(f"--server takes NAME=URL, not {value}")
        servers.append({"name": name, "url": url})
    return servers


@gateway.command("init")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--id", "enforcer_id", required=True, help="The gateway's name in the ledger.")
@click.option("--server", "servers", multiple=True, required=True, metavar="NAME=URL", help="An MCP server's endpoint.")
@click.option("--agent", required=True, help="A first agent that may call.")
@click.option("--role", "roles", multiple=True, help="Its roles; may be repeated.")
@click.option("--zone", default="UTC", show_default=True, help="IANA zone in which policies read the hour.")
@click.option(
    "--keys-dir",
    envvar="TALLYSTICK_KEYS_DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="The installation's keys: its pseudonym key is shared.",
)
@service_options
@with_exit_codes
def init(
    directory: Path,
    enforcer_id: str,
    servers: tuple[str, ...],
    agent: str,
    roles: tuple[str, ...],
    zone: str,
    keys_dir: Path,
    url: str,
    token: str | None,
) -> None:
    """Prepare a gateway in DIRECTORY: keys, the service's introduction, a configuration, a token for one agent.

    Needs an administrator's token.
    """
    listed = _servers(servers)
    client = ServiceClient(url, token)
    simulated = bool(client.get("/readyz")["simulated"])
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise ConfigError(f"{directory} exists; name a new directory") from None
    secret, now_ms = passphrase(), SystemClock().now_ms()
    signing = generate_key("enforcer", ED25519, enforcer_id, created_ms=now_ms, simulated=simulated)
    spool = generate_key("spool", "xsalsa20-poly1305", enforcer_id, created_ms=now_ms, simulated=simulated)
    save_key(signing, directory / "signing.json", secret)
    save_key(spool, directory / "spool.json", secret)
    shutil.copyfile(keys_dir / "pseudonym.json", directory / "pseudonym.json")
    (directory / "pseudonym.json").chmod(0o600)
    assert signing.public_key is not None
    introduced = client.post(
        "/v1/enforcers", {"enforcer_id": enforcer_id, "public_key": encode_base64(signing.public_key)}
    )
    create_durably(directory / "service.token", introduced["token"].encode() + b"\n", mode=0o600)
    agent_token = secrets.token_urlsafe(32)
    config = {
        "enforcer_id": enforcer_id,
        "log_id": introduced["log_id"],
        "tenant": introduced["tenant"],
        "environment": introduced["environment"],
        "zone": zone,
        "state_directory": str(directory / "state"),
        "service": {"url": url, "token": f"file:{directory / 'service.token'}"},
        "keys": {
            "signing": f"file:{directory / 'signing.json'}",
            "pseudonym": f"file:{directory / 'pseudonym.json'}",
            "spool": f"file:{directory / 'spool.json'}",
        },
        "principals": [
            {
                "token_sha256": hashlib.sha256(agent_token.encode()).hexdigest(),
                "agent": agent,
                "roles": list(roles),
            }
        ],
        "servers": listed,
    }
    create_durably(directory / "gateway.yaml", yaml.safe_dump(config, sort_keys=False).encode(), mode=0o600)
    say(f"{enforcer_id} is introduced at leaf {introduced['leaf_index']}.")
    say(f"Run it:  tallystick gateway --config {directory / 'gateway.yaml'}")
    say(f"Clients: http://{_DEFAULT_LISTEN}/servers/{listed[0]['name']}/mcp")
    say(f"         Authorization: Bearer {agent_token}   (shown once: the token of {agent})")
