"""A loaded model does not change with its files, and files that do not belong together are not loaded."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest

import runtimes
from runtimes import loader
from simplenet import artifacts
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError
from simplenet.manifest import METADATA_KEY
from tests.conftest import MakeArtifact

BACKENDS = [("torch", "torch"), ("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino")]
IMAGE = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)


@pytest.fixture
def copy(make_artifact: MakeArtifact, tmp_path: Path, format: str) -> Path:
    return Path(shutil.copytree(make_artifact(format, "fp32").folder, tmp_path / "artifact"))


def overwrite(file: Path, content: bytes) -> None:
    with open(file, "r+b") as opened:  # in place, as `rsync --inplace` and `scp` do
        opened.truncate(len(content))
        opened.write(content)


@pytest.mark.parametrize(("format", "backend"), BACKENDS)
@pytest.mark.parametrize("is_bare", [False, True], ids=["folder", "bare"])
def test_files_overwritten_in_place_change_nothing(copy: Path, backend: str, is_bare: bool) -> None:
    if is_bare:
        (copy / "manifest.json").unlink()
    path = next(file for file in copy.iterdir() if file.suffix in (".pt2", ".onnx", ".xml"))
    with runtimes.load(path, backend, threads=1) as model:
        expected = model.classify([IMAGE])
        for file in copy.iterdir():
            size = file.stat().st_size
            overwrite(file, os.urandom(size))
            assert model.classify([IMAGE]) == expected
            overwrite(file, b"")
            assert model.classify([IMAGE]) == expected
        shutil.rmtree(copy)
        assert model.classify([IMAGE]) == expected


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="this system has no /proc")
@pytest.mark.parametrize("format", ["openvino"])
def test_no_file_is_mapped_while_its_manifest_is_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps: list[str] = []

    class Core(openvino.Core):
        def read_model(self, *args: Any, **options: Any) -> Any:
            model = super().read_model(*args, **options)
            maps.append(Path("/proc/self/maps").read_text())  # if another program truncates a mapped file: SIGBUS
            return model

    monkeypatch.setattr(openvino, "Core", Core)
    (copy / "manifest.json").unlink()
    loader.read_artifact(copy / "model.xml")
    assert len(maps) == 1
    assert str(copy) not in maps[0]


@pytest.mark.parametrize(("format", "backend"), BACKENDS)
def test_rejects_files_changed_after_the_artifact_was_read(copy: Path, backend: str) -> None:
    artifact = artifacts.read(copy)
    for name in artifact.manifest.files:
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        overwrite(copy / name, bytes(content))
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        runtimes.load(artifact, backend)


@pytest.mark.parametrize("format", ["onnx"])
def test_artifact_replaced_while_it_is_loaded_is_read_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = onnx.load(copy / "model.onnx")
    new.graph.initializer[-1].raw_data = bytes(len(new.graph.initializer[-1].raw_data))

    def read(path: object, backend: object) -> Artifact:
        """Read the artifact, then let another process publish other weights and labels."""
        artifact = artifacts.read(copy)
        onnx.save(new, copy / "model.onnx")
        labels = tuple(f"new {index}" for index in range(10))
        artifacts.write_manifest(copy, dataclasses.replace(artifact.manifest, labels=labels))
        return artifact

    monkeypatch.setattr(loader, "read_artifact", read)
    with runtimes.load(copy) as model:
        assert model.classify([IMAGE])[0][0].label.startswith("new ")


@pytest.mark.parametrize("format", ["openvino"])
def test_rejects_bare_xml_beside_the_weights_of_another_training(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    weights = np.fromfile(copy / "model.bin", np.float32)
    weights[len(weights) // 2] *= 1.25  # the size and the shapes stay
    weights.tofile(copy / "model.bin")
    with pytest.raises(ArtifactError, match=r"model.bin is not the file its manifest describes"):
        runtimes.load(copy / "model.xml")
    for suffix in (".xml", ".bin"):
        (copy / f"model{suffix}").rename(copy / f"renamed{suffix}")
    with pytest.raises(ArtifactError, match=r"renamed.bin is not the file its manifest describes"):
        runtimes.load(copy / "renamed.xml")


@pytest.mark.parametrize("format", ["openvino"])
def test_bare_xml_of_an_older_export_still_loads(copy: Path) -> None:
    artifact = artifacts.read(copy)
    model = openvino.Core().read_model(copy / "model.xml")
    model.set_rt_info(dataclasses.replace(artifact.manifest, files={}).to_json(), METADATA_KEY)
    openvino.save_model(model, copy / "old.xml", compress_to_fp16=False)
    with runtimes.load(copy) as new:
        expected = new.classify([IMAGE])
    (copy / "manifest.json").unlink()
    with runtimes.load(copy / "old.xml") as old:
        assert old.classify([IMAGE]) == expected


@pytest.mark.parametrize("format", ["onnx"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_rejects_onnx_with_weights_in_another_file(
    copy: Path, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    onnx.save(onnx.load(copy / "model.onnx"), bare / "model.onnx", save_as_external_data=True, location="weights")
    monkeypatch.chdir(bare)  # runtimes that are given bytes look for the other file here
    with pytest.raises(ArtifactError, match="has weights in another file"):
        runtimes.load(bare / "model.onnx", backend)
