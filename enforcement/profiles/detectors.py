"""Detectors: one call, or the latest ones, against a frozen reference.

Pure. Each says what was found and by how much, and none decides anything: what it finds is a fact for policies and a
record (`enforcement.profiles.keeper`).

`call_deviations` look at the one call, before it is decided; `course_deviations` at the latest calls, before the call
is decided as well as after. How many calls each needs, and how often it is wrong about an agent that only does its
work, is measured and stands in docs/behaviour.md.

INVARIANT: what a reference cannot know is not found. A tally that has reached its maximum, and one in which what was
never seen is still frequent (Good-Turing), cannot say that something is new; `blind` says where that is so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from enforcement.profiles.observing import Observation
from enforcement.profiles.statistics import ks_distance, ks_limit, population_stability, unseen_mass
from enforcement.profiles.tallies import EDGE, HOURS, Recent, Seen, Tally
from enforcement.profiles.thresholds import Detector, Thresholds

__all__ = ["Deviation", "blind", "call_deviations", "course_deviations", "usual_refusals"]

_DAY_HOURS: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Something that departs from a reference.

    Attributes:
        detector: Which detector found it.
        subject: What it is about: a tool, a server, a transition; empty for all that the agent does.
        value: What was measured.
        threshold: Above which that departs; for what must not be at all, 0.
        calls: How many of the latest calls it rests on: 1, or a window.
    """

    detector: Detector
    subject: str
    value: float
    threshold: float
    calls: int = 1


def call_deviations(reference: Tally, seen: Seen, call: Observation, thresholds: Thresholds) -> tuple[Deviation, ...]:
    """Return what of one call departs from a reference.

    Args:
        reference: What is usual.
        seen: What the call is in the light of those before it.
        call: The call.
        thresholds: What counts.
    """
    return (*_new(reference, seen, call, thresholds), *_much(reference, seen, thresholds))


def _new(reference: Tally, seen: Seen, call: Observation, thresholds: Thresholds) -> Iterator[Deviation]:
    if call.server not in reference.servers and "servers" not in reference.saturated:
        yield _never("new_server", call.server)
    known_tool = call.tool in reference.tools
    if not known_tool and "tools" not in reference.saturated:
        yield _never("new_tool", call.tool)
    if "chains" not in reference.saturated:
        yield from (_never("read_then_send", chain) for chain in seen.chains[:1] if _none_of(reference, seen.chains))
    edge = seen.transition
    if edge is not None and known_tool and edge not in reference.transitions:
        before = edge.partition(EDGE)[0]
        if _tells(reference, "transitions", reference.once, before, reference.left.get(before, 0), thresholds):
            yield _never("new_transition", edge)
    strange = known_tool and any(f"{call.tool} {feature}" not in reference.features for feature in call.features)
    total = reference.tools.get(call.tool, 0)
    if strange and _tells(reference, "features", reference.feature_once, call.tool, total, thresholds):
        yield _never("argument_shape", call.tool)
    around = sum(reference.hours[hour] for hour in _around(call.hour))
    share = around / reference.calls
    if share < thresholds.rare_hour:
        yield Deviation(detector="unusual_hour", subject="", value=share, threshold=thresholds.rare_hour)


def _none_of(reference: Tally, chains: Sequence[str]) -> bool:
    """Tell whether a send follows no reading that it is used to: one known way explains it."""
    return all(chain not in reference.chains for chain in chains)


def _never(detector: Detector, subject: str) -> Deviation:
    return Deviation(detector=detector, subject=subject, value=1.0, threshold=0.0)


def _tells(reference: Tally, what: str, once: dict[str, int], key: str, total: int, thresholds: Thresholds) -> bool:
    """Tell whether a reference has seen enough of something to say what is new about it."""
    if what in reference.saturated or total < thresholds.seen:
        return False
    return unseen_mass(once.get(key, 0), total) <= thresholds.unseen


def _around(hour: int) -> tuple[int, int, int]:
    """Return an hour with its neighbours of the same kind of day."""
    day = hour - hour % _DAY_HOURS
    return day + (hour - 1) % _DAY_HOURS, hour, day + (hour + 1) % _DAY_HOURS


def _much(reference: Tally, seen: Seen, thresholds: Thresholds) -> Iterator[Deviation]:
    measured: tuple[tuple[Detector, int, int], ...] = (
        ("rate", seen.hour_calls, reference.most_in_hour),
        ("volume", seen.day_calls, reference.most_in_day),
        ("targets", seen.hour_targets, reference.most_targets),
        ("fan_out", seen.fan_out, reference.most_tools),
    )
    for detector, value, most in measured:
        # Tools of a session are few: what may come on top is as well.
        margin = max(1, thresholds.margin // 5) if detector == "fan_out" else thresholds.margin
        limit = most + margin if detector == "fan_out" else thresholds.factor * most + margin
        if value > limit:
            yield Deviation(detector=detector, subject="", value=float(value), threshold=float(limit), calls=value)


def course_deviations(reference: Tally, recent: Recent, thresholds: Thresholds) -> tuple[Deviation, ...]:
    """Return what of the latest calls together departs from a reference.

    Args:
        reference: What is usual.
        recent: The latest calls.
        thresholds: What counts.
    """
    return tuple(_course(reference, recent, thresholds))


def _course(reference: Tally, recent: Recent, thresholds: Thresholds) -> Iterator[Deviation]:
    calls = len(recent.tools)
    if calls >= thresholds.window_calls:
        stability = population_stability(*_mixes(reference, recent))
        if stability > thresholds.stability:
            yield Deviation(
                detector="tool_mix", subject="", value=stability, threshold=thresholds.stability, calls=calls
            )
        limit = max(thresholds.size_distance, ks_limit(reference.calls, calls, thresholds.size_alpha))
        distance = ks_distance(reference.sizes, recent.spread)
        if distance > limit:
            yield Deviation(detector="size_shift", subject="", value=distance, threshold=limit, calls=calls)
    if recent.score > thresholds.refusal_score:
        yield Deviation(
            detector="decision_mix", subject="", value=recent.score, threshold=thresholds.refusal_score, calls=calls
        )


def _mixes(reference: Tally, recent: Recent) -> tuple[list[int], list[int]]:
    """Return the calls of each of the most called tools, and of all others: as ever, and lately."""
    usual = [reference.tools[tool] for tool in reference.top]
    now = [recent.mix.get(tool, 0) for tool in reference.top]
    # A tally that cannot tell all tools apart has called more than it has counted by tool.
    return [*usual, reference.calls - sum(usual)], [*now, len(recent.tools) - sum(now)]


def usual_refusals(reference: Tally, thresholds: Thresholds) -> float:
    """Return the share of refused calls that is usual: never quite 0, or one refusal would be a shift."""
    whole = reference.calls + reference.refused
    share = reference.refused / whole if whole else 0.0
    return min(max(share, thresholds.usual_refusals), 0.99 - thresholds.more_refusals)


def blind(reference: Tally, thresholds: Thresholds) -> tuple[str, ...]:
    """Return what a reference cannot tell, sorted: ``saturated:`` of a count, ``sparse:`` of transitions or shapes."""
    found = {f"saturated:{what}" for what in reference.saturated}
    kinds = (
        ("transitions", reference.once, reference.left),
        ("features", reference.feature_once, reference.tools),
    )
    for what, once, totals in kinds:
        if not any(_tells(reference, what, once, key, total, thresholds) for key, total in totals.items()):
            found.add(f"sparse:{what}")
    if not sum(reference.hours[hour] for hour in range(_DAY_HOURS, HOURS)):
        found.add("sparse:weekends")
    return tuple(sorted(found))
