"""Finding backends, loading artifacts, and what a device needs to have installed."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
from runtimes.loader import read_artifact
from simplenet import artifacts
from simplenet.errors import ArtifactError, BackendUnavailable, UntrainedWarning, UsageError
from simplenet.formats import FORMATS
from simplenet.manifest import WeightsOrigin
from tests.conftest import MakeArtifact

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> str:
    """Run code in a fresh interpreter, from the repository root."""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}:
            raise ImportError(f'{{name}} is blocked')
sys.meta_path.insert(0, Block())
"""
HEAVY = {
    "torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "cuda",
    "cv2", "PIL", "rich", "safetensors", "psutil", "onnxscript", "onnxslim", "cykooz_resizer",
}  # fmt: skip


def test_importing_runtimes_imports_no_vendor_package() -> None:
    code = BLOCK.format(blocked=HEAVY) + (
        "import runtimes, runtimes.timing\n"
        "from runtimes.loader import backend_class\n"
        "print(*[backend_class(name).__name__ for name in runtimes.names()])"
    )
    assert python(code).split() == ["Backend"] * len(runtimes.names())


def test_device_with_only_onnxruntime_runs_an_artifact(make_artifact: MakeArtifact) -> None:
    folder = make_artifact("onnx", "fp32").folder
    code = BLOCK.format(blocked=HEAVY - {"onnxruntime"}) + (
        "import numpy, runtimes\n"
        f"with runtimes.load({str(folder)!r}, threads=1) as model:\n"
        "    print(model.classify([numpy.zeros((28, 28, 3), numpy.uint8)], k=1)[0][0].label)"
    )
    assert python(code).strip() in make_artifact("onnx", "fp32").manifest.labels


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_missing_package_is_named_with_the_install_command(make_artifact: MakeArtifact, backend: str) -> None:
    folder = make_artifact({"onnxruntime": "onnx"}.get(backend, backend), "fp32").folder
    code = BLOCK.format(blocked={backend}) + (
        "import runtimes, simplenet.errors\n"
        "try:\n"
        f"    runtimes.load({str(folder)!r})\n"
        "except simplenet.errors.BackendUnavailable as error:\n"
        "    print(error)"
    )
    assert f"pip install '.[{backend}]'" in python(code)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "is_passive"), [("", True), ("import torch", False)])
def test_pytorch_threads_sleep_unless_imported_before(
    make_artifact: MakeArtifact, first: str, is_passive: bool
) -> None:
    """PyTorch's OpenMP reads the variable when PyTorch is imported."""
    code = f"""
import os
os.environ.pop("OMP_WAIT_POLICY", None)
{first}
import runtimes
with runtimes.load({str(make_artifact("torch", "fp32").folder)!r}, allow_spinning=False) as model:
    print(os.environ.get("OMP_WAIT_POLICY"), model.describe().notes)
"""
    assert python(code) == (
        "passive ()\n"
        if is_passive
        else "None ('idle threads spin: PyTorch was imported before, or OMP_WAIT_POLICY is set',)\n"
    )


@pytest.mark.parametrize("format", ["torch", "onnx", "openvino"])
def test_bare_model_file_contains_its_manifest(make_artifact: MakeArtifact, format: str, tmp_path: Path) -> None:
    artifact = make_artifact(format, "fp32")
    for name in artifact.manifest.files:
        shutil.copy(artifact.folder / name, tmp_path / name)
    image = np.full((28, 28, 3), 77, np.uint8)
    with runtimes.load(tmp_path / artifact.model_file.name) as bare, runtimes.load(artifact) as whole:
        assert bare.classify([image]) == whole.classify([image])
        assert bare.manifest == whole.manifest
        assert bare.artifact.size_bytes == whole.artifact.size_bytes


