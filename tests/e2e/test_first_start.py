"""The first start of docs/operations.md, line by line as it stands there, with the bundle of docs/policies.md.

Only places are others: keys and data below a temporary folder, a free port, the revision that was printed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import PROGRAM, Started, answering, clean_environment
from tests.support.repository import ROOT

pytestmark = pytest.mark.slow

SECTION = (ROOT / "docs" / "operations.md").read_text().partition("## First start")[2].partition("\n## ")[0]
BEFORE, AFTER = re.findall(r"(?:^    .*\n)+", SECTION, re.MULTILINE)
POLICIES = (ROOT / "docs" / "policies.md").read_text()


def write_documented_bundle(folder: Path) -> None:
    for path, text in re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", POLICIES, re.MULTILINE | re.DOTALL):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def shell(script: str, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd=cwd,
        env=clean_environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_first_start_is_what_the_document_says(tmp_path):
    keys = tmp_path / "keys"
    before, after = (block.replace("/etc/tallystick/keys", str(keys)) for block in (BEFORE, AFTER))
    export = re.search(r"TALLYSTICK_ORIGIN=(\S+)", before)
    assert export is not None
    variables = {
        "TALLYSTICK_DATA_DIR": str(tmp_path / "data"),
        "TALLYSTICK_KEYS_DIR": str(keys),
        "PATH": f"{PROGRAM.parent}:/usr/bin:/bin",
    }
    *made, serve = before.splitlines()
    assert "keys are in" in shell("\n".join(made), tmp_path, **variables)
    assert (keys / "trust.policy").is_file()
    write_documented_bundle(tmp_path / "my-bundle")
    variables["TALLYSTICK_ORIGIN"] = export[1]
    command = serve.partition("#")[0].split()
    started = Started([str(shutil.which(command[0], path=variables["PATH"])), *command[1:], "--listen", "127.0.0.1:0"],
                      cwd=tmp_path, variables=variables)  # fmt: skip
    with answering(started, "serving") as served:
        assert "no passphrase" in started.text
        variables["TALLYSTICK_URL"] = served.url
        revision = shell("tallystick policy revision ./my-bundle", tmp_path, **variables).strip()
        told = shell(re.sub(r"\bREVISION\b", revision, after), tmp_path, **variables)
    assert f"published refunds {revision}" in told
    assert f"active: {revision}" in told
    assert "gateway-1 is introduced at leaf" in told
    assert (tmp_path / "gw" / "gateway.yaml").is_file()
