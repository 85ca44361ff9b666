"""What an anchored copy is compared with: the tree that the signed checkpoint names, whatever the log's tiles say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.anchor_checks import check_copies
from ledger.anchoring import KeptCopy, Protection
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import RollbackError, RootMismatchError, TrustPolicyError
from ledger.merkle import hash_leaf
from ledger.proofs import TreeHead
from ledger.published_tree import ShownTree
from ledger.records import encode_record
from tests.support.forge import write_bundle, write_log
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, Enforcer, make_key, pending
from tests.unit.ledger.test_own_keys import DECLARED_AT, NEW, OLD, POLICY, PQ, Disowned, event


@pytest.fixture
def ledger(tmp_path: Path):
    with EmbeddedLedger(tmp_path) as opened:
        opened.introduce()
        yield opened


def grow(ledger: EmbeddedLedger, count: int) -> bytes:
    ledger.append(*(pending(ledger.service.record(ledger.service.heartbeat())) for _ in range(count)))
    return ledger.publish()


def found(ledger: EmbeddedLedger) -> list[tuple[str, str]]:
    tree = ShownTree(ledger.tiles, LOG_ID, ledger.policy)
    check = check_copies(ledger.anchor.copies(LOG_ID), ledger.policy, now_ms=NOW_MS, tree=tree)
    return [(drift.kind, drift.place) for drift in check.drift]


def test_a_log_and_its_copies_agree(ledger):
    for count in (1, 8, 300):
        grow(ledger, count)
    assert len(ledger.anchor.sizes(LOG_ID)) == 3
    assert found(ledger) == []


def test_another_history_is_found_though_its_tiles_begin_as_what_was_anchored(ledger):
    grow(ledger, 9)
    (anchored,) = ledger.anchor.sizes(LOG_ID)
    honest = b"".join(ledger.prover.tile_row(0, 0, anchored))
    folder, rewritten = ledger.root / "logs" / LOG_ID, [b"rewritten %d" % leaf for leaf in range(20)]
    write_log(folder, rewritten, ledger.signers, NOW_MS // 1000)
    # The operator shows tiles in which the old leaves stand, under a checkpoint that he signed over others.
    tile = folder / "tile" / "0" / "000.p" / "20"
    tile.write_bytes(honest + b"".join(hash_leaf(entry) for entry in rewritten[anchored:]))
    assert found(ledger) == [("root", f"checkpoint {anchored}")]


def test_a_log_that_grows_while_its_copies_are_read_is_not_accused(ledger):
    grow(ledger, 3)
    tree = ShownTree(ledger.tiles, LOG_ID, ledger.policy)
    grow(ledger, 300)
    check = check_copies(ledger.anchor.copies(LOG_ID), ledger.policy, now_ms=NOW_MS, tree=tree)
    assert (check.copies, check.drift) == (2, [])
    assert tree.head is not None
    assert tree.head.size == check.newest


def test_a_log_that_shows_another_history_from_one_look_to_the_next_is_found(ledger):
    grow(ledger, 3)
    tree = ShownTree(ledger.tiles, LOG_ID, ledger.policy)
    elsewhere = write_log(
        ledger.root / "logs" / LOG_ID, [b"rewritten %d" % leaf for leaf in range(20)], ledger.signers, NOW_MS // 1000
    )
    assert elsewhere == ledger.exposed_checkpoints()[0]
    head = ledger.policy.verify(elsewhere).head
    with pytest.raises(RootMismatchError):
        tree.require_begins_with(head)


def test_a_tree_that_is_not_shown_is_none_of_its_beginnings(ledger):
    grow(ledger, 3)
    tree = ShownTree(ledger.tiles, LOG_ID, ledger.policy)
    with pytest.raises(RollbackError, match="it shows 4 leaves"):
        tree.require_begins_with(TreeHead(size=5, root=b"\0" * 32))


def test_of_a_log_that_shows_nothing_nothing_is_a_beginning(tmp_path):
    with EmbeddedLedger(tmp_path) as empty:
        tree = ShownTree(empty.tiles, LOG_ID, empty.policy)
        assert tree.head is None
        assert tree.keyring().keys == []
        with pytest.raises(RollbackError, match="it shows 0 leaves"):
            tree.require_begins_with(TreeHead(size=1, root=b"\0" * 32))


def test_what_is_shown_must_meet_the_policy(ledger):
    grow(ledger, 3)
    with pytest.raises(TrustPolicyError):
        ShownTree(ledger.tiles, LOG_ID, POLICY)


# --- keys of earlier sizes -------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path):
    with EmbeddedLedger(tmp_path) as ledger:
        yield Disowned(ledger)


def copies(*kept: bytes) -> list[KeptCopy]:
    sizes = [parse_unverified_checkpoint(one).claim.size for one in kept]
    return [
        KeptCopy(size=size, location="a", data=data, protection=Protection(mode="read-only"))
        for size, data in zip(sizes, kept, strict=True)
    ]


def test_a_copy_that_a_key_signed_which_was_disowned_since_is_a_notice_and_no_drift(log):
    kept = [log.kept(3, OLD, PQ), log.kept(DECLARED_AT, OLD, NEW, PQ), log.kept(10, NEW, PQ)]
    tree = ShownTree(log.ledger.tiles, LOG_ID, POLICY)
    check = check_copies(copies(*kept), POLICY, now_ms=NOW_MS, tree=tree)
    assert check.drift == []
    (notice,) = check.notices
    assert notice.startswith("1 copies do not meet the trust policy of today")


def test_a_copy_that_a_disowned_key_signs_after_its_end_is_still_drift(log):
    tree = ShownTree(log.ledger.tiles, LOG_ID, POLICY)
    check = check_copies(copies(log.kept(10, OLD, PQ)), POLICY, now_ms=NOW_MS, tree=tree)
    assert [drift.kind for drift in check.drift] == ["bytes"]


def test_a_key_that_a_bundle_introduces_and_the_tree_does_not_makes_no_copy_good(log):
    stranger = make_key("log", NEW.algorithm, seed=99)
    forger = Enforcer(log.ledger.service.enforcer_id)
    bodies = [forger.introduction(), *(event(key, "created", public=True) for key in (stranger, PQ))]
    forged = [encode_record(forger.record(body)) for body in bodies]
    kept = log.kept(3, stranger, PQ)
    write_bundle(log.ledger.root / "logs" / LOG_ID, [*forged, *log.entries[3:]])
    tree = ShownTree(log.ledger.tiles, LOG_ID, POLICY)
    check = check_copies(copies(kept), POLICY, now_ms=NOW_MS, tree=tree)
    assert [drift.kind for drift in check.drift] == ["bytes"]
