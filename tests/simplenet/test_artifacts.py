"""Artifacts on disk: round trip, atomic publishing, and rejection of everything else."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from simplenet import artifacts, files
from simplenet.errors import ArtifactError
from tests.simplenet.published import MANIFEST, publish

ROOT = Path(__file__).parents[2]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(folder: Path) -> None:
    artifact = artifacts.read(folder)
    assert dataclasses.replace(artifact.manifest, files={}) == MANIFEST
    assert list(artifact.manifest.files) == ["model.onnx"]
    assert artifact.model_file == folder / "model.onnx"
    assert artifact.folder == folder
    assert artifact.size_bytes == 5
    assert artifacts.read(folder / "manifest.json") == artifacts.read(folder / "model.onnx") == artifact
    assert MANIFEST.input.shape == (None, 32, 32, 3)
    assert left_in(folder.parent) == ["onnx-int8"]


def test_size_is_of_all_model_files(tmp_path: Path) -> None:
    artifact = publish(tmp_path / "a", manifest=dataclasses.replace(MANIFEST, format="openvino"))
    assert set(artifact.manifest.files) == {"model.xml", "model.bin"}
    assert artifacts.read(tmp_path / "a").size_bytes == 10


@pytest.mark.parametrize(("weights", "expected"), [("pretrained", "1.5m"), ("random", "1.5m-random")])
def test_folder_names(weights: str, expected: str) -> None:
    assert artifacts.folder_for("artifacts", "1.5m", weights, "onnx", "fp32") == Path(
        "artifacts", expected, "onnx-fp32"
    )


def test_missing_files_are_artifact_errors(tmp_path: Path, folder: Path) -> None:
    cases = {
        tmp_path / "nothing": "no artifact at .*; make one with: python export/to_onnx.py",
        tmp_path: "no manifest.json; name an artifact's folder",
        tmp_path / ("x" * 5000): "cannot read .*File name too long",
        tmp_path / "a\0b": "no artifact at",
    }
    for path, message in cases.items():
        with pytest.raises(ArtifactError, match=message):
            artifacts.read(path)
    (folder / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"model.onnx is missing; export the artifact again"):
        artifacts.read(folder)


@pytest.mark.parametrize("content", [b"", b"mode", b"modeL", b"model."])
def test_rejects_a_model_file_with_another_hash(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model.onnx is not the file its manifest describes \(SHA-256 differs\)"):
        artifacts.read(folder)


def test_rejects_a_file_that_is_no_model(folder: Path) -> None:
    (folder / "notes.txt").touch()
    with pytest.raises(ArtifactError, match=r"notes.txt is not the model file of .*, which is model.onnx"):
        artifacts.read(folder / "notes.txt")


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
def test_a_fifo_or_a_device_does_not_block(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(ArtifactError, match=r"model.onnx is missing"):
        artifacts.read(folder)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to("/dev/zero")
    with pytest.raises(ArtifactError, match=r"no manifest.json"):
        artifacts.read(folder)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_export_changes_nothing(folder: Path, error: type[BaseException]) -> None:
    before = artifacts.read(folder)
    with pytest.raises(error), artifacts.publishing(folder) as fresh:  # noqa: PT012, the block is what is tested
        (fresh / "model.onnx").write_bytes(b"half")
        raise error
    assert artifacts.read(folder) == before
    assert left_in(folder.parent) == ["onnx-int8"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failed_first_export_leaves_no_folders(tmp_path: Path, error: type[BaseException]) -> None:
    folder = tmp_path / "artifacts" / "cifar-310k" / "onnx-int8"
    with pytest.raises(error if error is not OSError else ArtifactError), artifacts.publishing(folder):
        raise error
    assert left_in(tmp_path) == []
    with pytest.raises(ArtifactError, match="File name too long"):
        publish(tmp_path / "artifacts" / "cifar-310k" / ("x" * 300))
    assert left_in(tmp_path) == []
    publish(folder)
    with pytest.raises(ArtifactError), artifacts.publishing(folder.with_name("onnx-fp16")):
        raise OSError
    assert left_in(folder.parent) == ["onnx-int8"]


@pytest.mark.parametrize("moment", ["hashing", "between the renames"])
def test_reads_again_if_an_export_replaces_the_artifact(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    sha256 = files.sha256
    if moment == "hashing":

        def replaced_first(path: Path) -> str:
            monkeypatch.undo()
            publish(folder, b"newer")
            return sha256(path)

        monkeypatch.setattr(files, "sha256", replaced_first)
    else:
        aside = folder.rename(folder.with_name("aside"))
        monkeypatch.setattr(time, "sleep", lambda seconds: aside.rename(folder))
    assert artifacts.read(folder).model_file.read_bytes() == (b"newer" if moment == "hashing" else b"model")


@pytest.mark.parametrize("stays", [True, False])
def test_ctrl_c_between_renames_leaves_a_complete_artifact(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    """The old artifact is moved away, then the new one is renamed; Ctrl-C arrives after either step."""
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        replace(source, target)
        if folder == (source if stays else target):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(folder, b"newer")
    assert artifacts.read(folder).model_file.read_bytes() == (b"model" if stays else b"newer")
    assert left_in(folder.parent) == ["onnx-int8"]


def test_publishes_to_a_folder_that_cannot_be_synced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def refused(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", refused)
    publish(folder, b"newer")
    assert artifacts.read(folder).model_file.read_bytes() == b"newer"
    with files.replacing(folder.parent / "a.txt") as temporary:
        temporary.write_text("new")
    assert (folder.parent / "a.txt").read_text() == "new"


def test_publishing_replaces_the_whole_folder(folder: Path) -> None:
    (folder / "stray").touch()
    publish(folder, b"newer")
    assert left_in(folder) == ["manifest.json", "model.onnx"]
    assert artifacts.read(folder).model_file.read_bytes() == b"newer"
    assert left_in(folder.parent) == ["onnx-int8"]


EXPORT = """
import sys, time
from simplenet import artifacts
with artifacts.publishing(sys.argv[1]) as fresh:
    (fresh / "model.onnx").write_bytes(b"half of a model")
    print("started", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_export_leaves_the_old_artifact(folder: Path, ending: signal.Signals) -> None:
    before = artifacts.read(folder)
    with subprocess.Popen(
        [sys.executable, "-c", EXPORT, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as export:
        assert export.stdout is not None
        assert export.stdout.readline() == "started\n"
        export.send_signal(ending)
        export.wait()
    assert artifacts.read(folder) == before
    leftovers = [name for name in left_in(folder.parent) if name != "onnx-int8"]
    assert len(leftovers) == (1 if ending == signal.SIGKILL else 0)
    for name in leftovers:  # the next export a day later removes them
        os.utime(folder.parent / name, (time.time() - 90_000,) * 2)
    publish(folder)
    assert left_in(folder.parent) == ["onnx-int8"]


def test_concurrent_exports_leave_one_complete_artifact(tmp_path: Path) -> None:
    folder, failures = tmp_path / "onnx-int8", []

    def export(number: int) -> None:
        try:
            for _ in range(10):
                publish(folder, b"model %d" % number)
        except ArtifactError as error:
            failures.append(error)

    threads = [threading.Thread(target=export, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert artifacts.read(folder).model_file.read_bytes() in {b"model %d" % number for number in range(4)}
    assert left_in(tmp_path) == ["onnx-int8"]


def test_the_disk_fills_up(folder: Path) -> None:
    before = artifacts.read(folder)
    code = f"""
import resource
from simplenet import artifacts, cli
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
def main():
    with artifacts.publishing({str(folder)!r}) as fresh:
        (fresh / "model.onnx").write_bytes(bytes(5000))
    return 0
cli.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: cannot write {folder}: File too large; the old artifact is unchanged\n"
    assert artifacts.read(folder) == before
    assert left_in(folder.parent) == ["onnx-int8"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "onnx-fp32", tmp_path / "file", Path("/proc/nothing/onnx-fp32")):
        with pytest.raises(ArtifactError, match=r"cannot write .*--artifacts"):
            publish(place)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_removed_temporary_folder_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot write"), artifacts.publishing(tmp_path / "a") as fresh:
        shutil.rmtree(fresh)
    assert left_in(tmp_path) == []
