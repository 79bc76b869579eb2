"""The modes stream, throughput, cold and soak."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from demos.benchmark import modes
from tests.conftest import MakeArtifact
from tests.demos.conftest import RunDemo

FRAME = np.zeros((48, 64, 3), np.uint8)


class SlowRuntime:
    """Takes a fixed time for each call; `parallel` calls at once."""

    def __init__(self, seconds: float, parallel: int = 1) -> None:
        self.manifest = SimpleNamespace(input=SimpleNamespace(batch=1))
        self._seconds, self._slots = seconds, threading.Semaphore(parallel)

    def preprocess(self, images: list[Any]) -> np.ndarray[Any, Any]:
        return np.stack(images)

    def infer(self, batch: object) -> None:
        with self._slots:
            time.sleep(self._seconds)

    def classify(self, images: object) -> None:
        time.sleep(self._seconds)


def test_stream_drops_frames_that_a_newer_one_replaced() -> None:
    slow = modes.stream(SlowRuntime(0.05), FRAME, 1.0, 100)  # type: ignore[arg-type]
    assert slow["dropped"] > 50  # at most 20 of the 100 frames can be classified
    assert min(slow["ages_ms"]) >= 50
    assert len(slow["latencies_ms"]) + slow["dropped"] >= 100


def test_stream_rests_between_frames() -> None:
    fast = modes.stream(SlowRuntime(0.0), FRAME, 0.5, 10)  # type: ignore[arg-type]
    assert len(fast["latencies_ms"]) + fast["dropped"] >= 5
    assert fast["cpu_percent"] < 50


def test_throughput_grows_with_callers_until_saturated() -> None:
    curve = modes.throughput(SlowRuntime(0.02, parallel=2), FRAME, 0.5)["images_per_second"]  # type: ignore[arg-type]
    assert list(curve)[:3] == [1, 2, 4]
    assert curve[2] > 1.5 * curve[1]
    assert curve[4] < 1.5 * curve[2]


def test_soak_shows_growth_of_memory() -> None:
    kept = []

    class Leaking(SlowRuntime):
        def infer(self, batch: object) -> None:
            kept.append(np.ones(500_000))
            time.sleep(0.01)

    result = modes.soak(Leaking(0), FRAME, 0.5)  # type: ignore[arg-type]
    assert result["memory_mb"][-1] - result["memory_mb"][0] > 20
    assert len(result["windows_ms"]) == len(result["memory_mb"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", modes.NAMES)
def test_mode_measures_every_row(run_demo: RunDemo, make_artifact: MakeArtifact, mode: str) -> None:
    root = make_artifact("onnx", "fp32").folder.parents[1]
    flags = ["--backend", "onnxruntime", "--precision", "fp32", "--artifacts", root, "--threads", "1"]
    result = run_demo("compare", *flags, "--mode", mode, "--seconds", "0.3", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    (measured,) = report["rows"]
    assert report["mode"] == mode
    assert measured["reason"] is None
    assert measured["cells"]
    assert report["machine"]["physical_cores"] >= 1
    if mode == "cold":
        assert len(measured["starts"]) == 5
        assert all(start["load_ms"] > 0 and start["start_ms"] > 0 for start in measured["starts"])


def test_mode_prints_a_table(run_demo: RunDemo, make_artifact: MakeArtifact) -> None:
    root = make_artifact("onnx", "fp32").folder.parents[1]
    flags = ["--backend", "onnxruntime", "--precision", "fp32", "--artifacts", root, "--mode", "stream"]
    result = run_demo("compare", *flags, "--seconds", "0.3", "--fps", "20")
    assert result.returncode == 0, result.stderr
    assert "Frames arrive at 20 per second" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_mode_without_a_row_is_an_error(run_demo: RunDemo, tmp_path: Path) -> None:
    flags = ["--backend", "onnxruntime", "--precision", "fp32", "--artifacts", tmp_path, "--weights", "/nowhere.pth"]
    result = run_demo("compare", *flags, "--mode", "cold")
    assert (result.returncode, result.stdout) == (1, "")
