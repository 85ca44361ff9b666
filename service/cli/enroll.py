"""``tallystick enroll``: tokens for machines that shall become gateways, and becoming one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from ledger.errors import ConfigError
from ledger.files import create_durably
from service.cli.client import ServiceClient, service_options
from service.cli.gateway import servers_of
from service.cli.options import utc
from service.cli.output import echo_json, json_option, program, say, shown_path, with_exit_codes
from service.settings import passphrase

__all__ = ["enroll"]

_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}


class _Enroll(click.Group):
    """Takes ``enroll --service …`` for ``enroll gateway --service …``: what most machines do needs no further word.

    Attributes:
        default: The command that is meant where none is named.
    """

    default = "gateway"

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Name the command that is meant where none is named."""
        if args and args[0] not in self.commands and args[0] not in context.help_option_names:
            args = [self.default, *args]
        return super().parse_args(context, args)


@click.group(cls=_Enroll, short_help="Enrol a gateway by a single-use token, or make such a token.")
def enroll() -> None:
    """Enrol gateways: an administrator makes a token, and the gateway's machine uses it; see docs/fleet.md.

    Without a command, it is `gateway`: tallystick enroll --service URL --token-file FILE --id ID DIRECTORY.
    """


def _seconds(span: str) -> int:
    match = _SPAN.fullmatch(span)
    if match is None:
        raise ConfigError("--for takes a span of time, such as 30m, 1h or 2d")
    return int(match[1]) * _SECONDS[match[2]]


@enroll.command(short_help="Make a token with which one machine becomes one gateway.")
@click.option("--id", "enforcer_id", required=True, help="The gateway's name in the ledger.")
@click.option("--for", "span", default="1h", show_default=True, help="How long it counts, such as 30m, 1h or 2d.")
@click.option("--out", type=click.Path(path_type=Path), help="Write it to this new file, for its owner alone.")
@service_options
@json_option
@with_exit_codes
def token(enforcer_id: str, span: str, out: Path | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Make an enrolment token for the gateway --id. It is shown once, counts once and for a while.

    Needs an administrator's token. Its second line is a digest of the keys that the gateway will be told to trust: hand
    both lines over, and the gateway finds out if it is not your service that answers.
    """
    from service.cli.joining import token_file

    if out is not None and out.exists():
        raise ConfigError(f"{out} exists; name another file with --out")
    wanted = {"enforcer_id": enforcer_id, "lifetime_seconds": _seconds(span)}
    made = ServiceClient(url, token).post("/v1/enrolment-tokens", wanted)
    file = token_file(made["token"], made["trust_sha256"])
    if out is not None:
        create_durably(out, file, mode=0o600)
    if as_json:
        shown = {name: value for name, value in made.items() if out is None or name != "token"}
        echo_json({**shown, "file": None if out is None else str(out)})
    elif out is None:
        click.echo(file.decode(), nl=False)
    else:
        say(f"A token for {enforcer_id} is in {shown_path(out)}; it counts once, until {utc(made['expires_ms'])} UTC.")


@enroll.command(short_help="End an enrolment token that was not used.")
@click.argument("token_sha256", metavar="SHA256")
@service_options
@json_option
@with_exit_codes
def revoke(token_sha256: str, url: str, token: str | None, *, as_json: bool) -> None:
    """End the enrolment token with this SHA-256, as `enroll token --json` told it, before anybody uses it."""
    ServiceClient(url, token).request("DELETE", f"/v1/enrolment-tokens/{quote(token_sha256, safe='')}")
    if as_json:
        echo_json({"token_sha256": token_sha256, "revoked": True})
    else:
        say("Nobody can use that token any more.")


@enroll.command(short_help="Make this machine the gateway that a token is for.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--service", "url", envvar="TALLYSTICK_URL", required=True, metavar="URL", help="The service.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="What an administrator handed over.",
)
@click.option("--id", "enforcer_id", required=True, help="The gateway's name in the ledger.")
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="NAME=URL",
    help="An MCP server's endpoint; without any, they are read from DIRECTORY/servers.yaml.",
)
@click.option("--agent", help="A first agent that may call; its token is printed once.")
@click.option("--role", "roles", multiple=True, help="Its roles; may be repeated.")
@click.option("--zone", default="UTC", show_default=True, help="IANA zone in which policies read the hour.")
@json_option
@with_exit_codes
def gateway(
    directory: Path,
    url: str,
    token_file: Path,
    enforcer_id: str,
    servers: tuple[str, ...],
    agent: str | None,
    roles: tuple[str, ...],
    zone: str,
    *,
    as_json: bool,
) -> None:
    """Enrol this machine as the gateway --id, and write its keys and its configuration to DIRECTORY.

    Its private keys are made here and never leave; the service introduces the public one in the log. If anything comes
    in between, the same command goes on where it was.
    """
    from service.cli.joining import Wish, join, read_token_file

    wish = Wish(enforcer_id=enforcer_id, url=url, servers=servers_of(servers), agent=agent, roles=roles, zone=zone)
    done = join(directory, wish, read_token_file(token_file), passphrase=passphrase())
    if as_json:
        echo_json(
            {
                "enforcer_id": enforcer_id,
                "leaf_index": done.leaf_index,
                "config": str(done.config),
                "signed_bundles": done.signed_bundles,
                "trust_checked": done.trust_checked,
                "agent": agent,
                "token": done.agent_token,
            }
        )
        return
    say(f"{enforcer_id} is enrolled at leaf {done.leaf_index}.")
    if not servers:
        say(f"Servers: list them in {shown_path(done.config.with_name('servers.yaml'))}, see docs/enforcement.md")
    say(f"Run it:  {program()} gateway --config {shown_path(done.config)}")
    if done.agent_token is not None:
        say(f"         Authorization: Bearer {done.agent_token}   (shown once: the token of {agent})")
    if not done.signed_bundles:
        say("It takes up bundles that nobody signed, for the service demands no signatures.")
    if not done.trust_checked:
        say("The token's file names no keys to trust: nothing but the connection says that this is your service.")
        trust = shown_path(done.config.with_name("trust.policy"))
        say(f"Acknowledgements are therefore believed unproven; compare {trust} with your own, and set service.trust.")
