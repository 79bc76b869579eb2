"""Classifying image files with the script."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtimes
from demos.classify import classify
from simplenet import datasets
from simplenet.artifacts import Artifact
from tests.demos.conftest import RunDemo

LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, onnx_artifact: Artifact) -> Path:
    """The image of each class that the model is surest of, as 0.png to 9.png."""
    path = tmp_path_factory.mktemp("images")
    shipped = datasets.shipped("fashion-mnist", "evaluation")
    with runtimes.load(onnx_artifact, threads=1) as model:
        predictions = model.classify(list(shipped.images[:400]), k=1)
    for label in range(10):
        sure = [i for i, (best,) in enumerate(predictions) if best.index == label == shipped.labels[i]]
        chosen = max(sure, key=lambda i: predictions[i][0].probability)
        Image.fromarray(shipped.images[chosen]).save(path / f"{label}.png")
    return path


def test_a_folder_is_classified_as_tab_separated_lines(
    run_demo: RunDemo, onnx_artifact: Artifact, folder: Path
) -> None:
    result = run_demo("classify", folder, "--artifact", onnx_artifact.folder, "--top", 2, "--threads", 1)
    assert result.returncode == 0
    assert result.stderr == ""
    heading, *lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert heading == ["image", "rank", "label", "probability", "preprocess_ms", "infer_ms"]
    assert [(line[0], line[1]) for line in lines] == [(str(folder / f"{i}.png"), r) for i in range(10) for r in "12"]
    assert tuple(line[2] for line in lines[::2]) == LABELS
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        assert float(first[3]) > 0.5 > float(second[3]) > 0
        assert float(first[4]) > 0
        assert float(first[5]) > 0


def test_unreadable_images_are_reported_and_skipped(
    run_demo: RunDemo, onnx_artifact: Artifact, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "short.png").write_bytes((folder / "7.png").read_bytes()[:200])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    Image.new("RGB", (1000, 2)).save(tmp_path / "thin.png")
    (tmp_path / "folder").mkdir()
    names = ("empty.jpg", "text.png", "short.png", "huge.png", "thin.png", "folder", "none.png", f"{'x' * 300}.png")
    bad = [tmp_path / name for name in names]
    arguments = [*bad[:4], folder / "1.png", *bad[4:], folder / "9.png", "--artifact", onnx_artifact.folder, "--json"]
    result = run_demo("classify", *arguments)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == len(bad)
    for path in bad:
        assert sum(str(path)[:80] in line and line.startswith("error: ") for line in lines) == 1
    images = json.loads(result.stdout)["images"]
    best = [image["predictions"][0]["label"] for image in images if image["error"] is None]
    assert best == ["Trouser", "Ankle boot"]
    assert sum(image["error"] is not None for image in images) == len(bad) - 1  # the folder has no image


def test_video_among_the_images_is_named(
    run_demo: RunDemo, onnx_artifact: Artifact, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "1.png").write_bytes((folder / "1.png").read_bytes())
    for name in ("clip.mp4", "clip.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    result = run_demo("classify", tmp_path, tmp_path / "clip.mp4", "--artifact", onnx_artifact.folder)
    assert result.returncode == 1
    assert f"warning: {tmp_path}: not used: 1 .mp4 (video)\n" in result.stderr
    for name in ("clip.mp4", "clip.jpg"):
        assert f"{name}: a video (MP4), not an image; play it: python demos/webcam.py --source" in result.stderr
    assert len(result.stdout.splitlines()) == 1 + 5


def test_missing_images_are_an_error_before_loading(run_demo: RunDemo, tmp_path: Path) -> None:
    result = run_demo("classify", tmp_path, "--artifact", tmp_path / "nowhere")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f" in {tmp_path}; it needs" in result.stderr
    result = run_demo("classify", tmp_path / "x.png", "--artifact", tmp_path / "nowhere")
    assert result.returncode == 1
    assert result.stderr.startswith("error: no artifact at")
    assert run_demo("classify").returncode == 2


def test_a_hostile_file_name_cannot_break_the_lines(
    run_demo: RunDemo, onnx_artifact: Artifact, folder: Path, tmp_path: Path
) -> None:
    name = "a\tb\nc\x1b[31m.png"
    (tmp_path / name).write_bytes((folder / "1.png").read_bytes())
    (tmp_path / f"bad{name}").touch()
    result = run_demo("classify", tmp_path, "--artifact", onnx_artifact.folder, "--top", 1)
    assert len(result.stdout.splitlines()) == 2
    assert result.stdout.splitlines()[1].count("\t") == 5
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stdout + result.stderr


def test_a_long_path_with_spaces_is_a_path_still(
    run_demo: RunDemo, onnx_artifact: Artifact, folder: Path, tmp_path: Path
) -> None:
    image = tmp_path / ("holidays  2026 " * 15) / ("beach  " * 15) / "1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes((folder / "1.png").read_bytes())
    result = run_demo("classify", image, "--artifact", onnx_artifact.folder, "--top", 1)
    assert result.stdout.splitlines()[1].split("\t")[0] == str(image)


def test_predictions_are_those_of_the_runtime(onnx_artifact: Artifact, folder: Path) -> None:
    paths = sorted(folder.iterdir())
    with runtimes.load(onnx_artifact, threads=1) as model:
        results = list(classify(model, paths, top=3))
        expected = model.classify([np.asarray(Image.open(path).convert("RGB")) for path in paths], k=3)
    assert [result.predictions for result in results] == expected
