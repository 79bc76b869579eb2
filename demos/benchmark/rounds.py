"""Time all workers in many short rounds, in an order that rotates and reverses."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from demos.benchmark.workers import CALL_TIMEOUT_S, STAGES, Worker
from runtimes.timing import LatencySummary, summarize
from simplenet.errors import SimpleNetError

_FEWEST_END_TO_END = 3


@dataclass
class Timings:
    """Raw samples in milliseconds, for each of `workers.STAGES` one list for each round that the worker finished."""

    load_ms: float
    first_inference_ms: float
    warm_up_calls: int
    stages_ms: dict[str, list[list[float]]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    peak_memory_mb: float | None = None

    @property
    def rounds_ms(self) -> list[list[float]]:
        """Model latency: inference only."""
        return self.stages_ms["inference"]

    def summary(self, stage: str) -> LatencySummary | None:
        """Summarize the samples of all rounds; a percentile is None if it needs more samples."""
        samples = list(chain.from_iterable(self.stages_ms[stage]))
        return summarize(samples) if samples else None


def run_rounds(
    workers: Sequence[Worker],
    timings: dict[str, Timings],
    *,
    samples: int,
    rounds: int,
    is_enough: Callable[[], bool] = lambda: True,
    time_limit_s: float = math.inf,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, SimpleNetError]:
    """Time all workers in rounds, and add the samples to `timings`.

    A round times every worker twice, in one order and then in the reverse, so that a drift of the machine during the
    round affects all workers alike. The order rotates from round to round, so that no worker always follows the same
    one. A worker that fails is closed, and the others go on.

    Args:
        timings: by the worker's name.
        samples: inferences for each worker, spread over `rounds`.
        is_enough: whether to stop after `rounds` rounds; else rounds are added until it is true.
        time_limit_s: no round is added after this time.
        on_round: called before each round.

    Returns:
        The error of each worker that failed, by name. The rounds before the failure stay in `timings`.
    """
    failures: dict[str, SimpleNetError] = {}
    count = -(-samples // (2 * rounds))
    end_to_end_count = max(_FEWEST_END_TO_END, count // 4)
    end_s = time.perf_counter() + time_limit_s
    number = 0
    while running := [worker for worker in workers if worker.name not in failures]:
        if number >= rounds and (is_enough() or time.perf_counter() > end_s):
            break
        on_round()
        first = number % len(running)
        order = [*running[first:], *running[:first]]
        latencies: dict[str, dict[str, list[float]]] = {worker.name: {} for worker in order}
        for worker in [*order, *reversed(order)]:
            if worker.name in failures:
                continue
            try:
                # One second for each inference.
                measured = worker.call("time", count, end_to_end_count, timeout_s=CALL_TIMEOUT_S + count)
            except SimpleNetError as error:
                failures[worker.name] = error
                worker.close()
            else:
                for stage, samples_ms in measured.items():
                    latencies[worker.name].setdefault(stage, []).extend(samples_ms)
        for name in latencies.keys() - failures.keys():
            for stage, samples_ms in latencies[name].items():
                timings[name].stages_ms[stage].append(samples_ms)
        number += 1
    return failures
