"""Preprocessing and labels of checkpoints without a model card, and the flags that replace them."""

from __future__ import annotations

import argparse
import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from simplenet import checkpoints, cli, labels, variants, weights
from simplenet.errors import AssumedCardWarning, SimpleNetWarning, UsageError
from simplenet.model_card import NO_OVERRIDES, CardOverrides
from simplenet.preprocessing import CIFAR10_PREPROCESSING, IMAGENET_PREPROCESSING, Preprocessing
from simplenet.weights import LoadedWeights
from tests.conftest import MakeArtifact
from tests.simplenet.networks import VARIANT, card, sha256, state


def load_silently(variant: str, path: Path, overrides: CardOverrides = NO_OVERRIDES) -> LoadedWeights:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return weights.load(variant, path, overrides=overrides)


def plain(folder: Path, num_classes: int, variant: str = VARIANT) -> Path:
    torch.save(state(variant, num_classes), folder / "net.pth")
    return folder / "net.pth"


def parse(flags: str) -> CardOverrides:
    parser = argparse.ArgumentParser()
    cli.add_overrides(parser)
    overrides: CardOverrides = parser.parse_args(flags.split()).overrides
    return overrides


@pytest.mark.parametrize(
    ("variant", "num_classes", "dataset", "text"),
    [
        (
            VARIANT,
            10,
            "cifar10",
            "'airplane' to 'truck' (datasets with 10 classes: cifar10, fashion-mnist, mnist, svhn)",
        ),
        (VARIANT, 100, "cifar100", "'apple' to 'worm' (datasets with 100 classes: cifar100)"),
        (VARIANT, 1000, None, "'class 0' to 'class 999' (datasets with 1000 classes: imagenet)"),
        (VARIANT, 7, None, "'class 0' to 'class 6'; if that is wrong"),
        ("1.5m", 1000, "imagenet", "(datasets with 1000 classes: imagenet)"),
        ("1.5m", 10, None, "'class 0' to 'class 9' (datasets with 10 classes: cifar10"),
    ],
)
def test_warns_of_assumed_values(
    variant: str, num_classes: int, dataset: str | None, text: str, tmp_path: Path
) -> None:
    with pytest.warns(AssumedCardWarning) as caught:
        loaded = weights.load(variant, plain(tmp_path, num_classes, variant))
    known = labels.known_dataset(dataset) if dataset else None
    assert loaded.card.preprocessing == (known.preprocessing if known else variants.get(variant).preprocessing)
    assert (loaded.card.labels, loaded.card.class_ids) == ((known.labels, known.class_ids) if known else ((), ()))
    assert loaded.preprocessing_source == f"assumed for {variant}"
    (message,) = [str(warning.message) for warning in caught]
    assert all(f"{name} {value}" in message for name, value in loaded.card.facts().items())
    assert text in message
    assert message.endswith("--dataset NAME, or --mean R G B --std R G B --size N --resize N --padding N --labels FILE")


def test_metadata_of_others_is_no_card(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "a.safetensors", {"format": "pt"})
    with pytest.warns(AssumedCardWarning, match="a.safetensors has no model card; assumed for cifar-310k: mean 0.4914"):
        weights.load(VARIANT, tmp_path / "a.safetensors")


def test_stated_values_give_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(tmp_path / "a.safetensors", state(), card())
    assert load_silently(VARIANT, tmp_path / "a.safetensors").preprocessing_source == "model card"
    assert load_silently(VARIANT, Path("random")).preprocessing_source == "random weights"
    official = plain(tmp_path, 1000, "1.5m")  # a copy of the official file under another name
    prefix = sha256(official)[:8]
    monkeypatch.setattr(
        variants.Variant, "official_sha256_prefix", property(lambda self: prefix if self.name == "1.5m" else None)
    )
    assert load_silently("1.5m", official).preprocessing_source == "official checkpoint of 1.5m"


@pytest.mark.parametrize("dataset", ["fashion-mnist", "mnist", "svhn", "cifar10"])
def test_dataset_gives_all_values(dataset: str, tmp_path: Path) -> None:
    loaded = load_silently(VARIANT, plain(tmp_path, 10), parse(f"--dataset {dataset}"))
    known = labels.known_dataset(dataset)
    assert (loaded.card.preprocessing, loaded.card.labels) == (known.preprocessing, known.labels)
    assert loaded.preprocessing_source == f"flags --dataset {dataset}"


