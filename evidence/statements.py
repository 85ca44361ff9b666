"""The sentences of a pack: what it proves, what it does not, and where the evidence has gaps.

Pure. Every number comes with its denominator. A verifier makes the same sentences from the same entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from evidence.summary import BundleLine, Gap, HeldBundle, Population, Reperformance
from ledger.completeness import EnforcerStream, Verdict
from ledger.keyring import Compromise

__all__ = ["completeness_gaps", "decision_gaps", "key_gap", "not_proved", "origin_gaps", "proved", "replay_gaps"]

_SHOWN_LEAVES: Final = 20
_SHORT_HEX: Final = 12


def proved(population: Population) -> tuple[str, ...]:
    """Return what a verifier can prove from the pack alone."""
    span = f"leaves {population.first_leaf} to {population.end_leaf - 1}"
    count, decisions = population.records, population.decisions
    return (
        f"All {count} records of {span} are here, unaltered and in order: their root is the one that the log signed.",
        f"Each of the {count} records was signed by an enforcer whose key the log introduced.",
        f"The population is every one of the {decisions} decisions among them whose recorded time lies in the period.",
        "Counts, completeness, verdicts, exceptions and gaps follow from these records by the mappings in the pack.",
        "The policy bundles in the pack are those that the decisions name, by digest; one that is missing is a gap.",
    )


def not_proved(population: Population) -> tuple[str, ...]:
    """Return what a verifier cannot prove from the pack."""
    sentences = (
        "Calls that went round the gateway: nothing here speaks of them.",
        "That a recorded fact was true when it was recorded: the pack shows what an enforcer signed.",
        "When something happened, beyond the operator's clocks; witnesses and anchors named are the operator's claim.",
        "That no second log with other records exists, unless the end checkpoint is compared with one from elsewhere.",
        "That replayed decisions came out as listed: the maker of the pack replayed them, a verifier does not.",
        "The contents of requests and results: the pack holds commitments to them, and no payload.",
    )
    if not population.first_leaf:
        return sentences
    first = population.first_leaf
    return (
        *sentences,
        f"That all key, bundle and stream records before leaf {first} were taken along, not only those here.",
        f"That no stream before leaf {first} was left out: completeness is said of the streams that came along.",
        f"That no decision of the period stands before leaf {first}: only the log's clock says so.",
    )


def _leaves(leaves: Sequence[int]) -> str:
    shown = ", ".join(map(str, leaves[:_SHOWN_LEAVES]))
    more = len(leaves) - _SHOWN_LEAVES
    return f"{shown} and {more} more" if more > 0 else shown


def _named(stream: EnforcerStream) -> str:
    epoch = f", epoch {stream.epoch[:_SHORT_HEX]}" if stream.epoch else ""
    return f"{stream.enforcer_id}{epoch}"


def completeness_gaps(
    population: Population,
    streams: Sequence[EnforcerStream],
    open_enforcers: Sequence[str],
    closed_at: int | None,
    *,
    over: bool,
) -> list[Gap]:
    """Return what may be missing from the population.

    Args:
        population: The population.
        streams: Completeness by enforcer and epoch.
        open_enforcers: Enforcers that keep the period open.
        closed_at: Leaf from which on it is closed, or None.
        over: It was over when the end checkpoint was signed.
    """
    gaps = [
        Gap(kind="stream", sentence=f"{_named(one)}: {one.verdict}: {one.reason}.")
        for one in streams
        if one.verdict is not Verdict.COMPLETE
    ]
    if not over:
        gaps.append(Gap(kind="open period", sentence="The end checkpoint was signed before the period was over."))
    gaps += [
        Gap(kind="open period", sentence=f"Nothing shows that {one} had handed in all its records of the period.")
        for one in open_enforcers
    ]
    if over and closed_at is None and not open_enforcers:
        gaps.append(Gap(kind="open period", sentence="No enforcer was heard of before the end of the period."))
    if population.late:
        told = f"{len(population.late)} of {population.decisions} decisions of the period arrived after it was closed"
        gaps.append(Gap(kind="late", sentence=f"{told} at leaf {closed_at}: leaves {_leaves(population.late)}."))
    return gaps


def decision_gaps(population: Population, *, open_calls: int, allowed: int, repeated: int, unproved: int) -> list[Gap]:
    """Return what decisions of the period do not show.

    Args:
        population: The population.
        open_calls: Allowed calls of the period without an outcome.
        allowed: Allowed calls of the period.
        repeated: Records of the range whose id had occurred before.
        unproved: Calls that did not pass and have no proof file of their own.
    """
    total = population.decisions
    told = {
        "observed": (
            population.observed,
            f"{population.observed} of {total} decisions of the period were recorded but not enforced (observe mode).",
        ),
        "outcome": (
            open_calls,
            f"{open_calls} of {allowed} allowed calls of the period have no outcome in this range.",
        ),
        "repeated": (repeated, f"{repeated} records have an id that another record had before."),
        "proofs": (
            unproved,
            f"{unproved} calls that did not pass have no proof file of their own; the recalculated root proves them.",
        ),
    }
    return [Gap(kind=kind, sentence=sentence) for kind, (count, sentence) in told.items() if count]


def _false_name(population: Population, line: BundleLine, held: HeldBundle) -> str:
    return (
        f"{line.decisions} of {population.decisions} decisions, between leaves {line.first_leaf} and {line.last_leaf}, "
        f"name the bundle {line.revision[:_SHORT_HEX]} as {line.name}, run by {line.engine}; "
        f"its own manifest says {held.name}, for {held.engine}."
    )


def replay_gaps(
    population: Population,
    reperformance: Reperformance,
    bundles: Sequence[BundleLine],
    held: Mapping[str, HeldBundle],
) -> list[Gap]:
    """Return which decisions could not be made again exactly, and which bundles are not in the pack.

    Args:
        population: The population.
        reperformance: What the replays gave.
        bundles: Bundles that decided in the period.
        held: Bundles that are in the pack, by revision.
    """
    total = population.decisions
    gaps = [
        Gap(
            kind="bundle",
            sentence=f"The pack has no copy of the bundle {one.name} {one.revision[:_SHORT_HEX]}, which made "
            f"{one.decisions} of {total} decisions.",
        )
        for one in bundles
        if one.revision not in held
    ]
    gaps += [
        Gap(kind="bundle", sentence=_false_name(population, one, held[one.revision]))
        for one in bundles
        if one.revision in held and (one.name, one.engine) != (held[one.revision].name, held[one.revision].engine)
    ]
    gaps += [
        Gap(kind="replay", sentence=f"{count} of {total} decisions could not be made again exactly: {name}.")
        for name, count in reperformance.by_class.items()
        if name != "exact"
    ]
    if reperformance.different:
        told = f"{len(reperformance.different)} of {reperformance.by_class.get('exact', 0)} exact replays came out"
        gaps.append(Gap(kind="replay", sentence=f"{told} otherwise: leaves {_leaves(reperformance.different)}."))
    return gaps


def key_gap(compromise: Compromise, leaves: Sequence[int]) -> Gap:
    """Return what a declared compromise takes from the evidence.

    Args:
        compromise: What a key record declares.
        leaves: Records of the range that the key signed although it was compromised by then.
    """
    told = (
        f"Leaf {compromise.leaf} declares the {compromise.purpose} key {compromise.key_id} of {compromise.subject} "
        f"compromised since the tree of {compromise.since} leaves"
    )
    signed = f"; it signed {len(leaves)} records of the range since: leaves {_leaves(leaves)}" if leaves else ""
    return Gap(kind="key", sentence=f"{told}{signed}.")


def simulation(*, simulated: int, records: int, maker_simulated: bool) -> str | None:
    """Return what must be said of what was simulated, or None; the arguments are those of `origin_gaps`."""
    if simulated:
        told = f"SIMULATED: {simulated} of {records} records were made with demonstration keys or a made-up clock"
        return f"{told}; they are evidence of nothing real."
    if maker_simulated:
        return "SIMULATED: this pack was made with demonstration keys or clock."
    return None


def origin_gaps(*, simulated: int, records: int, maker_simulated: bool, witnesses: int, anchors: int) -> list[Gap]:
    """Return what keeps the pack from being evidence of something real, or from being dated.

    Args:
        simulated: Records that say SIMULATED.
        records: Records of the range.
        maker_simulated: The maker's keys or clock are simulated.
        witnesses: Witnesses that the maker names.
        anchors: Anchors that the maker names.
    """
    gaps: list[Gap] = []
    told = simulation(simulated=simulated, records=records, maker_simulated=maker_simulated)
    if told is not None:
        gaps.append(Gap(kind="simulated", sentence=told))
    if not witnesses and not anchors:
        told = "The maker names neither a witness nor an anchor: nothing outside the operator's control dates this log."
        gaps.append(Gap(kind="dating", sentence=told))
    return gaps
