"""``tallystick impact``: what a bundle would have decided over a stretch of history, as a table, JSON or a page."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from ledger.errors import ConfigError, UpstreamError
from service.cli.client import ServiceClient, service_options
from service.cli.options import JOB_ID, SESSION_ID, duration, milliseconds, utc
from service.cli.output import ExitCode, counted, json_option, save_new, say, table, with_exit_codes
from service.cli.records import EFFECTS, bundle_argument

__all__ = ["impact"]

_POLL_SECONDS: Final = 0.5
_UNKNOWN: Final = "unknown"
_SHOWN_IDS: Final = 2
_GROUPS: Final = (("rules", "rule or reason"), ("agents", "agent"), ("tools", "tool"), ("servers", "server"))


@click.command(short_help="Say what a bundle would have decided over a whole period.")
@click.option("--from", "time_from", callback=milliseconds, help="ISO 8601; decisions at or after.")
@click.option("--to", "time_to", callback=milliseconds, help="ISO 8601; decisions before.")
@click.option("--agent", help="Only decisions about this agent.")
@click.option("--server", help="Only about this MCP server.")
@click.option("--tool", help="Only about this tool, or what else the message names.")
@click.option(
    "--decision", type=click.Choice([effect.upper() for effect in EFFECTS]), help="Only where policy said so."
)
@click.option("--session", type=SESSION_ID, help="Only of this session.")
@click.option(
    "--bundle", default="recorded", show_default=True, help="recorded, active, a revision, or a bundle's directory."
)
@click.option(
    "--state",
    type=click.Choice(["recorded", "recomputed"]),
    default="recorded",
    show_default=True,
    help="Facts as they were recorded; or counters and windows rebuilt in log order under the bundle.",
)
@click.option(
    "--warm-up",
    callback=duration,
    default="0s",
    show_default=True,
    metavar="TIME",
    help="Evaluate so much before the period as well, such as 24h, to know how sessions stood when it began.",
)
@click.option("--purpose", help="Why; recorded. A bundle's directory needs one: its rules ask what the vault holds.")
@click.option("--job", "job_id", type=JOB_ID, help="Wait for this impact, that was asked for before, instead.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["table", "json", "html"]),
    default="table",
    show_default=True,
    help="How the report is shown.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Save the report here, as json or html.")
@click.option(
    "--list",
    "lines",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save here, as NDJSON, each decision that did not come out exactly as recorded.",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="FROM:TO",
    help="Exit 5 if a decision flips so, e.g. permit:deny; or unknown: if one cannot be made again. May be repeated.",
)
@service_options
@json_option
@with_exit_codes
def impact(
    *,
    url: str,
    token: str | None,
    job_id: str | None,
    shape: str,
    out: Path | None,
    lines: Path | None,
    fail_on: tuple[str, ...],
    as_json: bool,
    **wanted: Any,  # noqa: ANN401  # one for each option that says what is wanted
) -> None:
    """Make every decision of a period again, under the bundles of then or another, and report what came out otherwise.

    The service works on it in the background; whoever interrupts this command finds it again with --job. That it was
    asked for, why, and how many requests were opened for it is on record before anything is shown.
    """
    shape = "json" if as_json else shape
    _check(fail_on, shape, out, [path for path in (out, lines) if path is not None])
    client = ServiceClient(url, token)
    job = client.get(f"/v1/impacts/{job_id}") if job_id else client.post("/v1/impacts", _order(**wanted))
    job = _wait(client, job)
    report = client.get(f"/v1/impacts/{job['job_id']}.json")
    _show(client, job, report, shape, out)
    if lines is not None:
        save_new(lines, client.request("GET", f"/v1/impacts/{job['job_id']}.ndjson").content, "--list")
    if _hit(report, fail_on):
        sys.exit(ExitCode.CONDITION_HIT)


def _check(fail_on: Sequence[str], shape: str, out: Path | None, paths: Sequence[Path]) -> None:
    """Refuse what would only be found out once everything has been read.

    Raises:
        ConfigError: An option makes no sense, or a file is there already.
    """
    for condition in fail_on:
        before, _, after = condition.partition(":")
        if condition != _UNKNOWN and (before not in EFFECTS or after not in EFFECTS or before == after):
            raise ConfigError(f"--fail-on takes unknown, or FROM:TO of {', '.join(EFFECTS)}, not {condition}")
    if out is not None and shape == "table":
        raise ConfigError("a table is printed; --out saves --format json or html")
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} exists; name another file")


def _order(
    *,
    time_from: int | None,
    time_to: int | None,
    bundle: str,
    warm_up: int,
    purpose: str | None,
    **scope: str | None,
) -> dict[str, object]:
    if time_from is None or time_to is None:
        raise ConfigError("a period is needed: --from and --to; or --job")
    body = {
        "from_ms": time_from,
        "to_ms": time_to,
        "warm_up_ms": warm_up,
        "purpose": purpose,
        **scope,
        **bundle_argument(bundle),
    }
    if purpose is None and "archive" in body:
        raise ConfigError("an impact of a proposed bundle needs --purpose, which is recorded")
    return {name: value for name, value in body.items() if value is not None}


def _wait(client: ServiceClient, job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a job once it is done, telling on standard error how far it is."""
    job_id = str(job["job_id"])
    if not JOB_ID.fits(job_id):
        raise UpstreamError("the service's answer names no impact")
    told = None
    click.echo(f"  impact {job_id}", err=True)
    while job["state"] in ("queued", "running"):
        step = f"  {job['done_leaves']} of {job['all_leaves']} leaves …" if job["all_leaves"] else "  waiting …"
        if step != told:
            told = step
            click.echo(step, err=True)
        time.sleep(_POLL_SECONDS)
        job = client.get(f"/v1/impacts/{job_id}")
    if job["state"] != "done":
        raise UpstreamError(f"the impact is {job['state']}: {job['error'] or 'nothing came of it'}")
    return job


