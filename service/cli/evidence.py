"""``tallystick evidence``: ask a service for packs, or write the verifier that auditors run without us."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from ledger.errors import ConfigError, StateError, UpstreamError
from ledger.legible import legible_text
from service.cli.client import ServiceClient, service_options
from service.cli.options import JOB_ID, milliseconds, utc
from service.cli.output import echo_json, json_option, say, table, with_exit_codes

__all__ = ["evidence"]

_POLL_SECONDS = 0.5
_FILES: Final = ("pdf", "zip")


@click.group()
def evidence() -> None:
    """Evidence packs of a running service: build, list, download."""


@evidence.command(short_help="Write the verifier that needs nothing of ours.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("verify.py"), help="Where to write it."
)
@json_option
@with_exit_codes
def verifier(out: Path, *, as_json: bool) -> None:
    """Write verify.py: one file that verifies packs with Python's own library alone, 3.9 or newer.

    Publish it, and the SHA-256 that is printed, where auditors find it, and not in the packs that it is to judge.
    """
    from evidence.standalone_file import verify_py  # the other commands need not put it together

    if out.exists():
        raise ConfigError(f"{out} exists; name another file with --out")
    data = verify_py()
    out.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    if as_json:
        echo_json({"file": str(out), "bytes": len(data), "sha256": digest})
    else:
        say(f"{digest}  {out}")


def _download(client: ServiceClient, job_id: str, out: Path, *, as_json: bool) -> None:
    """Save pack and report, over no other file.

    An auditor need not trust the service: neither where files are saved nor what is asked for is for it to say.
    """
    paths = {suffix: out / f"{job_id}.{suffix}" for suffix in _FILES}
    present = [path for path in paths.values() if path.exists()]
    if present:
        raise ConfigError(f"{present[0]} exists; name another directory with --out")
    out.mkdir(parents=True, exist_ok=True)
    for suffix, path in paths.items():
        path.write_bytes(client.request("GET", f"/v1/evidence-packs/{job_id}.{suffix}").content)
        if not as_json:
            say(f"{path}")
    if as_json:
        echo_json({"job_id": job_id, "files": {suffix: str(path) for suffix, path in paths.items()}})


@evidence.command(short_help="Have a pack made, and save it.")
@click.option("--from", "from_ms", callback=milliseconds, required=True, help="ISO 8601; start of the period.")
@click.option("--to", "to_ms", callback=milliseconds, required=True, help="ISO 8601; its end, exclusive.")
@click.option("--framework", "frameworks", multiple=True, help="May be repeated; all if left out.")
@click.option("--title", default="Evidence pack", show_default=True, help="What the report calls itself.")
@click.option("--zone", default="UTC", show_default=True, help="IANA zone of the report's times.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Where to save it.")
@service_options
@json_option
@with_exit_codes
def build(
    from_ms: int,
    to_ms: int,
    frameworks: tuple[str, ...],
    title: str,
    zone: str,
    out: Path,
    url: str,
    token: str | None,
    *,
    as_json: bool,
) -> None:
    """Have a pack made for a period, wait for it, and save pack and report."""
    client = ServiceClient(url, token)
    wanted = {"from_ms": from_ms, "to_ms": to_ms, "frameworks": list(frameworks), "title": title, "zone": zone}
    job = client.post("/v1/evidence-packs", wanted)
    job_id = _job_id(job)
    step = ""
    while job["state"] in ("queued", "running"):
        if job["step"] != step:
            step = job["step"]
            click.echo(f"  {legible_text(str(step))} …", err=True)
        time.sleep(_POLL_SECONDS)
        job = client.get(f"/v1/evidence-packs/{job_id}")
    if job["state"] != "done":
        raise UpstreamError(f"the pack was not made: {job['error']}")
    _download(client, job_id, out, as_json=as_json)


def _job_id(job: Mapping[str, Any]) -> str:
    job_id = str(job["job_id"])
    if not JOB_ID.fits(job_id):
        raise UpstreamError("the service's answer names no evidence pack")
    return job_id


@evidence.command("list")
@service_options
@json_option
@with_exit_codes
def list_packs(url: str, token: str | None, *, as_json: bool) -> None:
    """List packs, newest first."""
    answer = ServiceClient(url, token).get("/v1/evidence-packs")
    if as_json:
        echo_json(answer)
        return
    table(
        ("job", "asked for (UTC)", "state", "leaves", "digest of the pack"),
        [
            (
                job["job_id"],
                utc(job["created_ms"]),
                job["error"] or job["state"],
                job["tree_size"] or "",
                job["zip_sha256"] or "",
            )
            for job in answer["items"]
        ],
    )


@evidence.command(short_help="Save a pack that was made.")
@click.argument("job_id", type=JOB_ID)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Where to save it.")
@service_options
@json_option
@with_exit_codes
def download(job_id: str, out: Path, url: str, token: str | None, *, as_json: bool) -> None:
    """Save pack and report of the job JOB_ID; the delivery is recorded."""
    client = ServiceClient(url, token)
    job = client.get(f"/v1/evidence-packs/{job_id}")
    if job["state"] != "done":
        raise StateError(f"the pack is {job['state']}")
    _download(client, job_id, out, as_json=as_json)
