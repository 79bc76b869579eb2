"""The training script on a tiny dataset that a network learns in seconds."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from simplenet import model
from simplenet.errors import DataError, SimpleNetError, UsageError
from simplenet.model_card import ModelCard
from tests.train.conftest import in_batches
from train import cifar, data, evaluation, in_memory_dataset
from train.recipe import Recipe

SCRIPT = Path(cifar.__file__)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
QUICK = Recipe(epochs=2, batch_size=8, peak_learning_rate=0.02, average_decay=0.9, bf16=False)


def _card(path: Path) -> ModelCard:
    with safe_open(path, "pt") as file:
        return ModelCard.from_json(file.metadata()["simplenet"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, write_idx_set: Callable[..., Path]) -> Path:
    return write_idx_set(tmp_path_factory.mktemp("data"), train=240, test=80)


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> cifar.TrainingResult:
    output = tmp_path_factory.mktemp("run")
    return cifar.train("fashion-mnist", "simplenet_cifar_310k", output, QUICK, tiny, command="python train/cifar.py")


def test_it_learns(trained: cifar.TrainingResult) -> None:
    log = [json.loads(line) for line in (trained.checkpoint.parent / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2]
    assert log[1]["train_loss"] < log[0]["train_loss"]
    assert trained.top1 > 80  # chance is 25


def test_checkpoint_gives_the_reported_accuracy(trained: cifar.TrainingResult, tiny: Path) -> None:
    card = _card(trained.checkpoint)
    assert card.variant == trained.variant == "cifar-310k"
    assert card.labels[9] == "Ankle boot"
    assert card.preprocessing == data.get("fashion-mnist").preprocessing
    network = model.create(card.variant, card.num_classes)
    network.load_state_dict(load_file(trained.checkpoint))
    test = in_memory_dataset.to_tensors(data.load(data.get("fashion-mnist"), tiny)[1], card.preprocessing)
    top1, *_ = evaluation.evaluate(network, in_batches(*test, 100), card.preprocessing, bf16=False)
    assert round(top1, 2) == trained.top1 == card.training["top1"]


def test_writes_the_files_beside_the_checkpoint(trained: cifar.TrainingResult) -> None:
    summary = json.loads(trained.checkpoint.with_suffix(".training.json").read_text())
    assert summary["top1"] == trained.top1
    assert summary["recipe"] == dataclasses.asdict(QUICK)
    assert summary["command"] == "python train/cifar.py"
    assert len(summary["log"]) == summary["epochs"] == 2
    assert trained.checkpoint.with_suffix(".training.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in trained.checkpoint.parent.iterdir()} == {
        "last.safetensors",
        "best.safetensors",
        "training-state.safetensors",
        "tensorboard",
        "log.jsonl",
        "cifar-310k.safetensors",
        "cifar-310k.training.json",
        "cifar-310k.training.png",
    }
    assert "top-1 on test after 2 epochs" in trained.summary()
    assert trained.machine in trained.summary()


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    folder = write_idx_set(tmp_path / "data", train=32, test=8)
    runs = []
    for seed in (5, 5, 6):
        config = dataclasses.replace(QUICK, epochs=1, seed=seed)
        runs.append(load_file(cifar.train("mnist", "cifar-310k", tmp_path / str(len(runs)), config, folder).checkpoint))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not torch.equal(runs[0]["classifier.weight"], runs[2]["classifier.weight"])


def test_diverging_run_leaves_no_weights(tmp_path: Path, tiny: Path) -> None:
    config = dataclasses.replace(QUICK, peak_learning_rate=1e30, epochs=1)
    with pytest.raises(SimpleNetError, match=r"the loss is (nan|inf) in epoch 1, step \d+ of 30; .*--learning-rate"):
        cifar.train("fashion-mnist", "cifar-310k", tmp_path, config, tiny)
    assert not list(tmp_path.glob("*.safetensors"))


def test_refuses_impossible_arguments(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    folder = write_idx_set(tmp_path / "data", train=8, test=8)
    with pytest.raises(DataError, match="use --batch 8"):
        cifar.train("fashion-mnist", "cifar-310k", tmp_path / "run", dataclasses.replace(QUICK, batch_size=16), folder)
    with pytest.raises(UsageError, match="unknown variant"):
        cifar.train("fashion-mnist", "cifar-310", tmp_path / "run", QUICK, folder)
    small = dataclasses.replace(QUICK, small_first=0.5)
    with pytest.raises(UsageError, match=r"1\.5m needs images of 25 pixels or more, not 24; leave out --small-first"):
        cifar.train("fashion-mnist", "1.5m", tmp_path / "run", small, folder)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(SimpleNetError, match="cannot write"):
        cifar.train("fashion-mnist", "cifar-310k", blocked, QUICK, folder)


@pytest.mark.slow
def test_script_runs_from_any_folder_with_clean_output(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    folder = write_idx_set(tmp_path / "data", train=32, test=8)
    arguments = ["--data", str(folder), "--batch", "32", "--epochs", "1", "--fp32", "--json"]
    finished = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT
    )
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result["checkpoint"] == "runs/fashion-mnist-cifar-310k/cifar-310k.safetensors"
    assert np.isfinite(result["test_loss"])
    assert (tmp_path / result["checkpoint"]).is_file()


def test_expands_home_where_the_shell_does_not() -> None:
    arguments = cifar.build_parser().parse_args(["--output=~/run", "--data=~/data"])
    assert (arguments.output, arguments.data) == (Path.home() / "run", Path.home() / "data")


@pytest.mark.parametrize(
    "bad",
    [
        ["--epochs", "0"],
        ["--learning-rate", "nan"],
        ["--learning-rate", "4e38"],
        ["--dataset", "mnst"],
        ["--batch", "x"],
    ],
)
def test_wrong_flags_are_usage_errors(bad: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cifar.main(bad)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
