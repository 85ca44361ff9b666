"""``tallystick policy``: publishing and listing bundles; what authors and reviewers do has files of its own."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli.client import ServiceClient, service_options
from service.cli.options import BUNDLE_DIRECTORY
from service.cli.output import echo_json, json_option, say, table, with_exit_codes
from service.cli.policy_canary import canary
from service.cli.policy_explain import explain
from service.cli.policy_generate import generate
from service.cli.policy_library import library
from service.cli.policy_signing import SIGNING
from service.cli.policy_steps import STEPS
from service.cli.policy_testing import test
from service.cli.policy_tools import fmt, lint

__all__ = ["policy"]


@click.group()
def policy() -> None:
    """Policy bundles: test, publish, review, activate, roll back."""


for command in (test, lint, fmt, explain, generate, library, canary, *STEPS, *SIGNING):
    policy.add_command(command)


@policy.command(short_help="Print a bundle's revision.")
@BUNDLE_DIRECTORY
@json_option
@with_exit_codes
def revision(directory: Path, *, as_json: bool) -> None:
    """Print the revision of the bundle in DIRECTORY: its digest."""
    from policies.directories import read_bundle_directory

    found = read_bundle_directory(directory).revision
    if as_json:
        echo_json({"revision": found})
    else:
        say(found)


@policy.command(short_help="Publish a bundle; it is not active yet.")
@BUNDLE_DIRECTORY
@click.option("--signature", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its DSSE envelope.")
@click.option("--commit", default=None, help="DIRECTORY is a git repository: publish what this commit holds.")
@click.option("--path", "folder", default="", help="With --commit: the bundle's folder in the repository.")
@service_options
@json_option
@with_exit_codes
def publish(
    directory: Path,
    signature: Path | None,
    commit: str | None,
    folder: str,
    url: str,
    token: str | None,
    *,
    as_json: bool,
) -> None:
    """Publish the bundle in DIRECTORY; it is checked, tested, kept, recorded, and not yet active.

    With --commit, nothing of the work tree counts: the bundle is read from the objects of that commit, whose id is
    recorded.
    """
    from policies.directories import read_bundle_directory
    from policies.git_bundles import read_bundle_commit

    bundle = read_bundle_directory(directory) if commit is None else read_bundle_commit(directory, commit, folder)
    service = ServiceClient(url, token)
    answer = service.post("/v1/bundles" + (f"?commit={commit}" if commit else ""), content=bundle.archive())
    if signature is not None:
        answer = service.post(f"/v1/bundles/{bundle.revision}/signature", content=signature.read_bytes())
    if as_json:
        echo_json(answer)
    else:
        say(f"published {answer['name']} {answer['revision']}")
        if answer["obstacle"] is not None:
            say(f"  {answer['stage']}; cannot become active: {answer['obstacle']}")


@policy.command("list")
@service_options
@json_option
@with_exit_codes
def list_bundles(url: str, token: str | None, *, as_json: bool) -> None:
    """List published bundles and every recorded step."""
    answer = ServiceClient(url, token).get("/v1/bundles")
    if as_json:
        echo_json(answer)
        return
    say(f"active: {answer['active'] or 'none'}")
    if answer["canary"] is not None:
        say(f"canary: {answer['canary']}")
    table(
        ("leaf", "step", "name", "revision", "by role"),
        [
            (item["leaf_index"], item["action"], item["name"], item["revision"], item["actor_role"])
            for item in answer["history"]
        ],
    )
