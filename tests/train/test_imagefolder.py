"""Training on image folders: results, fine-tuning, unreadable files, stop and resume."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from demos import evaluate
from simplenet import checkpoints, labels, model
from simplenet.errors import AssumedCardWarning, DataError, SimpleNetWarning, UsageError, WeightsError
from simplenet.model_card import CardOverrides, ModelCard
from tests.train.crash import crash_in_second_epoch
from tests.waiting import wait_while_running
from train import checkpoint, class_folders, imagefolder

CONFIG = dataclasses.replace(
    imagefolder.DEFAULT, epochs=2, batch_size=8, peak_learning_rate=0.02, average_decay=0.8, bf16=False, flip=False
)
PYTHON_H = Path(sysconfig.get_paths()["include"]) / "Python.h"
CLASSES = ("ash tree", "elm", "oak")


def write_images(folder: Path, per_class: int, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    """JPEGs of several sizes: each class has its own pattern of stripes, and noise."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            height, width = rng.integers(40, 80, 2)
            rows, columns = np.mgrid[:height, :width] // 5 % 2 * 200
            pattern = (rows, columns, np.zeros_like(rows), rows ^ columns)[index]
            pixels = pattern[..., None] + rng.integers(0, 50, (height, width, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "train", 24)
    write_images(folder / "val", 6, seed=1)
    return folder


@pytest.fixture(scope="module")
def trained(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> imagefolder.TrainingResult:
    config = dataclasses.replace(CONFIG, epochs=5)
    result = imagefolder.train(image_folder, "cifar-310k", tmp_path_factory.mktemp("run"), config, workers=0)
    assert result is not None
    return result


def _card(path: Path) -> ModelCard:
    with safe_open(path, "pt") as file:
        return ModelCard.from_json(file.metadata()["simplenet"])


def test_learns_and_stores_class_names(trained: imagefolder.TrainingResult) -> None:
    assert trained.top1 > 60  # chance is 33
    card = _card(trained.checkpoint)
    assert card.labels == CLASSES
    assert card.training["test_images"] == 18
    assert card.preprocessing.crop_size == 32


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_artifacts_keep_class_names_and_accuracy(
    trained: imagefolder.TrainingResult,
    image_folder: Path,
    backend: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip({"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch"}[backend])
    arguments = ["--variant", "cifar-310k", "--weights", str(trained.checkpoint), "--backend", backend]
    evaluate.main([str(image_folder / "val"), *arguments, "--artifacts", str(tmp_path), "--threads", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["unreadable"]) == (18, [])
    assert round(found["top1_percent"], 2) == trained.top1
    (manifest,) = tmp_path.glob("*/*/manifest.json")
    assert json.loads(manifest.read_text())["labels"] == list(CLASSES)


def test_float16_weights_halve_the_file(
    trained: imagefolder.TrainingResult, image_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = trained.checkpoint.parent
    kept = trained.checkpoint.read_bytes()
    config = dataclasses.replace(CONFIG, epochs=5)
    halved = imagefolder.train(image_folder, "cifar-310k", output, config, workers=0, resume=True, half=True)
    assert halved is not None
    tensors = load_file(halved.checkpoint)
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim > 1} == {torch.float16}
    assert tensors["features.1.running_var"].dtype == torch.float32
    assert len(halved.checkpoint.read_bytes()) < 0.56 * len(kept)
    network = checkpoints.build_model(checkpoints.read(halved.checkpoint).candidates, "cifar-310k", halved.checkpoint)
    assert network.classifier.weight.dtype == torch.float32
    arguments = ["--variant", "cifar-310k", "--weights", str(halved.checkpoint), "--backend", "torch"]
    evaluate.main([str(image_folder / "val"), *arguments, "--artifacts", str(tmp_path), "--threads", "1", "--json"])
    assert round(json.loads(capsys.readouterr().out)["top1_percent"], 2) == halved.top1
    trained.checkpoint.write_bytes(kept)


def test_fine_tuning_replaces_the_head_and_keeps_frozen_layers(
    trained: imagefolder.TrainingResult, tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "birds", 10, ("crow", "jay", "kite", "owl"))
    config = dataclasses.replace(CONFIG, epochs=1, freeze=4)
    tuned = imagefolder.train(
        folder, "cifar-310k", tmp_path / "run", config, initial=str(trained.checkpoint), validation_share=0.2, workers=0
    )
    assert tuned is not None
    before, after = load_file(trained.checkpoint), load_file(tuned.checkpoint)
    assert after["classifier.weight"].shape == (4, 64)
    assert _card(tuned.checkpoint).labels == ("crow", "jay", "kite", "owl")
    layers = {name: int(name.split(".")[1]) for name in before if name.startswith("features.")}
    fifth = next(index for index in sorted(set(layers.values())) if index > 14)  # 4 + 4 + 4 + 3 modules come first
    for name, index in layers.items():
        if index < fifth:
            assert torch.equal(before[name], after[name]), name
        elif name.endswith(("weight", "running_mean")):
            assert not torch.equal(before[name], after[name]), name


def test_refuses_impossible_arguments(trained: imagefolder.TrainingResult, image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds weights of cifar-310k, not of cifar-460k; type --variant cifar-310k"):
        imagefolder.train(image_folder, "cifar-460k", tmp_path, CONFIG, initial=str(trained.checkpoint), workers=0)
    with pytest.raises(UsageError, match="has 13 convolutions, not 14; choose a smaller --freeze"):
        imagefolder.train(image_folder, "cifar-310k", tmp_path, dataclasses.replace(CONFIG, freeze=14), workers=0)
    with pytest.raises(UsageError, match="3m needs images of 25 pixels or more, not 16; choose a larger --size"):
        imagefolder.train(image_folder, "3m", tmp_path, CONFIG, overrides=CardOverrides(size=16), workers=0)
    with pytest.raises(UsageError, match="--labels names the classes of initial weights; leave it out"):
        imagefolder.train(image_folder, "cifar-310k", tmp_path, overrides=CardOverrides(labels=CLASSES), workers=0)
    with pytest.raises(DataError, match="there are 72 images to train on, fewer than one batch; use --batch 72"):
        imagefolder.train(image_folder, "cifar-310k", tmp_path, dataclasses.replace(CONFIG, batch_size=100), workers=0)


def test_trains_with_the_given_preprocessing(image_folder: Path, tmp_path: Path) -> None:
    torch.save(model.create("cifar-310k", 10).state_dict(), tmp_path / "start.pth")
    options = {"initial": str(tmp_path / "start.pth"), "workers": 0, "validation_share": 0.2}
    given = CardOverrides(dataset="svhn", size=36)  # all values, so without a warning
    result = imagefolder.train(
        image_folder, "cifar-310k", tmp_path / "run", dataclasses.replace(CONFIG, epochs=1), overrides=given, **options
    )
    assert result is not None
    svhn = labels.known_dataset("svhn").preprocessing
    assert _card(result.checkpoint).preprocessing == dataclasses.replace(svhn, resize_shorter_side=36, crop_size=36)
    with pytest.warns(AssumedCardWarning, match="start.pth has no model card"), pytest.raises(UsageError):
        imagefolder.train(image_folder, "cifar-310k", tmp_path / "run", CONFIG, **options)
    with pytest.raises(UsageError, match="holds a run with --size 36, not 40"):
        imagefolder.train(
            image_folder, "cifar-310k", tmp_path / "run", overrides=CardOverrides(size=40), resume=True, **options
        )


def test_counts_and_replaces_unreadable_images(tmp_path: Path) -> None:
    write_images(tmp_path / "data/train", 8)
    write_images(tmp_path / "data/val", 3)
    (tmp_path / "data/train/elm/3.jpg").write_bytes(b"not an image")
    broken = tmp_path / "data/val/oak/1.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.warns(SimpleNetWarning) as caught:
        result = imagefolder.train(tmp_path / "data", "cifar-310k", tmp_path / "run", CONFIG, workers=0)
    assert result is not None
    named = [str(warning.message) for warning in caught]
    assert len(named) == 2  # once per file, in two epochs
    assert any("elm/3.jpg" in name for name in named)
    assert any("oak/1.jpg" in name for name in named)
    assert result.unreadable_images == 2
    assert "2 unreadable images" in result.summary()
    assert _card(result.checkpoint).training["test_images"] == 8
    assert result.top1 in {round(100 * right / 8, 2) for right in range(9)}


def test_refuses_many_unreadable_images_in_a_row(tmp_path: Path) -> None:
    write_images(tmp_path / "data/train", 24)
    write_images(tmp_path / "data/val", 2)
    for path in (tmp_path / "data/train").glob("*/*.jpg"):
        if path.name != "0.jpg":
            path.write_bytes(b"x")
    with (
        pytest.warns(SimpleNetWarning),
        pytest.raises(DataError, match=r"20 images in a row cannot be read; the first: .*\.jpg"),
    ):
        imagefolder.train(tmp_path / "data", "cifar-310k", tmp_path / "run", CONFIG, workers=0)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # of a machine with one core
def test_weights_depend_neither_on_workers_nor_on_a_crash(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, mixup=0.4, cutmix=1.0, flip=True)
    whole = imagefolder.train(image_folder, "cifar-310k", tmp_path / "whole", config, workers=0)
    crash_in_second_epoch(
        monkeypatch, lambda: imagefolder.train(image_folder, "cifar-310k", tmp_path / "again", config, workers=2)
    )
    again = imagefolder.train(image_folder, "cifar-310k", tmp_path / "again", config, workers=2, resume=True)
    assert whole is not None
    assert again is not None
    one, other = load_file(whole.checkpoint), load_file(again.checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UsageError, match="with --weights random, not fashion-mnist"):
        imagefolder.train(
            image_folder, "cifar-310k", tmp_path / "again", config, workers=0, resume=True, initial="fashion-mnist"
        )


@pytest.mark.slow
def test_signal_to_the_process_group_saves_and_resumes(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`timeout`, systemd and job schedulers also signal the decoding processes."""
    flags = ["--variant", "cifar-310k", "--size", "32", "--batch", "8", "--epochs", "3", "--workers", "2", "--json"]
    arguments = [str(image_folder), *flags, "--output", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, imagefolder.__file__, *arguments, "--save-minutes", "0"],
        stdout=PIPE, stderr=PIPE, text=True, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    wait_while_running(process, (tmp_path / checkpoint.STATE_NAME).is_file)
    os.killpg(process.pid, signal.SIGTERM)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert "with --resume continues it" in errors
    assert out == ""
    assert imagefolder.main([*arguments, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 3


def test_refuses_to_resume_with_other_files(tmp_path: Path) -> None:
    folder, config = write_images(tmp_path / "data", 10), dataclasses.replace(CONFIG, epochs=1)
    imagefolder.train(folder, "cifar-310k", tmp_path / "run", config, workers=0)
    image = folder / "elm/3.jpg"
    before = image.read_bytes()
    image.write_bytes(before + b"\0")
    with pytest.raises(UsageError, match="holds a run with other images"):
        imagefolder.train(folder, "cifar-310k", tmp_path / "run", config, workers=0, resume=True)
    image.write_bytes(before)
    image.rename(folder / "elm/30.jpg")
    with pytest.raises(UsageError, match="holds a run with other images"):
        imagefolder.train(folder, "cifar-310k", tmp_path / "run", config, workers=0, resume=True)


def test_one_folder_is_split_by_class_seed_and_share(tmp_path: Path) -> None:
    folder = write_images(tmp_path, 10)
    classes, train, test = class_folders.split(folder, 0.2, seed=1)
    assert classes == CLASSES
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    assert set(train.paths).isdisjoint(test.paths)
    assert len({*train.paths, *test.paths}) == 30
    assert all(path.parent.name == CLASSES[label] for path, label in zip(train.paths, train.labels, strict=True))
    assert class_folders.split(folder, 0.2, seed=1)[2].paths == test.paths
    assert class_folders.split(folder, 0.2, seed=2)[2].paths != test.paths
    assert len(class_folders.split(folder, 0.0, seed=1)[2]) == 3  # at least one of each class


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "train/yew").mkdir(), r"no images in .*train/yew"),
        (lambda folder: (folder / "val/yew").mkdir(), r"val/yew is none of the 3 classes"),
        (
            lambda folder: (folder / "val").rename(folder / "holdout"),
            r"has train/<class>/\*, but neither val/<class>/\* nor test/<class>/\*, only holdout; sort test images",
        ),
        (
            lambda folder: (folder / "train").rename(folder / "other"),
            r"has no train/<class>/\*, only other, val; make it",
        ),
    ],
)
def test_refuses_unusable_folders(tmp_path: Path, spoil: Callable[[Path], object], complaint: str) -> None:
    write_images(tmp_path / "train", 1)
    write_images(tmp_path / "val", 1)
    spoil(tmp_path)
    with pytest.raises(DataError, match=complaint):
        class_folders.split(tmp_path, 0.1, 0)


def test_imagenet_ids_get_imagenet_labels() -> None:
    assert imagefolder._labels_and_ids(("n01440764", "n01443537")) == (
        ("tench", "goldfish"),
        ("n01440764", "n01443537"),
    )
    assert imagefolder._labels_and_ids(("n01440764", "fish")) == (("n01440764", "fish"), ())


def test_script_prints_one_result(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--variant", "cifar-310k", "--epochs", "1", "--batch", "8", "--size", "40", "--workers", "0", "--json"]
    assert imagefolder.main([str(image_folder), *flags, "--output", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["checkpoint"] == str(tmp_path / "cifar-310k.safetensors")
    assert _card(Path(result["checkpoint"])).preprocessing.input_size == 40
    assert json.loads(Path(result["checkpoint"]).with_suffix(".training.json").read_text())["command"].startswith(
        "python train/imagefolder.py"
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None or not PYTHON_H.is_file(), reason="needs g++ and Python's headers")
def test_compiled_network_trains_the_same(image_folder: Path, tmp_path: Path) -> None:
    """Most of it frozen, because g++ takes half a minute for the backward pass."""
    flags = [
        image_folder,
        "--variant",
        "cifar-310k",
        "--freeze",
        "12",
        "--epochs",
        "1",
        "--batch",
        "8",
        "--workers",
        "0",
    ]
    flags += ["--learning-rate", "0.02", "--fp32", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, imagefolder.__file__, *flags, "--compile", "--output", tmp_path / "compiled"],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
             "TORCHINDUCTOR_COMPILE_THREADS": "1"},  # no pool of processes that import PyTorch
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache").rglob("*.so"))  # of generated code: it was compiled
    imagefolder.main([*map(str, flags), "--output", str(tmp_path / "eager")])
    compiled, eager = (load_file(tmp_path / name / "cifar-310k.safetensors") for name in ("compiled", "eager"))
    assert compiled.keys() == eager.keys()
    before = model.create("cifar-310k", len(CLASSES), seed=0).state_dict()
    trained = [name for name, tensor in eager.items() if tensor.ndim > 1 and not torch.equal(tensor, before[name])]
    assert len(trained) == 2
    for name in trained:
        assert (compiled[name] - eager[name]).norm() < 1e-3 * (eager[name] - before[name]).norm(), name
