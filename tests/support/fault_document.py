"""docs/faults.md, made by the tests: the table that the fault tests run, and every case that pytest collects.

    python -m tests.support.fault_document > docs/faults.md

`tests/unit/repo/test_fault_document.py` holds the document equal to what this makes.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

from tests.support.fault_scene import REACHED, Reached
from tests.support.repository import ROOT

FOLDER = "tests/fault"
_CASE = re.compile(r"^(?P<path>\S+\.py)::(?P<test>test_\w+)(?:\[.*\])?$")
_HEAD = """# What was broken, and what held

This page is made by the tests (`python -m tests.support.fault_document`); a test fails if it is not what they run.
Nothing in it is a promise: each line is a test in [tests/fault](../tests/fault), against real parts.

After **every** case the log is opened again, everything is sent again and published, and then must hold:

- the audit is clean, with nothing left unchecked;
- every record that was ever acknowledged stands at the index that was told, is unchanged and provable; no index twice;
- no two checkpoints that anybody ever saw are inconsistent, and none was exposed or anchored that had not won its swap.

## Every write of the ledger

Each write *is lost* (it fails before it persisted), is *kept but reported lost*, or the process is *killed before* or
*after* it: once, twice in a row, one after another, with and without a restart, and the database's also on PostgreSQL.
Real clients meet the same rows on a wire to a real PostgreSQL or S3 server that is cut, or silent until they time out.
How far the newest batch has come at that moment, before anything is repaired:

| write | lost, or killed before it | kept, or killed after it |
|---|---|---|
"""


def _words(state: Reached) -> str:
    steps = ("sequenced", "published", "exposed", "anchored")
    done = [step for step in steps if getattr(state, step)]
    return ", ".join(done) if done else "not taken"


def _table() -> Iterator[str]:
    for write, (lost, kept) in REACHED.items():
        yield f"| {write} | {_words(lost)} | {_words(kept)} |\n"


def collected() -> Counter[tuple[str, str]]:
    """Return how many cases each test of the folder has, as pytest collects them.

    Raises:
        RuntimeError: They cannot be collected.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        FOLDER,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    cases = Counter(
        (match["path"], match["test"]) for line in done.stdout.splitlines() if (match := _CASE.match(line.strip()))
    )
    if done.returncode or not cases:
        raise RuntimeError(f"the fault tests cannot be collected:\n{done.stdout[-2000:]}")
    return cases


def _summary(path: str) -> str:
    """Return the first paragraph of a module's docstring as one line."""
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_bytes())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def _lists(cases: Counter[tuple[str, str]]) -> Iterator[str]:
    for path in sorted({path for path, _ in cases}):
        yield f"\n### {_summary(path)}\n\n[{path}](../{path})\n\n"
        for (_, test), count in sorted(item for item in cases.items() if item[0][0] == path):
            sentence = test.removeprefix("test_").replace("_", " ")
            yield f"- {sentence}{f' ({count} cases)' if count > 1 else ''}\n"


def document() -> str:
    """Return the page."""
    cases = collected()
    lists = "".join(_lists(cases))
    return f"{_HEAD}{''.join(_table())}\n## All {cases.total()} cases\n{lists}"


if __name__ == "__main__":
    sys.stdout.write(document())
