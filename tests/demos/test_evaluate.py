"""Accuracy, compared with a count on the vendor's own runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import runtimes
from demos.evaluate import evaluate, main, wilson_percent
from simplenet import datasets, image_sets, model
from simplenet.artifacts import Artifact
from simplenet.errors import DataError
from simplenet.image_sets import ImageSet
from simplenet.manifest import InputSpec, Manifest, WeightsOrigin
from simplenet.preprocessing import CIFAR10_PREPROCESSING, Preprocessing
from tests.demos.conftest import RunDemo


@pytest.fixture(scope="module")
def raw_logits(onnx_artifact: Artifact) -> npt.NDArray[np.float32]:
    """Logits of the 2,000 shipped images, read, padded and run without this project's code."""
    import onnxruntime

    with np.load(datasets.SHIPPED / "fashion-mnist" / "evaluation.npz") as arrays:
        gray = arrays["images"]
    padded = np.pad(gray, ((0, 0), (2, 2), (2, 2)))
    batches = np.repeat(padded[..., None], 3, axis=3)
    session = onnxruntime.InferenceSession(onnx_artifact.model_file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch[None]})[0] for batch in batches])


def count(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], k: int) -> int:
    return sum(label in sorted(range(10), key=lambda i: -row[i])[:k] for row, label in zip(logits, labels, strict=True))


