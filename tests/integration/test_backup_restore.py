"""An embedded installation is copied while it works, put back, and brought forward: by commands, as operators do."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.support.commands import Finished, Installation, Served
from tests.support.load import Load

QUIET = {"AUDIT_INTERVAL_SECONDS": "0"}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    installation = Installation(folder=tmp_path, more=QUIET)
    installation.make_keys()
    with installation.serve() as served:
        made = Load(installation, installation.token("auditor"))
        admin = installation.token("admin")
        for sender in made.senders:
            sender.introduce(served.url, admin)
        stop(served)
    return made


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


def test_a_copy_that_was_made_in_a_load_is_a_whole_log_by_itself(load: Load, tmp_path: Path) -> None:
    backed_up_in_load(load, tmp_path / "copy")
    elsewhere = Installation(
        folder=tmp_path, more={**QUIET, "DATA_DIR": str(tmp_path / "other"), "KEYS_DIR": str(tmp_path / "keys")}
    )
    elsewhere.do("restore", tmp_path / "copy")
    report = elsewhere.do_json("audit")
    assert report["findings"] == []
    assert 40 <= report["size"] < load.count() + 100
    with elsewhere.serve() as served:
        stop(served)
    assert elsewhere.do_json("audit")["size"] > report["size"]


def test_an_old_copy_publishes_nothing_beside_the_anchor_that_knows_more(load: Load, tmp_path: Path) -> None:
    backed_up_in_load(load, tmp_path / "copy")
    data = load.installation.folder / "data"
    for gone in (data / "logs", data / "packs"):
        shutil.rmtree(gone, ignore_errors=True)
    for file in data.glob("ledger.db*"):
        file.unlink()
    load.installation.do("restore", tmp_path / "copy")
    before = (data / "logs" / load.installation.log_id / "checkpoint").read_bytes()
    with load.installation.start() as started:
        assert started.wait() == 1
        assert "the log was shown with" in started.text
    assert (data / "logs" / load.installation.log_id / "checkpoint").read_bytes() == before
    assert load.installation.run("rebuild", "--forward").status == 1, "what was lost stands nowhere"


def test_a_database_from_a_copy_is_brought_forward_to_the_log_that_was_shown(load: Load, tmp_path: Path) -> None:
    backed_up_in_load(load, tmp_path / "copy")
    data = load.installation.folder / "data"
    for file in data.glob("ledger.db*"):
        file.unlink()
    load.installation.do("restore", tmp_path / "copy", "--database-only")
    with load.installation.start() as started:
        assert started.wait() == 1
    assert load.installation.run("rebuild", "--dry-run").status == 1
    assert load.installation.run("rebuild").status != 0
    report = load.installation.do_json("rebuild", "--forward")
    assert report["written"]
    assert report["forward_from"] is not None
    assert report["lost_payloads"] > 0
    with load.installation.serve() as served:
        # All that was ever acknowledged is provable, and it goes on.
        load.check(served.url)
        append(load, served, 20)
        load.check_history(load.check(served.url))
        stop(served)
    found = load.installation.run("audit", "--json")
    assert '"action":"rebuild"' in entries(load)
    assert found.status == 1, "the payloads that went with the database are missed"
    audited = load.installation.do_json("audit", "--depth", "records")
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
