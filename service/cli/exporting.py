"""``tallystick export``: decisions for tools that gather security events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import click

from service.cli.client import ServiceClient, service_options
from service.cli.options import milliseconds
from service.cli.output import counted, json_option, with_exit_codes

__all__ = ["export"]

_SEPARATORS: Final = (",", ":")


@click.group(short_help="Export decisions for security tools.")
def export() -> None:
    """Export decisions in a form that security tools read."""


@export.command(short_help="Decisions as OCSF API Activity events.")
@click.option("--from", "time_from", callback=milliseconds, help="ISO 8601; decisions at or after.")
@click.option("--to", "time_to", callback=milliseconds, help="ISO 8601; decisions before.")
@click.option("--after", type=click.IntRange(0), help="Go on behind this leaf: metadata.sequence of the last event.")
@click.option("--follow", is_flag=True, help="Do not end: wait for what comes, until interrupted.")
@click.option(
    "--every",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_default=True,
    help="Seconds between two questions, with --follow.",
)
@service_options
@json_option
@with_exit_codes
def ocsf(
    *,
    url: str,
    token: str | None,
    time_from: int | None,
    time_to: int | None,
    after: int | None,
    follow: bool,
    every: float,
    as_json: bool,  # noqa: ARG001  # one JSON object in each line is the only form that there is
) -> None:
    """Print one OCSF event in each line (class API Activity, 6003), in the order of the log.

    An export that ended, or broke off, goes on with --after and metadata.sequence of the last event that was
    printed. Only what a checkpoint covers is printed. Observed decisions are marked as not enforced.
    """
    client = ServiceClient(url, token)
    printed = 0
    while True:
        for page in _pages(client, after, time_from, time_to):
            after = page["after"]
            for event in page["items"]:
                click.echo(json.dumps(event, separators=_SEPARATORS))
            printed += len(page["items"])
        if not follow:
            break
        time.sleep(every)
    gone_on = "" if after is None else f"; go on with --after {after}"
    click.echo(f"{counted(printed, 'events')}{gone_on}", err=True)


def _pages(
    client: ServiceClient, after: int | None, time_from: int | None, time_to: int | None
) -> Iterator[dict[str, Any]]:
    """Yield what there is by now behind a leaf, page by page."""
    complete = False
    while not complete:
        page = client.get("/v1/exports/ocsf", after=after, time_from_ms=time_from, time_to_ms=time_to)
        yield page
        after, complete = page["after"], page["complete"]
