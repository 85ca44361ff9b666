"""The second verifier as one file: what it needs, what it says, how it ends.

That it names every attack that the program's own verifier names is held by the other tests here: they verify by both
(`tests.support.verifiers`).
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from evidence.standalone_file import verify_py
from ledger.canonical import sha256
from tests.support.packs import write_files
from tests.unit.evidence.conftest import MadePack

SOURCES = sorted((Path(__file__).parents[3] / "evidence" / "standalone").glob("*.py"))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("auditor") / "verify.py"
    path.write_bytes(verify_py())
    return path


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the file as an auditor does who has Python and nothing else: no site packages, an empty environment."""
    command = [sys.executable, "-I", "-S", str(program), *arguments]
    return subprocess.run(command, env={}, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def files(made: MadePack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handed-over")
    (folder / "pack.zip").write_bytes(made.data)
    (folder / "trust.policy").write_text(made.log.trust.encode())
    (folder / "kept.txt").write_bytes(made.files["checkpoints/end.txt"])
    return folder


def test_a_genuine_pack_is_proven_with_pythons_own_library_alone(program, files):
    done = run(program, str(files / "pack.zip"), "--trust", str(files / "trust.policy"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "PROVEN, and SIMULATED: evidence of nothing real"
    assert "not checked  replay:" in done.stdout


def test_without_a_policy_from_outside_the_pack_is_self_asserted(program, files):
    done = run(program, str(files / "pack.zip"))
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1].startswith("SELF-ASSERTED")


def test_a_kept_checkpoint_is_compared(program, files):
    trust = ("--trust", str(files / "trust.policy"))
    done = run(program, str(files / "pack.zip"), *trust, "--known", str(files / "kept.txt"))
    assert done.returncode == 0
    assert "is of one history with this" in done.stdout


def test_json_says_the_same(program, files):
    done = run(program, str(files / "pack.zip"), "--trust", str(files / "trust.policy"), "--json")
    value = json.loads(done.stdout)
    assert (value["status"], value["verdict"]) == (0, "PROVEN, and SIMULATED: evidence of nothing real")
    assert {check["check"] for check in value["checked"]} >= {"entries", "signatures", "derivation"}


@pytest.mark.parametrize("at", [40, 2_000, 20_000, -30])
def test_one_flipped_bit_is_never_proven(program, files, made, tmp_path, at):
    data = bytearray(made.data)
    data[at] ^= 1
    path = tmp_path / "pack.zip"
    path.write_bytes(data)
    assert run(program, str(path), "--trust", str(files / "trust.policy")).returncode in (1, 2, 3)


def test_what_fails_is_named_with_its_file(program, files, made, tmp_path):
    counts = json.loads(made.files["population/counts.json"])
    counts["decisions"] += 1
    path = tmp_path / "pack.zip"
    path.write_bytes(write_files({**made.files, "population/counts.json": json.dumps(counts).encode()}))
    done = run(program, str(path), "--trust", str(files / "trust.policy"))
    assert done.returncode == 1
    assert "FAILED       derivation: population/counts.json: it is not what follows from the entries" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [([], 64), (["--no-such-option"], 64), (["a", "b"], 64), (["/no/such/pack.zip"], 4)],
)
def test_wrong_use_is_one_line_and_a_status_of_its_own(program, arguments, status):
    done = run(program, *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"\0" * 1000, b"PK\x03\x04" + b"\xff" * 200], ids=["", "PK", "0", "header"]
)
def test_what_is_no_pack_is_malformed(program, files, tmp_path, data):
    path = tmp_path / "none.zip"
    path.write_bytes(data)
    done = run(program, str(path), "--trust", str(files / "trust.policy"))
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "MALFORMED"


def test_text_from_a_pack_cannot_steer_the_terminal(program, files, tmp_path):
    path = tmp_path / "\x1b[2Jpack.zip"
    path.write_bytes((files / "pack.zip").read_bytes())
    assert "\x1b" not in run(program, str(path)).stdout


def test_nothing_is_imported_but_pythons_own_library():
    modules = set()
    for node in ast.walk(ast.parse(verify_py())):
        if isinstance(node, ast.Import):
            modules.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module))
    assert modules <= sys.stdlib_module_names | {"collections.abc"}
    assert modules.isdisjoint({"socket", "urllib", "http", "subprocess", "os", "ssl", "ctypes", "importlib"})


def test_it_is_python_3_9():
    ast.parse(verify_py(), feature_version=(3, 9))


def test_no_name_is_defined_twice_where_the_modules_are_joined():
    names: Counter[str] = Counter()
    for node in ast.parse(verify_py()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] += 1
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_module_is_in_the_file():
    text = verify_py().decode()
    assert {path.stem for path in SOURCES if path.stem != "__init__"} == {
        line.removeprefix("# --- ") for line in text.splitlines() if line.startswith("# --- ") and " " not in line[6:]
    }


def test_the_file_is_a_function_of_the_sources(program):
    assert sha256(verify_py()) == sha256(program.read_bytes())
