"""Where a policy reads signals, as an engine tells it from a bundle's text. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ALL_SIGNALS", "SignalRead"]

ALL_SIGNALS: Final = ""
"""Stands for the signals as a whole, or for one whose name is only known when a policy is evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRead:
    """A place at which a policy reads a signal.

    Attributes:
        place: ``file:line``.
        name: The signal's name, or `ALL_SIGNALS`.
        texts: The texts written out that it is compared to.
    """

    place: str
    name: str
    texts: tuple[str, ...] = ()
