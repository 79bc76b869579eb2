"""Which images calibrate int8, and which check an export."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from export import calibration
from simplenet import datasets, image_folders, weights
from simplenet.errors import DataError, SimpleNetWarning
from simplenet.manifest import WeightsOrigin
from simplenet.weights import LoadedWeights


@pytest.fixture(scope="module")
def shipped() -> LoadedWeights:
    return weights.load("cifar-310k", "fashion-mnist")


@pytest.fixture(scope="module")
def random() -> LoadedWeights:
    return weights.load("cifar-310k", "random")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty images, each of a different gray level."""
    for level in range(60):
        Image.fromarray(np.full((40, 40, 3), level, np.uint8)).save(tmp_path / f"{level:02}.png")
    return tmp_path


def levels(samples: calibration.ImageBatch) -> set[int]:
    return {int(image.max()) for image in samples.inputs}


def test_shipped_weights_have_their_own_images(shipped: LoadedWeights) -> None:
    calibrating = calibration.for_calibration(shipped, "auto")
    checking = calibration.for_checking(shipped, "auto", "int8")
    assert (calibrating.source, len(calibrating)) == ("fashion-mnist calibration", 500)
    assert (checking.source, len(checking)) == ("fashion-mnist evaluation", 2000)
    assert checking.labels is not None
    assert calibration.for_checking(shipped, "auto", "fp32").labels is None


def test_checkpoint_of_the_same_classes_gets_the_same_images(shipped: LoadedWeights) -> None:
    retrained = dataclasses.replace(shipped, origin=WeightsOrigin("checkpoint", "mine-12345678", "0" * 64))
    assert calibration.for_calibration(retrained, "auto").source == "fashion-mnist calibration"
    checking = calibration.for_checking(retrained, "auto", "int8")
    assert checking.labels is not None
    card = dataclasses.replace(shipped.card, labels=shipped.card.labels[::-1])
    reordered = calibration.for_checking(dataclasses.replace(retrained, card=card), "auto", "int8")
    np.testing.assert_array_equal(reordered.labels, 9 - checking.labels)


def test_trained_weights_of_other_classes_need_a_folder(shipped: LoadedWeights) -> None:
    card = dataclasses.replace(shipped.card, labels=tuple("abcdefghij"))
    others = LoadedWeights(shipped.model, card, WeightsOrigin("checkpoint", "mine-12345678", "0" * 64))
    with pytest.raises(DataError, match="--calibration DIR"):
        calibration.for_calibration(others, "auto")
    assert calibration.for_checking(others, "auto", "fp32").source == "synthetic"
    borrowed = calibration.for_checking(others, "fashion-mnist", "int8")
    assert borrowed.source == "fashion-mnist evaluation"
    assert borrowed.labels is None  # they are labels of other classes than this model's


def test_random_weights_are_calibrated_with_synthetic_images(random: LoadedWeights) -> None:
    samples = calibration.for_calibration(random, "auto")
    assert calibration.manifest_entry(samples) == {"source": "synthetic: for latency only", "images": 64}
    again = calibration.for_calibration(random, "synthetic")
    np.testing.assert_array_equal(samples.inputs, again.inputs)
    assert len(levels(samples)) > 1


def test_calibration_and_check_use_different_images(random: LoadedWeights, folder: Path) -> None:
    calibrating = calibration.for_calibration(random, folder)
    checking = calibration.for_checking(random, folder, "int8")
    assert levels(calibrating).isdisjoint(levels(checking))
    assert levels(calibrating) | levels(checking) == set(range(60))
    fingerprint = image_folders.fingerprint(folder)
    assert calibration.manifest_entry(calibrating) == {"source": folder.name, "images": 30, "fingerprint": fingerprint}


@pytest.mark.filterwarnings("ignore:int8 is calibrated with only")
def test_single_image_is_used_for_both(random: LoadedWeights, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "only.png")
    assert len(calibration.for_calibration(random, tmp_path)) == 1
    assert len(calibration.for_checking(random, tmp_path, "int8")) == 1


@pytest.mark.filterwarnings("ignore:int8 is calibrated with only")
def test_only_folders_named_as_classes_label_their_images(
    shipped: LoadedWeights, random: LoadedWeights, tmp_path: Path
) -> None:
    card = dataclasses.replace(shipped.card, labels=("cat", "dog", *"cdefghij"))
    mine = LoadedWeights(shipped.model, card, WeightsOrigin("checkpoint", "mine-12345678", "0" * 64))
    for name in ("dog", "cat"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
    checking = calibration.for_checking(mine, tmp_path, "int8")
    assert checking.labels is not None
    assert sorted(checking.labels) == [0, 0, 1, 1]
    assert calibration.for_checking(random, tmp_path, "int8").labels is None
    assert len(calibration.for_calibration(random, tmp_path)) == 4


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"<html>", b"", b"\xff\xd8\xff"])
def test_rejects_a_class_without_a_readable_image(shipped: LoadedWeights, folder: Path, content: bytes) -> None:
    paths = sorted(folder.iterdir())
    for name, part in (("Bag", paths[:30]), ("Coat", paths[30:])):
        (folder / name).mkdir()
        for path in part:
            path.rename(folder / name / path.name)
    assert len(calibration.for_calibration(shipped, folder)) == 30
    for path in (folder / "Coat").iterdir():
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"none of the 30 images in {folder / 'Coat'} can be read: 30 x "):
        calibration.for_calibration(shipped, folder)


@pytest.mark.parametrize("requested", ["fashion-mist", "/no/such/folder"])
def test_rejects_unknown_sets_and_folders(random: LoadedWeights, requested: str) -> None:
    with pytest.raises(DataError, match="neither a folder"):
        calibration.for_calibration(random, requested)