def test_single_flags_win_over_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    flags = f"--dataset imagenet --mean 0.5 0.5 0.5 --std 0.25 0.25 0.25 --size 64 --labels {tmp_path}/names.txt"
    loaded = load_silently(VARIANT, plain(tmp_path, 3), parse(flags))
    assert loaded.card.preprocessing == Preprocessing(73, 64, (0.5,) * 3, (0.25,) * 3)
    assert (loaded.card.labels, loaded.card.class_ids) == (("a", "b", "c"), ())


@pytest.mark.parametrize("dataset", labels.KNOWN_DATASETS)
def test_flags_can_give_all_values_of_a_dataset(dataset: str, tmp_path: Path) -> None:
    known = labels.known_dataset(dataset)
    values = known.preprocessing
    sizes = (values.input_size, values.resize_shorter_side, values.padding)
    flags = CardOverrides(None, values.mean, values.std, *sizes, labels=known.labels)
    path = plain(tmp_path, len(known.labels))
    loaded = load_silently(VARIANT, path, flags)
    assert (loaded.card.preprocessing, loaded.card.labels) == (values, known.labels)
    assert loaded.preprocessing_source == "flags --mean, --std, --size, --resize, --padding, --labels"


@pytest.mark.parametrize("missing", ["mean", "std", "size", "resize", "padding", "labels"])
def test_warns_of_the_one_value_without_a_flag(missing: str, tmp_path: Path) -> None:
    values = CIFAR10_PREPROCESSING
    flags = CardOverrides(None, values.mean, values.std, 32, 32, 0, tuple("abcdefghij"))
    given = dataclasses.replace(flags, **{missing: None})  # type: ignore[arg-type]
    with pytest.warns(AssumedCardWarning, match=f"assumed for .*: {missing} .*, type --dataset NAME, or --{missing} "):
        loaded = weights.load(VARIANT, plain(tmp_path, 10), overrides=given)
    assert loaded.preprocessing_source == f"flags {given.flags}; {missing} assumed for {VARIANT}"


def test_warns_of_the_values_that_flags_leave_out(tmp_path: Path) -> None:
    given = parse("--mean 0.286 0.286 0.286 --std 0.353 0.353 0.353")
    with pytest.warns(AssumedCardWarning, match="assumed for cifar-310k: size 32, resize 32, padding 0, labels 'airp"):
        loaded = weights.load(VARIANT, plain(tmp_path, 10), overrides=given)
    assert loaded.card.preprocessing == Preprocessing(32, 32, (0.286,) * 3, (0.353,) * 3)
    assert loaded.preprocessing_source == "flags --mean, --std; size, resize, padding, labels assumed for cifar-310k"
    given = CardOverrides(None, given.mean, given.std, 32, 32, 0)
    with pytest.warns(AssumedCardWarning, match="assumed for cifar-310k: labels 'class 0' to 'class 2'"):
        unnamed = weights.load(VARIANT, plain(tmp_path, 3), overrides=given)
    assert unnamed.preprocessing_source == "flags --mean, --std, --size, --resize, --padding"


def test_warns_of_flags_that_differ_from_the_card(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, state(num_classes=3), card(num_classes=3, labels=("a", "b", "c")))
    same = CardOverrides(mean=CIFAR10_PREPROCESSING.mean, size=32, labels=("a", "b", "c"))
    assert load_silently(VARIANT, path, same).preprocessing_source == "flags --mean, --size, --labels"
    for other, text in (
        (CardOverrides(mean=(0.0, 0.0, 0.0)), "--mean .* the model card: mean 0.4914 0.4824 0.4467 by 0 0 0$"),
        (CardOverrides(size=48), "--size .* size 32 by 48, resize 32 by 48$"),
        (CardOverrides(labels=("a", "x", "c")), "--labels replaces .* labels 'a' to 'c' by 'a' to 'c'$"),
    ):
        with pytest.warns(SimpleNetWarning, match=text):
            loaded = weights.load(VARIANT, path, overrides=other)
        assert loaded.preprocessing_source == f"flags {other.flags}"


