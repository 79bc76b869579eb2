"""Averaging tiny runs that start from the same weights, and refusing other files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from simplenet import checkpoints, model
from simplenet.errors import SimpleNetError, UsageError, WeightsError
from simplenet.model_card import ModelCard
from simplenet.preprocessing import Preprocessing
from tests.train.conftest import in_batches
from train import average, cifar, data, evaluation, in_memory_dataset
from train.recipe import Recipe

QUICK = Recipe(epochs=1, batch_size=16, peak_learning_rate=0.02, average_decay=0.9)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, write_idx_set: Callable[..., Path]) -> Path:
    return write_idx_set(tmp_path_factory.mktemp("data"), train=160, test=80)


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs with mixup from the end of a third: their final weights."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str, config: Recipe, initial: str = "random") -> Path:
        result = cifar.train("fashion-mnist", "cifar-310k", folder / name, config, tiny, initial=initial)
        assert result is not None
        return result.checkpoint

    start = str(run("start", QUICK))
    mixed = replace(QUICK, peak_learning_rate=0.01, mixup=1.0)
    return [run(name, replace(mixed, seed=seed), start) for seed, name in enumerate("ab", start=1)]


def _card(path: Path) -> ModelCard:
    with safe_open(path, "pt") as file:
        return ModelCard.from_json(file.metadata()["simplenet"])


def _accuracy(path: Path, tiny: Path) -> tuple[float, float]:
    """Top-1 in percent and loss, by other means than the script's."""
    card = _card(path)
    network = model.create(card.variant, card.num_classes)
    network.load_state_dict(load_file(path))
    test = in_memory_dataset.to_tensors(data.load(data.get("fashion-mnist"), tiny)[1], card.preprocessing)
    top1, loss, _ = evaluation.evaluate(network, in_batches(*test, 100), card.preprocessing, bf16=False)
    return top1, loss


def test_writes_the_mean_and_its_accuracy(
    runs: list[Path], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert average.main([*map(str, runs), "--data", str(tiny), "--output", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    path = Path(result["checkpoint"])
    assert path == tmp_path / "cifar-310k.safetensors"
    mean, members = load_file(path), [load_file(run) for run in runs]
    for name, tensor in mean.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(tensor, (members[0][name] + members[1][name]) / 2)
    top1, loss = _accuracy(path, tiny)
    assert (result["top1"], result["test_loss"]) == (round(top1, 2), pytest.approx(loss, abs=1e-5))
    assert [member["top1"] for member in result["averaged"]] == [_card(run).training["top1"] for run in runs]

    card, summary = _card(path), json.loads(path.with_suffix(".training.json").read_text())
    assert card.training == summary
    assert summary["command"].startswith(f"python train/average.py {runs[0]} {runs[1]} --data")
    assert replace(card, training={}) == replace(_card(runs[0]), training={})
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "cifar-310k.training.json"}


def test_batch_norm_statistics_are_of_unmixed_images(runs: list[Path], tiny: Path, tmp_path: Path) -> None:
    path = average.average(runs, tmp_path / "both", tiny).checkpoint
    card = _card(path)
    recipe = _card(runs[-1]).training["recipe"]
    config = Recipe(batch_size=125, translate=recipe["translate"], cutout=recipe["cutout"], flip=recipe["flip"])
    splits = data.load(data.get("fashion-mnist"), tiny)
    images = in_memory_dataset.InMemoryDataset(splits, card.preprocessing, config, cifar.Group())
    first = model.create(card.variant, card.num_classes)
    first.load_state_dict(load_file(path))
    maps = torch.cat([first.features[0](batch) for batch, _ in images.epoch(0, 0)])
    norm = first.features[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)), rtol=2e-2, atol=1e-3)  # mean of the batches'

    single = average.average(runs[:1], tmp_path / "one", tiny)
    before, after = load_file(runs[0]), load_file(single.checkpoint)
    assert all(torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
    assert not torch.allclose(before["features.1.running_var"], after["features.1.running_var"])
    assert "one run" in single.summary()
    assert "did they start" not in replace(single, top1=0.0).summary()


def test_average_can_be_averaged_again_as_float16(
    runs: list[Path], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[torch.Tensor] = []
    evaluate = evaluation.evaluate

    def watched(network: torch.nn.Module, *rest: Any, **named: Any) -> tuple[float, float, int]:
        measured.append(network.state_dict()["features.0.weight"].clone())
        return evaluate(network, *rest, **named)

    first = average.average(runs, tmp_path / "first", tiny)
    monkeypatch.setattr(evaluation, "evaluate", watched)
    second = average.average([first.checkpoint, runs[0]], tmp_path / "second", tiny, half=True)
    tensors = load_file(second.checkpoint)
    assert tensors["features.0.weight"].dtype == tensors["classifier.weight"].dtype == torch.float16
    assert tensors["features.1.running_var"].dtype == torch.float32
    assert torch.equal(measured[0], tensors["features.0.weight"].float())
    assert second.top1 == round(_accuracy(second.checkpoint, tiny)[0], 2)


def test_summary_questions_an_average_worse_than_its_runs(runs: list[Path], tiny: Path, tmp_path: Path) -> None:
    copies = [_with_card(path, tmp_path, top1=top1) for path, top1 in zip(runs, (5.0, 99.0), strict=True)]
    result = average.average(copies, tmp_path / "average", tiny)
    assert "worse than each of them: did they start from the same weights?" in replace(result, top1=4.9).summary()
    assert "did they start" not in replace(result, top1=5.0).summary()


@pytest.mark.parametrize("flip", [True, False])
def test_augments_images_as_in_the_last_run(
    runs: list[Path], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    seen: list[Recipe] = []
    batches: list[int] = []
    epoch = in_memory_dataset.InMemoryDataset.epoch

    def watched(self: in_memory_dataset.InMemoryDataset, *place: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        seen.append(self.config)
        for batch in epoch(self, *place):
            batches.append(len(batch[1]))
            yield batch

    monkeypatch.setattr(in_memory_dataset.InMemoryDataset, "epoch", watched)
    monkeypatch.setattr(average, "STATISTICS_IMAGES", 100)
    monkeypatch.setattr(average, "_BATCH", 50)
    recipe = {"translate": 1, "cutout": 3, "flip": flip}
    result = average.average([runs[0], _with_card(runs[1], tmp_path, recipe=recipe)], tmp_path / "average", tiny)
    assert (seen[0].translate, seen[0].cutout, seen[0].flip) == (1, 3, flip)
    assert (seen[0].mixup, seen[0].cutmix) == (0, 0)
    assert batches == [50, 50]
    assert _card(result.checkpoint).training["recipe"] == recipe


def _edited(path: Path, folder: Path, name: str, value: float) -> Path:
    """A copy of a run's final weights with one tensor filled with `value`."""
    tensors = load_file(path)
    tensors[name] = torch.full_like(tensors[name], value)
    checkpoints.save(folder / "edited.safetensors", tensors, _card(path))
    return folder / "edited.safetensors"


@pytest.mark.parametrize(
    ("name", "value", "half"),
    [("features.1.weight", 1e30, False), ("classifier.weight", 3e38, False), ("classifier.weight", 1e5, True)],
)
def test_refuses_an_average_that_is_not_finite(
    runs: list[Path], tiny: Path, tmp_path: Path, name: str, value: float, half: bool
) -> None:
    with pytest.raises(WeightsError, match="weights to store are not finite; leave out --half, or average other runs"):
        average.average([_edited(runs[0], tmp_path, name, value)], tmp_path / "out", tiny, half=half)
    assert not (tmp_path / "out").exists()


def _with_card(path: Path, folder: Path, card: ModelCard | None = None, **training: Any) -> Path:
    """A copy of a run's final weights with another card."""
    card = card or _card(path)
    copy = folder / f"{len(list(folder.glob('*.safetensors')))}.safetensors"
    checkpoints.save(copy, load_file(path), replace(card, training={**card.training, **training}))
    return copy


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"dataset": "flowers"}, r"is not the result of a run of train/cifar\.py; name the <variant>\.safetensors"),
        ({"top1": "99"}, "is not the result of a run"),
        ({"recipe": None}, "is not the result of a run"),
        ({"dataset": "mnist"}, r"\(cifar-310k, mnist\) and .* have different networks, classes or preprocessing"),
    ],
)
def test_refuses_files_that_are_no_final_weights(
    runs: list[Path], tiny: Path, tmp_path: Path, training: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        average.average([_with_card(runs[0], tmp_path, **training), runs[1]], tmp_path / "out", tiny)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "recipe", ["no", {}, {"translate": 10**9, "cutout": 8}, {"translate": 2, "cutout": -1}, {"translate": 2.0}]
)
def test_refuses_invalid_recipes_in_a_card(runs: list[Path], tiny: Path, tmp_path: Path, recipe: object) -> None:
    with pytest.raises(UsageError, match="is not the result of a run"):
        average.average([_with_card(runs[0], tmp_path, recipe=recipe)], tmp_path / "out", tiny)
    assert not (tmp_path / "out").exists()


