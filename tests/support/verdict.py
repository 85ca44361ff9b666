"""The question after every fault: was anything lost, moved, changed or forked?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.merkle import hash_leaf
from ledger.ports import PendingEntry
from ledger.proofs import TreeHead, verify_consistency, verify_inclusion
from tests.support.ledger import LOG_ID, EmbeddedLedger


def heads(checkpoints: Iterable[bytes]) -> list[TreeHead]:
    """Return the distinct heads of checkpoints, by size; two of one size are two trees and stay two."""
    claims = {parse_unverified_checkpoint(checkpoint).claim.head for checkpoint in checkpoints}
    return sorted(claims, key=lambda head: head.size)


def check_consistent(ledger: EmbeddedLedger, checkpoints: Iterable[bytes]) -> None:
    """Check that every checkpoint was signed by the log, and that no two of them are inconsistent."""
    checkpoints = list(checkpoints)
    for checkpoint in checkpoints:
        ledger.policy.verify(checkpoint)
    ordered = heads(checkpoints)
    for old, new in itertools.pairwise(ordered):
        verify_consistency(old, new, ledger.prover.consistency(old.size, new.size))


def check_nothing_was_lost(
    ledger: EmbeddedLedger,
    acknowledged: Mapping[str, int],
    written: Iterable[PendingEntry],
    seen: Iterable[bytes] = (),
) -> None:
    """Check a log that was recovered and published.

    Args:
        ledger: Its parts; everything that is sequenced must be published.
        acknowledged: Index by record id, as every caller was ever told.
        written: Every record that was ever sent; all of them have been sent again until acknowledged.
        seen: Checkpoints that anybody saw on the way.
    """
    published = [*ledger.published_checkpoints(), *ledger.exposed_checkpoints(), *ledger.anchored_checkpoints()]
    check_consistent(ledger, [*published, *seen])
    head = ledger.policy.verify(ledger.prover.checkpoint()).head
    assert head.size == ledger.store.sequenced_size(LOG_ID)
    by_id = {entry.record.record_id: entry.entry for entry in written}
    assert set(acknowledged) == set(by_id)
    assert sorted(acknowledged.values()) == list(range(head.size - len(acknowledged), head.size)), (
        "an index was given twice, or never"
    )
    entries = list(ledger.reader.entries(0, head.size))
    for record_id, index in acknowledged.items():
        assert entries[index] == by_id[record_id], "an acknowledged record was changed"
        # All are covered by the root, as the audit below re-derives it; these are proved one by one as well.
        if index % 32 == 0 or index >= head.size - 12:
            verify_inclusion(hash_leaf(entries[index]), index, head, ledger.prover.inclusion(index, head.size))
    report = ledger.audit()
    assert report.findings == []
    assert report.not_checked == []
    assert report.head == head
