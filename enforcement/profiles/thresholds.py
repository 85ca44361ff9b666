"""What counts as a departure: every number that a detector compares with, in one value that has a version.

Pure. The digest of the thresholds stands in every record that they led to, so that a flag of last year is read with
the numbers of last year. Detectors and how soon each flags: docs/behaviour.md.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

import msgspec

from ledger.canonical import canonical_bytes, sha256

__all__ = ["DETECTORS", "DETECTORS_VERSION", "JOB_DETECTORS", "Detector", "JobDetector", "Thresholds"]

JobDetector: TypeAlias = Literal["off_job_tool", "off_job_order", "off_job_hours", "off_job_volume"]

Detector: TypeAlias = Literal[
    "new_server", "new_tool", "new_transition", "read_then_send", "argument_shape", "unusual_hour",
    "tool_mix", "size_shift", "decision_mix", "rate", "volume", "targets", "fan_out",
    "off_job_tool", "off_job_order", "off_job_hours", "off_job_volume",
]  # fmt: skip

DETECTORS: Final[tuple[Detector, ...]] = (
    "new_server", "new_tool", "new_transition", "read_then_send", "argument_shape", "unusual_hour",
    "tool_mix", "size_shift", "decision_mix", "rate", "volume", "targets", "fan_out",
)  # fmt: skip
"""Every detector of departures from a baseline, those that look at one call first."""

JOB_DETECTORS: Final[tuple[JobDetector, ...]] = get_args(JobDetector)
"""What departs from a declared job; they need no baseline, and no threshold of these."""

DETECTORS_VERSION: Final = 1
"""Of what the detectors calculate; their numbers are beside it in the digest."""

_Number = Annotated[int, msgspec.Meta(ge=1)]
_Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a baseline is one, and what departs from it.

    Attributes:
        ready_calls: Calls that a baseline is learned from, at least.
        ready_days: Days on which they were made, at least.
        window_calls: Latest calls whose distribution is compared.
        stability: Population stability index of the tools, above which their mix has shifted.
        size_distance: Least Kolmogorov-Smirnov distance of argument sizes that counts as a shift.
        size_alpha: Probability that the same distribution exceeds the distance besides.
        rare_hour: Share of calls below which an hour, with the one before and after it, is unusual.
        unseen: Mass of what was never seen (Good-Turing) above which a baseline cannot say what is new.
        seen: Calls of a tool, at least, before what is new about it is said.
        usual_refusals: Least share of refusals that counts as usual.
        more_refusals: By how much a share is looked for that is above the usual.
        refusal_score: Cumulative sum above which refusals have become more.
        factor: How many times the most that the baseline had in an hour, a day or a session is too much.
        margin: What may come on top of that.
    """

    ready_calls: _Number = 500
    ready_days: _Number = 7
    window_calls: Annotated[int, msgspec.Meta(ge=20, le=1000)] = 400
    stability: Annotated[float, msgspec.Meta(gt=0)] = 0.2
    size_distance: _Share = 0.2
    size_alpha: _Share = 1e-9
    rare_hour: _Share = 0.001
    unseen: _Share = 0.002
    seen: _Number = 200
    usual_refusals: _Share = 0.01
    more_refusals: Annotated[float, msgspec.Meta(gt=0, lt=0.9)] = 0.25
    refusal_score: Annotated[float, msgspec.Meta(gt=0)] = 12.0
    factor: _Number = 2
    margin: _Number = 10

    @property
    def digest(self) -> str:
        """What the numbers are, and what is calculated: SHA-256, hexadecimal."""
        # As text: canonical JSON has its own words for floating-point numbers, and these stand for themselves.
        said = {name: repr(getattr(self, name)) for name in self.__struct_fields__}
        return sha256(canonical_bytes({"version": DETECTORS_VERSION, **said})).hex()
