"""The table of formats: consistent in itself, and with the backends and exporters that read it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from runtimes import loader
from simplenet import artifacts
from simplenet.errors import ArtifactError
from simplenet.formats import FORMATS, PRECISIONS, Format
from simplenet.manifest import InputSpec, Manifest, WeightsOrigin
from simplenet.preprocessing import CIFAR10_PREPROCESSING


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_a_format_has_a_backend_an_exporter_and_known_precisions(format: Format) -> None:
    assert FORMATS[format.name] is format
    assert format.name in loader.backend_class(format.default_backend).FORMATS
    assert importlib.util.find_spec(f"export.to_{format.name}")
    assert format.precisions[0] == "fp32"
    assert set(format.precisions) <= set(PRECISIONS) - {"bf16"}


def test_the_suffix_of_a_model_file_tells_its_format() -> None:
    assert len({Path(format.model_file).suffix for format in FORMATS.values()}) == len(FORMATS)


def test_a_new_format_with_two_files_needs_only_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base package reads and writes it; only an exporter, a backend and an extra in pyproject.toml are missing."""
    monkeypatch.setitem(FORMATS, "ncnn", Format("ncnn", ("model.param", "model.bin"), ("fp32", "int8"), "ncnn"))
    manifest = Manifest(
        variant="cifar-310k",
        format="ncnn",
        precision="fp32",
        weights=WeightsOrigin("random", "random", "ab" * 32),
        num_classes=10,
        input=InputSpec("image", "uint8", "NHWC", 32, 32),
        preprocessing=CIFAR10_PREPROCESSING,
    )
    with artifacts.publishing(tmp_path / "ncnn-fp32") as new:
        (new / "model.param").write_bytes(b"graph")
        (new / "model.bin").write_bytes(b"weights")
        artifacts.write_manifest(new, manifest)
    artifact = artifacts.read(tmp_path / "ncnn-fp32")
    assert artifact.model_file.name == "model.param"
    assert artifact.size_bytes == len(b"graph" + b"weights")
    assert artifact == artifacts.read(artifact.model_file)
    (tmp_path / "ncnn-fp32" / "model.bin").write_bytes(b"others")
    with pytest.raises(ArtifactError, match=r"model\.bin is not the file its manifest describes"):
        artifacts.read(tmp_path / "ncnn-fp32")
