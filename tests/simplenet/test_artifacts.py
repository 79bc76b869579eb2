"""Artifacts on disk: round trip, atomic publishing, and rejection of everything else."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simplenet import artifacts, files
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError
from simplenet.formats import FORMATS
from simplenet.manifest import InputSpec, Manifest, WeightsOrigin
from simplenet.preprocessing import CIFAR10_PREPROCESSING

ROOT = Path(__file__).parents[2]
MANIFEST = Manifest(
    variant="cifar-310k",
    format="onnx",
    precision="int8",
    weights=WeightsOrigin("shipped", "fashion-mnist", "ab" * 32),
    num_classes=2,
    input=InputSpec("images", "uint8", "NHWC", 32, 32, batch=None),
    preprocessing=CIFAR10_PREPROCESSING,
    labels=("cat", "狗"),
    calibration={"images": 500},
    tools={"onnx": "1.18"},
    measured={"cosine": 0.99999},
)


def publish(folder: Path, content: bytes = b"model", manifest: Manifest = MANIFEST) -> Artifact:
    with artifacts.publishing(folder) as fresh:
        for name in FORMATS[manifest.format].files:
            (fresh / name).write_bytes(content)
        return artifacts.write_manifest(fresh, manifest)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good artifact."""
    publish(tmp_path / "cifar-310k-fashion-mnist" / "onnx-int8")
    return tmp_path / "cifar-310k-fashion-mnist" / "onnx-int8"


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


def test_manifest_says_when_preprocessing_is_in_doubt(folder: Path) -> None:
    values = json.loads((folder / "manifest.json").read_text("utf-8"))
    del values["preprocessing_source"]  # written by an older version
    (folder / "manifest.json").write_text(json.dumps(values), "utf-8")
    old = artifacts.read(folder).manifest
    assert (old.preprocessing_source, old.preprocessing_doubt) == ("unknown", "")
    checkpoint = dataclasses.replace(old, weights=WeightsOrigin("checkpoint", "net-12345678", "00"))
    assert checkpoint.preprocessing_doubt == "preprocessing: unknown"
    for source, doubt in (
        ("assumed for 1.5m", "preprocessing: assumed for 1.5m"),
        ("flags --mean; labels assumed for 1.5m", "preprocessing: flags --mean; labels assumed for 1.5m"),
        ("flags --dataset svhn", ""),
        ("model card", ""),
        ("official checkpoint of 1.5m", ""),
    ):
        assert dataclasses.replace(checkpoint, preprocessing_source=source).preprocessing_doubt == doubt


def test_size_is_of_all_model_files(tmp_path: Path) -> None:
    artifact = publish(tmp_path / "a", manifest=dataclasses.replace(MANIFEST, format="openvino"))
    assert set(artifact.manifest.files) == {"model.xml", "model.bin"}
    assert artifacts.read(tmp_path / "a").size_bytes == 10


def test_float32_input_has_shape_nchw() -> None:
    assert InputSpec("x", "float32", "NCHW", 224, 224, 4).shape == (4, 3, 224, 224)


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


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(MANIFEST.to_json()), "files": {"model.onnx": "00"}, **values})


def inner(table: str, /, **values: Any) -> str:
    return changed(**{table: {**json.loads(MANIFEST.to_json())[table], **values}})


