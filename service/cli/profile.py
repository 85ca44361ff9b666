"""``tallystick profile``: a declared job, checked and told in words before a bundle carries it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from service.cli.output import counted, echo_json, json_option, say, with_exit_codes

if TYPE_CHECKING:
    from policies.job_hours import Span
    from policies.job_profiles import Profile

__all__ = ["profile"]

_MAX_BYTES: Final = 4 << 20
_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_LIMITS: Final = {
    "calls_per_hour": "calls in the last hour",
    "calls_per_day": "calls in a day",
    "targets_per_hour": "different things called about in the last hour",
    "targets_per_day": "different things called about in a day",
}


@click.group(short_help="Declared jobs: what somebody's work needs.")
def profile() -> None:
    """Check and show declared jobs: tools, their order, hours and volumes; see docs/behaviour.md."""


def _read(file: Path) -> Mapping[str, Profile]:
    """Return the jobs of a file by the name of their window: its windows, or one job by itself.

    Raises:
        PolicySyntaxError: It declares none, or one that makes no sense.
    """
    from ledger.errors import MalformedError, PolicySyntaxError
    from policies.window_declarations import declared_jobs

    with file.open("rb") as opened:
        data = opened.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise MalformedError(f"{file} is longer than {_MAX_BYTES} bytes")
    try:
        return declared_jobs(data)
    except PolicySyntaxError as error:
        raise PolicySyntaxError(f"{file}: {error}") from error


@profile.command(short_help="Say whether a file declares jobs that make sense.")
@_FILE
@json_option
@with_exit_codes
def check(file: Path, *, as_json: bool) -> None:
    """Check FILE: the windows.json of a bundle, or one job by itself. Status 2 if a job in it cannot be used."""
    found = _read(file)
    if as_json:
        echo_json({"jobs": sorted(found)})
        return
    say(f"{counted(len(found), 'jobs')}, each of which can be used: {', '.join(sorted(found))}")


@profile.command(short_help="Tell declared jobs in words.")
@_FILE
@json_option
@with_exit_codes
def show(file: Path, *, as_json: bool) -> None:
    """Tell the jobs of FILE: whose they are, with which tools, in which order, when, and how much."""
    import msgspec

    found = _read(file)
    if as_json:
        echo_json({"jobs": msgspec.to_builtins(found)})
        return
    for place, (name, job) in enumerate(found.items()):
        if place:
            say()
        _tell(name, job)


def _tell(name: str, job: Profile) -> None:
    said = [f"the agents {', '.join(job.agents)}"] if job.agents else []
    said += [f"whoever has one of the roles {', '.join(job.roles)}"] if job.roles else []
    say(f"{name}: the work of {' and of '.join(said) or 'everybody'}")
    say(f"tools: {', '.join(job.tools)}")
    say(f"a session begins with: {', '.join(job.first) or 'any of them'}")
    for tool, following in job.next.items():
        say(f"after {tool}: {', '.join(following) or 'nothing more'}")
    if others := [tool for tool in job.tools if tool not in job.next]:
        say(f"after {', '.join(others)}: any of them")
    if job.hours is None:
        say("hours: always")
    else:
        say(f"hours, in {job.hours.zone}: {'; '.join(map(_span, job.hours.spans))}")
        say(f"a gateway whose zone is not {job.hours.zone} finds every call outside")
    if job.at_most is None:
        say("volumes: not limited")
        return
    for member, words in _LIMITS.items():
        if (limit := getattr(job.at_most, member)) is not None:
            say(f"at most {limit:,} {words}")


def _span(span: Span) -> str:
    past = " of the next day" if span.ends < span.begins else ""
    days = " ".join(span.days) or "every day"
    return f"{days} {span.begins} to {span.ends}{past}"
