"""Percentiles are samples, and are None for too few samples; warm-up ends when steady or at its limit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes import timing

LATENCIES = st.lists(st.floats(0, 1e6), min_size=1, max_size=1500)


@given(LATENCIES)
def test_percentiles_are_ordered_samples(samples: list[float]) -> None:
    summary = timing.summarize(samples)
    n = len(samples)
    assert summary.n == n
    assert summary.min_ms == min(samples)
    given_percentiles = [(50, summary.p50_ms), (90, summary.p90_ms), (99, summary.p99_ms)]
    for percent, value in given_percentiles:
        if value is not None:
            assert value in samples
            assert sum(sample <= value for sample in samples) >= n * percent / 100
            assert sum(sample < value for sample in samples) < n * percent / 100
    values = [value for _, value in given_percentiles if value is not None]
    assert values == sorted(values)


@pytest.mark.parametrize(("n", "has_p90", "has_p99"), [(1, 0, 0), (63, 0, 0), (64, 1, 0), (661, 1, 0), (662, 1, 1)])
def test_percentiles_need_the_samples_of_mlperf(n: int, has_p90: int, has_p99: int) -> None:
    summary = timing.summarize([1.0] * n)
    assert (summary.p90_ms is not None, summary.p99_ms is not None) == (bool(has_p90), bool(has_p99))


@pytest.mark.parametrize("samples", [[], [math.nan], [math.inf], [-1.0]])
def test_rejects_invalid_samples(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        timing.summarize(samples)


def test_warm_up_stops_when_steady() -> None:
    calls = []
    samples = timing.warm_up(lambda: calls.append(1), window=4, tolerance=1e9, limit_s=30)
    # The first call and two windows.
    assert len(samples) == len(calls) == 9


def test_warm_up_ends_at_its_limit_when_never_steady() -> None:
    assert len(timing.warm_up(lambda: None, window=4, tolerance=-1, limit_s=0.05)) >= 5


def test_each_call_is_timed_once() -> None:
    calls = []
    assert len(timing.samples_ms(lambda: calls.append(1), 7)) == len(calls) == 7
