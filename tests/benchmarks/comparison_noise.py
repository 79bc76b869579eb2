"""Measure how well a comparison tells backends apart on this machine.

    python -m tests.benchmarks.comparison_noise artifacts/cifar-310k-fashion-mnist/onnx-int8 --backend onnxruntime

Each run times the same artifact in four fresh processes: the artifact, its twin, and two that are made 2 % and 5 %
slower by a busy-wait after each inference. It prints in how many runs each was found to differ from the first. Then it
times a simulated backend with a known distribution of latencies, and prints the errors of p50 and p99.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from demos.benchmark.comparison import PROCESS_NOISE, noise_floor
from demos.benchmark.rounds import Timings, run_rounds
from demos.benchmark.statistics import Interval, percentiles, ratio
from demos.benchmark.workers import TimedModel, Worker
from simplenet.artifacts import read

SLOW_DOWNS = {"first": 0.0, "twin": 0.0, "2 % slower": 0.02, "5 % slower": 0.05}
FRAME = np.zeros((480, 640, 3), np.uint8)


class SlowedModel(TimedModel):
    """Takes a fraction longer for each inference."""

    def __init__(self, artifact: Path, options: dict[str, Any]) -> None:
        self._slow_down = options.pop("slow_down")
        super().__init__(artifact, options)

    def _infer_next(self) -> None:
        start = time.perf_counter()
        super()._infer_next()
        end = time.perf_counter()
        while time.perf_counter() < end + self._slow_down * (end - start):
            pass


class KnownModel(TimedModel):
    """Takes as long as its next latency of a fixed list says, whatever the artifact."""

    LATENCIES_MS = np.random.default_rng(0).lognormal(np.log(0.5), 0.1, 5000)

    def _infer_next(self) -> None:
        start = time.perf_counter()
        self._calls += 1
        while time.perf_counter() < start + self.LATENCIES_MS[self._calls % len(self.LATENCIES_MS)] / 1e3:
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--samples", type=int, default=700)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    found = dict.fromkeys(SLOW_DOWNS, 0)
    for number in range(1, arguments.runs + 1):
        measured = compare_slowed(arguments)
        for name, interval in measured.items():
            found[name] += interval.differs(PROCESS_NOISE if name == "twin" else noise_floor(measured["twin"]))
        texts = [f"{name} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for name, one in measured.items()]
        print(f"run {number}: {'; '.join(texts)}; found so far: {list(found.values())[1:]}", flush=True)
    median, p99 = measure_known(arguments)
    print(f"found to differ in {arguments.runs} runs: {found}")
    print(f"known distribution: error of p50 {100 * median:+.2f} %, of p99 {100 * p99:+.2f} %")


def compare_slowed(arguments: argparse.Namespace) -> dict[str, Interval]:
    """The ratio of each to the first, from one run."""
    artifact = read(arguments.artifact)
    with ExitStack() as stack:
        options = {"backend": arguments.backend, "threads": arguments.threads}
        workers = [
            stack.enter_context(Worker(name, artifact.folder, {**options, "slow_down": slow_down}, SlowedModel))
            for name, slow_down in SLOW_DOWNS.items()
        ]
        timings = _time(workers, artifact.manifest, arguments)
    ratios = {name: ratio(one.rounds_ms, timings["first"].rounds_ms) for name, one in timings.items()}
    return {name: one for name, one in ratios.items() if one is not None and name != "first"}


def measure_known(arguments: argparse.Namespace) -> tuple[float, float]:
    """The relative errors of p50 and p99."""
    artifact = read(arguments.artifact)
    with Worker("known", artifact.folder, {"backend": arguments.backend}, KnownModel) as worker:
        timings = _time([worker], artifact.manifest, arguments)["known"]
    truth = np.percentile(KnownModel.LATENCIES_MS, [50, 99])
    median, p99 = (one.value for one in percentiles(timings.rounds_ms, [50, 99]))
    return float(median / truth[0] - 1), float(p99 / truth[1] - 1)


def _time(workers: list[Worker], manifest: Any, arguments: argparse.Namespace) -> dict[str, Timings]:
    timings = {worker.name: Timings(0, 0, 0) for worker in workers}
    size = manifest.preprocessing.input_size
    images = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), np.uint8)
    for worker in workers:
        worker.call("set_inputs", images, FRAME)
        worker.call("warm_up")
    failures = run_rounds(workers, timings, samples=arguments.samples, rounds=arguments.rounds)
    if failures:
        raise SystemExit(f"failed: {failures}")
    return timings


if __name__ == "__main__":
    main()
