"""PyTorch programs of the shipped model, opened with PyTorch and zipfile."""

from __future__ import annotations

import dataclasses
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import export
import runtimes
from export.to_torch import export_torch
from simplenet import image_sets, preprocessing, weights
from simplenet.errors import UsageError
from simplenet.manifest import METADATA_KEY, Manifest
from tests.conftest import MakeArtifact


def test_pytorch_alone_runs_the_program(make_artifact: MakeArtifact) -> None:
    artifact = make_artifact("torch", "fp32")
    extra = {METADATA_KEY: ""}
    program = torch.export.load(artifact.model_file, extra_files=extra)
    assert Manifest.from_json(extra[METADATA_KEY], where="the file") == dataclasses.replace(artifact.manifest, files={})
    loaded = weights.load("cifar-310k", "fashion-mnist")
    images, _ = image_sets.load("fashion-mnist", "evaluation", loaded.card.preprocessing, limit=1).all()
    with torch.inference_mode():
        logits = program.module()(torch.from_numpy(images)).numpy()
        expected = loaded.model(torch.from_numpy(preprocessing.normalize(images, loaded.card.preprocessing))).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_weights_are_channels_last_without_batch_norms(make_artifact: MakeArtifact) -> None:
    program = torch.export.load(make_artifact("torch", "fp32").model_file)
    convolutions = [tensor for tensor in program.state_dict.values() if tensor.ndim == 4 and tensor.shape[2] == 3]
    assert len(convolutions) > 10
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convolutions)
    assert "norm" not in str(program.graph)
    assert "dropout" not in str(program.graph)


def test_contains_no_pickle_and_no_local_path(make_artifact: MakeArtifact) -> None:
    with zipfile.ZipFile(make_artifact("torch", "fp32").model_file) as archive:
        contents = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert contents["data/sample_inputs/model.pt"] == b""
    assert not any(b'use_pickle": true' in content for content in contents.values())
    assert not any(content.startswith((b"\x80\x02", b"PK")) for content in contents.values())
    assert str(Path.cwd()).encode() not in contents["models/model.json"]
    assert b"stack_trace" not in contents["models/model.json"]


def test_a_dynamic_batch_of_floats(tmp_path: Path) -> None:
    artifact = export_torch(variant="cifar-310k", weights="random", input="float32", batch=None, artifacts=tmp_path)
    module = torch.export.load(artifact.model_file).module()
    for size in (1, 5):
        assert module(torch.zeros(size, 3, 32, 32)).shape == (size, 10)


def test_rejects_other_precisions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bf16 is a way to run an fp32 artifact"):
        export_torch(variant="cifar-310k", weights="random", precision="bf16", artifacts=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_callers_settings_change_no_export_and_are_kept(
    make_artifact: MakeArtifact, tmp_path: Path, format: str
) -> None:
    with torch.autocast("cpu", torch.bfloat16), np.errstate(all="raise"):
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        try:
            artifact = export.make(format, variant="cifar-310k", weights="fashion-mnist", artifacts=tmp_path)
            assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float64, "meta")
            assert torch.is_autocast_enabled("cpu")
            assert set(np.geterr().values()) == {"raise"}
        finally:
            torch.set_default_device(None)
            torch.set_default_dtype(torch.float32)
    assert artifact.manifest.measured == make_artifact(format, "fp32").manifest.measured


@pytest.mark.slow
def test_threads_can_export_and_load_at_the_same_time(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    existing = make_artifact("torch", "fp32")

    def work(index: int) -> int:
        if index % 2:
            options = {"variant": "cifar-310k", "weights": "fashion-mnist", "artifacts": tmp_path / str(index)}
            return export.make(["torch", "onnx"][index // 2 % 2], **options).manifest.num_classes
        with runtimes.load(existing, threads=1) as model:
            return len(model.classify([np.zeros((28, 28, 3), np.uint8)], k=10)[0])

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(work, range(8))) == {10}
