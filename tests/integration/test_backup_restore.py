"""An embedded installation is copied while it works, put back, and brought forward: by commands, as operators do."""

from __future__ import annotations

import copy
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.commands import Finished, Installation, Served
from tests.support.load import SENDERS, Load, Sender

QUIET = {"AUDIT_INTERVAL_SECONDS": "0"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """An installation whose senders were introduced, and that does not run."""
    installation = Installation(folder=tmp_path_factory.mktemp("first"), more=QUIET)
    installation.make_keys()
    with installation.serve() as served:
        made = Load(installation, installation.token("auditor"))
        made.senders = [Sender(number, pause_seconds=0.05) for number in range(SENDERS)]
        admin = installation.token("admin")
        for sender in made.senders:
            sender.introduce(served.url, admin)
        stop(served)
    return made


@pytest.fixture(scope="module")
def first_copied(first: Load, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Another, whose copy was made to its folder's `copy` in a load that went on afterwards."""
    load = moved(first, tmp_path_factory.mktemp("copied"))
    backed_up_in_load(load, load.installation.folder / "copy")
    return load


def moved(load: Load, folder: Path) -> Load:
    """Copy what does not run to another folder, with all that its senders know."""
    shutil.copytree(load.installation.folder, folder, dirs_exist_ok=True)
    return replace(copy.deepcopy(load), installation=replace(load.installation, folder=folder))


@pytest.fixture
def load(first: Load, tmp_path: Path) -> Load:
    return moved(first, tmp_path)


@pytest.fixture
def copied(first_copied: Load, tmp_path: Path) -> Load:
    return moved(first_copied, tmp_path)


def stop(served: Served) -> None:
    served.started.signal(signal.SIGTERM)
    assert served.started.wait() == 0


def append(load: Load, served: Served, count: int) -> None:
    wanted = load.count() + count
    load.append(served.url, lambda: load.count() >= wanted, lambda: None)
    load.check(served.url)


def backed_up_in_load(load: Load, target: Path) -> None:
    """Copy the installation while records are appended, and append more afterwards."""
    with load.installation.serve() as served:
        append(load, served, 40)
        wanted = load.count() + 20
        load.append(served.url, lambda: load.count() >= wanted, lambda: load.installation.do("backup", target))
        append(load, served, 40)
        stop(served)


def test_a_copy_that_was_made_in_a_load_is_a_whole_log_by_itself(copied: Load, tmp_path: Path) -> None:
    elsewhere = Installation(
        folder=tmp_path, more={**QUIET, "DATA_DIR": str(tmp_path / "other"), "KEYS_DIR": str(tmp_path / "keys")}
    )
    elsewhere.do("restore", tmp_path / "copy")
    report = elsewhere.do_json("audit")
    assert report["findings"] == []
    assert 40 <= report["size"] < copied.count() + 100
    with elsewhere.serve() as served:
        stop(served)
    assert elsewhere.do_json("audit")["size"] > report["size"]


def test_an_old_copy_publishes_nothing_beside_the_anchor_that_knows_more(copied: Load, tmp_path: Path) -> None:
    data = copied.installation.folder / "data"
    for gone in (data / "logs", data / "packs"):
        shutil.rmtree(gone, ignore_errors=True)
    for file in data.glob("ledger.db*"):
        file.unlink()
    copied.installation.do("restore", tmp_path / "copy")
    before = (data / "logs" / copied.installation.log_id / "checkpoint").read_bytes()
    with copied.installation.start() as started:
        assert started.wait() == 1
        assert "the log was shown with" in started.text
    assert (data / "logs" / copied.installation.log_id / "checkpoint").read_bytes() == before
    assert copied.installation.run("rebuild", "--forward").status == 1, "what was lost stands nowhere"


def test_a_database_from_a_copy_is_brought_forward_to_the_log_that_was_shown(copied: Load, tmp_path: Path) -> None:
    data = copied.installation.folder / "data"
    for file in data.glob("ledger.db*"):
        file.unlink()
    copied.installation.do("restore", tmp_path / "copy", "--database-only")
    with copied.installation.start() as started:
        assert started.wait() == 1
    assert copied.installation.run("rebuild", "--dry-run").status == 1
    assert copied.installation.run("rebuild").status != 0
    report = copied.installation.do_json("rebuild", "--forward")
    assert report["written"]
    assert report["forward_from"] is not None
    assert report["lost_payloads"] > 0
    with copied.installation.serve() as served:
        # All that was ever acknowledged is provable, and it goes on.
        copied.check(served.url)
        append(copied, served, 20)
        copied.check_history(copied.check(served.url))
        stop(served)
    found = copied.installation.run("audit", "--json")
    assert '"action":"rebuild"' in entries(copied)
    assert found.status == 1, "the payloads that went with the database are missed"
    audited = copied.installation.do_json("audit", "--depth", "records")
    assert audited["findings"] == []


def entries(load: Load) -> str:
    head = load.trust.verify(load.checkpoints[-1]).head
    return b"".join(load.prover.entries(0, head.size, head.size)).decode()


def test_a_rebuild_is_refused_while_the_service_runs(load: Load) -> None:
    tile = load.installation.folder / "data" / "logs" / load.installation.log_id / "tile" / "0" / "000.p"
    with load.installation.serve() as served:
        append(load, served, 5)
        shutil.rmtree(tile)
        assert load.installation.run("rebuild", "--dry-run").status == 1
        refused: list[Finished] = []
        # While it is at work: after its last checkpoint a service leads for some seconds, and no longer.
        more = load.count() + 5
        load.append(served.url, lambda: load.count() >= more, lambda: refused.append(load.installation.run("rebuild")))
        assert refused[0].status != 0
        assert "a service is running" in refused[0].errors
        served.started.signal(signal.SIGKILL)
        served.started.wait()


@pytest.mark.parametrize("damage", ["flipped", "gone", "added", "manifest"])
def test_a_copy_that_was_changed_is_not_put_back(load: Load, tmp_path: Path, damage: str) -> None:
    load.installation.do("backup", tmp_path / "copy")
    database = tmp_path / "copy" / "ledger.db"
    if damage == "flipped":
        database.write_bytes(database.read_bytes()[:-1] + b"\x01")
    elif damage == "gone":
        next((tmp_path / "copy" / "logs").rglob("checkpoint")).unlink()
    elif damage == "added":
        (tmp_path / "copy" / "more").write_text("x")
    else:
        (tmp_path / "copy" / "manifest.json").write_text("{}")
    shutil.rmtree(load.installation.folder / "data")
    assert load.installation.run("restore", tmp_path / "copy").status in {1, 2}
    assert not (load.installation.folder / "data" / "ledger.db").exists()


def test_nothing_that_stands_is_overwritten(load: Load, tmp_path: Path) -> None:
    load.installation.do("backup", tmp_path / "copy")
    assert "exists" in load.installation.run("backup", tmp_path / "copy").errors
    assert "exists" in load.installation.run("restore", tmp_path / "copy").errors


def test_a_copy_holds_no_key(load: Load, tmp_path: Path) -> None:
    load.installation.do("backup", tmp_path / "copy")
    names = {path.name for path in (tmp_path / "copy").rglob("*")}
    assert "manifest.json" in names
    assert not names & {path.name for path in (load.installation.folder / "keys").iterdir()}
