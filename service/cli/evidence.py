"""``tallystick verify``, which needs no service, and ``tallystick evidence``, which asks one for packs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from evidence.verify import verify_pack, verify_record
from ledger.errors import ConfigError, MalformedError, StateError, UpstreamError
from ledger.prover import Prover
from service.cli.audit import read_trust
from service.cli.client import ServiceClient, service_options
from service.cli.options import milliseconds
from service.cli.output import echo_json, json_option, say, table, with_exit_codes

__all__ = ["evidence", "verify"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_POLL_SECONDS = 0.5
_PDF = b"%PDF-"
_PROOF = b"c2sp.org/tlog-proof@"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def _digests(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if _SHA256.fullmatch(value) is None:
            raise click.BadParameter("a SHA-256 is 64 hexadecimal digits")
    return tuple(value.lower() for value in values)


@click.command(short_help="Verify an evidence pack or one record, offline.")
@click.argument("pack", type=_FILE)
@click.option("--trust", type=_FILE, help="Trust policy, from outside the pack; without it the pack is self-asserted.")
@click.option("--known", type=_FILE, help="A checkpoint that you kept: proves that the log only grew since.")
@click.option(
    "--log",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A copy of the log's directory, for a --known that lies outside the pack's range.",
)
@click.option(
    "--accept-mapping",
    "accepted",
    multiple=True,
    metavar="SHA256",
    callback=_digests,
    help="Digest of a control catalogue that differs from the one shipped under its name, and that you have read; may "
    "be repeated.",
)
@click.option("--entry", type=_FILE, help="PACK is a .tlog-proof; this is the entry that it proves.")
@json_option
@with_exit_codes
def verify(
    pack: Path,
    trust: Path | None,
    known: Path | None,
    log: Path | None,
    accepted: tuple[str, ...],
    entry: Path | None,
    *,
    as_json: bool,
) -> None:
    """Verify an evidence pack, or one record by its proof file, offline.

    Prints what was checked and what was not. Exit status: 0 all proven, 1 a proof or digest fails, 2 malformed,
    3 valid but the trust is not met or nothing but the pack vouches for it, 4 something could not be checked.
    """
    _require_pack(pack, is_proof=entry is not None)
    policy = read_trust(trust) if trust else None
    if entry is not None:
        if known is not None or log is not None or accepted:
            raise ConfigError("--known, --log and --accept-mapping are for packs, and mean nothing for a proof file")
        if policy is None:
            raise ConfigError("--entry needs --trust: trust never comes from the proof itself")
        data = entry.read_bytes()
        report = verify_record(data, pack.read_bytes(), policy)
        if report.status and data.endswith(b"\n"):
            report.notes.append("the entry ends with a line feed, which no entry does: cut it off")
    else:
        prover = None
        if log is not None:
            from service.wiring import directory_tiles

            prover = Prover(directory_tiles(log.resolve().parent), log.resolve().name)
        report = verify_pack(
            pack,
            trust=policy,
            known=known.read_bytes() if known else None,
            log=prover,
            accepted_mappings=accepted,
        )
    if as_json:
        echo_json(report.value())
    else:
        for line in report.lines():
            say(line)
    sys.exit(int(report.status))


def _require_pack(path: Path, *, is_proof: bool) -> None:
    """Refuse the two files that lie beside packs and are often taken for them."""
    with path.open("rb") as file:
        start = file.read(len(_PROOF))
    if start.startswith(_PDF):
        raise MalformedError(
            "this is a report, not a pack: verify the .zip beside it, which vouches for the report too"
        )
    if start == _PROOF and not is_proof:
        raise ConfigError("this proves one record: give the record's exact bytes with --entry FILE")


@click.group()
def evidence() -> None:
    """Evidence packs of a running service: build, list, download."""


def _download(client: ServiceClient, job: Mapping[str, Any], out: Path, *, as_json: bool) -> None:
    """Save pack and report, over no other file."""
    paths = {suffix: out / f"{job['job_id']}.{suffix}" for suffix in job["links"]}
    present = [path for path in paths.values() if path.exists()]
    if present:
        raise ConfigError(f"{present[0]} exists; name another directory with --out")
    out.mkdir(parents=True, exist_ok=True)
    for suffix, path in paths.items():
        path.write_bytes(client.request("GET", job["links"][suffix]).content)
        if not as_json:
            say(f"{path}")
    if as_json:
        echo_json({"job_id": job["job_id"], "files": {suffix: str(path) for suffix, path in paths.items()}})


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
    step = ""
    while job["state"] in ("queued", "running"):
        if job["step"] != step:
            step = job["step"]
            click.echo(f"  {step} …", err=True)
        time.sleep(_POLL_SECONDS)
        job = client.get(f"/v1/evidence-packs/{job['job_id']}")
    if job["state"] != "done":
        raise UpstreamError(f"the pack was not made: {job['error']}")
    _download(client, job, out, as_json=as_json)


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
                datetime.fromtimestamp(job["created_ms"] / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M"),
                job["error"] or job["state"],
                job["tree_size"] or "",
                job["zip_sha256"] or "",
            )
            for job in answer["items"]
        ],
    )


@evidence.command(short_help="Save a pack that was made.")
@click.argument("job_id")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Where to save it.")
@service_options
@json_option
@with_exit_codes
def download(job_id: str, out: Path, url: str, token: str | None, *, as_json: bool) -> None:
    """Save pack and report of the job JOB_ID; the delivery is recorded."""
    client = ServiceClient(url, token)
    job = client.get(f"/v1/evidence-packs/{job_id}")
    if not job["links"]:
        raise StateError(f"the pack is {job['state']}")
    _download(client, job, out, as_json=as_json)
