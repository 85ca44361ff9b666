"""The checks of a pack that are about the log: checkpoints, entries, and the auditor's own checkpoint.

Pure. The order of all checks is `verify`'s.
"""

from __future__ import annotations

from typing import Final

from evidence import pack
from evidence.contradictions import contradiction, evidence_from_entries
from evidence.entry_files import read_entries
from evidence.established import Established
from evidence.population import Period, Survey
from evidence.scope import Scope
from evidence.start_range import parse_start_range
from evidence.verification import Status
from ledger.equivocation import PrefixEvidence
from ledger.errors import MalformedError, RootMismatchError, TrustPolicyError, VerificationError
from ledger.merkle import CompactRange
from ledger.proofs import verify_consistency
from ledger.prover import Prover
from ledger.succession import verify_predecessor
from ledger.trust import TrustPolicy, VerifiedCheckpoint, refuse_split_view

__all__ = [
    "check_end",
    "check_known",
    "check_log_keys",
    "check_start",
    "check_succession",
    "compare_known",
    "walk_entries",
]

_MILLISECONDS: Final = 1000
_KNOWN: Final = "the known checkpoint"


def _note_dating(found: Established, end: VerifiedCheckpoint) -> None:
    if end.witnesses:
        found.report.hold("witnesses", f"cosigned by {', '.join(end.witnesses)}")
    else:
        found.report.notes.append("nothing outside the operator's control dates this log: no witness is trusted")


def _check_checkpoint(found: Established, policy: TrustPolicy, path: str, size: int) -> VerifiedCheckpoint:
    verified = policy.verify(found.read(path))
    if verified.head.size != size:
        raise VerificationError(f"the checkpoint is of {verified.head.size} leaves, the scope says {size}")
    return verified


def check_end(found: Established, policy: TrustPolicy, scope: Scope) -> None:
    """Check the end checkpoint, and that the scope speaks of it."""
    with found.step("checkpoints", pack.END_CHECKPOINT):
        end = _check_checkpoint(found, policy, pack.END_CHECKPOINT, scope.tree_size)
        if (end.checkpoint.origin, end.head.root.hex()) != (scope.claims.origin, scope.root):
            raise VerificationError("the scope speaks of another log or root than the checkpoint")
        time_s = end.timestamps.get(end.checkpoint.origin)
        if time_s is None:
            found.skip("time of the checkpoint", "no signature that the policy demands carries one")
        elif time_s * _MILLISECONDS != scope.claims.checkpoint_ms:
            raise VerificationError("the scope gives another time than the checkpoint's signature")
        names = ", ".join(f"{key.name} {key.key_id.hex()}" for key in end.signers)
        found.report.hold("checkpoints", f"tree of {end.head.size} leaves signed by {names}")
        _note_dating(found, end)
        if len({key.signature_type for key in policy.log_keys(end.checkpoint.origin)}) == 1:
            found.report.notes.append("the trust policy demands signatures of one algorithm only")
        found.end = end


def check_start(found: Established, policy: TrustPolicy, scope: Scope) -> None:
    """Check where the range begins, if not at leaf 0."""
    if not scope.first_leaf:
        return
    with found.step("checkpoints", pack.START_CHECKPOINT):
        earlier = _check_checkpoint(found, policy, pack.START_CHECKPOINT, scope.first_leaf)
        if earlier.checkpoint.origin != scope.claims.origin:
            raise VerificationError("the start checkpoint is of another log")
        time_s = earlier.timestamps.get(scope.claims.origin)
        if time_s is None:
            found.skip("beginning of the range", "no signature that the policy demands says when it was signed")
        elif time_s * _MILLISECONDS > scope.claims.from_ms:
            raise VerificationError("the start checkpoint was signed after the period had begun")
        found.report.hold("checkpoints", f"range begins at a signed tree of {earlier.head.size} leaves")
        found.earlier = earlier
    with found.step("entries", pack.START_RANGE):
        start = parse_start_range(found.read(pack.START_RANGE))
        if found.earlier is not None:
            start.verify(found.earlier.head)
            found.start = start
            found.report.hold("entries", f"{len(start.prior)} records before the range, each proved to stand there")
            found.skip("records before the range", "that all key, bundle and stream records among them are in the pack")


def check_known(found: Established, policy: TrustPolicy, known: bytes | None) -> None:
    """Check who signed the checkpoint that the auditor has from elsewhere."""
    if known is None:
        found.skip("another history", "no checkpoint from elsewhere was given to compare with (--known)")
        return
    with found.step("known checkpoint", _KNOWN):
        verified = policy.verify(known)
        if found.scope is not None and verified.checkpoint.origin != found.scope.claims.origin:
            # It may be of the log that this one succeeds; which that is, the entries say.
            found.predecessor = verified
        else:
            found.known = verified


