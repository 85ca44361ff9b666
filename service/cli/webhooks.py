"""``tallystick webhooks``: who is told what happens in the log."""

from __future__ import annotations

from pathlib import Path

import click

from ledger.errors import NotFoundError
from service.cli.client import ServiceClient, service_options
from service.cli.options import utc
from service.cli.output import ExitCode, counted, echo_json, json_option, say, shown_path, table, with_exit_codes

__all__ = ["webhooks"]


@click.group(short_help="Tell people what happens: add, list, test, remove.")
def webhooks() -> None:
    """Who is told of held calls, kills, quarantines, departures, losses, silence and containment; signed."""


@webhooks.command(short_help="Make the key that messages are signed with.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", default="webhooks", show_default=True, help="Whose key it is.")
@json_option
@with_exit_codes
def key(file: Path, name: str, *, as_json: bool) -> None:
    """Make a key in FILE; TALLYSTICK_WEBHOOK_KEY=file:FILE names it. It serves nothing else."""
    from ledger.clock import SystemClock
    from ledger.envelopes import ED25519
    from ledger.keys import generate_key, save_key
    from service.notification_signing import WEBHOOK_PURPOSE, WebhookSigner
    from service.settings import passphrase

    made = generate_key(WEBHOOK_PURPOSE, ED25519, name, created_ms=SystemClock().now_ms())
    save_key(made, file, passphrase())
    public_key = WebhookSigner(made).public_key
    if as_json:
        echo_json({"file": str(file), "public_key": public_key})
        return
    say(f"the key is in {shown_path(file)}; receivers verify with {public_key}")


@webhooks.command(short_help="Have somebody told.")
@click.argument("receiver", metavar="URL")
@click.option("--event", "events", multiple=True, help="An event, such as call.held; without it, all.")
@click.option("--symmetric", is_flag=True, help="Sign with a shared secret as well (v1).")
@click.option("--internal", is_flag=True, help="It is inside: plain http and private addresses will do.")
@service_options
@json_option
@with_exit_codes
def add(
    receiver: str,
    events: tuple[str, ...],
    url: str,
    token: str | None,
    *,
    symmetric: bool,
    internal: bool,
    as_json: bool,
) -> None:
    """Have the receiver at URL told of what happens from now on."""
    wanted = {"url": receiver, "events": list(events), "symmetric": symmetric, "internal": internal}
    done = ServiceClient(url, token).post("/v1/webhooks", wanted)
    if as_json:
        echo_json(done)
        return
    say(f"webhook {done['id']} is told of {', '.join(done['events'])}")
    say(f"it verifies with {done['public_key']}")
    if done["secret"]:
        say(f"or with {done['secret']}, which is shown this once")


@webhooks.command("list", short_help="Show who is told, and how each stands.")
@service_options
@json_option
@with_exit_codes
def list_webhooks(url: str, token: str | None, *, as_json: bool) -> None:
    """Show the webhooks. Ends with status 4 if one is dead or gone, or records were passed over for it."""
    found = ServiceClient(url, token).get("/v1/webhooks")
    if as_json:
        echo_json(found)
    else:
        rows = [
            (
                one["id"],
                one["url"],
                one["state"].upper() if one["state"] in ("dead", "gone") else one["state"],
                "" if one["delivered_ms"] is None else utc(one["delivered_ms"]),
                one["skipped"] or "",
                one["error"],
            )
            for one in found["items"]
        ]
        table(("id", "url", "state", "taken last (UTC)", "passed over", "error"), rows)
    if any(one["state"] in ("dead", "gone") or one["skipped"] for one in found["items"]):
        click.get_current_context().exit(ExitCode.UNCHECKED)


@webhooks.command(short_help="Show one, and what was last sent to it.")
@click.argument("webhook_id")
@service_options
@json_option
@with_exit_codes
def show(webhook_id: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Show WEBHOOK_ID, what it is told of, and the latest attempts to tell it, the newest first."""
    items = ServiceClient(url, token).get("/v1/webhooks")["items"]
    found = next((one for one in items if one["id"] == webhook_id), None)
    if found is None:
        raise NotFoundError("there is no such webhook")
    if as_json:
        echo_json(found)
        return
    say(f"{found['url']}: {found['state']}, told of {', '.join(found['events'])}")
    if found["failures"]:
        say(f"{counted(found['failures'], 'failures')} in a row; not tried again before {utc(found['next_ms'])} UTC")
    if found["skipped"]:
        say(f"{counted(found['skipped'], 'records')} passed over, for too many waited")
    rows = [
        (
            utc(one["sent_ms"]),
            one["event"],
            one["event_id"],
            "" if one["status"] is None else one["status"],
            one["error"] or "taken",
        )
        for one in reversed(found["recent"])
    ]
    table(("sent (UTC)", "event", "id", "status", "what came of it"), rows)


@webhooks.command(short_help="Try one.")
@click.argument("webhook_id")
@service_options
@json_option
@with_exit_codes
def test(webhook_id: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Send WEBHOOK_ID one event, webhook.test; ends with status 4 if it was not taken."""
    done = ServiceClient(url, token).post(f"/v1/webhooks/{webhook_id}/test")
    if as_json:
        echo_json(done)
    else:
        say("it was taken" if done["taken"] else f"it was not taken: {done['error']}")
    if not done["taken"]:
        click.get_current_context().exit(ExitCode.UNCHECKED)


@webhooks.command(short_help="Tell somebody no more.")
@click.argument("webhook_id")
@service_options
@json_option
@with_exit_codes
def remove(webhook_id: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Send nothing more to WEBHOOK_ID."""
    ServiceClient(url, token).request("DELETE", f"/v1/webhooks/{webhook_id}")
    if as_json:
        echo_json({"id": webhook_id, "removed": True})
        return
    say(f"webhook {webhook_id} is removed")
