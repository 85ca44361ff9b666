"""What behaviour profiles say of a call, as one of the signals that policies read (`enforcement.signals`)."""

from __future__ import annotations

from typing import Final

from enforcement.drafts import Case
from enforcement.profiles.keeper import Profiles
from policies.signals import Signals

__all__ = ["ProfileSignals", "spoken_for"]


class ProfileSignals:
    """Fills ``baseline`` and ``deviations``; a `SignalSource`."""

    name: Final = "profile"
    fills: Final = frozenset({"baseline", "deviations"})

    def __init__(self, profiles: Profiles) -> None:
        """Speak for these profiles."""
        self._profiles = profiles

    def concerns(self, case: Case) -> bool:
        """Tell whether a message is a part of an agent's work."""
        return self._profiles.concerns(case)

    async def signals(self, case: Case) -> Signals:
        """Return whether there is a baseline, and the names of the detectors that find something in the call."""
        baseline, found = await self._profiles.look(case)
        return Signals(baseline=baseline, deviations=tuple(sorted({deviation.detector for deviation in found})))


def spoken_for(profiles: Profiles | None) -> tuple[ProfileSignals, ...]:
    """Return what speaks for profiles; nothing if there are none."""
    return () if profiles is None else (ProfileSignals(profiles),)
