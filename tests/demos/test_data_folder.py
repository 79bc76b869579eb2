"""A data set's folder: what is measured with it, and which shipped weights belong to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos import compare, data_folder, evaluate
from simplenet.errors import DataError
from train.data import DATASETS


def write_test_pictures(folder: Path, names: tuple[str, ...], split: str = "test") -> Path:
    for name in names:
        (folder / split / name).mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), 99, np.uint8)).save(folder / split / name / "0.png")
    return folder


@pytest.mark.parametrize(("dataset", "split"), [("cifar10", "test"), ("mnist", "val")])
def test_the_weights_that_know_its_classes_are_found(dataset: str, split: str, tmp_path: Path) -> None:
    pictures = data_folder.evaluation_pictures(write_test_pictures(tmp_path, DATASETS[dataset].labels, split))
    assert pictures == tmp_path / split
    assert data_folder.weights_for(pictures, "cifar-310k") == dataset


def test_a_part_of_the_classes_is_enough_and_one_more_is_too_much(tmp_path: Path) -> None:
    pictures = write_test_pictures(tmp_path, ("frog", "ship")) / "test"
    assert data_folder.weights_for(pictures, "cifar-5m") == "cifar10"
    write_test_pictures(tmp_path, ("teapot",))
    with pytest.raises(DataError, match=r"no shipped weights of cifar-5m know the classes in .*--weights PATH"):
        data_folder.weights_for(pictures, "cifar-5m")
    assert data_folder.weights_for(pictures, "1.5m") == "auto"


def test_folders_without_test_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has neither test/<class>/\* nor val/<class>/\*; add one"):
        data_folder.evaluation_pictures(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*nowhere; name the data set's folder"):
        data_folder.evaluation_pictures(tmp_path / "nowhere")
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="no images in"):
        data_folder.weights_for(data_folder.evaluation_pictures(tmp_path), "cifar-310k")


def test_compare_measures_the_shipped_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, noise = write_test_pictures(tmp_path / "data", DATASETS["cifar10"].labels), np.random.default_rng(0)
    for picture in sorted(folder.glob("*/*/0.png")):
        for number in range(20):  # smooth blots of color, which get different answers
            blot = Image.fromarray(noise.integers(0, 256, (4, 4, 3), np.uint8)).resize(
                (32, 32), Image.Resampling.BICUBIC
            )
            blot.save(picture.with_name(f"{number}.png"))
    options = ["--backend", "onnxruntime", "--precision", "fp32", "--artifacts", str(tmp_path / "artifacts"), "--json"]
    command = [sys.executable, compare.__file__, "--data", str(folder), "--samples", "8", "--rounds", "2", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["picture_count"] == 200
    evaluate.main([str(folder / "test"), "--variant", "cifar-310k", "--weights", "cifar10", *options])
    evaluated = json.loads(capsys.readouterr().out)
    accuracies = [(row["top1_percent"], row["top5_percent"]) for row in (report["rows"][0], evaluated)]
    assert accuracies[0] == accuracies[1] != (10, 50)  # what one answer to all pictures would give


def test_named_weights_win_and_pictures_come_from_one_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_test_pictures(tmp_path, ("frog", "ship"))
    flags = ["--weights", "mnist", "--backend", "torch", "--precision", "fp32", "--artifacts", str(tmp_path / "made")]
    with pytest.raises(DataError, match=r"is named after a class of the model \(such as '0'\)"):
        compare.main(["--data", str(folder), *flags])
    with pytest.raises(SystemExit):
        compare.main(["--data", str(folder), "--image", str(folder)])
    assert "not allowed with" in capsys.readouterr().err
