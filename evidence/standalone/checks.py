"""The checks of a pack, in order; each that fails is named with its file, and the others go on as far as they can.

Standard library only. Trust never comes from the pack: without a policy from outside the same checks run under the
pack's own, and the result is *self-asserted*.

Source: docs/evidence.md, section 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from evidence.standalone.containers import read_container
from evidence.standalone.established import Found, Report
from evidence.standalone.file_part import (
    check_consistency,
    check_custody,
    check_derivation,
    check_digests,
    check_policies,
    check_proofs,
    check_signatures,
)
from evidence.standalone.log_part import (
    check_end,
    check_known,
    check_log_keys,
    check_start,
    check_succession,
    choose_trust,
    compare_known,
    read_scope,
    walk_entries,
)

__all__ = ["verify_pack"]

_NOT_CHECKED = (
    "replay: no policy was evaluated again; reperformance.json is the maker's word",
    "payloads: the pack holds commitments to requests and results, not their contents",
    "pack.pdf: its digest is checked, not whether it shows what the files say",
    "README.txt and custody.json: their digests are checked; beyond the keys that signed, they are the maker's word",
    "types of records: that an entry has the members of its type and no other",
)


def verify_pack(
    data: memoryview, *, trust: bytes | None, known: bytes | None = None, accepted: Sequence[str] = ()
) -> Report:
    """Verify a pack.

    Args:
        data: The whole of it.
        trust: The trust policy, from outside of it; None makes the result self-asserted.
        known: A checkpoint of the log from elsewhere.
        accepted: SHA-256 of control catalogues that are accepted though they are not those of this verifier.

    Returns:
        What was checked, what not, what failed. Nothing is raised for what is wrong with a pack.
    """
    report = Report()
    with report.step("container", "the pack"):
        files = read_container(data)
        report.hold("container", f"{len(files)} files in {len(data)} bytes, each byte accounted for")
        found = Found(files, report)
        read_scope(found)
        choose_trust(found, trust)
        scope, policy = found.scope, found.policy
        if scope is not None and policy is not None:
            check_end(found, policy, scope)
            check_start(found, policy, scope)
            check_known(found, policy, scope, known)
            walk_entries(found, scope)
            check_succession(found)
            check_log_keys(found, policy, known)
            compare_known(found)
        else:
            found.skip("checkpoints and entries", "scope or trust policy could not be read")
        check_signatures(found)
        check_digests(found)
        check_proofs(found)
        check_policies(found)
        if scope is not None:
            check_consistency(found, scope)
            check_derivation(found, scope, accepted)
        check_custody(found)
        simulated = 0 if found.walk is None else found.walk.simulated
        report.simulated = simulated > 0 or (scope is not None and scope["simulated"])
        if report.simulated:
            report.notes.append("SIMULATED: keys or clocks were made up; this is evidence of nothing real.")
        report.not_checked += _NOT_CHECKED
    return report