@pytest.mark.slow
def test_shipped_set_has_the_vendor_runtimes_accuracy(
    run_demo: RunDemo, onnx_artifact: Artifact, raw_logits: npt.NDArray[np.float32]
) -> None:
    result = run_demo("evaluate", "fashion-mnist", "--artifacts", onnx_artifact.folder.parents[1], "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    report = json.loads(result.stdout)
    labels = datasets.shipped("fashion-mnist", "evaluation").labels
    assert report["images"] == 2000
    assert report["top1_correct"] == count(raw_logits, labels, 1)
    assert report["top5_correct"] == count(raw_logits, labels, 5)
    assert report["top1_percent"] == pytest.approx(report["top1_correct"] / 20)
    assert report["top1_interval"][0] < report["top1_percent"] < report["top1_interval"][1]
    assert report["unreadable"] == []
    assert report["weights"]["name"] == "fashion-mnist"


def test_unreadable_images_of_a_folder_are_skipped(
    run_demo: RunDemo, onnx_artifact: Artifact, raw_logits: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    shipped, labels = datasets.shipped("fashion-mnist", "evaluation"), onnx_artifact.manifest.labels
    for index in range(40):
        folder = tmp_path / labels[shipped.labels[index]].replace("/", "_").lower()
        folder.mkdir(exist_ok=True)
        Image.fromarray(shipped.images[index]).save(folder / f"{index}.png")
    (tmp_path / "bag" / "damaged.png").write_bytes(b"\x89PNG\r\n")
    result = run_demo("evaluate", tmp_path, "--artifact", onnx_artifact.folder, "--batch", 7)
    assert result.returncode == 0, result.stderr
    correct = count(raw_logits[:40], shipped.labels[:40], 1)
    assert f"40 images, 1 skipped\ntop-1 {correct / 0.4:.2f} % (95 % interval" in result.stdout
    assert result.stderr.startswith("skipped: ")
    assert "damaged.png" in result.stderr
    assert result.stderr.count("\n") == 1


class ScriptedRuntime(runtimes.Runtime):
    """Predicts the class whose index is the red value at the image's center."""

    def _open(self) -> None: ...
    def _close(self) -> None: ...

    def _run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if batch.dtype == np.uint8:
            red = batch[:, 3, 3, 0]
        else:
            config = self.manifest.preprocessing
            red = np.rint((batch[:, 0, 3, 3] * config.std[0] + config.mean[0]) * 255).astype(int)
        logits: npt.NDArray[np.float32] = np.eye(self.manifest.num_classes, dtype=np.float32)[red]
        return logits

    def _describe(self) -> runtimes.Description:
        return runtimes.Description("scripted", "none", "fp32", None, {})


def scripted(num_classes: int, dtype: str = "uint8") -> ScriptedRuntime:
    preprocessing = Preprocessing(4, 4, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), padding=1)
    manifest = Manifest(
        variant="cifar-310k", format="onnx", precision="fp32", weights=WeightsOrigin("shipped", "x", "0" * 64),
        num_classes=num_classes, preprocessing=preprocessing,
        input=InputSpec("image", dtype, "NHWC" if dtype == "uint8" else "NCHW", 6, 6, None),
    )  # fmt: skip
    return ScriptedRuntime(Artifact(Path("model.onnx"), manifest), runtimes.Options())


def colored(model: runtimes.Runtime, values: list[int], labels: list[int] | None) -> ImageSet:
    items = [np.full((4, 4, 3), value, np.uint8) for value in values]
    return ImageSet("made", items, None if labels is None else np.array(labels), model.manifest.preprocessing)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_reach_models_of_either_input_in_batches(dtype: str) -> None:
    model = scripted(50, dtype)
    progress: list[int] = []
    found = colored(model, list(range(50)), [*range(40), *[0] * 10])
    result = evaluate(model, found, batch=16, on_progress=progress.append)
    assert result.top1_correct == 40
    assert progress == [16, 32, 48, 50]


def test_top5_needs_six_classes() -> None:
    few, enough = scripted(5), scripted(6)
    result = evaluate(few, colored(few, [0, 1, 2, 3], [0, 1, 2, 4]))
    assert (result.top1_correct, result.top1_percent) == (3, 75)
    assert (result.top5_correct, result.top5_percent, result.top5_interval) == (None, None, None)
    # Class 5 is predicted. It ranks first, then 0 1 2 3 by index, so class 4 is not in the top 5.
    result = evaluate(enough, colored(enough, [5, 5, 5], [5, 3, 4]))
    assert (result.top1_correct, result.top5_correct) == (1, 2)


def test_rejects_images_without_usable_labels() -> None:
    model = scripted(3)
    with pytest.raises(DataError, match="classes in made are not known"):
        evaluate(model, colored(model, [0, 1], None))
    with pytest.raises(DataError, match="more classes than the model's 3"):
        evaluate(model, colored(model, [0, 1], [0, 3]))
    wrong = colored(model, [0, 1], [0, 1])
    unreadable = ImageSet("made", [np.zeros((4, 4), np.uint8)], np.array([0]), wrong.preprocessing)
    with pytest.raises(DataError, match="no image of made can be read; the first reason: "):
        evaluate(model, unreadable)


def test_rejects_unlabeled_and_missing_folders(run_demo: RunDemo, onnx_artifact: Artifact, tmp_path: Path) -> None:
    flat, some = tmp_path / "flat", tmp_path / "some"
    for path in (flat / "a.png", some / "Bag/1.png", some / "bags/2.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(path)
    for folder, complaint in (
        (flat, "sort them into folders named"),
        (some, f"the class of {some / 'bags/2.png'} is not known; sort them into folders named"),
        (tmp_path / "none", "neither a folder"),
    ):
        result = run_demo("evaluate", folder, "--artifact", onnx_artifact.folder)
        assert result.returncode == 1
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert complaint in result.stderr


def test_says_once_which_files_are_not_used(run_demo: RunDemo, onnx_artifact: Artifact, tmp_path: Path) -> None:
    for path in (tmp_path / "Bag/1.png", tmp_path / "Bag/more/2.png"):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(path)
    (tmp_path / "Bag/list.csv").touch()
    result = run_demo("evaluate", tmp_path, "--artifact", onnx_artifact.folder)
    assert result.returncode == 0
    assert result.stderr == f"warning: {tmp_path}: not used: 1 .csv, 1 nested folder(s)\n"


def write_classes(folder: Path, *names: str, count: int = 3) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (28, 28), (number, 0, 0)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "3 x a git-lfs pointer, not the file itself; type: git lfs pull",
        ),
        (b"<html>", "3 x a web page, not the file itself; open it"),
        (b"", "3 x the file is empty"),
    ],
)
def test_refuses_a_class_without_a_readable_image(
    content: bytes, what: str, onnx_artifact: Artifact, tmp_path: Path
) -> None:
    write_classes(tmp_path, "bag", "coat", "dress")
    for path in (tmp_path / "coat").iterdir():
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"none of the 3 images in {tmp_path / 'coat'} can be read: {what}"):
        main([str(tmp_path), "--artifact", str(onnx_artifact.folder), "--limit", "4"])


