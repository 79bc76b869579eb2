"""Overhead of this project's code over the vendor's call: `make bench`. No time is asserted; read the table.

The rows of a group are measured one after the other in one process; compare their medians.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import export
import runtimes
from simplenet import fast_resize, image_sets, preprocessing
from simplenet.artifacts import Artifact
from simplenet.errors import UntrainedWarning
from simplenet.preprocessing import IMAGENET_PREPROCESSING
from tests.conftest import MakeArtifact
from tests.reference_preprocessing import reference

ROOT = Path(__file__).resolve().parents[2]
CASES = [
    ("onnxruntime", "onnx", "fp32"),
    ("onnxruntime", "onnx", "int8"),
    pytest.param(("openvino", "openvino", "int8"), marks=pytest.mark.slow),  # NNCF takes seconds to import
    ("torch", "torch", "fp32"),
]


@pytest.fixture(scope="module")
def make_benchmark_artifact(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_artifact: MakeArtifact
) -> MakeArtifact:
    """The 1.5m variant with random weights, which have the same latency as trained ones; untimed, the shared model."""
    if request.config.getoption("benchmark_disable"):
        return make_artifact
    root = tmp_path_factory.mktemp("artifacts")

    def make(format: str, precision: str) -> Artifact:
        return export.make(format, variant="1.5m", weights="random", precision=precision, artifacts=root)

    return make


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[2]}", scope="module")
def runtime(request: pytest.FixtureRequest, make_benchmark_artifact: MakeArtifact) -> Iterator[runtimes.Runtime]:
    backend, format, precision = request.param
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedWarning)
        loaded = runtimes.load(make_benchmark_artifact(format, precision), backend)
    with loaded:
        yield loaded


@pytest.fixture
def frame() -> np.ndarray[Any, Any]:
    square = dataclasses.replace(IMAGENET_PREPROCESSING, resize_shorter_side=640, crop_size=640)
    return np.ascontiguousarray(image_sets.synthetic(1, square)[0][:480])


def raw_call(runtime: runtimes.Runtime, batch: np.ndarray[Any, Any]) -> Callable[[], object]:
    """The vendor's call as in its documentation, with the same file and settings."""
    file = str(runtime.artifact.model_file)
    if runtime.name == "onnxruntime":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = runtime.threads
        session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"image": batch})
    if runtime.name == "openvino":
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": runtime.threads,
        }
        request = openvino.Core().compile_model(file, "CPU", settings).create_infer_request()
        return lambda: request.infer({0: batch}, share_inputs=True)
    import torch

    module = torch.export.load(file).module()

    def call() -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(batch)).numpy()

    return call


def measure(benchmark: BenchmarkFixture, call: Callable[[], object], group: str) -> None:
    benchmark.group = group
    benchmark.pedantic(call, rounds=300, warmup_rounds=50)


@pytest.mark.parametrize("call", ["raw", "infer", "frame-to-top5"])
def test_one_image(
    benchmark: BenchmarkFixture, runtime: runtimes.Runtime, frame: np.ndarray[Any, Any], call: str
) -> None:
    batch = runtime.preprocess([frame]).copy()
    calls: dict[str, Callable[[], object]] = {
        "raw": raw_call(runtime, batch),
        "infer": lambda: runtime.infer(batch),
        "frame-to-top5": lambda: runtime.classify([frame], k=5),
    }
    measure(benchmark, calls[call], f"1.5m {runtime.name} {runtime.precision}")


@pytest.mark.parametrize("method", ["fast", "Pillow-one-step", "Pillow-reference"])
def test_preprocessing_a_frame(
    benchmark: BenchmarkFixture, monkeypatch: pytest.MonkeyPatch, frame: np.ndarray[Any, Any], method: str
) -> None:
    if method == "Pillow-one-step":
        monkeypatch.setattr(fast_resize, "available", lambda: False)
    step = reference if method == "Pillow-reference" else preprocessing.to_model_input
    measure(benchmark, lambda: step(frame, IMAGENET_PREPROCESSING), "640x480 to 224")


@pytest.mark.parametrize("statement", ["pass", "import numpy", "import runtimes"])
def test_importing(benchmark: BenchmarkFixture, statement: str) -> None:
    benchmark.group = "a fresh python -c"
    benchmark.pedantic(
        lambda: subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True), rounds=10, warmup_rounds=2
    )
