"""Each statistic equals its plain definition, written here in another way."""

from __future__ import annotations

from math import exp, isclose, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.profiles.statistics import cusum_step, ks_distance, ks_limit, population_stability, unseen_mass

COUNTS = st.integers(0, 500)


@st.composite
def two(draw):
    size = draw(st.integers(1, 12))
    return [draw(st.lists(COUNTS, min_size=size, max_size=size)) for _ in range(2)]


@given(two())
def test_stability_is_the_sum_of_both_divergences(both):
    """PSI = KL(p‖q) + KL(q‖p), of the smoothed shares."""
    shares = [[(count + 0.5) / (sum(counts) + 0.5 * len(counts)) for count in counts] for counts in both]
    here, there = shares
    divergences = sum(p * log(p / q) for p, q in zip(here, there, strict=True)) + sum(
        q * log(q / p) for p, q in zip(here, there, strict=True)
    )
    wanted = divergences if all(map(sum, both)) else 0.0
    assert isclose(population_stability(*both), wanted, abs_tol=1e-9)


@given(two())
def test_stability_does_not_care_which_is_which_and_is_never_negative(both):
    value = population_stability(*both)
    assert value >= 0
    assert isclose(value, population_stability(both[1], both[0]), abs_tol=1e-9)


@given(two())
def test_the_distance_is_that_of_the_samples_themselves(both):
    """The two-sample statistic over the samples spread out, as its definition has it."""
    samples = [[place for place, count in enumerate(counts) for _ in range(count)] for counts in both]
    wanted = 0.0
    if all(samples):
        wanted = max(
            abs(sum(x <= at for x in samples[0]) / len(samples[0]) - sum(x <= at for x in samples[1]) / len(samples[1]))
            for at in range(len(both[0]))
        )
    assert isclose(ks_distance(*both), wanted, abs_tol=1e-9)


@given(two())
def test_the_distance_lies_between_nothing_and_everything(both):
    assert 0 <= ks_distance(*both) <= 1


@pytest.mark.parametrize("function", [population_stability, ks_distance])
@pytest.mark.parametrize("both", [([1], [1, 2]), ([], [1]), ([0], [0, 0])])
def test_histograms_over_other_bins_are_not_compared(function, both):
    with pytest.raises(ValueError, match="same bins"):
        function(*both)


@pytest.mark.parametrize("function", [population_stability, ks_distance])
@pytest.mark.parametrize("both", [([0, 0], [3, 4]), ([3, 4], [0, 0]), ([0, 0], [0, 0])])
def test_of_nothing_nothing_is_said(function, both):
    assert function(*both) == 0.0


def test_distributions_without_anything_in_common_are_as_far_as_can_be():
    assert ks_distance([9, 0], [0, 9]) == 1.0
    assert population_stability([1000, 0], [0, 1000]) > 10


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.floats(1e-9, 0.5))
def test_the_limit_is_what_its_probability_says(size, other, alpha):
    """2·exp(-2·d²·nm/(n+m)) = alpha, solved for d."""
    limit = ks_limit(size, other, alpha)
    assert isclose(2 * exp(-2 * limit**2 * size * other / (size + other)), alpha, rel_tol=1e-6)


@given(st.lists(st.integers(0, 30), max_size=300))
def test_what_was_never_seen_is_as_probable_as_what_was_seen_once(sample):
    once = sum(sample.count(kind) == 1 for kind in set(sample))
    assert unseen_mass(once, len(sample)) == (once / len(sample) if sample else 1.0)


@given(st.lists(st.booleans(), max_size=200), st.floats(0.01, 0.3), st.floats(0.35, 0.9))
def test_the_sum_is_the_greatest_of_all_sums_that_end_now(events, usual, shifted):
    """Page: S_n = max over k of the likelihood ratio of the last k events, or 0."""
    steps = [log(shifted / usual) if event else log((1 - shifted) / (1 - usual)) for event in events]
    score = 0.0
    for event in events:
        score = cusum_step(score, event=event, usual=usual, shifted=shifted)
    wanted = max([0.0, *(sum(steps[start:]) for start in range(len(steps)))])
    assert isclose(score, wanted, abs_tol=1e-6)
