"""Worker processes and rounds of the comparison."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demos.benchmark import rounds, statistics, workers
from demos.benchmark.rounds import Timings, run_rounds
from demos.benchmark.workers import Worker
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError, BackendError
from tests.conftest import MakeArtifact


def start(artifact: Artifact, backend: str = "onnxruntime") -> Worker:
    return Worker(f"{backend} fp32", artifact.folder, {"backend": backend, "precision": "fp32", "threads": 1})


def test_worker_raises_the_runtimes_error(tmp_path: Path) -> None:
    with (
        Worker("onnxruntime fp32", tmp_path / "nothing", {}) as worker,
        pytest.raises(ArtifactError, match="no artifact at"),
    ):
        worker.call("load")


def test_worker_that_dies_does_not_affect_others(make_artifact: MakeArtifact) -> None:
    artifact = make_artifact("onnx", "fp32")
    with start(artifact) as dying, start(artifact, "openvino") as living:
        timings = {}
        for worker in (dying, living):
            worker.call("load")
            worker.call("set_inputs", np.zeros((4, 32, 32, 3), np.uint8), np.zeros((48, 64, 3), np.uint8))
            timings[worker.name] = Timings(0, 0, 0)
        assert dying._process.pid is not None
        os.kill(dying._process.pid, signal.SIGKILL)
        failures = run_rounds([dying, living], timings, samples=6, rounds=3)
    assert list(failures) == ["onnxruntime fp32"]
    assert isinstance(failures["onnxruntime fp32"], BackendError)
    assert "died during time" in str(failures["onnxruntime fp32"])
    assert [len(samples) for samples in timings["openvino fp32"].rounds_ms] == [2, 2, 2]


@pytest.mark.slow
def test_worker_that_times_out_in_a_round_is_ended(
    make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(make_artifact("onnx", "fp32")) as worker:
        worker.call("load")
        assert worker._process.pid is not None
        os.kill(worker._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(rounds, "CALL_TIMEOUT_S", 0.5)
        failures = run_rounds([worker], {worker.name: Timings(0, 0, 0)}, samples=2, rounds=2)
        assert "did not reply to time within 1.5 s" in str(failures[worker.name])
        assert not worker._process.is_alive()


def test_worker_that_hangs_is_ended(make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CALL_TIMEOUT_S", 0.5)
    with start(make_artifact("onnx", "fp32")) as worker:
        assert worker._process.pid is not None
        os.kill(worker._process.pid, signal.SIGSTOP)
        with pytest.raises(BackendError, match=r"did not reply to load within 0\.5 s"):
            worker.call("load")
    assert not worker._process.is_alive()


def test_order_of_rounds_rotates_and_reverses() -> None:
    timed: list[str] = []

    class Recorder:
        def __init__(self, backend: str) -> None:
            self.name = f"{backend} fp32"

        def call(self, *_: object, timeout_s: float) -> dict[str, list[float]]:
            timed.append(self.name.split()[0])
            return {"inference": [1.0]}

    names = ["a", "b", "c"]
    timings = {f"{name} fp32": Timings(0, 0, 0) for name in names}
    run_rounds([Recorder(name) for name in names], timings, samples=3, rounds=3)  # type: ignore[misc]
    assert " ".join(timed) == "a b c  c b a  b c a  a c b  c a b  b a c".replace("  ", " ")
    assert timings["a fp32"].rounds_ms == [[1.0, 1.0]] * 3


def test_rounds_are_added_until_the_interval_is_narrow() -> None:
    class Noisy:
        def __init__(self, name: str) -> None:
            self.name, self._random = name, np.random.default_rng(len(name))

        def call(self, _: str, count: int, end_to_end_count: int, timeout_s: float) -> dict[str, list[float]]:
            return {"inference": list(1 + 0.1 * self._random.random(count))}

    def run(is_enough: Any, **limit: float) -> int:
        timings = {name: Timings(0, 0, 0) for name in ("a", "bb")}

        def check() -> bool:
            between = statistics.ratio(timings["bb"].rounds_ms, timings["a"].rounds_ms)
            return is_enough(between)  # type: ignore[no-any-return]

        run_rounds([Noisy("a"), Noisy("bb")], timings, samples=60, rounds=6, is_enough=check, **limit)  # type: ignore[list-item]
        return len(timings["a"].rounds_ms)

    assert run(lambda between: True) == 6
    assert run(lambda between: between.width <= 0.01) > 6
    assert run(lambda between: False, time_limit_s=0.2) > 6