def _hit(report: Mapping[str, Any], fail_on: Sequence[str]) -> bool:
    return any(report["unknown"] > 0 if name == _UNKNOWN else name in report["flips"] for name in fail_on)


def _show(
    client: ServiceClient, job: Mapping[str, Any], report: Mapping[str, Any], shape: str, out: Path | None
) -> None:
    if shape == "table":
        _tell(report)
        return
    data = client.request("GET", f"/v1/impacts/{job['job_id']}.{shape}").content
    if out is None:
        click.echo(data.decode())
    else:
        save_new(out, data, "--out")


# --- the table -------------------------------------------------------------------------------------------------------


def _tell(report: Mapping[str, Any]) -> None:
    bundle = "each under its own bundle" if report["bundle"] is None else f"under {report['bundle_name']}"
    say(f"{utc(report['from_ms'])} to {utc(report['to_ms'])} UTC, {bundle}, facts {report['state']}")
    say(
        f"{report['exact']} of {counted(report['decisions'], 'decisions')} made again exactly; "
        f"{report['reproduced']} came out as recorded"
    )
    if report["not_asked"]:
        say(
            f"{counted(report['not_asked'], 'decisions')} of them were the enforcement point's own: no policy was asked"
        )
    say()
    rows = [(name, said["same"], said["different"], said["unknown"]) for name, said in report["classes"].items()]
    table(("class", "same", "different", "no answer"), rows)
    for kind, flips in report["flips"].items():
        say()
        besides = f", {flips['downstream']} of them downstream" if flips["downstream"] else ""
        say(f"{kind}: {counted(flips['count'], 'decisions')}{besides}")
        for member, title in _GROUPS:
            table((title, "flips", "decisions"), [_group(name, group) for name, group in flips[member].items()])
    if not report["flips"]:
        say()
        say("no decision would have had another effect")
    say()
    for sentence in report["left_out"]:
        say(f"left out: {sentence}")


def _group(name: str, group: Mapping[str, Any]) -> tuple[object, ...]:
    ids = group["decisions"][:_SHOWN_IDS]
    more = group["count"] - len(ids)
    return name, group["count"], ", ".join(ids) + (f" and {more} more" if more else "")