def walk_entries(found: Established, scope: Scope) -> None:
    """Hash every entry, check every signature, compare the root."""
    path = pack.entries_path(scope.first_leaf, scope.tree_size)
    if found.end is None or (scope.first_leaf and found.start is None):
        found.skip("entries", "the checkpoints or the start of the range did not hold")
        return
    wanted = frozenset(() if found.known is None else (found.known.head.size,))
    with found.step("entries", path):
        view = found.files.get(path)
        if view is None:
            raise MalformedError("the pack has no such file")
        period = Period(scope.claims.from_ms, scope.claims.to_ms)
        survey = Survey(period=period, start=found.start, roots_at=wanted, signed_ms=scope.claims.checkpoint_ms)
        for entry in read_entries(view, scope.tree_size - scope.first_leaf):
            survey.add(entry)
        calculated, expected = survey.tree.root(), found.end.head.root
        if calculated != expected:
            raise RootMismatchError("the entries are not the tree", expected=expected, calculated=calculated)
        span = f"leaves {scope.first_leaf} to {scope.tree_size - 1}"
        found.report.hold("entries", f"{survey.signatures} entries, {span}, lead to the signed root")
        found.report.hold("entries", f"{survey.signatures} records signed by enforcers that the log introduced")
        found.survey = survey


def check_succession(found: Established) -> None:
    """Tell which log this one succeeds, and compare a checkpoint of that one with what this one commits to."""
    survey = found.survey
    succession = None if survey is None else survey.keyring.succession
    if succession is not None:
        told = f"{succession.origin} at {succession.size} leaves, root {succession.root}"
        found.report.hold("succession", f"this log succeeds {told}; checkpoint SHA-256 {succession.checkpoint_sha256}")
    if found.predecessor is None:
        return
    with found.step("known checkpoint", _KNOWN):
        if succession is None:
            raise TrustPolicyError("the known checkpoint is of another log")
        verify_predecessor(succession, found.predecessor)
        found.report.hold("succession", "the known checkpoint is of the tree that this log commits to")


def check_log_keys(found: Established, policy: TrustPolicy, known: bytes | None) -> None:
    """Verify every checkpoint once more, with what the log itself says about its keys.

    The known checkpoint is compared all the same: else a log could disown one that it signed by a late declaration.
    """
    if found.survey is None:
        return
    narrowed = policy.narrowed(found.survey.keyring.log_validity)
    with found.step("checkpoints", pack.END_CHECKPOINT):
        narrowed.verify(found.read(pack.END_CHECKPOINT))
    if found.earlier is not None:
        with found.step("checkpoints", pack.START_CHECKPOINT):
            narrowed.verify(found.read(pack.START_CHECKPOINT))
    if found.known is not None and known is not None:
        with found.step("known checkpoint", _KNOWN):
            narrowed.verify(known)


def compare_known(found: Established, log: Prover | None, known: bytes | None) -> None:
    """Check that the auditor's checkpoint and the pack are of one history; if not, keep the proof of it."""
    before = len(found.report.failures)
    _compare_known(found, log)
    contradicted = any(failure.status is Status.FAILED for failure in found.report.failures[before:])
    if not contradicted or found.policy is None or found.known is None or known is None:
        return
    end = found.read(pack.END_CHECKPOINT)
    found.report.equivocation = contradiction(
        known, end, found.policy, evidence=_evidence(found, found.known.head.size), log=log
    )
    if found.report.equivocation is not None:
        found.report.notes.append("that the log's keys signed two histories is proved to anybody: --equivocation FILE")


def _evidence(found: Established, size: int) -> PrefixEvidence | None:
    """Return how the pack's tree begins, if its entries say so."""
    scope, survey = found.scope, found.survey
    if scope is None or survey is None or not max(scope.first_leaf, 1) <= size < scope.tree_size:
        return None
    view = found.files[pack.entries_path(scope.first_leaf, scope.tree_size)]
    entries = read_entries(view, scope.tree_size - scope.first_leaf)
    tree = CompactRange() if found.start is None else found.start.tree()
    return evidence_from_entries(tree, entries, size, scope.tree_size)


def _compare_known(found: Established, log: Prover | None) -> None:
    known, end, survey = found.known, found.end, found.survey
    if known is None or end is None:
        return
    with found.step("known checkpoint", _KNOWN):
        refuse_split_view(known, end)
        size = known.head.size
        calculated = None if survey is None else survey.roots.get(size)
        if calculated is not None:
            if calculated != known.head.root:
                raise RootMismatchError("two histories of one log", expected=known.head.root, calculated=calculated)
        elif log is None or survey is None:
            told = f"consistency of {size} with {end.head.size} leaves needs the log (--log)"
            found.report.fail("known checkpoint", _KNOWN, told, Status.NOT_CHECKED)
            return
        else:
            old, new = sorted((known.head, end.head), key=lambda head: head.size)
            verify_consistency(old, new, log.consistency(old.size, new.size))
        found.report.hold("known checkpoint", f"the tree of {size} leaves that was kept is of one history with this")
        if size > end.head.size:
            found.report.notes.append(f"the known checkpoint is newer: this pack ends at {end.head.size} of {size}")
