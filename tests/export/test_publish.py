"""Whatever interrupts an export, the old artifact stays, and the user reads one line."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export import command_line, to_onnx, to_torch
from simplenet import artifacts
from tests.conftest import MakeArtifact

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("to_torch", "to_onnx", "to_openvino")


def command(script: str, *arguments: str | Path) -> list[str]:
    return [
        sys.executable, str(ROOT / "export" / f"{script}.py"),
        "--variant", "cifar-310k", "--weights", "random", *map(str, arguments),
    ]  # fmt: skip


def run(
    script: str, *arguments: str | Path, before: Callable[[], Any] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(script, *arguments), cwd="/", capture_output=True, text=True, timeout=120, preexec_fn=before
    )


def old_artifact(root: Path, name: str) -> Path:
    folder = root / "cifar-310k-random" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("the old one")
    return folder


def everything(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("script", "precision"), [("to_torch", "fp32"), ("to_onnx", "fp16"), ("to_openvino", "int8")])
def test_a_script_works_from_any_folder_and_leaves_stdout_to_its_result(
    tmp_path: Path, script: str, precision: str
) -> None:
    done = run(script, "--precision", precision, "--artifacts", tmp_path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    artifact = artifacts.read(result["folder"])
    assert result["size_bytes"] == artifact.size_bytes
    assert result["manifest"]["files"] == artifact.manifest.files
    assert artifact.folder == tmp_path / "cifar-310k-random" / f"{script.removeprefix('to_')}-{precision}"
    assert [path.name for path in artifact.folder.parent.iterdir()] == [artifact.folder.name]  # nothing temporary


def test_the_closing_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert to_torch.main(["--variant", "cifar-310k", "--weights", "fashion-mnist", "--artifacts", str(tmp_path)]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert output.startswith(
        f"{tmp_path}/cifar-310k-fashion-mnist/torch-fp32: 1.30 MB, top-1 agrees with PyTorch on 100.0% of 16 images "
        "(fashion-mnist evaluation), cosine at least "
    )
    assert output.count("\n") == 1


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
    assert everything(tmp_path) == {"cifar-310k-random/onnx-fp32/manifest.json": "the old one"}


def test_a_killed_export_leaves_the_old_artifact(tmp_path: Path) -> None:
    old = old_artifact(tmp_path, "onnx-fp32")
    process = subprocess.Popen(command("to_onnx", "--artifacts", tmp_path), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(old.parent.glob(".onnx-fp32.*/fresh/model.onnx")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait(timeout=60)
    assert (old / "manifest.json").read_text() == "the old one"


@pytest.mark.parametrize(("script", "precision"), [*((script, "fp32") for script in SCRIPTS), ("to_onnx", "int8")])
def test_a_full_disk_is_one_line_and_leaves_the_old_artifact(tmp_path: Path, script: str, precision: str) -> None:
    old_artifact(tmp_path, f"{script.removeprefix('to_')}-{precision}")
    before = everything(tmp_path)

    def files_of_at_most_300_kb() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = run(script, "--precision", precision, "--artifacts", tmp_path, before=files_of_at_most_300_kb)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "cannot write" in done.stderr
    assert done.stderr.count("\n") == 1
    assert everything(tmp_path) == before


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = run("to_onnx", "--artifacts", tmp_path / "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'file'}")
    assert done.stderr.count("\n") == 1
    assert everything(tmp_path) == {"file": "mine"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["--precision", "int4"], "unknown precision 'int4', did you mean 'int8'?; choose from: fp32, fp16, int8"),
    (["--variant", "1.6m"], "unknown variant '1.6m'"),
    (["--input", "float"], "unknown input 'float', did you mean 'float32'?"),
    (["--batch", "0"], "'0' is not an integer from 1 to"),
    (["--max-drop", "nan"], "'nan' is not a number of points"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
])  # fmt: skip
def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        to_onnx.main(arguments)
    output, errors = capsys.readouterr()
    assert (stopped.value.code, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


def test_unknown_weights_are_a_usage_error_too(tmp_path: Path) -> None:
    done = run("to_onnx", "--weights", "fashion", "--artifacts", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown weights 'fashion', did you mean 'fashion-mnist'?" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_int8_without_pictures_says_what_to_type(tmp_path: Path) -> None:
    done = run("to_onnx", "--precision", "int8", "--calibration", tmp_path / "none", "--artifacts", tmp_path)
    assert done.returncode == 1
    assert "neither a folder of images nor one of" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_name_is_no_text_can_be_printed(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    made = make_artifact("onnx", "fp32")
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(made.folder, folder)
    assert command_line.summary(artifacts.read(folder)).startswith(f"{tmp_path}/caf\N{REPLACEMENT CHARACTER}: ")
