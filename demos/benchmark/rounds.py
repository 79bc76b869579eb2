"""Time all workers in rounds, in an order that rotates and reverses, and compare their samples round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from demos.benchmark.workers import CALL_TIMEOUT_S, Worker
from runtimes.timing import LatencySummary, summarize
from simplenet.errors import SimpleNetError

_SETTLE_S = 0.1
"""Pause between workers: idle threads of ONNX Runtime were measured to spin for 42 ms, those of PyTorch for 10 ms."""
_FEWEST_END_TO_END = 8


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


def run_rounds(
    workers: Sequence[Worker],
    timings: dict[str, Timings],
    frame: npt.NDArray[np.uint8],
    *,
    samples: int,
    rounds: int,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, SimpleNetError]:
    """Time every worker once in each round and add the samples to `timings`.

    Every second round reverses the order of the one before, so that a steady drift of the machine affects all workers
    alike. The order rotates after each pair of rounds, so that no worker always follows the same one. A worker that
    fails is closed, and the others go on.

    Args:
        timings: by the worker's name.
        frame: RGB uint8 [H, W, 3], for the end-to-end latency.
        samples: inferences for each worker, spread over the rounds.
        on_round: called before each round.

    Returns:
        The error of each worker that failed, by name. The rounds before the failure stay in `timings`.
    """
    failures: dict[str, SimpleNetError] = {}
    count = -(-samples // rounds)
    end_to_end_count = max(_FEWEST_END_TO_END, count // 5)
    timeout_s = CALL_TIMEOUT_S + count  # one second for each inference
    for number in range(rounds if workers else 0):
        on_round()
        first = number // 2 % len(workers)
        order = [*workers[first:], *workers[:first]]
        for worker in order if number % 2 == 0 else reversed(order):
            name = worker.name
            if name not in failures:
                time.sleep(_SETTLE_S)
                try:
                    latencies = worker.call("time", count, timeout_s=timeout_s)
                    timings[name].rounds_ms.append(latencies)
                    latencies = worker.call("time_end_to_end", frame, end_to_end_count, timeout_s=timeout_s)
                    timings[name].end_to_end_rounds_ms.append(latencies)
                except SimpleNetError as error:
                    failures[name] = error
                    worker.close()
    return failures
