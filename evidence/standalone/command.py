"""The command: ``python verify.py PACK.zip --trust TRUST_POLICY``.

Standard library only. It reads the files that it is given, writes to the standard output, and does nothing else.
"""

from __future__ import annotations

import argparse
import json
import mmap
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from evidence.standalone.checks import verify_pack
from evidence.standalone.established import Report

__all__ = ["main"]

_USAGE = 64
_NOT_READ = 4


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"{self.prog}: {message}\n")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _lines(name: str, report: Report) -> list[str]:
    lines = [f"evidence pack {name}", ""]
    lines += [f"held         {check}: {told}" for check, told in report.checked]
    lines += [f"not checked  {told}" for told in report.not_checked]
    lines += [f"note         {told}" for told in report.notes]
    lines += [f"FAILED       {check}: {file}: {told}" for check, file, told, _ in report.failures]
    return [_printable(line) for line in [*lines, "", report.verdict]]


def _as_json(name: str, report: Report) -> str:
    names = ("check", "file", "reason", "status")
    value = {
        "subject": f"evidence pack {name}",
        "status": report.status,
        "verdict": report.verdict,
        "checked": [{"check": check, "detail": told} for check, told in report.checked],
        "not_checked": report.not_checked,
        "notes": report.notes,
        "failures": [dict(zip(names, one)) for one in report.failures],  # Python 3.9
    }
    return json.dumps(value, indent=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a pack, print what came of it, and return the exit status.

    0 all proven; 1 a proof or digest fails; 2 malformed; 3 valid, but the trust is not met; 4 something could not be
    checked; 64 wrong use.
    """
    parser = _Parser(prog="verify.py", description="Verifies an evidence pack, offline, with Python's own library.")
    parser.add_argument("pack", type=Path, help="the pack, a ZIP file")
    parser.add_argument("--trust", type=Path, help="the log's trust policy, from elsewhere than the pack")
    parser.add_argument("--known", type=Path, help="a checkpoint of the log that you kept")
    parser.add_argument("--accept-mapping", action="append", default=[], metavar="SHA256", help="see docs/evidence.md")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args(arguments)
    try:
        trust = None if chosen.trust is None else chosen.trust.read_bytes()
        known = None if chosen.known is None else chosen.known.read_bytes()
        with chosen.pack.open("rb") as file:
            empty = not file.read(1)
            data = memoryview(b"") if empty else memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        sys.stderr.write(f"verify.py: {_printable(str(error))}\n")
        return _NOT_READ
    report = verify_pack(data, trust=trust, known=known, accepted=chosen.accept_mapping)
    told = _as_json(chosen.pack.name, report) if chosen.json else "\n".join(_lines(chosen.pack.name, report))
    sys.stdout.write(told + "\n")
    return report.status
