"""Latencies as they come: the latest ones, from which percentiles follow. Safe to read from any thread."""

from __future__ import annotations

import itertools
import threading
from collections import deque

from runtimes.timing import LatencySummary, summarize

KEPT_SAMPLES = 10_000
"""A loop may run for weeks: the percentiles of its summary are those of its latest frames."""
LIVE_SAMPLES = 1_000
"""Those that a window or a page shows meanwhile: of the last half minute or so."""


class LatencyWindow:
    """Milliseconds, the latest `KEPT_SAMPLES` of them."""

    def __init__(self) -> None:
        self._ms: deque[float] = deque(maxlen=KEPT_SAMPLES)
        self._lock = threading.Lock()

    def add(self, milliseconds: float) -> None:
        with self._lock:
            self._ms.append(milliseconds)

    def latest_ms(self, count: int = KEPT_SAMPLES) -> list[float]:
        """At most so many, oldest first."""
        with self._lock:
            newest_first = list(itertools.islice(reversed(self._ms), count))
        return newest_first[::-1]

    def summary(self, count: int = KEPT_SAMPLES) -> LatencySummary | None:
        """Of the latest `count`; None before the first."""
        return summarize(samples) if (samples := self.latest_ms(count)) else None