def test_bare_model_file_opens_in_every_backend_of_its_format(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    artifact = make_artifact("onnx", "fp32")
    file = shutil.copy(artifact.model_file, tmp_path / "mine.onnx")
    with runtimes.load(file, "openvino") as model:
        assert model.manifest == artifact.manifest
    with pytest.raises(UsageError, match="torch opens torch artifacts, not onnx"):
        runtimes.load(file, "torch")


def test_rejects_a_path_that_is_too_long() -> None:
    with pytest.raises(ArtifactError, match="File name too long"):
        runtimes.load("x" * 300)


def test_loads_from_folder_manifest_and_model_file(make_artifact: MakeArtifact) -> None:
    artifact = make_artifact("onnx", "fp32")
    for path in (artifact.folder, artifact.folder / "manifest.json", artifact.model_file, str(artifact.folder)):
        with runtimes.load(path) as model:
            assert model.artifact == artifact


def test_openvino_opens_onnx_artifacts_too(make_artifact: MakeArtifact) -> None:
    with runtimes.load(make_artifact("onnx", "fp32"), backend="openvino") as model:
        assert model.describe().backend == "openvino"


def test_rejects_a_format_that_the_backend_does_not_open(make_artifact: MakeArtifact) -> None:
    with pytest.raises(UsageError, match="onnxruntime opens onnx artifacts, not openvino"):
        runtimes.load(make_artifact("openvino", "fp32"), backend="onnxruntime")


def test_unknown_backend_lists_the_choices_and_the_closest(make_artifact: MakeArtifact) -> None:
    with pytest.raises(UsageError, match=r"unknown backend 'openvno', did you mean 'openvino'\?; choose from: "):
        runtimes.load(make_artifact("onnx", "fp32"), backend="openvno")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" * 400], ids=["empty", "text", "binary"])
@pytest.mark.parametrize("name", sorted(format.model_file for format in FORMATS.values()))
def test_rejects_a_file_that_is_not_a_model(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises((ArtifactError, BackendUnavailable)) as caught:
        runtimes.load(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_rejects_a_model_file_changed_after_export(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    folder = tmp_path / "onnx-fp32"
    shutil.copytree(make_artifact("onnx", "fp32").folder, folder)
    model_file = folder / "model.onnx"
    content = bytearray(model_file.read_bytes())
    content[len(content) // 2] ^= 1
    model_file.write_bytes(content)
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        runtimes.load(folder)


def test_warns_about_random_weights(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    artifact = make_artifact("onnx", "fp32")
    folder = tmp_path / "onnx-fp32"
    shutil.copytree(artifact.folder, folder)
    (folder / "manifest.json").unlink()
    random = dataclasses.replace(artifact.manifest, weights=WeightsOrigin("random", "random", "0" * 64))
    artifacts.write_manifest(folder, random)
    with pytest.warns(UntrainedWarning, match="random weights"):
        runtimes.load(folder).close()


def test_rejects_manifest_with_another_number_of_classes(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    artifact = make_artifact("onnx", "fp32")
    folder = tmp_path / "onnx-fp32"
    shutil.copytree(artifact.folder, folder)
    (folder / "manifest.json").unlink()
    artifacts.write_manifest(folder, dataclasses.replace(artifact.manifest, num_classes=3, labels=("a", "b", "c")))
    with (
        runtimes.load(folder) as model,
        pytest.raises(ArtifactError, match=r"gives float32 \[1, 10\] for .* states logits of 3 classes"),
    ):
        model.classify([np.zeros((28, 28, 3), np.uint8)])


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right on Windows")
@pytest.mark.parametrize("named", ["current", "current/model.xml", "current/manifest.json", "site/current", "bare"])
def test_artifact_outlives_the_link_it_was_read_through(
    make_artifact: MakeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for version, precision in (("v1", "fp32"), ("v2", "int8")):
        shutil.copytree(make_artifact("openvino", precision).folder, tmp_path / version)
    if named == "bare":
        named = "current/model.xml"
        for manifest in tmp_path.glob("*/manifest.json"):
            manifest.unlink()
    Path("site").symlink_to(tmp_path)
    Path("current").symlink_to("v1")
    artifact = read_artifact(named)
    Path("current").unlink()
    Path("current").symlink_to("v2")
    with runtimes.load(artifact) as first, runtimes.load(named) as second:
        assert (first.precision, second.precision) == ("fp32", "int8")
    assert read_artifact("v1/model.xml").folder == Path("v1")  # without a link, the path is as it was typed


@pytest.mark.parametrize("path", [None, 5, b"artifacts", ["artifacts"], 1.5])
def test_rejects_what_is_no_path(path: Any) -> None:
    with pytest.raises(UsageError, match=f"by its path, a str or Path, not {type(path).__name__}"):
        runtimes.load(path)


@pytest.mark.parametrize("precision", ["bf16", "FP32", "fp8"])
def test_lists_the_precisions_of_the_format(make_artifact: MakeArtifact, precision: str) -> None:
    with pytest.raises(UsageError, match=f"in fp32, not {precision}; onnx artifacts are exported in fp32, fp16, int8$"):
        runtimes.load(make_artifact("onnx", "fp32"), precision=precision)


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "manifest.json"])
@pytest.mark.parametrize(("number", "advice"), [(errno.EACCES, "make it readable"), (errno.EIO, "export the artifact")])
def test_names_the_file_that_cannot_be_read(
    make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch, name: str, number: int, advice: str
) -> None:
    folder, builtin = make_artifact("openvino", "fp32").folder, open

    def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
        if Path(path).name == name:
            raise OSError(number, os.strerror(number), str(path))
        return builtin(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ArtifactError, match=f"cannot read {folder / name}: {os.strerror(number)}; {advice}"):
        runtimes.load(folder)
