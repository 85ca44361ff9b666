"""``tallystick verify``: judge a pack, a record, an accusation or a timestamp, offline and without a service."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from evidence.contradictions import verify_accusation
from evidence.timestamps import verify_dated
from evidence.verification import VerificationReport
from evidence.verify import verify_pack, verify_record
from ledger.equivocation import EQUIVOCATION_FORMAT
from ledger.errors import ConfigError, MalformedError
from ledger.notes import KeyId
from ledger.prover import Prover
from ledger.timestamps import TimestampTrust, parse_roots
from ledger.trust import TrustPolicy
from service.auditing import read_trust
from service.cli.options import compromised_option, without_compromised
from service.cli.output import echo_json, json_option, save_new, say, with_exit_codes

__all__ = ["verify"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PDF = b"%PDF-"
_PROOF = b"c2sp.org/tlog-proof@"
_ACCUSATION = EQUIVOCATION_FORMAT.encode()
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")


def _digests(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if _SHA256.fullmatch(value) is None:
            raise click.BadParameter("a SHA-256 is 64 hexadecimal digits")
    return tuple(value.lower() for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What was given beside the file."""

    known: Path | None = None
    log: Path | None = None
    accepted: tuple[str, ...] = ()
    entry: Path | None = None
    equivocation: Path | None = None
    timestamp: Path | None = None
    tsa_roots: Path | None = None
    tsa_policy: str | None = None

    def refuse_beside(self, *allowed: str, about: str) -> None:
        """Refuse options that mean nothing for the file.

        Raises:
            ConfigError: One was given; nobody should believe that it was looked at.
        """
        for field in fields(self):
            if getattr(self, field.name) and field.name not in allowed:
                name = {"accepted": "accept-mapping"}.get(field.name, field.name.replace("_", "-"))
                raise ConfigError(f"--{name} means nothing for {about}")


def _oid(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and _OID.fullmatch(value) is None:
        raise click.BadParameter("an object identifier is numbers with dots, such as 1.3.6.1.4.1.32473.1")
    return value


@click.command(short_help="Verify a pack, record, timestamp or accusation, offline.")
@click.argument("file", type=_FILE)
@click.option("--trust", type=_FILE, help="Trust policy, from outside the file; without it a pack is self-asserted.")
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
@click.option("--entry", type=_FILE, help="FILE is a .tlog-proof; this is the entry that it proves.")
@click.option(
    "--equivocation",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the proof, should --known and the pack show two histories of one log.",
)
@click.option("--timestamp", type=_FILE, help="FILE is a checkpoint; this is the RFC 3161 token (.tsr) that dates it.")
@click.option(
    "--tsa-roots", type=_FILE, help="Root certificates of the time-stamping authority, PEM; never the token's."
)
@click.option("--tsa-policy", callback=_oid, metavar="OID", help="The policy that the token must be made under.")
@compromised_option
@json_option
@with_exit_codes
def verify(
    file: Path,
    trust: Path | None,
    compromised: dict[KeyId, int],
    *,
    as_json: bool,
    **options: Any,  # noqa: ANN401  # click's values
) -> None:
    """Verify an evidence pack, one record by its proof file, a timestamp, or an accusation of equivocation, offline.

    Prints what was checked and what was not. Exit status: 0 all proven, 1 a proof or digest fails, 2 malformed,
    3 valid but the trust is not met or nothing but the pack vouches for it, 4 something could not be checked.
    An accusation ends with 1 if it is proved: the log's keys signed two histories.
    """
    given = _Options(**options)
    report = _judge(file, without_compromised(read_trust(trust) if trust else None, compromised), given)
    if as_json:
        echo_json(report.value())
    else:
        for line in report.lines():
            say(line)
    if given.equivocation is not None and report.equivocation is not None:
        save_new(given.equivocation, report.equivocation, "--equivocation")
    sys.exit(int(report.status))


def _judge(file: Path, trust: TrustPolicy | None, given: _Options) -> VerificationReport:
    with file.open("rb") as opened:
        start = opened.read(len(_ACCUSATION))
    if start == _ACCUSATION:
        given.refuse_beside(about="an accusation")
        if trust is None:
            raise ConfigError("an accusation needs --trust: the keys of the log never come from who accuses it")
        return verify_accusation(file.read_bytes(), trust)
    if given.timestamp is not None:
        return _judge_timestamp(file, trust, given.timestamp, given)
    if given.entry is not None:
        return _judge_record(file, trust, given.entry, given)
    _require_pack(start)
    return _judge_pack(file, trust, given)


def _require_pack(start: bytes) -> None:
    """Refuse the files that lie beside packs and are often taken for them."""
    if start.startswith(_PDF):
        raise MalformedError(
            "this is a report, not a pack: verify the .zip beside it, which vouches for the report too"
        )
    if start.startswith(_PROOF):
        raise ConfigError("this proves one record: give the record's exact bytes with --entry FILE")


def _judge_timestamp(file: Path, trust: TrustPolicy | None, token: Path, given: _Options) -> VerificationReport:
    given.refuse_beside("timestamp", "tsa_roots", "tsa_policy", about="a timestamp")
    if trust is None or given.tsa_roots is None:
        raise ConfigError("--timestamp needs --trust and --tsa-roots: trust never comes from what is verified")
    authority = TimestampTrust(roots=parse_roots(given.tsa_roots.read_bytes()), policy=given.tsa_policy)
    return verify_dated(file.read_bytes(), token.read_bytes(), authority, trust)


def _judge_record(file: Path, trust: TrustPolicy | None, entry: Path, given: _Options) -> VerificationReport:
    given.refuse_beside("entry", about="a proof file")
    if trust is None:
        raise ConfigError("--entry needs --trust: trust never comes from the proof itself")
    data = entry.read_bytes()
    report = verify_record(data, file.read_bytes(), trust)
    if report.status and data.endswith(b"\n"):
        report.notes.append("the entry ends with a line feed, which no entry does: cut it off")
    return report


def _judge_pack(file: Path, trust: TrustPolicy | None, given: _Options) -> VerificationReport:
    given.refuse_beside("known", "log", "accepted", "equivocation", about="a pack")
    prover = None
    if given.log is not None:
        from service.wiring.places import directory_tiles

        prover = Prover(directory_tiles(given.log.resolve().parent), given.log.resolve().name)
    return verify_pack(
        file,
        trust=trust,
        known=given.known.read_bytes() if given.known else None,
        log=prover,
        accepted_mappings=given.accepted,
    )
