"""``tallystick gateway token``: a token for an agent, shown once, and the lines that make a gateway know it."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Any, Final

import click
import yaml
from pydantic import ValidationError

from enforcement.config import PrincipalSettings
from ledger.errors import ConfigError
from service.cli.output import echo_json, json_option, say, with_exit_codes

__all__ = ["token"]

_TOKEN_BYTES: Final = 32
_OPTIONS: Final = {"agent": "--agent", "user": "--user", "roles": "--role", "name": "--name", "not_after": "--until"}


@click.command(short_help="Make a token for an agent; shown once.")
@click.option("--agent", required=True, help="Whom it stands for.")
@click.option("--user", help="On whose behalf the agent acts.")
@click.option("--role", "roles", multiple=True, help="The agent's roles; may be repeated.")
@click.option("--name", help="What the token is called among people.")
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    help="When it ends, in UTC. Left out: never by itself.",
)
@json_option
@with_exit_codes
def token(
    agent: str, user: str | None, roles: tuple[str, ...], name: str | None, until: datetime | None, *, as_json: bool
) -> None:
    """Make a token for an agent, and show it once: the gateway's configuration gets its SHA-256 alone.

    Put the lines that are printed under `principals`, and start the gateway again. See docs/identity.md.
    """
    value = secrets.token_urlsafe(_TOKEN_BYTES)
    principal = _principal(value, agent=agent, user=user, roles=list(roles), name=name, until=until)
    if as_json:
        echo_json({"token": value, "principal": principal})
        return
    say(f"Token of {agent} (shown once): {value}")
    say("Under principals, in the gateway's configuration:")
    click.echo(yaml.safe_dump([principal], sort_keys=False, allow_unicode=True), nl=False)


def _principal(value: str, *, until: datetime | None, **members: object) -> dict[str, Any]:
    """Return the entry of a token.

    Raises:
        ConfigError: Something that was asked for cannot stand in it; a line for each, which names the option.
    """
    given: dict[str, object] = {
        "token_sha256": hashlib.sha256(value.encode()).hexdigest(),
        **members,
        "not_after": None if until is None else until.replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    principal = {name: value for name, value in given.items() if value not in (None, [])}
    try:
        PrincipalSettings.model_validate(principal)
    except ValidationError as error:
        faults = [(_OPTIONS[str(one["loc"][0])], one["msg"].removeprefix("Value error, ")) for one in error.errors()]
        raise ConfigError("\n".join(f"{option}: {message}" for option, message in faults)) from error
    return principal
