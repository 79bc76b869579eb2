"""Finding weights: auto | pretrained | random | NAME; PATH is in test_checkpoints.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from simplenet import artifacts, checkpoints, datasets, download, image_folders, image_sets, labels, variants, weights
from simplenet.errors import DataError, UntrainedWarning, UsageError, WeightsError
from simplenet.manifest import WeightsOrigin
from simplenet.model_card import ModelCard
from simplenet.preprocessing import CIFAR10_PREPROCESSING, IMAGENET_PREPROCESSING
from tests.simplenet.networks import VARIANT, Tensors, card, same, sha256, state


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shipped weights: two for cifar-310k, one for cifar-460k."""
    folder = tmp_path / "shipped"
    for name, variant in (("zebras", VARIANT), ("apples", VARIANT), ("apples", "cifar-460k")):
        named = card(variant, 3, labels=("a", "b", "c"))
        checkpoints.save(folder / name / f"{variant}.safetensors", state(variant, 3), named)
    (folder / "images-only").mkdir()
    monkeypatch.setattr(datasets, "SHIPPED", folder)
    return folder


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a mirror that refuses connections."""
    monkeypatch.setenv("SIMPLENET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def cache_official(cache: Path, variant: str, monkeypatch: pytest.MonkeyPatch, tensors: Tensors) -> Path:
    path = cache / (variants.get(variant).official_weights_file or "")
    cache.mkdir(exist_ok=True)
    torch.save(tensors, path)
    prefix = sha256(path)[:8]
    monkeypatch.setattr(variants.Variant, "official_sha256_prefix", property(lambda self: prefix))
    return path


def test_random_weights_are_seeded() -> None:
    first, second, other = (weights.load(VARIANT, "random", seed=seed) for seed in (1, 1, 2))
    assert same(first, state(seed=1))
    assert first.origin == second.origin
    assert first.origin.sha256 != other.origin.sha256
    assert (first.origin.source, first.origin.name) == ("random", "random")
    assert not first.model.training
    assert first.card == ModelCard(VARIANT, 10, CIFAR10_PREPROCESSING)


def test_auto_falls_back_to_random_with_a_warning(shipped: Path, offline: Path) -> None:
    with pytest.warns(UntrainedWarning, match=r"1.5m is UNTRAINED, with RANDOM weights.*Connection refused") as caught:
        loaded = weights.load("1.5m")
    assert caught[0].filename == __file__
    assert loaded.origin.source == "random"
    assert (loaded.card.num_classes, loaded.card.preprocessing) == (1000, IMAGENET_PREPROCESSING)
    with pytest.warns(UntrainedWarning, match="no official weights exist for cifar-5m"):
        assert weights.load("cifar-5m").origin.source == "random"


def test_auto_uses_the_first_shipped_weights(shipped: Path) -> None:
    loaded = weights.load("simplenet_cifar_310k")
    assert loaded.origin == WeightsOrigin("shipped", "apples", sha256(shipped / "apples/cifar-310k.safetensors"))
    assert loaded.card.labels == ("a", "b", "c")
    assert same(loaded, state(num_classes=3))


def test_shipped_weights_by_name(shipped: Path) -> None:
    assert weights.load(VARIANT, "zebras").origin.name == "zebras"
    assert datasets.shipped_weights() == ("apples", "zebras")
    assert datasets.shipped_weights("cifar-460k") == ("apples",)
    with pytest.raises(UsageError, match="'zebras' are not for cifar-460k; type --variant with one of: cifar-310k"):
        weights.load("cifar-460k", "zebras")


@pytest.mark.parametrize(
    ("name", "hint"), [("aples", "did you mean 'apples'?"), ("Pretrained", "did you mean 'pretrained'?"), ("", "")]
)
def test_an_unknown_name(shipped: Path, name: str, hint: str) -> None:
    with pytest.raises(
        UsageError, match="choose from: auto, pretrained, random, apples, zebras, or the PATH"
    ) as caught:
        weights.load(VARIANT, name)
    assert hint in str(caught.value)


def test_an_unknown_variant() -> None:
    with pytest.raises(UsageError, match=r"did you mean '1\.5m'"):
        weights.load("1.5", "random")


def test_pretrained(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = state("1.5m")
    path = cache_official(offline, "1.5m", monkeypatch, tensors)
    for asked in ("pretrained", "auto"):
        loaded = weights.load("1.5m", asked)
        assert same(loaded, tensors)
        assert loaded.origin == WeightsOrigin("pretrained", "pretrained", sha256(path))
        assert loaded.card.labels == labels.imagenet_labels()
        assert loaded.card.class_ids == labels.imagenet_class_ids()
    assert artifacts.folder_for("artifacts", "1.5m", loaded.origin.name, "onnx", "fp32") == Path(
        "artifacts/1.5m/onnx-fp32"
    )


def test_pretrained_is_not_available(shipped: Path) -> None:
    with pytest.raises(UsageError, match="cifar-310k has no official weights; type --weights"):
        weights.load(VARIANT, "pretrained")
    with pytest.raises(WeightsError, match=r"cannot download .*, or type --weights random"):
        weights.load("1.5m", "pretrained")


def test_auto_rejects_official_weights_with_another_hash(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_official(offline, "1.5m", monkeypatch, state("1.5m"))
    monkeypatch.setattr(variants.Variant, "official_sha256_prefix", property(lambda self: "00000000"))
    with pytest.raises(WeightsError, match="should begin with 00000000"):
        weights.load("1.5m")


def test_the_shipped_weights_of_the_project() -> None:
    for name in datasets.shipped_weights():
        for variant in variants.VARIANTS:
            if name in datasets.shipped_weights(variant):
                loaded = weights.load(variant, name)
                assert loaded.origin.source == "shipped"
                assert len(loaded.card.labels) == loaded.card.num_classes
                assert loaded.card.training


def test_impossible_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"no file at ~nobody-of-this-name/x\.pth"):
        weights.load(VARIANT, "~nobody-of-this-name/x.pth")
    with pytest.raises(WeightsError, match="File name too long"):
        weights.load(VARIANT, f"{'x' * 300}.pth")
    monkeypatch.setenv("SIMPLENET_CACHE", "~nobody-of-this-name")
    assert download.cache_folder() == Path.cwd() / "~nobody-of-this-name"
    for look in (image_sets.check_source, lambda name: image_folders.evaluation_folder(Path(name))):
        with pytest.raises(DataError, match=r"there is no folder x+;|'x+' is neither a folder"):
            look("x" * 300)


def test_hashes_the_bytes_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training may replace the file between two reads."""
    path, read_bytes = tmp_path / "last.safetensors", Path.read_bytes
    checkpoints.save(path, state(VARIANT, 3), card(VARIANT, 3))
    before = sha256(path)

    def replaced_after(file: Path) -> bytes:
        content = read_bytes(file)
        checkpoints.save(path, state(VARIANT, 3, seed=5), card(VARIANT, 3))
        return content

    monkeypatch.setattr(Path, "read_bytes", replaced_after)
    loaded = weights.load(VARIANT, path)
    monkeypatch.undo()
    assert same(loaded, state(VARIANT, 3))
    assert loaded.origin.sha256 == before != sha256(path)
