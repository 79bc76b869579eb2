"""Training in two real processes: equal weights, one result, stop and resume together."""

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
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}

SAVE_EVERY_RANK = """
import sys
from safetensors.torch import save_file
from train import cifar, loop

train = loop.train

def train_and_save(network, data, run):
    state = train(network, data, run)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, run.output.parent / f"rank{run.group.rank}.safetensors")
    return state

loop.train = train_and_save
cifar.main(sys.argv[1:])
"""


def _command(script: Path, data: Path, output: Path, *more: str) -> list[str]:
    return [*TWO, str(script), "--data", str(data), "--output", str(output), *FLAGS, *more]


def _run(script: Path, data: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = _command(script, data, output, *more)
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600)


def _is_same(first: Path, second: Path) -> bool:
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_two_processes_hold_equal_weights_and_resume(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    data, output, script = write_idx_set(tmp_path / "data", train=80, test=11), tmp_path / "run", tmp_path / "ranks.py"
    script.write_text(SAVE_EVERY_RANK)
    done = _run(script, data, output)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("batch norm statistics are per process") == 1
    result = json.loads(done.stdout)  # of one process only
    assert result["processes"] == 2
    assert [json.loads(line)["epoch"] for line in (output / "log.jsonl").read_text().splitlines()] == [1, 2]
    assert _is_same(tmp_path / "rank0.safetensors", tmp_path / "rank1.safetensors")

    stopped = tmp_path / "stopped"
    command = _command(SCRIPT, data, stopped, "--save-minutes", "0")
    process = subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=ENVIRONMENT)
    wait_while_running(process, (stopped / checkpoint.STATE_NAME).is_file)
    process.terminate()
    process.communicate(timeout=300)
    assert not (stopped / "cifar-310k.safetensors").exists()
    again = _run(SCRIPT, data, stopped, "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["test_loss"] == result["test_loss"]
    assert _is_same(output / "cifar-310k.safetensors", stopped / "cifar-310k.safetensors")


@pytest.mark.slow
def test_error_in_one_process_ends_the_other(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    data, file = write_idx_set(tmp_path / "data", train=32, test=8), tmp_path / "file"
    file.touch()
    done = _run(SCRIPT, data, file / "run")
    assert done.returncode != 0
    assert "error: cannot write" in done.stderr
    assert "error: another process of this training has ended; see its error message" in done.stderr
    assert "RuntimeError" not in done.stderr


def test_parts_of_a_batch_are_equal_or_refused() -> None:
    assert [Group(rank=rank, size=4).part(12) for rank in range(4)] == [slice(3 * n, 3 * n + 3) for n in range(4)]
    with pytest.raises(UsageError, match="3 processes cannot share 16 images equally; choose another --batch"):
        Group(rank=0, size=3).part(16)
