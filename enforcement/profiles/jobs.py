"""Departures from a declared job: from what behaviour windows say of one call to what is flagged of it.

Pure. A bundle declares a job as the profile of a window (`policies.job_profiles`); whether a call lies outside is
judged there, from its request and what went before. Here it becomes a deviation beside those from what was learned.
A declared job needs no baseline: what departs from it is flagged from the first call on, with the baseline version 0.

INVARIANT: policies read the window, never what is flagged here, so that a replay needs nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from enforcement.profiles.detectors import Deviation
from enforcement.profiles.thresholds import JobDetector

__all__ = ["off_job"]

_DETECTORS: Final[dict[str, JobDetector]] = {
    "tool": "off_job_tool",
    "first": "off_job_order",
    "next": "off_job_order",
    "hours": "off_job_hours",
}


def off_job(reasons: Iterable[str], tool: str) -> tuple[Deviation, ...]:
    """Return how a call departs from declared jobs.

    Args:
        reasons: In what it lies outside of each job that is its caller's, as `policies.windows.Call` says it.
        tool: What was called, as ``server/tool``.
    """
    found = {(_DETECTORS.get(reason, "off_job_volume"), tool if reason in _DETECTORS else reason) for reason in reasons}
    return tuple(
        Deviation(detector=detector, subject=subject, value=1.0, threshold=0.0) for detector, subject in sorted(found)
    )
