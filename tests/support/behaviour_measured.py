"""Measures the detectors of behaviour on simulated agents, and writes the tables of docs/behaviour.md.

    python -m tests.support.behaviour_measured

prints them; a test holds the document to what this prints, and the detectors to what the document promises.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from enforcement.profiles.profile import AgentProfile, Flag, decode_profile, encode_profile
from enforcement.profiles.thresholds import DETECTORS, Detector, Thresholds
from tests.support.agents import TURNS, WORKERS, Step, Worker, seeded, walk

__all__ = ["Alarms", "alarms", "delays", "document", "learned", "take"]

SEEDS: Final = range(3)
CALLS: Final = 10_000
"""Calls of an agent that only does its work, after its baseline is ready."""
_AFTER: Final = 500
"""Calls between the baseline and the turn."""
_TURNED: Final = 500
"""Calls after the turn."""

THRESHOLDS: Final = Thresholds()


@dataclass(frozen=True)
class Alarms:
    """What was flagged of agents that only did their work."""

    calls: int
    flags: Mapping[str, int]


@lru_cache
def learned(worker: Worker, seed: int) -> tuple[bytes, tuple[Step, ...]]:
    """Return a profile that is ready, as a state file has it, and the calls that come next."""
    profile, calls = AgentProfile(agent=worker.name), walk(worker, seed)
    while profile.state != "ready":
        take(profile, next(calls))
    return encode_profile(profile), tuple(itertools.islice(calls, CALLS))


def take(profile: AgentProfile, step: Step) -> tuple[Flag, ...]:
    """Have a profile take in a call."""
    return profile.take(step.call, permitted=step.permitted, teaches=True, thresholds=THRESHOLDS)


@lru_cache
def alarms(worker: Worker) -> Alarms:
    """Return what is flagged of an agent that only does its work."""
    found: Counter[str] = Counter()
    for seed in SEEDS:
        stored, calls = learned(worker, seed)
        profile = decode_profile(stored)
        for step in calls:
            found.update(flag.deviation.detector for flag in take(profile, step))
    return Alarms(CALLS * len(SEEDS), found)


@lru_cache
def delays(worker: Worker, turn: str) -> Mapping[Detector, int]:
    """Return with which call after a turn each detector flagged it, in the slowest run; one that did not in all is not.

    What the calls would have been flagged for without the turn is among it: rarely, as the other table says.
    """
    runs = [_one(worker, turn, seed) for seed in SEEDS]
    return {name: max(run[name] for run in runs) for name in DETECTORS if all(name in run for run in runs)}


def _one(worker: Worker, turn: str, seed: int) -> dict[Detector, int]:
    chance = seeded(seed)  # a simulation
    change = TURNS[turn]()
    stored, calls = learned(worker, seed)
    profile = decode_profile(stored)
    for step in calls[:_AFTER]:
        take(profile, step)
    profile.flags.clear()
    found: dict[Detector, int] = {}
    for number, step in enumerate(calls[_AFTER : _AFTER + _TURNED], 1):
        for flag in take(profile, change(step, chance)):
            found.setdefault(flag.deviation.detector, number)
    return found


def document() -> str:
    """Return the tables, as docs/behaviour.md has them."""
    lines = ["| an agent that only does its work | calls | flags | in 1,000 calls | by |", "|---|---|---|---|---|"]
    for worker in WORKERS:
        said = alarms(worker)
        total = sum(said.flags.values())
        by = ", ".join(f"`{name}` {number}" for name, number in sorted(said.flags.items())) or "none"
        lines.append(f"| {worker.name} | {said.calls:,} | {total} | {1000 * total / said.calls:.2f} | {by} |")
    lines += ["", "| an agent that turned: it … | " + " | ".join(worker.name for worker in WORKERS) + " |"]
    lines.append("|---|" + "---|" * len(WORKERS))
    for turn in TURNS:
        cells = [_cell(delays(worker, turn)) for worker in WORKERS]
        lines.append(f"| {turn} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: Mapping[Detector, int]) -> str:
    first = sorted(found.items(), key=lambda item: (item[1], item[0]))[:3]
    return ", ".join(f"{number} `{name}`" for name, number in first) or "not told"


if __name__ == "__main__":
    print(document(), end="")  # noqa: T201  # what it is for
