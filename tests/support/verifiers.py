"""Both verifiers of packs at once: the program's own, and the one file that imports nothing of ours.

Tests that attack packs verify them here, so that every attack is one on both. What the two say must agree: the exit
status, and which files are named.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from evidence.standalone_file import verify_py
from evidence.verification import Status, VerificationReport
from evidence.verify import verify_pack as verify_by_ours
from ledger.prover import Prover
from ledger.trust import TrustPolicy

NOT_WRITTEN_AGAIN = frozenset({"README.txt"})
"""Files whose words the second verifier does not write again; it says so."""


def _load() -> ModuleType:
    module = ModuleType("verify_alone")
    exec(compile(verify_py(), "verify.py", "exec"), module.__dict__)  # our own file, joined from our modules
    return module


SECOND_VERIFIER = _load()
"""The one file, as a module."""


def verify_pack(
    source: bytes | Path,
    *,
    trust: TrustPolicy | None,
    known: bytes | None = None,
    log: Prover | None = None,
    accepted_mappings: Collection[str] = (),
) -> VerificationReport:
    """Verify a pack by both, hold what they say equal, and return what the program's own says."""
    ours = verify_by_ours(source, trust=trust, known=known, log=log, accepted_mappings=accepted_mappings)
    if isinstance(source, bytes) and log is None:
        policy = None if trust is None else trust.encode().encode()
        other = SECOND_VERIFIER.verify_pack(
            memoryview(source), trust=policy, known=known, accepted=tuple(accepted_mappings)
        )
        _compare(ours, other)
    return ours


def _compare(ours: VerificationReport, other: Any) -> None:
    named = {failure.file for failure in ours.failures}
    assert bool(other.status) == bool(ours.status) or named == NOT_WRITTEN_AGAIN, (other.failures, ours.failures)
    statuses = {int(failure.status) for failure in ours.failures} | {status for *_, status in other.failures}
    if Status.MALFORMED in statuses:
        return  # what is misshapen stops each of them at its own place
    assert other.simulated == ours.simulated
    assert {file for _, file, _, _ in other.failures} | NOT_WRITTEN_AGAIN == named | NOT_WRITTEN_AGAIN, other.failures
    if named != NOT_WRITTEN_AGAIN:
        assert other.status == ours.status, (other.failures, ours.failures)
