"""``tallystick witness``: a witness for other people's logs (C2SP tlog-witness)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import structlog

from ledger.clock import SystemClock
from ledger.cosignatures import MAX_REQUEST_BYTES
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import ConfigError
from ledger.keys import LocalKey, generate_key, load_key, save_key
from ledger.trust import TrustPolicy
from service.auditing import read_trust
from service.cli.output import echo_json, json_option, say, with_exit_codes
from service.settings import passphrase

__all__ = ["witness"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MAX_SECONDS = 30.0


@click.group()
def witness() -> None:
    """A witness for other people's logs: its key, and its service."""


@witness.command(short_help="Make a witness's key.")
@click.argument("key", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="The witness's name on its cosignatures, such as witness.example/w1.")
@click.option(
    "--algorithm", type=click.Choice([MLDSA44, ED25519]), default=MLDSA44, show_default=True, help="What it signs with."
)
@json_option
@with_exit_codes
def init(key: Path, name: str, algorithm: str, *, as_json: bool) -> None:
    """Make a witness's key in the file KEY, and print the line that names it in trust policies.

    TALLYSTICK_PASSPHRASE or TALLYSTICK_PASSPHRASE_FILE protects the file.
    """
    from service.wiring.outsiders import witness_vkey

    made = generate_key("witness", algorithm, name, created_ms=SystemClock().now_ms())
    vkey = witness_vkey(made).encode()
    save_key(made, key, passphrase())
    if as_json:
        echo_json({"key": str(key), "vkey": vkey})
    else:
        say(f"{key} is the witness's key. In a trust policy, with the URL below which it will answer:")
        say(f"witness NAME {vkey} URL")


@witness.command(short_help="Answer requests for cosignatures.")
@click.option("--key", type=_FILE, required=True, help="The witness's key, as `witness init` makes it.")
@click.option("--logs", type=_FILE, required=True, help="Trust policy with the `log` lines of the logs to witness.")
@click.option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="SQLite file of what was cosigned. A witness that loses it must get a new key.",
)
@click.option("--listen", "place", default="127.0.0.1:8789", show_default=True, metavar="HOST:PORT", help="Where.")
@with_exit_codes
def serve(key: Path, logs: Path, database: Path, place: str) -> None:
    """Answer POST /add-checkpoint for the logs that are named; everything else is somebody else's part.

    It logs JSON, one object a line, to standard error.
    """
    import uvicorn

    from service.cli.serve import configure_logging
    from service.cli.serving import STOP_SECONDS, listen, serve_until_stopped
    from service.wiring.outsiders import make_witness
    from service.witness_app import create_witness_app

    configure_logging()
    log = structlog.get_logger()
    parts = make_witness(_local(key), _require_logs(read_trust(logs)), f"sqlite:///{database}", SystemClock())
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError("--listen has the form HOST:PORT")
    listening = listen(host.strip("[]"), int(port))
    bound = listening.getsockname()[1]
    config = uvicorn.Config(
        create_witness_app(parts.server, max_request_bytes=MAX_REQUEST_BYTES, max_seconds=_MAX_SECONDS),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )

    async def start() -> None:
        await asyncio.sleep(0)

    async def stop() -> None:
        await asyncio.to_thread(parts.close)

    ready = {"witness": parts.verifier_key.name, "vkey": parts.verifier_key.encode(), "host": host, "port": bound}
    asyncio.run(
        serve_until_stopped(config, listening, start=start, stop=stop, ready=lambda: log.info("witnessing", **ready))
    )


def _local(path: Path) -> LocalKey:
    return load_key(f"file:{path}", passphrase())


def _require_logs(policy: TrustPolicy) -> TrustPolicy:
    if not policy.logs:
        raise ConfigError("--logs names no log: a witness needs their `log` lines")
    return policy
