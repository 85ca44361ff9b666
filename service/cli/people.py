"""``tallystick people``: persons' tokens, made on the service's own machine."""

from __future__ import annotations

import click

from service.cli.options import log_id_option
from service.cli.output import echo_json, json_option, say, with_exit_codes
from service.roles import Role

__all__ = ["people"]

_SECONDS_PER_HOUR = 3600
_MAX_HOURS = 24
_PERSONS = (Role.AUDITOR, Role.RESPONDER, Role.APPROVER, Role.ADMIN)


@click.group(short_help="Persons' tokens, made at the console.")
def people() -> None:
    """Persons' tokens on the service's own machine, where nobody else vouches for who they are."""


@people.command(short_help="Make a person's token, on the service's own machine.")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in _PERSONS]),
    required=True,
    help="What the person may do; see docs/guide.md.",
)
@click.option(
    "--hours", type=click.IntRange(1, _MAX_HOURS), default=8, show_default=True, help="How long the token counts."
)
@log_id_option
@json_option
@with_exit_codes
def token(name: str, role: str, hours: int, log_id: str | None, *, as_json: bool) -> None:
    """Make a token for NAME, a person: to approve, review, contain and open payloads takes one.

    For installations without an identity provider. It needs the directory of the log's keys, which seal the token, and
    the passphrase that protects them. Nobody vouches for NAME but you: the log says of whoever uses the token that he
    logged in at the console, and one name is one person.
    """
    from ledger.clock import SystemClock
    from ledger.database import open_engine
    from ledger.errors import ConfigError
    from migrations.schema import require_current
    from service.keyset import load_key_set
    from service.person_tokens import PersonTokens
    from service.persons import CONSOLE, Person
    from service.settings import load_settings, passphrase

    settings = load_settings(log_id=log_id)
    settings.require_database()
    if settings.oidc_issuer and not settings.break_glass:
        raise ConfigError(
            "people log in by the OpenID provider: run `tallystick login`. In need, TALLYSTICK_BREAK_GLASS=true lets "
            "tokens of the console in as well, here and at the service, and each such login is recorded as one"
        )
    method = "break_glass" if settings.oidc_issuer else "console"
    keys = load_key_set(settings.keys_dir, passphrase())
    engine = open_engine(settings.effective_database_url)
    require_current(engine)
    person = Person(issuer=CONSOLE, subject=name, name=name, method=method)
    tokens = PersonTokens(engine, SystemClock(), settings.log_id)
    seed = keys.pseudonym.seed
    issued, caller = tokens.issue(person, Role(role), seed=seed, seconds=hours * _SECONDS_PER_HOUR)
    engine.dispose()
    if as_json:
        echo_json({"name": name, "role": role, "token": issued, "expires_ms": caller.expires_ms, "method": method})
    else:
        say(issued)
