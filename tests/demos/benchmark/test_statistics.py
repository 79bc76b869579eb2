"""Intervals of latencies and of ratios, on samples of known distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.benchmark.statistics import FEWEST_ROUNDS, Interval, percentiles, ratio

Rounds = list[list[float]]


def noisy_rounds(random: np.random.Generator, drift: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Rounds:
    """24 samples a round around `drift`: 5 % of noise, and a tenth of the rounds disturbed by 30 %."""
    disturbed = 1 + 0.3 * (random.random((len(drift), 1)) < 0.1)
    samples: Rounds = (drift[:, None] * disturbed * np.exp(random.normal(0, 0.05, (len(drift), 24)))).tolist()
    return samples


def test_twins_differ_in_few_runs_and_a_slower_one_is_found() -> None:
    random = np.random.default_rng(0)
    different = found = covered = 0
    for _ in range(200):
        drift = np.exp(random.normal(0, 0.2, 30))
        first, twin, slower = (noisy_rounds(random, drift * factor) for factor in (1, 1, 1.05))
        noise, measured = ratio(first, twin), ratio(slower, first)
        assert noise is not None
        assert measured is not None
        different += noise.differs(0)
        found += measured.differs(0)
        assert measured.low is not None
        assert measured.high is not None
        covered += measured.low <= 1.05 <= measured.high
    assert different <= 20  # 5 % are expected
    assert found >= 190
    assert covered >= 180


def test_percentiles_are_those_of_all_samples() -> None:
    random = np.random.default_rng(0)
    rounds: Rounds = random.lognormal(0, 0.3, (60, 24)).tolist()
    rounds[3] = rounds[3][:20]  # a round may be shorter
    samples = sorted(sample for samples in rounds for sample in samples)
    p50, p99 = percentiles(rounds, [50, 99])
    assert p50.value == samples[int(np.ceil(0.5 * len(samples))) - 1]
    assert p99.value == samples[int(np.ceil(0.99 * len(samples))) - 1]
    assert p50.low is not None
    assert p50.high is not None
    assert p50.low < 1 < p50.high < 1.05  # the true median
    assert p99.high is not None
    assert p99.low is not None
    assert p99.low < np.exp(0.3 * 2.326) < p99.high


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.floats(0.01, 100), st.integers(0, 2**31))
def test_ratio_inverts_and_ignores_common_drift(rounds: int, factor: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    first: Rounds = random.uniform(1, 2, (rounds, 5)).tolist()
    second: Rounds = random.uniform(1, 2, (rounds + 1, 5)).tolist()  # the last has no partner
    drift = random.uniform(0.1, 10, rounds + 1)
    there = ratio(second, first)
    back = ratio(first, second)
    drifted = ratio(
        [[sample * by * factor for sample in one] for one, by in zip(second, drift, strict=True)],
        [[sample * by for sample in one] for one, by in zip(first, drift, strict=False)],
    )
    assert there is not None
    assert back is not None
    assert drifted is not None
    assert there.value * back.value == pytest.approx(1)
    assert drifted.value == pytest.approx(there.value * factor)
    assert (there.low is None) == (rounds < FEWEST_ROUNDS)
    if there.low is not None and there.high is not None and drifted.low is not None:
        assert there.low <= there.value <= there.high
        assert drifted.low == pytest.approx(there.low * factor)


def test_no_common_round_has_no_ratio() -> None:
    assert ratio([], [[1.0]]) is None


def test_difference_counts_only_outside_the_noise() -> None:
    assert Interval(1.05, 1.03, 1.07).differs(0.02)
    assert not Interval(1.05, 1.03, 1.07).differs(0.04)
    assert Interval(0.9, 0.85, 0.95).differs(0.04)
    assert not Interval(1.05, 0.99, 1.10).differs(0)
    assert not Interval(2.0).differs(0)
