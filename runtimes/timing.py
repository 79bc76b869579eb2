"""Measure the latency of a call: warm-up until steady, samples, percentiles if n is large enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES_FOR_P90 = 64
SAMPLES_FOR_P99 = 662
"""Smallest n for a percentile with 99 % confidence, by the early-stopping rule of MLPerf LoadGen."""


@dataclass(frozen=True)
class LatencySummary:
    """Latency of `n` samples in milliseconds; a percentile is None if n is too small for it."""

    n: int
    min_ms: float
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float


def summarize(samples_ms: Sequence[float]) -> LatencySummary:
    """Summarize with nearest-rank percentiles: each is one of the samples.

    Raises:
        ValueError: no samples, or a sample that is not a finite number >= 0.
    """
    ordered = sorted(samples_ms)
    if not ordered or not all(math.isfinite(sample) and sample >= 0 for sample in ordered):
        raise ValueError("latency needs at least one sample, and all must be finite and not negative")
    n = len(ordered)

    def percentile(percent: int) -> float:
        return float(ordered[math.ceil(percent * n / 100) - 1])

    return LatencySummary(
        n=n,
        min_ms=float(ordered[0]),
        p50_ms=percentile(50),
        p90_ms=percentile(90) if n >= SAMPLES_FOR_P90 else None,
        p99_ms=percentile(99) if n >= SAMPLES_FOR_P99 else None,
        mean_ms=float(np.mean(ordered)),
    )


def samples_ms(call: Callable[[], object], count: int) -> list[float]:
    """Wall-clock milliseconds of each of `count` calls."""
    clock = time.perf_counter_ns
    samples = []
    for _ in range(count):
        start = clock()
        call()
        samples.append((clock() - start) / 1e6)
    return samples


def warm_up(
    call: Callable[[], object], *, window: int = 16, tolerance: float = 0.03, limit_s: float = 3.0
) -> list[float]:
    """Call until the medians of two successive windows differ by at most `tolerance`.

    Args:
        window: calls per window.
        tolerance: relative difference of the medians.
        limit_s: seconds after which to stop anyway.

    Returns:
        All samples in milliseconds, from the first call on.
    """
    deadline = time.perf_counter() + limit_s
    samples = samples_ms(call, 1)
    previous: float | None = None
    while time.perf_counter() < deadline:
        latest = samples_ms(call, window)
        samples += latest
        median = float(np.median(latest))
        if previous is not None and abs(median - previous) <= tolerance * previous:
            break
        previous = median
    return samples