def test_rejects_an_empty_folder(random: LoadedWeights, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        calibration.for_calibration(random, tmp_path)


def test_parts_of_a_shipped_set_share_no_image() -> None:
    evaluation, calibrating = (datasets.shipped("fashion-mnist", split) for split in ("evaluation", "calibration"))
    assert not {image.tobytes() for image in evaluation.images} & {image.tobytes() for image in calibrating.images}


def test_warns_about_few_and_unreadable_images(random: LoadedWeights, tmp_path: Path) -> None:
    for level in range(8):
        Image.fromarray(np.full((40, 40, 3), level, np.uint8)).save(tmp_path / f"{level}.png")
    for level in (0, 1):  # one of the two is for the check
        (tmp_path / f"{level}.png").write_text("no image")
    with pytest.warns(SimpleNetWarning) as caught:
        samples = calibration.for_calibration(random, tmp_path)
    assert len(samples) == 3
    messages = [str(warning.message) for warning in caught]
    assert "1 of 4 images" in messages[0]
    assert "0.png" in messages[0] or "1.png" in messages[0]
    assert "only 3 images" in messages[1]


def test_folder_named_synthetic_is_not_the_synthetic_set(
    random: LoadedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "synthetic").mkdir()
    monkeypatch.chdir(tmp_path)
    samples = calibration.for_calibration(random, "synthetic")
    assert (samples.source, samples.fingerprint) == ("synthetic", "")
    assert calibration.for_checking(random, "auto", "fp32").source == "synthetic"
    Image.new("RGB", (32, 32)).save(tmp_path / "synthetic" / "1.png")
    with pytest.warns(SimpleNetWarning, match="only 1 images"):
        named = calibration.for_calibration(random, tmp_path / "synthetic")
    assert calibration.manifest_entry(named)["source"] == "synthetic"
    assert calibration.manifest_entry(samples)["source"] == "synthetic: for latency only"


def save(images: Iterable[npt.NDArray[Any]], folder: Path, suffix: str = "png") -> None:
    for index, pixels in enumerate(images):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:03}.{suffix}")


PHOTOGRAPHS = datasets.shipped("fashion-mnist", "calibration").images[:80]
NOISE = np.random.default_rng(0).integers(0, 6, (80, 28, 28, 3))
POOR = {
    "black": (PHOTOGRAPHS * 0, "are all the same"),
    "repeated": (np.repeat(PHOTOGRAPHS[:1], 80, 0), "are all the same"),
    "dark": (PHOTOGRAPHS // 16, "hardly vary"),
    "lens cap with sensor noise": (NOISE, "hardly vary"),
    "one scene with sensor noise": (np.clip(PHOTOGRAPHS[:1] // 2 + NOISE, 0, 255), "hardly vary"),
    "fog": (PHOTOGRAPHS // 16 + 200, "hardly vary"),
    "masks": (np.where(PHOTOGRAPHS > 127, 255, 0), "are saturated"),
}


@pytest.mark.parametrize("kind", POOR)
def test_rejects_poor_calibration_images(shipped: LoadedWeights, tmp_path: Path, kind: str) -> None:
    images, reason = POOR[kind]
    save(images, tmp_path)
    with pytest.raises(DataError, match=f"{reason}.*--calibration DIR.*--allow-poor-calibration"):
        calibration.for_calibration(shipped, tmp_path)
    with pytest.warns(SimpleNetWarning, match=reason):
        allowed = calibration.for_calibration(shipped, tmp_path, allow_poor=True)
    assert reason in calibration.manifest_entry(allowed)["doubt"]


def test_accepts_real_sets(shipped: LoadedWeights, tmp_path: Path) -> None:
    """Black backgrounds, one class, thin white digits, and gray JPEG files."""
    everything = datasets.shipped("fashion-mnist", "calibration")
    sets = {
        "all": PHOTOGRAPHS,
        "digits": np.where(PHOTOGRAPHS > 180, PHOTOGRAPHS, 0),
        "trousers": everything.images[everything.labels == 1],
        "gray": [np.array(Image.fromarray(pixels).convert("L")) for pixels in PHOTOGRAPHS],
    }
    for name, image_arrays in sets.items():
        (tmp_path / name).mkdir()
        save(image_arrays, tmp_path / name, "jpg" if name == "gray" else "png")
    for name in sets:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "int8 is calibrated with only", SimpleNetWarning)
            assert not calibration.for_calibration(shipped, tmp_path / name).doubt


def test_halves_mix_images_that_take_turns(random: LoadedWeights, tmp_path: Path) -> None:
    save([np.full((8, 8, 3), 255 * (index % 2)) for index in range(80)], tmp_path)
    for batch in (calibration.for_calibration(random, tmp_path), calibration.for_checking(random, tmp_path, "int8")):
        assert 10 < int(batch.inputs[:, 0, 0, 0].sum() / 255) < 30


def test_varied_images_are_equal_in_every_export(shipped: LoadedWeights) -> None:
    one, other = calibration.varied(shipped), calibration.varied(shipped)
    np.testing.assert_array_equal(one.inputs, other.inputs)
    assert len(one) == calibration.VARIED_IMAGES
    dark, inverted = one.inputs[:80:2], one.inputs[1:80:2]
    assert dark.mean() < 128 < inverted.mean()
    assert not {image.tobytes() for image in one.inputs} & {
        image.tobytes() for image in calibration.for_calibration(shipped, "auto").inputs
    }
    assert len(calibration.for_fp16_range(shipped, "auto")) >= 200