def test_artifacts_match_the_same_flags_and_values(make_artifact: MakeArtifact) -> None:
    exported = dataclasses.replace(
        make_artifact("onnx", "fp32").manifest,
        preprocessing=Preprocessing(36, 32, (0.5,) * 3, (0.2,) * 3),
        preprocessing_source="flags --mean, --size; std, resize, padding, labels assumed for cifar-310k",
    )
    assert parse("--mean 0.5 0.5 0.5 --size 32").match(exported)
    for other in ("--mean 0.4 0.5 0.5 --size 32", "--mean 0.5 0.5 0.5 --size 48"):  # other values
        assert not parse(other).match(exported)
    for other in ("", "--mean 0.5 0.5 0.5", "--mean 0.5 0.5 0.5 --size 32 --padding 0"):  # other flags, equal values
        assert not parse(other).match(exported)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--mean 123.675 116.28 103.53", "divide mean and std by 255: --mean 0.485 0.456 0.406"),
        ("--std 58.395 57.12 57.375", "divide mean and std by 255: --std 0.229 0.224 0.225"),
        ("--std 255 255 255", "--std 1 1 1"),
        ("--mean 0.5 nan 0.5", "must be three finite numbers"),
        ("--std 0.5 0 0.5", "must be three finite numbers above 0"),
        ("--std 0.2 -0.2 0.2", "must be three finite numbers above 0"),
        ("--dataset cifra10", "did you mean 'cifar10'"),
        ("--dataset CIFAR100", "did you mean 'cifar100'"),
        ("--dataset FashionMNIST", "did you mean 'fashion-mnist'"),
    ],
)
def test_rejects_impossible_values(flags: str, text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)) as caught:
        parse(flags)
    assert "\n" not in str(caught.value)


def test_rejects_values_that_do_not_fit_the_weights(tmp_path: Path) -> None:
    path = plain(tmp_path, 3)
    for overrides, text in (
        (
            CardOverrides(labels=("a", "b")),
            "--labels has 2 labels, the weights have 3 classes; name a file of that many",
        ),
        (CardOverrides("svhn"), "--dataset svhn has 10 labels, the weights have 3 classes; name another, or add --lab"),
        (CardOverrides(resize=31), "cannot crop 32 pixels of an image resized to 31; raise --resize or --padding"),
        (CardOverrides(padding=16), "a padding of 16 leaves nothing of 32 pixels; reduce --padding"),
        (CardOverrides(size=8), "cifar-310k needs images of 16 pixels or more, not 8; choose a larger --size"),
    ):
        with pytest.raises(UsageError, match=text):
            weights.load(VARIANT, path, overrides=overrides)
    with pytest.raises(UsageError, match="--size must be an integer of 1 to 1024, not 5000"):
        CardOverrides(size=5000)
    with pytest.raises(UsageError, match=r"--dataset svhn, --size: name the weights .*, --weights PATH or NAME"):
        weights.load(VARIANT, overrides=CardOverrides("svhn", size=64))


@pytest.mark.parametrize("size", [32, 64, 224])
def test_size_keeps_the_ratio_of_resize_to_crop(size: int) -> None:
    found = IMAGENET_PREPROCESSING.with_size(size)
    assert (found.input_size, found.resize_shorter_side) == (size, round(size * 256 / 224))
    assert found.with_size(size) == found
    padded = labels.known_dataset("mnist").preprocessing
    assert padded.with_size(32) == padded
    assert padded.with_size(64) == Preprocessing(64, 64, padded.mean, padded.std)
    assert padded.with_size(32, 0) == Preprocessing(32, 32, padded.mean, padded.std)
    assert IMAGENET_PREPROCESSING.with_size(size, 2).input_size == size


def test_values_of_other_types_are_converted_or_rejected() -> None:
    half = CardOverrides(mean=(0.5, 0.5, 0.5), size=32, labels=("a", "b"))
    assert CardOverrides(mean=np.float32([0.5] * 3), size=np.int64(32), labels=["a", "b"]) == half  # type: ignore[arg-type]
    for wrong in ({"size": "32"}, {"labels": "abcdefghij"}, {"labels": {0: "a"}}, {"mean": 5}, {"std": "abc"}):
        with pytest.raises(UsageError):
            CardOverrides(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"--mean 0.485 0.458 0.4075 --std 0.003922 0.003922 0.003922"):
        CardOverrides(mean=(123.68, 116.78, 103.9), std=(1.0, 1.0, 1.0))
