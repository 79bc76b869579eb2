"""The export scripts as commands: results, errors, and that a failed export leaves the old artifact."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import export
from export import command_line, to_onnx, to_torch
from runtimes import loader
from simplenet import artifacts, checkpoints, variants
from simplenet import model as models
from simplenet.errors import ArtifactError, DataError, ExportError, UsageError
from simplenet.model_card import ModelCard
from tests.conftest import MakeArtifact

ROOT = Path(__file__).resolve().parents[2]
RANDOM_MODEL = ["--variant", "cifar-310k", "--weights", "random"]


def command(script: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "export" / f"{script}.py"), *RANDOM_MODEL, *map(str, arguments)]


def main(script: str, *arguments: str | Path) -> int:
    """Run a script's `main` in this process."""
    exit_code: int = importlib.import_module(f"export.{script}").main([*RANDOM_MODEL, *map(str, arguments)])
    return exit_code


def old_artifact(root: Path, name: str) -> Path:
    folder = root / "cifar-310k-random" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("the old one")
    return folder


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", export.formats())
def test_scripts_start_from_any_folder(format: str) -> None:
    script = ROOT / "export" / f"to_{format}.py"
    done = subprocess.run([sys.executable, script, "--help"], cwd="/", capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python export/to_{format}.py --variant" in done.stdout


@pytest.mark.slow
def test_stdout_and_stderr_of_a_script_in_a_process(tmp_path: Path) -> None:
    done = subprocess.run(
        command("to_onnx", "--precision", "fp16", "--artifacts", tmp_path, "--json"),
        cwd="/", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "cifar-310k-random" / "onnx-fp16")


@pytest.mark.parametrize(
    ("script", "precision"),
    [
        ("to_torch", "fp32"),
        *(pytest.param(each, "int8", marks=pytest.mark.slow) for each in ("to_onnx", "to_openvino")),
    ],
)
def test_stdout_holds_only_the_json(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], script: str, precision: str
) -> None:
    assert main(script, "--precision", precision, "--artifacts", tmp_path, "--json") == 0
    output, errors = capfd.readouterr()
    assert errors == ""
    result = json.loads(output)
    artifact = artifacts.read(result["folder"])
    assert result["size_bytes"] == artifact.size_bytes
    assert result["manifest"]["files"] == artifact.manifest.files
    assert artifact.folder == tmp_path / "cifar-310k-random" / f"{script.removeprefix('to_')}-{precision}"
    assert [path.name for path in artifact.folder.parent.iterdir()] == [artifact.folder.name]  # nothing temporary


