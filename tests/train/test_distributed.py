"""Two real processes train the network that one process trains, and stop and resume together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest
import torch
from safetensors.torch import load_file

from simplenet.errors import UsageError
from tests.waiting import wait_while_running
from train import checkpoint, cifar
from train.distributed import Group

SCRIPT = Path(cifar.__file__)
TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
FLAGS = ["--epochs", "2", "--batch", "16", "--learning-rate", "0.005", "--average-decay", "0.9", "--dropout", "0.1",
         "--cutmix", "1", "--fp32", "--device", "cpu", "--json"]  # fmt: skip
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def _run(program: list[str], data: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [*program, str(SCRIPT), "--data", str(data), "--output", str(output), *FLAGS, *more]
    return subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, timeout=600)


IN_DOUBLE = """
import json, sys, torch
from pathlib import Path
from simplenet import model
from simplenet.model_card import ModelCard
from train import data, distributed, loop
from train.recipe import Recipe
from train.small_images import InMemoryDataset

class InDouble(InMemoryDataset):
    def epoch(self, epoch, first_step):
        for images, targets in super().epoch(epoch, first_step):
            yield images.double(), targets

    def evaluate(self, network, *others):
        return super().evaluate(TakesFloats(network), *others)

class TakesFloats(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.double())

config = Recipe(
    epochs=2, batch_size=16, peak_learning_rate=0.02, average_decay=0.9, dropout=0.1, cutmix=1.0, bf16=False
)
spec, splits = data.read("mnist", Path(sys.argv[1]))
network = model.create("cifar-310k", 10, dropout=config.dropout).double()
card = ModelCard("cifar-310k", 10, spec.preprocessing)
with distributed.joined(torch.device("cpu")) as group:
    images = InDouble.of(splits, spec.preprocessing, config, group)
    loop.train(network, images, loop.Run("", Path(sys.argv[2]), config, card, {}, group))
"""


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_trains(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    """In float64, where rounding is not magnified by every ReLU and maximum that it tips over."""
    data, script = write_idx_set(tmp_path / "data", train=50, test=5), tmp_path / "in_double.py"
    script.write_text(IN_DOUBLE)
    environment = {**ONE_THREAD, "PYTHONPATH": str(SCRIPT.parents[1])}
    found, logs = [], []
    for name, program in (("one", [sys.executable]), ("two", TWO)):
        command = [*program, str(script), str(data), str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
        assert done.returncode == 0, done.stderr
        found.append(load_file(tmp_path / name / "training-state.safetensors"))
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        logs.append([[line[key] for key in ("train_loss", "test_loss", "test_top1")] for line in lines])
    torch.testing.assert_close(torch.tensor(logs[1]), torch.tensor(logs[0]), rtol=1e-4, atol=1e-4)
    assert len(logs[0]) == 2
    assert all(test_loss > 0 for _, test_loss, _ in logs[0])
    assert found[0].keys() == found[1].keys()
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-5, atol=1e-5, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.mark.slow
def test_two_processes_give_one_result_and_resume(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    data, output = write_idx_set(tmp_path / "data", train=170, test=31), tmp_path / "run"
    done = _run(TWO, data, output)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # of one process only
    assert result["processes"] == 2
    assert [json.loads(line)["epoch"] for line in (output / "log.jsonl").read_text().splitlines()] == [1, 2]

    stopped = tmp_path / "stopped"
    command = [*TWO, str(SCRIPT), "--data", str(data), "--output", str(stopped), *FLAGS, "--save-minutes", "0"]
    process = subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=ONE_THREAD)
    wait_while_running(process, (stopped / checkpoint.STATE_NAME).is_file)
    process.terminate()
    process.communicate(timeout=300)
    assert not (stopped / "cifar-310k.safetensors").exists()
    again = _run(TWO, data, stopped, "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["test_loss"] == result["test_loss"]
    whole, resumed = (load_file(run / "cifar-310k.safetensors") for run in (output, stopped))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_an_error_of_one_process_is_told_and_the_other_does_not_wait_for_it(
    tmp_path: Path, write_idx_set: Callable[..., Path]
) -> None:
    data, file = write_idx_set(tmp_path / "data", train=32, test=8), tmp_path / "file"
    file.touch()
    done = _run(TWO, data, file / "run")
    assert done.returncode != 0
    assert "error: cannot write" in done.stderr
    assert "error: another process of this training has ended; see its error message" in done.stderr
    assert "RuntimeError" not in done.stderr


def test_parts_of_a_batch_are_equal_or_refused() -> None:
    assert [Group(rank=rank, size=4).part(12) for rank in range(4)] == [slice(3 * n, 3 * n + 3) for n in range(4)]
    with pytest.raises(UsageError, match="3 processes cannot share 16 images equally; choose another --batch"):
        Group(rank=0, size=3).part(16)
