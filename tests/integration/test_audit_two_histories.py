"""An audit that meets two histories of one log writes down the proof, and a stranger judges it by the keys alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.main import cli
from tests.support.forge import write_log
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, pending


class TwoHistories:
    """A log of ten leaves that was rewritten with its own keys, a policy, and a checkpoint from before."""

    def __init__(self, root: Path, *, kept_size: int, rewritten_size: int) -> None:
        with EmbeddedLedger(root) as ledger:
            ledger.introduce()
            writer = ledger.service
            ledger.append(*(pending(writer.record(writer.heartbeat())) for _ in range(kept_size - 1)))
            (root / "kept.checkpoint").write_bytes(ledger.publish())
            (root / "trust.policy").write_text(ledger.policy.encode(), encoding="ascii")
            self.log = root / "logs" / LOG_ID
            rewritten = [b"rewritten %d" % leaf for leaf in range(rewritten_size)]
            write_log(self.log, rewritten, ledger.signers, NOW_MS // 1000)
        self.root = root

    def run(self, *arguments: object) -> Result:
        trust = ("--trust", self.root / "trust.policy")
        return CliRunner().invoke(cli, [str(one) for one in (*arguments, *trust)])

    def audit(self, *more: object) -> Result:
        known = ("--known", self.root / "kept.checkpoint")
        return self.run("audit", "--log", self.log, "--depth", "hashes", *known, *more)


@pytest.mark.parametrize(("kept_size", "rewritten_size"), [(10, 10), (10, 20), (1, 20), (256, 300), (255, 257)])
def test_the_proof_is_written_and_holds_for_who_has_the_keys_alone(tmp_path, kept_size, rewritten_size):
    two = TwoHistories(tmp_path, kept_size=kept_size, rewritten_size=rewritten_size)
    audited = two.audit("--equivocation", tmp_path / "proof.txt")
    assert audited.exit_code == 1
    assert f"the proof is in {tmp_path / 'proof.txt'}" in audited.stdout
    judged = two.run("verify", tmp_path / "proof.txt")
    assert judged.exit_code == 1
    assert "TWO HISTORIES" in judged.stdout


def test_without_a_file_the_audit_says_how_to_get_one_and_no_file_is_replaced(tmp_path):
    two = TwoHistories(tmp_path, kept_size=10, rewritten_size=20)
    assert "--equivocation FILE writes down the proof" in two.audit().stdout
    (tmp_path / "proof.txt").write_text("mine")
    refused = two.audit("--equivocation", tmp_path / "proof.txt")
    assert (refused.exit_code, (tmp_path / "proof.txt").read_text()) == (64, "mine")


def test_damage_that_is_no_second_history_is_accused_of_nothing(tmp_path):
    two = TwoHistories(tmp_path, kept_size=10, rewritten_size=20)
    tile = two.log / "tile" / "0" / "000.p" / "20"
    tile.write_bytes(bytes(len(tile.read_bytes())))
    audited = two.audit("--equivocation", tmp_path / "proof.txt")
    assert audited.exit_code == 1
    assert "TWO HISTORIES" not in audited.stdout
    assert not (tmp_path / "proof.txt").exists()
