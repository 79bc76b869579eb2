"""The loop when a run fails: saved files stay, and one line explains the error."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from simplenet.errors import SimpleNetError
from tests.train.conftest import in_batches
from tests.train.crash import crash_in_second_epoch
from train import checkpoint, cifar, evaluation, recipe
from train.evaluation import Batch
from train.in_memory_dataset import InMemoryDataset
from train.recipe import Recipe
from train.results import TrainingResult

CONFIG = Recipe(epochs=2, batch_size=16, peak_learning_rate=0.01, average_decay=0.9, bf16=False)
CALL = ("fashion-mnist", "cifar-310k")
SCRIPT = Path(cifar.__file__)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, write_idx_set: Callable[..., Path]) -> Path:
    return write_idx_set(tmp_path_factory.mktemp("data"), train=80, test=40)


@pytest.fixture(scope="module")
def whole(small: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """The result of an uninterrupted run."""
    result = cifar.train(*CALL, tmp_path_factory.mktemp("whole"), CONFIG, small)
    assert result is not None
    return result


@pytest.fixture
def one_epoch(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a run of two epochs that crashed in the second."""
    crash_in_second_epoch(monkeypatch, lambda: cifar.train(*CALL, tmp_path / "run", CONFIG, small))
    return tmp_path / "run"


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".safetensors"}


def test_infinite_loss_stops_the_run_and_keeps_earlier_weights(
    one_epoch: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _files(one_epoch)
    monkeypatch.setattr(recipe, "learning_rate", lambda step, *others: 1e30 if step >= 6 else 0.01)
    with pytest.raises(SimpleNetError, match=r"is (nan|inf) in epoch 2, step \d of 5; .*last\.safetensors has"):
        cifar.train(*CALL, one_epoch, CONFIG, small, resume=True)
    assert _files(one_epoch) == before


def test_weights_ruined_by_the_last_step_are_not_saved(
    one_epoch: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _files(one_epoch)
    monkeypatch.setattr(recipe, "learning_rate", lambda step, *others: 1e38 if step == 9 else 0.01)
    with pytest.raises(SimpleNetError, match="epoch 2"):
        cifar.train(*CALL, one_epoch, CONFIG, small, resume=True)
    assert _files(one_epoch) == before


def _stopping_at(at: int, batches: Iterator[Batch], seen: list[int]) -> Iterator[Batch]:
    for number, batch in enumerate(batches):
        if number == at:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(number)
        yield batch


@pytest.mark.parametrize("where", ["an epoch's last step", "the evaluation"])
def test_stop_skips_the_evaluation_until_resumed(
    where: str, tmp_path: Path, small: Path, whole: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, tests = InMemoryDataset.epoch, InMemoryDataset.test_batches
    trained: list[int] = []
    evaluated: list[int] = []

    def epoch(*arguments: Any) -> Iterator[Batch]:
        return _stopping_at(4 if where == "an epoch's last step" else -1, steps(*arguments), trained)

    def test_batches(*arguments: Any) -> Iterator[Batch]:
        ((pixels, labels),) = tests(*arguments)
        return _stopping_at(1, in_batches(pixels, labels, 10), evaluated)

    with monkeypatch.context() as patch:
        patch.setattr(InMemoryDataset, "epoch", epoch)
        patch.setattr(InMemoryDataset, "test_batches", test_batches)
        with pytest.raises(KeyboardInterrupt):
            cifar.train(*CALL, tmp_path / "run", CONFIG, small)
    assert trained == [0, 1, 2, 3, 4]
    assert evaluated == ([] if where == "an epoch's last step" else [0, 1])  # of four
    assert (tmp_path / "run/log.jsonl").read_text() == ""

    resumed = cifar.train(*CALL, tmp_path / "run", CONFIG, small, resume=True)
    assert resumed is not None
    one, other = load_file(whole.checkpoint), load_file(resumed.checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resumed.best_top1 == whole.best_top1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_full_disk_leaves_the_old_state_to_resume(one_epoch: Path, small: Path, whole: TrainingResult) -> None:
    state = one_epoch / checkpoint.STATE_NAME
    before = state.read_bytes()
    flags = ["--epochs", "2", "--batch", "16", "--learning-rate", "0.01", "--average-decay", "0.9", "--fp32"]
    arguments = ["--data", str(small), "--output", str(one_epoch), *flags, "--resume"]
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)); "
    limit += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    limited = [sys.executable, "-c", limit, str(SCRIPT), *arguments]
    full = subprocess.run(limited, capture_output=True, text=True, env=environment)
    assert full.returncode == 1
    last_line = full.stderr.strip().splitlines()[-1]
    assert last_line.startswith(f"error: cannot write {state}: File too large; the old file is unchanged")
    assert "Traceback" not in full.stderr
    assert state.read_bytes() == before
    assert not [path for path in one_epoch.iterdir() if path.name.startswith(".")]

    assert cifar.main(arguments) == 0
    one, other = load_file(whole.checkpoint), load_file(one_epoch / whole.checkpoint.name)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_best_epoch_records_how_it_was_selected(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([50.0, 70.0, 60.0, 60.0])
    monkeypatch.setattr(evaluation, "evaluate", lambda *arguments: (next(accuracies), 1.0, 40))
    result = cifar.train(*CALL, tmp_path, dataclasses.replace(CONFIG, epochs=3), small)
    assert result is not None
    assert (result.top1, result.best_top1) == (60.0, 70.0)
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        chosen = json.loads(file.metadata()["simplenet"])["training"]
    assert (chosen["epoch"], chosen["test_top1"]) == (2, 70.0)
    assert "test accuracy" in chosen["chosen_by"]
    best, last = (load_file(tmp_path / f"{name}.safetensors") for name in ("best", "last"))
    assert not torch.equal(best["classifier.weight"], last["classifier.weight"])
    assert torch.equal(last["classifier.weight"], load_file(result.checkpoint)["classifier.weight"])


def test_tensorboard_matches_the_log(one_epoch: Path, small: Path) -> None:
    cifar.train(*CALL, one_epoch, CONFIG, small, resume=True)
    lines = [json.loads(line) for line in (one_epoch / "log.jsonl").read_text().splitlines()]
    board = EventAccumulator(str(one_epoch / "tensorboard")).Reload()
    for name in ("train_loss", "test_loss", "test_top1"):
        events = board.Scalars(name)
        assert [event.step for event in events] == [1, 2]
        assert [event.value for event in events] == pytest.approx([line[name] for line in lines])
