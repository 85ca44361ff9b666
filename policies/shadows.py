"""A decision that counted, held against what a canary says of the same request.

Pure. What a canary is asked, and where it is recorded, is `enforcement.canary`'s part.
"""

from __future__ import annotations

from typing import Final

from policies.evaluate import Reason
from policies.model import Decision
from policies.replay import LIMITS, differing_fields, summary_of

__all__ = ["differences"]

_NO_ANSWER: Final = LIMITS | {Reason.BUNDLE_ERROR}
"""With these one of the two is no function of bundle and request, or the canary does not load here."""


def differences(enforced: Decision, canary: Decision) -> tuple[str, ...] | None:
    """Return the compared fields in which two decisions on one request differ; None if nobody can tell."""
    if enforced.reason in _NO_ANSWER or canary.reason in _NO_ANSWER:
        return None
    return differing_fields(summary_of(enforced), summary_of(canary))
