"""Peers: the vendor's own call, and other architectures through this project's export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import runtimes
from demos.benchmark import peers, recommendation
from demos.benchmark.comparison import Row
from demos.benchmark.workers import Worker
from demos.models import ModelRequest
from simplenet.errors import BackendUnavailable
from tests.conftest import MakeArtifact
from tests.demos.benchmark.comparisons import compared, rows_with, shown
from tests.demos.conftest import RunDemo


@pytest.mark.slow
def test_raw_call_is_measured_beside_ours(run_demo: RunDemo, make_artifact: MakeArtifact) -> None:
    root = make_artifact("onnx", "fp32").folder.parents[1]
    flags = ["--backend", "onnxruntime", "--precision", "fp32", "--artifacts", root, "--limit", "20", "--samples", "24"]
    result = run_demo("compare", *flags, "--rounds", "6", "--threads", "1", "--peer", "raw")
    assert result.returncode == 0, result.stderr
    rows = [line.split()[:5] for line in result.stdout.splitlines() if line.startswith(" onnxruntime")]
    assert [row[:3] for row in rows][1] == ["onnxruntime", "fp32", "raw"]
    assert len(rows) == 2


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_raw_call_gives_the_runtimes_logits(make_artifact: MakeArtifact, backend: str) -> None:
    format = {"onnxruntime": "onnx"}.get(backend, backend)
    batch = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    with runtimes.load(make_artifact(format, "fp32"), backend) as runtime:
        raw = peers.raw_call(runtime)(batch)
        values = raw if isinstance(raw, np.ndarray) else raw[0]  # type: ignore[index]
        np.testing.assert_allclose(values, runtime.infer(batch), rtol=1e-4, atol=1e-4)


def test_raw_process_times_the_vendors_call(make_artifact: MakeArtifact) -> None:
    artifact = make_artifact("onnx", "fp32")
    options = {"backend": "onnxruntime", "precision": "fp32", "threads": 1}
    with Worker("raw", artifact.folder, options, peers.RawModel) as worker:
        worker.call("set_inputs", np.zeros((2, 32, 32, 3), np.uint8), np.zeros((48, 64, 3), np.uint8))
        measured = worker.call("time", 3, 2)
    assert [len(samples) for samples in measured.values()] == [3, 2, 2, 2]


def test_peer_is_never_recommended_or_called_fastest(make_artifact: MakeArtifact) -> None:
    rows = rows_with(make_artifact("onnx", "fp32"), onnxruntime=[2.0] * 8, openvino=[3.0] * 8)
    faster = dataclasses.replace(rows[0], peer="resnet18", timings=rows_with(rows[0].artifact, a=[1.0] * 8)[0].timings)  # type: ignore[arg-type]
    result = compared([*rows, faster])
    assert result.fastest() == rows
    assert "resnet18" not in recommendation.recommend(result, recommendation.Limits())
    text = shown(result)
    assert "onnxruntime   fp32 resnet18" in text
    assert "its published ImageNet top-1 is 73.06 % (pytorchcv 0.0.74" in text


def test_missing_pytorchcv_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pytorchcv", None)
    with pytest.raises(BackendUnavailable, match="pip install --no-deps pytorchcv"):
        peers._network("resnet18")
    request = ModelRequest(variant="1.5m", weights="random", artifacts_root=tmp_path)
    (row,) = peers.rows_of(["resnet18"], [Row("onnxruntime", "fp32"), Row("onnxruntime", "fp16")], request)
    assert row.reason is not None
    assert row.reason.startswith("cannot be exported: pytorchcv is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_architecture_is_exported_and_agrees_with_pytorch(tmp_path: Path, precision: str) -> None:
    pytest.importorskip("pytorchcv", reason="pip install --no-deps pytorchcv")
    request = ModelRequest(variant="1.5m", weights="random", artifacts_root=tmp_path)
    (row,) = peers.rows_of(["squeezenet"], [Row("onnxruntime", precision)], request)
    assert row.artifact is not None, row.reason
    manifest = row.artifact.manifest
    assert (manifest.variant, manifest.num_classes, manifest.weights.source) == ("squeezenet", 1000, "random")
    assert row.artifact.folder.parent.name == "squeezenet-random"
    (again,) = peers.rows_of(["squeezenet"], [Row("onnxruntime", precision)], request)
    assert again.artifact == row.artifact