def test_prints_one_line_without_json(capsys: pytest.CaptureFixture[str], make_artifact: MakeArtifact) -> None:
    made = make_artifact("torch", "fp32")
    capsys.readouterr()
    assert command_line.run(to_torch.build_parser(), lambda **_options: made, []) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert output.startswith(
        f"{made.folder}: 1.30 MB, top-1 agrees with PyTorch on 100.0% of 16 images "
        "(fashion-mnist evaluation), cosine at least "
    )
    assert output.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_leaves_the_old_artifact(tmp_path: Path) -> None:
    old = old_artifact(tmp_path, "onnx-fp32")
    process = subprocess.Popen(
        command("to_onnx", "--artifacts", tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(old.parent.glob(".onnx-fp32.*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert errors == "interrupted; no incomplete file was kept\n"
    assert contents(tmp_path) == {"cifar-310k-random/onnx-fp32/manifest.json": "the old one"}


@pytest.mark.slow
def test_killed_export_leaves_the_old_artifact(tmp_path: Path) -> None:
    old = old_artifact(tmp_path, "onnx-fp32")
    code = f"""
import os, signal
from export import agreement, to_onnx
agreement.run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # when the model file is written
to_onnx.main({[*RANDOM_MODEL, "--artifacts", str(tmp_path)]!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert list(old.parent.glob(".onnx-fp32.*/*/model.onnx"))
    assert (old / "manifest.json").read_text() == "the old one"


@pytest.fixture
def files_of_at_most_300_kb() -> Iterator[None]:
    """Longer writes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("files_of_at_most_300_kb")
@pytest.mark.parametrize(("script", "precision"), [("to_onnx", "fp32"), ("to_onnx", "int8"), ("to_openvino", "fp32")])
def test_full_disk_leaves_the_old_artifact(tmp_path: Path, script: str, precision: str) -> None:
    old_artifact(tmp_path, f"{script.removeprefix('to_')}-{precision}")
    before = contents(tmp_path)
    with pytest.raises(ArtifactError, match="cannot write") as caught:
        main(script, "--precision", precision, "--artifacts", tmp_path)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_full_disk_does_not_abort_pytorch(tmp_path: Path) -> None:
    """In a process of its own: PyTorch's own file writer would end it with SIGABRT."""
    old_artifact(tmp_path, "torch-fp32")
    before = contents(tmp_path)
    done = subprocess.run(
        command("to_torch", "--artifacts", tmp_path), capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot write")
    assert done.stderr.count("\n") == 1
    assert contents(tmp_path) == before


def test_rejects_artifacts_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match=f"cannot write {tmp_path / 'file'}"):
        main("to_onnx", "--artifacts", tmp_path / "file")
    assert contents(tmp_path) == {"file": "mine"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["--precision", "int4"], "unknown precision 'int4', did you mean 'int8'?; choose from: fp32, fp16, int8"),
    (["--variant", "1.6m"], "unknown variant '1.6m'"),
    (["--input", "float"], "unknown input 'float', did you mean 'float32'?"),
    (["--batch", "0"], "'0' is not an integer from 1 to"),
    (["--max-drop", "much"], "invalid float value: 'much'"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
])  # fmt: skip
def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        to_onnx.main(arguments)
    output, errors = capsys.readouterr()
    assert (stopped.value.code, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


def test_unknown_weights_suggest_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown weights 'fashion', did you mean 'fashion-mnist'\?"):
        main("to_onnx", "--weights", "fashion", "--artifacts", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_int8_with_a_missing_calibration_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a folder of images nor one of"):
        main("to_onnx", "--precision", "int8", "--calibration", tmp_path / "none", "--artifacts", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_summary_of_a_folder_name_that_is_not_utf8(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    made = make_artifact("onnx", "fp32")
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(made.folder, folder)
    assert command_line.summary(artifacts.read(folder)).startswith(f"{tmp_path}/caf\N{REPLACEMENT CHARACTER}: ")


def test_summary_names_assumed_preprocessing(make_artifact: MakeArtifact) -> None:
    made = make_artifact("onnx", "fp32")
    assumed = dataclasses.replace(made.manifest, preprocessing_source="assumed for cifar-310k")
    assert "preprocessing" not in command_line.summary(made)
    assert ", preprocessing: assumed for cifar-310k, " in command_line.summary(
        dataclasses.replace(made, manifest=assumed)
    )


def checkpoint_with_labels(path: Path, labels: tuple[str, ...]) -> str:
    state = models.create("cifar-310k", len(labels)).state_dict()
    preprocessing = variants.get("cifar-310k").preprocessing
    checkpoints.save(path, state, ModelCard("cifar-310k", len(labels), preprocessing, labels))
    return str(path)


@pytest.mark.slow
def test_labels_that_no_manifest_can_hold_are_refused(tmp_path: Path) -> None:
    labels = tuple("\N{SNOWMAN}" * 12 + f"{index:05d}" for index in range(50_500))  # less than 4 MiB in the card
    checkpoint = checkpoint_with_labels(tmp_path / "many.safetensors", labels)
    with pytest.raises(ExportError, match=r"could not be loaded again \(more than 4194304 char.*; .*shorter labels"):
        to_onnx.export_onnx(variant="cifar-310k", weights=checkpoint, artifacts=tmp_path / "artifacts")
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("format", ["torch", "onnx", "openvino"])
def test_export_reads_its_artifact_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr("simplenet.manifest.MAX_BATCH", 7)  # any limit of the reader
    with pytest.raises(ExportError, match=r"could not be loaded again \(batch 8\)"):
        export.make(format, variant="cifar-310k", weights="fashion-mnist", batch=8, artifacts=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_labels_in_any_script_survive_the_export(tmp_path: Path) -> None:
    labels = (
        "\N{SNOWMAN}",
        'a "quoted" <label> & more',
        "]]>",
        "\\n",
        "e\N{COMBINING ACUTE ACCENT}",
        " space ",
        "\U0001f600",
    )
    checkpoint = checkpoint_with_labels(tmp_path / "few.safetensors", labels)
    for format in ("torch", "onnx", "openvino"):
        made = export.make(format, variant="cifar-310k", weights=checkpoint, artifacts=tmp_path / "artifacts")
        (made.folder / "manifest.json").unlink()
        assert loader.read_artifact(made.model_file).manifest.labels == labels