@pytest.mark.filterwarnings("ignore:.*not used")
def test_refuses_a_class_without_images(onnx_artifact: Artifact, tmp_path: Path) -> None:
    write_classes(tmp_path, "bag", "coat")
    (tmp_path / "dress").mkdir()
    (tmp_path / "dress/photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=rf"no images in {tmp_path / 'dress'}, only 1 \.zip; add some, or remove"):
        main([str(tmp_path), "--artifact", str(onnx_artifact.folder)])


def test_names_the_split_and_the_classes_without_images(
    onnx_artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count in (("Train", 4), ("valid", 3), ("Testing", 2)):
        write_classes(tmp_path / "data" / split, "bag", "coat", count=count)
    flags = ["--artifact", str(onnx_artifact.folder)]
    for folder, measured, images in (("data", "data/Testing", 4), ("data/valid", "data/valid", 6)):
        assert main([str(tmp_path / folder), *flags]) == 0
        said = capsys.readouterr().out
        assert f"{tmp_path / measured}: {images} images, 0 skipped" in said
        assert "no images of 8 of the model's 10 classes: T-shirt/top, Trouser, Pullover, ... (8)" in said
    assert main([str(tmp_path), *flags, "--json"]) == 0  # the folder around the dataset
    report = json.loads(capsys.readouterr().out)
    assert report["source"] == str(tmp_path / "data/Testing")
    assert len(report["classes_without_images"]) == 8
    (tmp_path / "data/Testing").rename(tmp_path / "data/more")
    (tmp_path / "data/valid").rename(tmp_path / "data/others")
    with pytest.raises(DataError, match=r"it has training images: name .*/Train to use them"):
        main([str(tmp_path / "data"), *flags])


@pytest.mark.parametrize("names", ["in another order", "in other words"])
def test_finds_the_classes_of_a_shipped_set_by_name(names: str) -> None:
    shipped = datasets.shipped("fashion-mnist", "evaluation")
    labels = [name.lower().replace("/", " ") for name in shipped.classes] if "words" in names else shipped.classes
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    labels = [labels[index] for index in order]
    found = image_sets.load("fashion-mnist", "evaluation", CIFAR10_PREPROCESSING, labels=labels, limit=300)
    expected = image_sets.load("fashion-mnist", "evaluation", CIFAR10_PREPROCESSING, limit=300)
    assert found.labels is not None
    assert expected.labels is not None
    assert [order[label] for label in found.labels] == expected.labels.tolist()
    for others in (labels[1:], [*labels, "more"], [*labels[1:], labels[1]]):
        other = image_sets.load("fashion-mnist", "evaluation", CIFAR10_PREPROCESSING, labels=others, limit=300)
        assert other.labels is None


def test_says_how_the_model_differs_from_a_shipped_set(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(model.create("cifar-310k", 10).state_dict(), tmp_path / "x.pth")
    ours = [
        "fashion-mnist",
        "--variant",
        "cifar-310k",
        "--backend",
        "torch",
        "--artifacts",
        str(tmp_path / "artifacts"),
    ]
    mixed = tmp_path / "labels.txt"
    mixed.write_text("\n".join([*datasets.shipped("fashion-mnist", "evaluation").classes[:9], "boot"]), "utf-8")
    flags = ["--weights", str(tmp_path / "x.pth"), "--dataset", "fashion-mnist", "--labels", str(mixed)]
    with pytest.raises(DataError, match=r"in 28x28 \(flags.*; .* type --dataset fashion-mnist without --labels"):
        main([*ours, *flags])
    differs = r"its classes are T-shirt/top, Trouser, Pullover, ... \(10\), in 28x28 pixels, the model's"
    with pytest.raises(
        DataError, match=rf"{differs} 0, 1, 2, ... \(10\), in 28x28 \(flags --dataset mnist.*--dataset f"
    ):
        main([*ours, "--weights", str(tmp_path / "x.pth"), "--dataset", "mnist"])
    with pytest.raises(
        DataError, match=rf"{differs} airplane, automobile, .*\(model card\); .* --weights fashion-mnist"
    ):
        main([*ours, "--weights", "cifar10"])


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    [
        (81, 263, (25.53, 36.62)),
        (15, 148, (6.24, 16.05)),
        (0, 20, (0.0, 16.11)),
        (1, 29, (0.61, 17.18)),
        (29, 29, (88.30, 100.0)),
    ],
)
def test_the_interval_is_wilsons(successes: int, trials: int, expected: tuple[float, float]) -> None:
    assert wilson_percent(successes, trials) == pytest.approx(expected, abs=0.006)
