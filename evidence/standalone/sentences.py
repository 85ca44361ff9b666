"""The sentences of a pack about what the evidence does not cover, made again from the entries.

Pure, standard library only. Every number comes with its denominator; the words are part of the format.

Source: docs/evidence.md, section 2, "What is derived".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evidence.standalone.records import Compromise
from evidence.standalone.streams import COMPLETE, Closing, Stream

__all__ = ["completeness_gaps", "decision_gaps", "key_gap", "not_proved", "origin_gaps", "proved", "replay_gaps"]

_Gap = dict[str, str]
_SHOWN = 20
_SHORT = 12


def _gap(kind: str, sentence: str) -> _Gap:
    return {"kind": kind, "sentence": sentence}


def _leaves(leaves: Sequence[int]) -> str:
    shown, more = ", ".join(map(str, leaves[:_SHOWN])), len(leaves) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def proved(first: int, end: int, decisions: int) -> list[str]:
    """Return what can be proved from the pack alone."""
    count, span = end - first, f"leaves {first} to {end - 1}"
    return [
        f"All {count} records of {span} are here, unaltered and in order: their root is the one that the log signed.",
        f"Each of the {count} records was signed by an enforcer whose key the log introduced.",
        f"The population is every one of the {decisions} decisions among them whose recorded time lies in the period.",
        "Counts, completeness, verdicts, exceptions and gaps follow from these records by the mappings in the pack.",
        "The policy bundles in the pack are those that the decisions name, by digest; one that is missing is a gap.",
    ]


def not_proved(first: int) -> list[str]:
    """Return what cannot be proved from the pack."""
    sentences = [
        "Calls that went round the gateway: nothing here speaks of them.",
        "That a recorded fact was true when it was recorded: the pack shows what an enforcer signed.",
        "When something happened, beyond the operator's clocks; witnesses and anchors named are the operator's claim.",
        "That no second log with other records exists, unless the end checkpoint is compared with one from elsewhere.",
        "That replayed decisions came out as listed: the maker of the pack replayed them, a verifier does not.",
        "The contents of requests and results: the pack holds commitments to them, and no payload.",
    ]
    if first:
        sentences += [
            f"That all key, bundle and stream records before leaf {first} were taken along, not only those here.",
            f"That no stream before leaf {first} was left out: completeness is said of the streams that came along.",
            f"That no decision of the period stands before leaf {first}: only the log's clock says so.",
        ]
    return sentences


def completeness_gaps(
    streams: Sequence[Stream], closing: Closing, late: Sequence[int], decisions: int, *, over: bool
) -> list[_Gap]:
    """Return what may be missing from the population."""
    gaps = []
    for one in streams:
        if one.verdict != COMPLETE:
            epoch = f", epoch {one.epoch[:_SHORT]}" if one.epoch else ""
            gaps.append(_gap("stream", f"{one.enforcer_id}{epoch}: {one.verdict}: {one.reason}."))
    if not over:
        gaps.append(_gap("open period", "The end checkpoint was signed before the period was over."))
    told = "Nothing shows that {} had handed in all its records of the period."
    gaps += [_gap("open period", told.format(one)) for one in closing.open_enforcers]
    if over and closing.leaf is None and not closing.open_enforcers:
        gaps.append(_gap("open period", "No enforcer was heard of before the end of the period."))
    if late:
        told = f"{len(late)} of {decisions} decisions of the period arrived after it was closed"
        gaps.append(_gap("late", f"{told} at leaf {closing.leaf}: leaves {_leaves(late)}."))
    return gaps


def decision_gaps(
    *, observed: int, total: int, open_calls: int, allowed: int, repeated: int, unproved: int
) -> list[_Gap]:
    """Return what decisions of the period do not show."""
    told = (
        (
            "observed",
            observed,
            f"{observed} of {total} decisions of the period were recorded but not enforced (observe mode).",
        ),
        (
            "outcome",
            open_calls,
            f"{open_calls} of {allowed} allowed calls of the period have no outcome in this range.",
        ),
        ("repeated", repeated, f"{repeated} records have an id that another record had before."),
        (
            "proofs",
            unproved,
            f"{unproved} calls that did not pass have no proof file of their own; the recalculated root proves them.",
        ),
    )
    return [_gap(kind, sentence) for kind, count, sentence in told if count]


def replay_gaps(
    total: int, replays: Mapping[str, Any], bundles: Sequence[Mapping[str, Any]], held: Mapping[str, tuple[str, str]]
) -> list[_Gap]:
    """Return which decisions could not be made again exactly, and which bundles are not in the pack.

    Args:
        total: Decisions of the period.
        replays: The re-performance.
        bundles: Bundles that decided in the period.
        held: Name and engine of the bundles in the pack, by revision.
    """
    gaps = [
        _gap(
            "bundle",
            f"The pack has no copy of the bundle {one['name']} {one['revision'][:_SHORT]}, which made "
            f"{one['decisions']} of {total} decisions.",
        )
        for one in bundles
        if one["revision"] not in held
    ]
    for one in bundles:
        name, engine = held.get(one["revision"], (one["name"], one["engine"]))
        if (one["name"], one["engine"]) != (name, engine):
            told = (
                f"{one['decisions']} of {total} decisions, between leaves {one['first_leaf']} and {one['last_leaf']}, "
                f"name the bundle {one['revision'][:_SHORT]} as {one['name']}, run by {one['engine']}; "
                f"its own manifest says {name}, for {engine}."
            )
            gaps.append(_gap("bundle", told))
    classes, different = replays["by_class"], replays["different"]
    for name in sorted(classes):
        if name != "exact":
            told = f"{classes[name]} of {total} decisions could not be made again exactly: {name}."
            gaps.append(_gap("replay", told))
    if different:
        told = f"{len(different)} of {classes.get('exact', 0)} exact replays came out otherwise"
        gaps.append(_gap("replay", f"{told}: leaves {_leaves(different)}."))
    return gaps


def key_gap(one: Compromise, leaves: Sequence[int]) -> _Gap:
    """Return what a declared compromise takes from the evidence."""
    told = (
        f"Leaf {one.leaf} declares the {one.purpose} key {one.key_id} of {one.subject} "
        f"compromised since the tree of {one.since} leaves"
    )
    signed = f"; it signed {len(leaves)} records of the range since: leaves {_leaves(leaves)}" if leaves else ""
    return _gap("key", f"{told}{signed}.")


def origin_gaps(*, simulated: int, records: int, maker_simulated: bool, dated: bool) -> list[_Gap]:
    """Return what keeps the pack from being evidence of something real, or from being dated."""
    gaps = []
    if simulated:
        told = f"SIMULATED: {simulated} of {records} records were made with demonstration keys or a made-up clock"
        gaps.append(_gap("simulated", f"{told}; they are evidence of nothing real."))
    elif maker_simulated:
        gaps.append(_gap("simulated", "SIMULATED: this pack was made with demonstration keys or clock."))
    if not dated:
        told = "The maker names neither a witness nor an anchor: nothing outside the operator's control dates this log."
        gaps.append(_gap("dating", told))
    return gaps