HOSTILE = [
    ("", "Expecting value"),
    ("null", "not a JSON object"),
    ('"text"', "not a JSON object"),
    (MANIFEST.to_json()[: len(MANIFEST.to_json()) // 2], "not a valid manifest"),
    ("{" * 100, "not a valid manifest"),
    ("[" * 100_000, "nested too deeply"),
    ('{"a":' * 100_000, "nested too deeply"),
    (changed(measured={"deep": json.loads("[" * 500 + "]" * 500)}), "nested too deeply"),
    ("{}", "no 'schema_version'"),
    (changed(schema_version=99), "schema version 99, this program reads 1; update this program"),
    (changed(schema_version=0), "schema version 0, this program reads 1; export it again"),
    (changed(schema_version="1"), "schema version '1'"),
    (changed(schema_version=10**5000 if sys.version_info < (3, 10, 7) else 10**400), "63 bits"),
    (changed(surprise=1), "surprise"),
    (changed(format="pickle"), "format 'pickle'"),
    (changed(format=["onnx"]), "format"),
    (changed(precision="fp64"), "precision 'fp64'"),
    (changed(variant="../../etc"), "the name '../../etc'"),
    (changed(variant=""), "the name ''"),
    (inner("weights", name="a/b"), "the name 'a/b'"),
    (inner("weights", name=None), "the name None"),
    (inner("weights", source="found in the street"), "weights from"),
    (inner("weights", sha256=5), "weights from"),
    (changed(weights="pretrained"), "mapping"),
    (changed(num_classes=-1), "num_classes -1"),
    (changed(num_classes=1, labels=["shoe"], class_ids=[]), "num_classes 1"),
    (changed(num_classes=True), "num_classes True"),
    (changed(num_classes=10**9), "num_classes"),
    (changed(labels=["cat"]), "number of labels"),
    (changed(labels="ab"), "not plain strings"),
    (changed(labels=["a", "\x1b[2J"]), "not plain strings"),
    (changed(class_ids=["x"]), "number of labels"),
    (inner("input", height=31), "input 31x32"),
    (inner("input", height=32.0), "input 32.0x32"),
    (inner("input", batch=0), "batch 0"),
    (inner("input", batch=True), "batch True"),
    (inner("input", batch=65_536), "batch 65536"),
    (inner("input", dtype="float64"), "float64"),
    (inner("input", layout="NCHW"), "NCHW"),
    (inner("input", name=7), "input 7"),
    (inner("preprocessing", crop_size=10**6), "impossible sizes"),
    (inner("preprocessing", mean=[0, 0, float("nan")]), "not finite"),
    (MANIFEST.to_json().replace("0.99999", "NaN"), "not finite"),
    (MANIFEST.to_json().replace("0.99999", "-Infinity"), "not finite"),
    (MANIFEST.to_json().replace("0.99999", "1e999"), "not finite"),
    (changed(output=None), "output None"),
    (changed(preprocessing_source=None), "preprocessing_source"),
    (changed(preprocessing_source="\x1b[2J"), "preprocessing_source"),
    (changed(preprocessing_source="x" * 201), "preprocessing_source"),
    (changed(tools=[]), "instead of an object"),
    (changed(calibration=7), "instead of an object"),
    (changed(calibration=[]), "instead of an object"),
    (changed(files=["model.onnx"]), "instead of an object"),
    (changed(files={"model.onnx": 5}), "outside the artifact's folder"),
    (changed(files={}), "does not list model.onnx"),
    (changed(files={"model.xml": "00"}, format="openvino"), "does not list model.bin"),
    *((changed(files={"model.onnx": "00", name: "00"}), "outside the artifact's folder")
      for name in ("../secret", "/etc/passwd", "..", ".", "", "a/b", "..\\secret", "C:secret", "a\0b", "\x1b[2J")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
def test_rejects_hostile_manifests_in_one_line(folder: Path, text: str, reason: str) -> None:
    (folder / "manifest.json").write_text(text, "utf-8")
    with pytest.raises(ArtifactError, match=reason) as caught:
        artifacts.read(folder)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe{}", "is not UTF-8 text; save it as UTF-8"),
        ('{"labels": ["café"]}'.encode("latin-1"), "is not UTF-8 text; save it as UTF-8"),
        ("{}".encode("utf-16-le"), "is not a valid manifest"),
        (b" " * (5 << 20), "more than 4194304 characters"),
    ],
)
def test_rejects_a_manifest_that_is_no_text(folder: Path, content: bytes, reason: str) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=reason):
        artifacts.read(folder)


def test_reads_a_manifest_with_a_byte_order_mark(folder: Path) -> None:
    expected = artifacts.read(folder)
    text = (folder / "manifest.json").read_text("utf-8")
    (folder / "manifest.json").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))  # as Windows Notepad
    assert artifacts.read(folder) == expected
    assert Manifest.from_json("\ufeff" + text, where="a model file") == expected.manifest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=120)
@given(data=st.data())
def test_any_json_is_a_manifest_or_an_artifact_error(data: st.DataObject) -> None:
    values = json.loads(MANIFEST.to_json())
    place = values
    if data.draw(st.booleans()):
        place = values[data.draw(st.sampled_from(["weights", "input", "preprocessing"]))]
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    try:
        manifest = Manifest.from_json(json.dumps(values), where="here")
    except ArtifactError:
        return
    assert Manifest.from_json(manifest.to_json(), where="here") == manifest
    hash(manifest.preprocessing)  # crop_geometry's cache needs a hash


def test_does_not_write_a_manifest_with_nan() -> None:
    with pytest.raises(ArtifactError, match="manifest cannot be written"):
        dataclasses.replace(MANIFEST, measured={"cosine": float("nan")}).to_json()


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
