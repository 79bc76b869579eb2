"""A sliding window of latencies, for percentiles."""

from __future__ import annotations

import itertools
import threading
from collections import deque

from runtimes.timing import LatencySummary, summarize

KEPT_SAMPLES = 10_000
"""Bounds the memory of a loop that runs for weeks; the percentiles of its summary are those of its latest frames."""
LIVE_SAMPLES = 1_000
"""For the percentiles that window and page show: about the last half minute."""


class LatencyWindow:
    """The latest `KEPT_SAMPLES` latencies in milliseconds. Thread-safe."""

    def __init__(self) -> None:
        self._ms: deque[float] = deque(maxlen=KEPT_SAMPLES)
        self._lock = threading.Lock()

    def add(self, milliseconds: float) -> None:
        with self._lock:
            self._ms.append(milliseconds)

    def latest_ms(self, count: int = KEPT_SAMPLES) -> list[float]:
        """Return at most `count` samples, oldest first."""
        with self._lock:
            return list(itertools.islice(reversed(self._ms), count))[::-1]

    def summary(self, count: int = KEPT_SAMPLES) -> LatencySummary | None:
        """Summarize the latest `count` samples; None if there are none."""
        return summarize(samples) if (samples := self.latest_ms(count)) else None
