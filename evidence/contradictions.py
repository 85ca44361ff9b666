"""Two histories of one log, met while verifying: the self-contained proof of them, made of what is at hand.

Pure. What such a file proves and what not is said in `ledger.equivocation`. Here a pack's own entries, or a copy of the
log, stand for the larger tree; and a file that somebody brings is judged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from evidence.verification import Status, VerificationReport
from ledger.equivocation import PrefixEvidence, parse_equivocation, prove_equivocation, verify_equivocation
from ledger.errors import LedgerError, SignatureUncheckedError, SplitViewError, TrustPolicyError
from ledger.merkle import CompactRange, LeafHash, hash_leaf, subtree_root
from ledger.proofs import consistency_nodes, fold_nodes, range_nodes
from ledger.prover import Prover
from ledger.trust import TrustPolicy

__all__ = ["contradiction", "evidence_from_entries", "verify_accusation"]

_VERDICT: Final = "TWO HISTORIES: the log's keys signed two trees that no one log can both have had"


def evidence_from_entries(before: CompactRange, entries: Iterable[bytes], size: int, tree_size: int) -> PrefixEvidence:
    """Return how a tree begins, from its entries.

    Args:
        before: The tree before the first entry; at most ``size`` leaves.
        entries: From there to the end of the tree.
        size: How many first leaves the evidence is about.
        tree_size: Leaves of the whole tree.
    """
    beginning = before.copy()
    rest: list[LeafHash] = []
    for entry in entries:
        leaf = hash_leaf(entry)
        if beginning.size < size:
            beginning.append(leaf)
        else:
            rest.append(leaf)
    known = dict(zip(range_nodes(0, size), beginning.hashes, strict=True))

    def node(level: int, index: int) -> bytes:
        # Left of the border, a consistency proof names perfect subtrees that the beginning itself consists of.
        if (level, index) in known:
            return known[level, index]
        start = (index << level) - size
        return subtree_root(rest[start : start + (1 << level)])

    path = tuple(fold_nodes([node(*item) for item in group]) for group in consistency_nodes(size, tree_size))
    return PrefixEvidence(root=beginning.root(), path=path)


def contradiction(
    one: bytes, other: bytes, policy: TrustPolicy, *, evidence: PrefixEvidence | None = None, log: Prover | None = None
) -> bytes | None:
    """Return the file that proves two checkpoints to contradict each other, or None where what is at hand does not.

    Args:
        one: A signed checkpoint.
        other: Another.
        policy: The log's keys.
        evidence: How the larger tree begins, if that is known.
        log: A copy of the log, which may be that of the larger tree.
    """

    def evidence_of(size: int, tree_size: int) -> PrefixEvidence:
        if evidence is not None:
            return evidence
        if log is None:
            raise SplitViewError("the larger tree is not at hand")
        return log.prefix(size, tree_size)

    try:
        return prove_equivocation(one, other, policy, evidence_of).encode()
    except LedgerError:
        # That the two do not agree has been said; what cannot be proved to others is not claimed.
        return None


def verify_accusation(data: bytes, trust: TrustPolicy) -> VerificationReport:
    """Judge an equivocation file.

    A proved one is the worst finding (status 1). A file that proves nothing is refused, as malformed or as signed by
    others than the log; it is never an acquittal.

    Args:
        data: The file.
        trust: The log's keys, from outside of it.
    """
    report = VerificationReport(subject="an accusation of equivocation")
    try:
        proved = verify_equivocation(parse_equivocation(data), trust)
    except LedgerError as error:
        report.fail("accusation", "the file", f"refused: {error}", _refusal(error))
        return report
    smaller, larger = proved.smaller.head, proved.larger.head
    report.hold("signatures", f"both checkpoints are signed with the keys of {proved.origin}")
    told = (
        f"for {smaller.size} leaves it signed {smaller.root.hex()}; "
        f"the tree of {larger.size} leaves that it signed begins with {proved.prefix.hex()}"
        if smaller.size != larger.size
        else f"for {smaller.size} leaves it signed {smaller.root.hex()} and {larger.root.hex()}"
    )
    report.fail("equivocation", "the file", f"the log's keys signed two histories: {told}")
    report.judgement = _VERDICT
    report.notes.append("which of the two is true, and whether the operator signed both or a thief did, no file says")
    return report


def _refusal(error: LedgerError) -> Status:
    if isinstance(error, SignatureUncheckedError):
        return Status.NOT_CHECKED
    return Status.TRUST_NOT_MET if isinstance(error, TrustPolicyError) else Status.MALFORMED
