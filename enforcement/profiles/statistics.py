"""The statistics that behaviour is compared with: each a few lines, each checked against its plain definition.

Pure. Counts in, a number out; nothing here knows what was counted.

Sources: population stability index, as in credit scoring (0.1 small, 0.2 marked); Kolmogorov-Smirnov two-sample
statistic, with the Dvoretzky-Kiefer-Wolfowitz form of its limit; I. J. Good, "The population frequencies of species"
(1953) for the mass of what was not seen; E. S. Page, "Continuous inspection schemes" (1954) for the cumulative sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Final

__all__ = ["cusum_step", "ks_distance", "ks_limit", "population_stability", "unseen_mass"]

_SMOOTHING: Final = 0.5
"""Added to each count of a distribution, so that what one side never saw has a finite weight (Jeffreys)."""


def population_stability(reference: Sequence[int], recent: Sequence[int]) -> float:
    """Return the population stability index of two histograms over the same bins.

    Args:
        reference: Counts of what was usual.
        recent: Counts of now.

    Returns:
        0 for equal shares; 0 as well where one of them has counted nothing, for then nothing is known.

    Raises:
        ValueError: They have different numbers of bins.
    """
    _same_bins(reference, recent)
    if not sum(reference) or not sum(recent):
        return 0.0
    usual, now = _shares(reference), _shares(recent)
    return sum((there - here) * log(there / here) for here, there in zip(usual, now, strict=True))


def _shares(counts: Sequence[int]) -> list[float]:
    whole = sum(counts) + _SMOOTHING * len(counts)
    return [(count + _SMOOTHING) / whole for count in counts]


def _same_bins(reference: Sequence[int], recent: Sequence[int]) -> None:
    if len(reference) != len(recent):
        raise ValueError("two histograms are compared over the same bins")


def ks_distance(reference: Sequence[int], recent: Sequence[int]) -> float:
    """Return the greatest distance between the cumulative shares of two histograms over the same ordered bins.

    Args:
        reference: Counts of what was usual.
        recent: Counts of now.

    Returns:
        0 to 1; 0 where one of them has counted nothing.

    Raises:
        ValueError: They have different numbers of bins.
    """
    _same_bins(reference, recent)
    whole, part = sum(reference), sum(recent)
    if not whole or not part:
        return 0.0
    usual = now = 0
    greatest = 0.0
    for there, here in zip(reference, recent, strict=True):
        usual, now = usual + there, now + here
        greatest = max(greatest, abs(usual / whole - now / part))
    return greatest


def ks_limit(size: int, other: int, alpha: float) -> float:
    """Return the distance that two samples of one distribution exceed with a probability of at most about ``alpha``.

    Args:
        size: Of one sample.
        other: Of the other.
        alpha: Greater than 0, less than 1.
    """
    return sqrt(-log(alpha / 2) / 2) * sqrt((size + other) / (size * other))


def unseen_mass(once: int, total: int) -> float:
    """Return how probable it is that the next one is of a kind never seen: the Good-Turing estimate.

    Args:
        once: How many kinds were seen exactly once.
        total: How many were seen in all.
    """
    return 1.0 if total <= 0 else once / total


def cusum_step(score: float, *, event: bool, usual: float, shifted: float) -> float:
    """Return the next value of a one-sided cumulative sum that looks for an event becoming more frequent.

    Args:
        score: The value before.
        event: It has happened.
        usual: Its probability as ever, above 0.
        shifted: The probability that is looked for, above ``usual`` and below 1.

    Returns:
        Never below 0. Under ``usual`` a value of ``h`` is passed about once in exp(h) steps at most.
    """
    step = log(shifted / usual) if event else log((1 - shifted) / (1 - usual))
    return max(0.0, score + step)
