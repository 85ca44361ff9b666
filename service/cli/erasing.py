"""``tallystick erase``, ``hold``, ``expire``, ``prune``: what an administrator asks about how long things stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from ledger.errors import ConfigError
from service.cli.client import ServiceClient, service_options
from service.cli.options import HOLD_ID, SESSION_ID, Spelt, milliseconds, utc
from service.cli.output import counted, echo_json, json_option, say, table, with_exit_codes

__all__ = ["erase", "expire", "hold", "prune"]

_PSEUDONYM: Final = Spelt("pseudonym", "[0-9a-f]{32}", "32 hexadecimal digits in lower case, as records have it")


def _named(subject: str | None, pseudonym: str | None) -> dict[str, str]:
    if subject is not None and pseudonym is not None:
        raise ConfigError("give --subject or --pseudonym, not both")
    if subject is not None:
        return {"user": subject}
    return {} if pseudonym is None else {"pseudonym": pseudonym}


@click.command(short_help="Erase a subject's payloads.")
@click.option("--subject", help="The user's name; the service seeks its pseudonym, and records no name.")
@click.option("--pseudonym", type=_PSEUDONYM, help="Instead: a user or session as records have it.")
@click.option("--basis", required=True, help="The request or rule, without the subject's name; recorded in the vault.")
@click.option("--yes", is_flag=True, help="Do not ask: it cannot be undone.")
@service_options
@json_option
@with_exit_codes
def erase(
    subject: str | None, pseudonym: str | None, basis: str, url: str, token: str | None, *, yes: bool, as_json: bool
) -> None:
    """Make every payload about a subject unreadable for ever; records, proofs and audits stay as they are.

    Refused while a legal hold covers the subject. Lists who has seen payloads before: an erasure reaches no copies.
    """
    who = _named(subject, pseudonym)
    if not who:
        raise ConfigError("name the subject: --subject or --pseudonym")
    client = ServiceClient(url, token)
    if not yes:
        click.confirm("The payloads about this subject will be unreadable for ever. Go on?", abort=True, err=True)
    done = client.post("/v1/erasures", {**who, "basis": basis})
    if as_json:
        echo_json(done)
        return
    say(f"{counted(done['payloads'], 'payloads')} cannot be read any more.")
    for item in done["items"]:
        told = f"ordered by leaf {item['ordered_leaf']}, tombstone at leaf {item['tombstone_leaf']}"
        say(f"  of subject {item['subject']}: {counted(item['payloads'], 'payloads')}, {told}")
    for pack in done["packs"]:
        _tell_pack(pack)
    for opening in done["openings"]:
        say(f"  opened before: record {opening['record_id']} by {opening['actor']}, {utc(opening['time_ms'])}")
    for made in done["replays"]:
        under = f"bundle {made['bundle_revision'][:12]}" if made["bundle_revision"] else "the bundles of then"
        told = f"made again under {under} for {made['actor']}, {utc(made['time_ms'])}"
        say(f"  at most {counted(made['records'], 'requests')} {told}")
    if not done["packs"] and not done["openings"] and not done["replays"]:
        say("  no pack was made of them and nobody opened one, as far as the log knows")


def _tell_pack(pack: Mapping[str, Any]) -> None:
    records = counted(pack["records"], "decisions")
    say(f"  pack {pack['pack_id']} (job {pack['job_id']}) was made of {records}, asked for by {pack['requested_by']}")
    for delivery in pack["deliveries"]:
        say(f"    {delivery['what']} delivered to {delivery['actor']}, {utc(delivery['time_ms'])}")


@click.group(short_help="Legal holds: place, list, release.")
def hold() -> None:
    """Legal holds: what they cover is neither erased nor expires. A release takes two people."""


@hold.command(short_help="Place a hold.")
@click.option("--subject", help="The user's name; the service seeks its pseudonym.")
@click.option("--pseudonym", type=_PSEUDONYM, help="Instead: a user as records have it.")
@click.option("--session", type=SESSION_ID, help="Payloads of this session.")
@click.option("--from", "time_from", callback=milliseconds, help="ISO 8601; payloads of records at or after.")
@click.option("--to", "time_to", callback=milliseconds, help="ISO 8601; payloads of records before.")
@click.option("--reason", required=True, help="The matter; recorded in the vault.")
@service_options
@json_option
@with_exit_codes
def place(
    subject: str | None,
    pseudonym: str | None,
    session: str | None,
    time_from: int | None,
    time_to: int | None,
    reason: str,
    url: str,
    token: str | None,
    *,
    as_json: bool,
) -> None:
    """Hold payloads about a subject, of a session or a period; of several options, all must fit."""
    scope = {**_named(subject, pseudonym), "session": session, "from_ms": time_from, "to_ms": time_to}
    given = {name: value for name, value in scope.items() if value is not None}
    if not given:
        raise ConfigError("say what to hold: --subject, --pseudonym, --session, --from or --to")
    done = ServiceClient(url, token).post("/v1/holds", {**given, "reason": reason})
    if as_json:
        echo_json(done)
        return
    say(f"hold {done['hold_id']} is in force, leaf {done['placed_leaf']}")


@hold.command("list", short_help="Show the holds in force.")
@service_options
@json_option
@with_exit_codes
def list_holds(url: str, token: str | None, *, as_json: bool) -> None:
    """Show the holds in force, as the log's own records say."""
    found = ServiceClient(url, token).get("/v1/holds")
    if as_json:
        echo_json(found)
        return
    rows = [
        (item["hold_id"], utc(item["placed_ms"]), _scope(item), item["release_requested_by"] or "")
        for item in found["items"]
    ]
    table(("hold", "placed", "covers", "release asked for by"), rows)