def test_refuses_mismatched_runs(runs: list[Path], tiny: Path, tmp_path: Path) -> None:
    def fails(paths: Sequence[Path], output: Path, message: str, error: type[SimpleNetError] = UsageError) -> None:
        with pytest.raises(error, match=message):
            average.average(paths, output, tiny)

    card = _card(runs[0])
    other_views = Preprocessing(32, 32, (0.5,) * 3, (0.25,) * 3)
    out = tmp_path / "out"
    fails([_with_card(runs[0], tmp_path, replace(card, labels=tuple("abcdefghij")))], out, "trained on other classes")
    fails(
        [_with_card(runs[0], tmp_path, replace(card, preprocessing=other_views)), runs[1]],
        out,
        "different networks, classes or preprocessing",
    )
    checkpoints.save(tmp_path / "bare.safetensors", load_file(runs[0]), replace(card, training={}))
    fails([tmp_path / "bare.safetensors"], out, "is not the result of a run")
    fails([tmp_path / "none.safetensors"], out, "no file at", WeightsError)
    fails([runs[0].parent / "last.safetensors"], out, "is not the result of a run")
    fails([_with_card(runs[0], tmp_path, replace(card, variant="cifar-1t"))], out, "unknown variant 'cifar-1t'")
    fails([*runs, runs[0]], out, "named twice")
    assert not out.exists()


def test_never_overwrites_a_run_or_an_average(
    runs: list[Path], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = runs[0].read_bytes()
    with pytest.raises(UsageError, match="holds a run already; choose another --output"):
        average.average(runs, runs[0].parent, tiny)
    assert runs[0].read_bytes() == before
    path = average.average(runs, tmp_path, tiny).checkpoint
    before = path.read_bytes()
    with pytest.raises(UsageError, match="holds a run already"):
        average.average(runs, tmp_path, tiny)
    with pytest.raises(UsageError, match="holds a run already; choose another --output for a new one"):
        cifar.train("fashion-mnist", "cifar-310k", tmp_path, QUICK, tiny)
    assert path.read_bytes() == before

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="start it with python, not with torchrun"):
        average.main([str(runs[0]), "--data", str(tiny), "--output", str(tmp_path / "other")])
