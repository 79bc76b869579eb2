"""Latency samples of one backend, and how they compare with another backend's, round by round."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from runtimes.timing import LatencySummary, summarize


@dataclass
class Timings:
    """Raw samples in milliseconds, one list for each round that the worker finished."""

    load_ms: float
    first_inference_ms: float
    warm_up_calls: int
    rounds_ms: list[list[float]] = field(default_factory=list)
    """Model latency: inference only."""
    end_to_end_rounds_ms: list[list[float]] = field(default_factory=list)
    """End-to-end latency: from a frame to its top-5."""
    peak_memory_mb: float | None = None

    @property
    def latency(self) -> LatencySummary | None:
        """Model latency over all rounds; a percentile is None if it needs more samples."""
        return _summary(self.rounds_ms)

    @property
    def end_to_end(self) -> LatencySummary | None:
        return _summary(self.end_to_end_rounds_ms)


@dataclass(frozen=True)
class SpeedUp:
    """The ratio of another backend's p50 to this one's: median, lowest and highest of all rounds."""

    median: float
    lowest: float
    highest: float


def speed_up(timings: Timings, other: Timings) -> SpeedUp | None:
    """How many times faster `timings` is than `other`; None without a common round."""
    ratios = _p50_ratios(timings, other)
    return SpeedUp(float(np.median(ratios)), min(ratios), max(ratios)) if ratios else None


def rounds_won(timings: Timings, other: Timings) -> tuple[int, int]:
    """In how many rounds `timings` had the lower p50, and the number of common rounds."""
    ratios = _p50_ratios(timings, other)
    return sum(ratio > 1 for ratio in ratios), len(ratios)


def _p50_ratios(timings: Timings, other: Timings) -> list[float]:
    pairs = zip(timings.rounds_ms, other.rounds_ms, strict=False)
    return [float(np.median(theirs) / np.median(ours)) for ours, theirs in pairs]


def _summary(rounds_ms: list[list[float]]) -> LatencySummary | None:
    samples = list(chain.from_iterable(rounds_ms))
    return summarize(samples) if samples else None