def _scope(item: Mapping[str, Any]) -> str:
    told = [f"{name} {item[name]}" for name in ("subject", "session") if item[name] is not None]
    told += [f"or {name}" for name in item["also"]]
    told += [
        f"{word} {utc(item[name])}" for word, name in (("from", "from_ms"), ("to", "to_ms")) if item[name] is not None
    ]
    return ", ".join(told)


@hold.command(short_help="Ask for a release, or confirm it.")
@click.argument("hold_id", type=HOLD_ID)
@service_options
@json_option
@with_exit_codes
def release(hold_id: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Ask for the release of the hold HOLD_ID, or confirm it if somebody else has asked: it takes two people."""
    done = ServiceClient(url, token).post(f"/v1/holds/{hold_id}/release")
    if as_json:
        echo_json(done)
    elif done["action"] == "released":
        say(f"hold {hold_id} is released, leaf {done['leaf_index']}")
    else:
        say(f"the release of hold {hold_id} is asked for, leaf {done['leaf_index']}; somebody else confirms it")


@click.command(short_help="Let payloads expire that are past their time.")
@click.option("--dry-run", is_flag=True, help="Only show what would expire.")
@service_options
@json_option
@with_exit_codes
def expire(url: str, token: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Do at once what the service does by itself every hour: shred payloads that are past the retention policy."""
    done = ServiceClient(url, token).post("/v1/expiries", {"dry_run": dry_run})
    if as_json:
        echo_json(done)
        return
    if not done["classes"]:
        say("there is no retention policy: everything is kept (TALLYSTICK_RETENTION)")
        return
    rows = [
        (item["record_type"], item["day"], item["payloads"], item["held"], "held before" if item["was_held"] else "")
        for item in done["items"]
    ]
    table(("type", "day", "payloads", "kept by holds", ""), rows)
    say("nothing was changed" if dry_run else counted(sum(item["payloads"] for item in done["items"]), "payloads"))


@click.command(short_help="Stop serving entries below a leaf index.")
@click.option("--below", type=int, required=True, help="The new minimum index, a multiple of 256.")
@click.option("--dry-run", is_flag=True, help="Only say whether it could be done.")
@service_options
@json_option
@with_exit_codes
def prune(below: int, url: str, token: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Publish a minimum index: entries below it are no longer served. It never moves back; nothing is deleted.

    Refused unless every record below it is past the time that the retention policy states for the log, and while a
    legal hold covers one of them.
    """
    done = ServiceClient(url, token).post("/v1/minimum-index", {"below": below, "dry_run": dry_run})
    if as_json:
        echo_json(done)
    elif dry_run:
        say(f"the minimum index could be moved from {done['before']} to {done['below']}; nothing was changed")
    else:
        say(f"the minimum index is {done['below']}, leaf {done['recorded_leaf']}; it was {done['before']}")
