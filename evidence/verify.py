"""Verifying a pack offline: nothing in it is believed that was not calculated again.

Reads the file that it is given and the catalogues that ship with the program; no network, no clock. In order:

1. *container*: every byte of the ZIP is accounted for;
2. *trust*: the trust policy comes from outside. Without one the pack's own is used, so that the mathematics can be
   checked, and the result is *self-asserted*;
3. *checkpoints*: end (and start) are signed as the policy demands, with both algorithms;
4. *entries*: every entry of the range is hashed again; the root is the signed one; every record is signed by an
   enforcer whose key the log introduced; the log's keys count for the size of each checkpoint by its own key records;
5. *known checkpoint*: one that the auditor kept is of the same log, and consistent; or of the log that this one
   succeeds, and of the tree that it commits to;
6. *signatures*: the manifest's envelope is signed by keys that the log introduced for packs, with both algorithms;
7. *digests*: the manifests are those of the files that are there, and of nothing else;
8. *proof files*: each proves its leaf under the end checkpoint, and each leaf that should have one has it;
9. *policies*: each bundle's digest is the revision under which it is filed, and decisions name it;
10. *mappings*: a control catalogue that bears the name of one that ships with this program is that one, or another that
    the verifier has read and accepts;
11. *derivation*: counts, completeness, control verdicts, exceptions, gaps, lists and scope are derived again from the
    entries by the mappings in the pack, and are the same byte for byte.

A check that fails is named with its file, and the others go on as far as they can. INVARIANT 11: trust never comes from
the thing being verified. Replay is not run again; the report says so.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from pathlib import Path
from typing import Final

from evidence import log_checks, pack, pack_checks
from evidence.container import read_container
from evidence.established import Established
from evidence.population import Period
from evidence.scope import parse_scope
from evidence.statements import simulation
from evidence.verification import Status, VerificationReport
from ledger.errors import LedgerError, MalformedError, TallystickError
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.prover import Prover
from ledger.records import decode_entry
from ledger.trust import TrustPolicy, parse_trust_policy

__all__ = ["verify_pack", "verify_record"]

_SHORT_HEX: Final = 12
_NOT_CHECKED: Final = (
    "replay: no policy was evaluated again; reperformance.json is the maker's word",
    "payloads: the pack holds commitments to requests and results, not their contents",
    "pack.pdf: its digest is checked, not whether it shows what the files say",
    "custody and anchors: they are the maker's word; an anchor is checked where it is",
)


def _open(data: memoryview, report: VerificationReport) -> Established | None:
    try:
        files = read_container(data)
    except LedgerError as error:
        report.fail("container", "the pack", error)
        return None
    report.hold("container", f"{len(files)} files in {len(data)} bytes, each byte accounted for")
    return Established(files=files, report=report)


def _read_scope(found: Established) -> None:
    with found.step("scope", pack.SCOPE):
        scope = parse_scope(found.read(pack.SCOPE))
        Period(scope.claims.from_ms, scope.claims.to_ms)
        found.scope = found.report.scope = scope


def _choose_trust(found: Established, trust: TrustPolicy | None) -> None:
    if trust is not None:
        found.policy = trust
        found.report.hold("trust", f"a policy from outside, with {len(trust.logs)} log keys")
        return
    found.report.self_asserted = True
    with found.step("trust", pack.TRUST_POLICY):
        found.policy = parse_trust_policy(found.read(pack.TRUST_POLICY))


def _verify(
    found: Established,
    trust: TrustPolicy | None,
    known: bytes | None,
    log: Prover | None,
    accepted: Collection[str],
) -> None:
    _read_scope(found)
    _choose_trust(found, trust)
    scope, policy = found.scope, found.policy
    if scope is not None and policy is not None:
        log_checks.check_end(found, policy, scope)
        log_checks.check_start(found, policy, scope)
        log_checks.check_known(found, policy, known)
        log_checks.walk_entries(found, scope)
        log_checks.check_succession(found)
        log_checks.check_log_keys(found, policy, known)
        log_checks.compare_known(found, log, known)
    else:
        found.skip("checkpoints and entries", "scope or trust policy could not be read")
    pack_checks.check_signatures(found)
    pack_checks.check_digests(found)
    pack_checks.check_proofs(found)
    pack_checks.check_consistency(found)
    pack_checks.check_policies(found)
    if scope is not None:
        pack_checks.check_derivation(found, scope, accepted)
    pack_checks.check_custody(found)
    _tell_simulation(found)
    found.report.not_checked += _NOT_CHECKED


def _tell_simulation(found: Established) -> None:
    scope, survey = found.scope, found.survey
    told = simulation(
        simulated=0 if survey is None else survey.simulated_records,
        records=0 if survey is None else survey.signatures,
        maker_simulated=scope is not None and scope.simulated,
    )
    if told is not None:
        found.report.simulated = True
        found.report.notes.append(told)


def _read(source: bytes | Path) -> memoryview:
    if isinstance(source, bytes):
        return memoryview(source)
    with source.open("rb") as file:
        # An empty file cannot be mapped; nor is it a pack.
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def verify_pack(
    source: bytes | Path,
    *,
    trust: TrustPolicy | None,
    known: bytes | None = None,
    log: Prover | None = None,
    accepted_mappings: Collection[str] = (),
) -> VerificationReport:
    """Verify a pack.

    Args:
        source: The pack, or where it is.
        trust: From outside the pack; None makes the result self-asserted.
        known: A checkpoint of the log that the verifier has from elsewhere.
        log: A copy of the log's directory, for a known checkpoint that does not lie in the pack's range.
        accepted_mappings: SHA-256, in hexadecimal, of control catalogues that the verifier has read and accepts, though
            they bear the name of one that ships with this program and are another.

    Returns:
        What was checked, what was not, what failed. Nothing is raised for what is wrong with a pack.
    """
    name = "a pack" if isinstance(source, bytes) else source.name
    report = VerificationReport(subject=f"evidence pack {name}")
    try:
        data = _read(source)
    except OSError as error:
        report.fail("container", name, f"it cannot be read: {error.strerror}", Status.NOT_CHECKED)
        return report
    except ValueError:
        report.fail("container", name, "it is empty", Status.MALFORMED)
        return report
    found = _open(data, report)
    if found is not None:
        _verify(found, trust, known, log, accepted_mappings)
    return report


def verify_record(entry: bytes, proof: bytes, trust: TrustPolicy) -> VerificationReport:
    """Verify one record by its proof file, as `verify_pack` verifies a pack.

    Args:
        entry: The entry's exact bytes.
        proof: The ``.tlog-proof`` file.
        trust: From outside of both.
    """
    report = VerificationReport(subject="one record by its proof file")
    try:
        parsed = parse_proof_file(proof)
        verified = verify_entry(entry, parsed, trust)
    except TallystickError as error:
        report.fail("proof", "the proof file", error)
        return report
    head, origin = verified.head, verified.checkpoint.origin
    names = ", ".join(f"{key.name} {key.key_id.hex()}" for key in verified.signers)
    report.hold("proof", f"leaf {parsed.index} of {head.size} of {origin}, root {head.root.hex()[:_SHORT_HEX]}")
    report.hold("checkpoint", f"signed by {names}")
    if not verified.witnesses:
        report.notes.append("nothing outside the operator's control dates this log: no witness is trusted")
    try:
        report.simulated = decode_entry(entry).simulated
    except MalformedError:
        report.notes.append("the entry is no record of a version that this program reads")
    if report.simulated:
        report.notes.append("SIMULATED: the record was made with demonstration keys or a made-up clock.")
    report.not_checked.append("the enforcer's signature: the key record that introduces its key is not in a proof file")
    return report
