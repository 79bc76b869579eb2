"""The initial network."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from simplenet import checkpoints, model
from simplenet.errors import SimpleNetWarning, UsageError
from simplenet.model_card import CardOverrides, ModelCard
from simplenet.preprocessing import CIFAR10_PREPROCESSING
from train import cifar, imagefolder, recipe
from train.data import DATASETS
from train.recipe import Recipe

CONFIG = Recipe(epochs=1, batch_size=16, average_decay=0.0)


def _save(path: Path, labels: tuple[str, ...], classes: int = 3) -> dict[str, torch.Tensor]:
    state = model.create("cifar-310k", classes, seed=7).state_dict()
    checkpoints.save(path, state, ModelCard("cifar-310k", classes, CIFAR10_PREPROCESSING, labels))
    return state


def test_random_weights_follow_the_seed() -> None:
    network, card = recipe.initial_network(
        "cifar-310k", "random", ("a", "b"), dataclasses.replace(CONFIG, seed=4, dropout=0.3)
    )
    expected = model.create("cifar-310k", 2, seed=4).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    assert {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout2d)} == {0.3}
    assert card is None


@pytest.mark.parametrize(
    ("labels", "is_kept"),
    [(("a", "b", "c"), True), (("c", "b", "a"), False), (("a", "b", "c", "d"), False)],
    ids=["same", "another order", "another number"],
)
def test_the_last_layer_is_kept_only_for_the_same_classes(
    labels: tuple[str, ...], is_kept: bool, tmp_path: Path
) -> None:
    saved = _save(tmp_path / "x.safetensors", labels, len(labels))
    network, card = recipe.initial_network("cifar-310k", str(tmp_path / "x.safetensors"), ("a", "b", "c"), CONFIG)
    assert card is not None
    assert card.labels == labels
    assert torch.equal(network.features[0].weight, saved["features.0.weight"])
    fresh = model.create("cifar-310k", 3, seed=CONFIG.seed).state_dict()
    expected = saved if is_kept else fresh
    assert torch.equal(network.classifier.weight, expected["classifier.weight"])
    assert torch.equal(network.classifier.bias, expected["classifier.bias"])


@pytest.mark.filterwarnings("ignore::simplenet.errors.AssumedCardWarning")
@pytest.mark.parametrize(
    ("names", "becomes"),
    [
        (DATASETS["mnist"].labels, "starts new"),
        (tuple("abc"), "starts new"),
        (DATASETS["cifar10"].labels, "is kept, as if they were 'airplane' to 'truck'"),
    ],
    ids=["assumed others", "a card without names", "assumed the same"],
)
def test_says_what_becomes_of_a_last_layer_without_names(names: tuple[str, ...], becomes: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    if len(names) == 3:
        path = tmp_path / "x.safetensors"
        state = _save(path, ())
    else:
        state = model.create("cifar-310k", 10, seed=7).state_dict()
        torch.save(state, path)
    with pytest.warns(SimpleNetWarning, match=f"does not name its classes, so its last layer {becomes}; .* --labels"):
        network, _ = recipe.initial_network("cifar-310k", str(path), names, CONFIG)
    assert torch.equal(network.classifier.weight, state["classifier.weight"]) == ("kept" in becomes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        network, _ = recipe.initial_network("cifar-310k", str(path), names, CONFIG, CardOverrides(labels=names))
    assert not any("last layer" in str(warning.message) for warning in caught)
    assert torch.equal(network.classifier.weight, state["classifier.weight"])


@pytest.mark.filterwarnings("ignore::simplenet.errors.AssumedCardWarning")
def test_fine_tuning_scripts_keep_no_other_datasets_order(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    state = model.create("cifar-310k", 10, seed=7).state_dict()
    torch.save(state, tmp_path / "x.pth")
    folder = write_idx_set(tmp_path / "data", train=32, test=8)
    flags = ["--variant", "cifar-310k", "--weights", str(tmp_path / "x.pth"), "--epochs", "1", "--batch", "16"]
    slow = ["--learning-rate", "1e-12", "--average-decay", "0", "--fp32"]
    with pytest.warns(SimpleNetWarning, match=r"x\.pth does not name its classes, so its last layer starts new"):
        cifar.main(["--dataset", "mnist", "--data", str(folder), *flags, *slow, "--output", str(tmp_path / "mnist")])
    for name in "zyxwvutsrq":
        (tmp_path / "letters" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(tmp_path / "letters" / name / f"{number}.png")
    letters = [str(tmp_path / "letters"), *flags, *slow, "--workers", "0", "--size", "32"]
    with pytest.warns(SimpleNetWarning, match="last layer starts new"):
        imagefolder.main([*letters, "--output", str(tmp_path / "new")])
    (tmp_path / "labels.txt").write_text("\n".join("qrstuvwxyz"))
    imagefolder.main([*letters, "--labels", str(tmp_path / "labels.txt"), "--output", str(tmp_path / "kept")])
    for run, is_kept in (("mnist", False), ("new", False), ("kept", True)):
        after = load_file(tmp_path / run / "cifar-310k.safetensors")["classifier.weight"]
        assert torch.allclose(after, state["classifier.weight"], atol=1e-6) == is_kept


def test_training_continues_from_weights(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    folder = write_idx_set(tmp_path / "data", train=32, test=8)
    saved = _save(tmp_path / "x.safetensors", DATASETS["mnist"].labels, 10)
    hardly = dataclasses.replace(CONFIG, peak_learning_rate=1e-12, bf16=False)
    result = cifar.train(
        "mnist", "cifar-310k", tmp_path / "run", hardly, folder, initial=str(tmp_path / "x.safetensors")
    )
    assert result is not None
    assert not json.loads(result.checkpoint.with_suffix(".training.json").read_text())["recipe"][
        "flip"
    ]  # not for digits
    after = load_file(result.checkpoint)
    for name in ("features.0.weight", "classifier.weight"):
        torch.testing.assert_close(after[name], saved[name])
    with pytest.raises(UsageError, match=r"holds a run with --weights .*, not random"):
        cifar.train("mnist", "cifar-310k", tmp_path / "run", hardly, folder, resume=True)


@pytest.mark.filterwarnings("ignore:.*does not name its classes")
def test_training_starts_from_a_foreign_checkpoint(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    raw, averaged = (model.create("cifar-310k", 10, seed=seed).state_dict() for seed in (1, 2))
    torch.save(
        {"state_dict": raw, "ema": {"module." + name: tensor for name, tensor in averaged.items()}}, tmp_path / "a.ckpt"
    )
    folder, output = write_idx_set(tmp_path / "data", train=32, test=8), tmp_path / "run"
    recipe_flags = ["--epochs", "1", "--batch", "16", "--learning-rate", "1e-12", "--average-decay", "0", "--fp32"]
    flags = ["--dataset", "mnist", "--data", str(folder), "--weights", str(tmp_path / "a.ckpt"), *recipe_flags]
    assert cifar.main([*flags, "--weights-key", "state_dict", "--output", str(output)]) == 0
    after = load_file(output / "cifar-310k.safetensors")["features.0.weight"]
    torch.testing.assert_close(after, raw["features.0.weight"])
    with pytest.raises(UsageError, match=r"holds a run with --weights-key state_dict, not None"):
        cifar.main([*flags, "--output", str(output), "--resume"])
    with (
        pytest.warns(SimpleNetWarning, match="averaged weights 'ema' and raw ones 'state_dict'"),
        pytest.raises(UsageError, match="holds a run already"),
    ):
        cifar.main([*flags, "--output", str(output)])


def test_unknown_weights_are_refused_before_anything_is_written(
    tmp_path: Path, write_idx_set: Callable[..., Path]
) -> None:
    folder = write_idx_set(tmp_path / "data", train=32, test=8)
    with pytest.raises(UsageError, match="unknown weights 'cifar01', did you mean 'cifar10'"):
        cifar.train("mnist", "cifar-310k", tmp_path / "run", CONFIG, folder, initial="cifar01")
    assert not (tmp_path / "run").exists()
