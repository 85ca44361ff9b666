"""``tallystick policy canary``: a bundle evaluated beside the active one, and what it would have decided otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ledger.errors import NotFoundError
from service.cli.client import ServiceClient, service_options
from service.cli.options import REVISION
from service.cli.output import echo_json, json_option, say, table, with_exit_codes

__all__ = ["canary"]

_COMMENT = click.option("--comment", default=None, help="Why; recorded.")
_COUNTS = ("compared", "equal", "different", "incomparable", "dropped", "unrecorded")


@click.group(short_help="Evaluate a bundle in shadow.")
def canary() -> None:
    """Have a second bundle evaluated beside the active one; it decides nothing, and differences are recorded."""


@canary.command(short_help="Have a bundle evaluated beside the active one.")
@click.argument("bundle_revision", metavar="REVISION", type=REVISION)
@_COMMENT
@service_options
@json_option
@with_exit_codes
def start(bundle_revision: str, comment: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Make the published bundle REVISION, whose tests pass, the canary; another one ends with this."""
    _tell(ServiceClient(url, token).post(f"/v1/bundles/{bundle_revision}/canary", {"comment": comment}), as_json)


@canary.command(short_help="Have nothing evaluated beside the active bundle.")
@_COMMENT
@service_options
@json_option
@with_exit_codes
def stop(comment: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """End the canary, if there is one."""
    _tell(ServiceClient(url, token).post("/v1/bundles/canary/end", {"comment": comment}), as_json)


def _tell(answer: Mapping[str, Any], as_json: bool) -> None:  # noqa: FBT001  # as the command has it
    if as_json:
        echo_json(answer)
    else:
        say(f"canary: {answer['canary'] or 'none'}")


@canary.command(short_help="What the canary would have decided otherwise.")
@click.argument("bundle_revision", metavar="[REVISION]", type=REVISION, required=False)
@service_options
@json_option
@with_exit_codes
def report(bundle_revision: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Say what gateways recorded of the canary, or of the bundle REVISION while it was one."""
    service = ServiceClient(url, token)
    revision = bundle_revision or service.get("/v1/bundles")["canary"]
    if revision is None:
        raise NotFoundError("there is no canary; name the revision of an earlier one")
    answer = service.get(f"/v1/bundles/{revision}/canary")
    if as_json:
        echo_json(answer)
        return
    say(f"{answer['name']} {answer['revision']}: {'the canary' if answer['running'] else 'not the canary now'}")
    rows = [(item["enforcer_id"], *(item[name] for name in _COUNTS)) for item in answer["enforcers"]]
    table(("enforcer", *_COUNTS), rows)
    for name, flip in answer["flips"].items():
        say(f"{name}: {flip['count']}")
        for decision_id in flip["decisions"]:
            say(f"  {decision_id}")
    if not answer["complete"]:
        say("only the latest records were looked at")
