"""Timing all workers in rounds, one worker at a time, in an order that rotates and reverses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from demos.benchmark.statistics import Timings
from demos.benchmark.workers import CALL_TIMEOUT_S, Worker
from simplenet.errors import SimpleNetError

_SETTLE_S = 0.1
"""Pause between workers: idle threads of ONNX Runtime were measured to spin for 42 ms, those of PyTorch for 10 ms."""
_FEWEST_END_TO_END = 8


def run_rounds(
    workers: Sequence[Worker],
    timings: dict[str, Timings],
    frame: npt.NDArray[np.uint8],
    *,
    samples: int,
    rounds: int,
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, SimpleNetError]:
    """Time every worker once in each round and add the samples to `timings`.

    Every second round reverses the order of the one before, so that a steady drift of the machine affects all workers
    alike. The order rotates after each pair of rounds, so that no worker always follows the same one. A worker that
    fails is closed, and the others go on.

    Args:
        timings: by the worker's name.
        frame: RGB uint8 [H, W, 3], for the end-to-end latency.
        samples: inferences for each worker, spread over the rounds.
        on_step: called after each worker of each round.

    Returns:
        The error of each worker that failed, by name. The rounds before the failure stay in `timings`.
    """
    failures: dict[str, SimpleNetError] = {}
    count = -(-samples // rounds)
    end_to_end_count = max(_FEWEST_END_TO_END, count // 5)
    timeout_s = CALL_TIMEOUT_S + count  # one second for each inference
    for number in range(rounds):
        first = number // 2 % max(1, len(workers))
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
            on_step()
    return failures
