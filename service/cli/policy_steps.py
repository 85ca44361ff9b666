"""The commands of ``tallystick policy`` that take a published bundle through its life."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from service.cli.client import ServiceClient, service_options
from service.cli.options import REVISION
from service.cli.output import counted, echo_json, json_option, say, table, with_exit_codes

__all__ = ["STEPS"]

_REVISION = click.argument("bundle_revision", metavar="REVISION", type=REVISION)
_COMMENT = click.option("--comment", default=None, help="Why; recorded.")


def _tell_stage(answer: Mapping[str, Any]) -> None:
    say(f"{answer['stage']}: {answer['name']} {answer['revision']}")
    run = answer["tests"]
    if run is not None:
        passed = run["cases"] - run["failures"]
        say(f"  {passed} of {run['cases']} cases pass, with {answer['engine']} {run['engine_version']}")
        if run["uncovered_rules"]:
            say(f"  {counted(run['uncovered_rules'], 'rules')} not reached: {', '.join(run['uncovered'])}")
    say(f"  {counted(len(answer['approvals']), 'approvals')} by others than the author")
    if answer["obstacle"] is not None and answer["stage"] != "active":
        say(f"  cannot become active: {answer['obstacle']}")


@click.command(short_help="Approve or reject a bundle of another's.")
@_REVISION
@click.option("--approve/--reject", "approved", default=None, required=True, help="What you say of it.")
@_COMMENT
@service_options
@json_option
@with_exit_codes
def review(
    bundle_revision: str, comment: str | None, url: str, token: str | None, *, approved: bool, as_json: bool
) -> None:
    """Approve or reject the published bundle REVISION; who published it cannot approve it."""
    body = {"verdict": "approved" if approved else "rejected", "comment": comment}
    answer = ServiceClient(url, token).post(f"/v1/bundles/{bundle_revision}/review", body)
    if as_json:
        echo_json(answer)
    else:
        _tell_stage(answer)


@click.command(short_help="Have the service run a bundle's test cases again.")
@_REVISION
@service_options
@json_option
@with_exit_codes
def retest(bundle_revision: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Have the service run the test cases of the published bundle REVISION again, with its engine of now."""
    answer = ServiceClient(url, token).post(f"/v1/bundles/{bundle_revision}/tests")
    if as_json:
        echo_json(answer)
    else:
        _tell_stage(answer)


@click.command(short_help="Make an approved bundle the active one.")
@_REVISION
@_COMMENT
@service_options
@json_option
@with_exit_codes
def activate(bundle_revision: str, comment: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Make the published bundle REVISION the active one; its tests pass, and somebody else has approved it."""
    answer = ServiceClient(url, token).post(f"/v1/bundles/{bundle_revision}/activation", {"comment": comment})
    if as_json:
        echo_json(answer)
    else:
        say(f"active: {answer['active']}")


@click.command(short_help="Go back to the bundle before.")
@_COMMENT
@service_options
@json_option
@with_exit_codes
def rollback(comment: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Make the bundle active again that was so before the present one."""
    answer = ServiceClient(url, token).post("/v1/bundles/rollback", {"comment": comment})
    if as_json:
        echo_json(answer)
    else:
        say(f"active: {answer['active']}")


@click.command(short_help="Keep a bundle from ever becoming active again.")
@_REVISION
@_COMMENT
@service_options
@json_option
@with_exit_codes
def retire(bundle_revision: str, comment: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Keep the published bundle REVISION, which is not active, from ever becoming so again."""
    answer = ServiceClient(url, token).post(f"/v1/bundles/{bundle_revision}/retirement", {"comment": comment})
    if as_json:
        echo_json(answer)
    else:
        _tell_stage(answer)


@click.command(short_help="How far a bundle has come.")
@_REVISION
@service_options
@json_option
@with_exit_codes
def status(bundle_revision: str, url: str, token: str | None, *, as_json: bool) -> None:
    """Say how far the published bundle REVISION has come, what stands in its way, and every recorded step."""
    answer = ServiceClient(url, token).get(f"/v1/bundles/{bundle_revision}/status")
    if as_json:
        echo_json(answer)
        return
    _tell_stage(answer)
    for item in answer["effect"]:
        say(f"  in effect at {item['enforcer_id']} {item['after_ms'] / 1000:.1f} s after its activation")
    rows = [(item["leaf_index"], item["action"], item["actor"], item["actor_role"]) for item in answer["history"]]
    table(("leaf", "step", "by", "role"), rows)


STEPS: Final = (activate, rollback, review, retest, retire, status)
"""The commands of this module, for the group ``policy``."""
