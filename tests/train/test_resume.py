"""A run that was killed or interrupted, and resumed, gives the same weights bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from simplenet import variants
from simplenet.errors import SimpleNetError, UsageError, WeightsError
from simplenet.model import SimpleNet
from tests.waiting import wait_while_running
from train import checkpoint, cifar
from train.distributed import Group
from train.recipe import Recipe

SCRIPT = Path(cifar.__file__)
CONFIG = Recipe(epochs=3, batch_size=16, peak_learning_rate=0.02, average_decay=0.9, dropout=0.1, mixup=0.3, cutmix=0.5)
ONE_EPOCH = dataclasses.replace(CONFIG, epochs=1)
FLAGS = ["--epochs", "3", "--batch", "16", "--learning-rate", "0.02", "--average-decay", "0.9", "--dropout", "0.1",
         "--mixup", "0.3", "--cutmix", "0.5", "--device", "cpu", "--save-minutes", "0"]  # fmt: skip


def _arguments(data: Path, output: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--output", str(output), *FLAGS, *more]


def _position(state: Path) -> dict[str, int]:
    """Read the file once: safe_open opens it twice, and a running process may replace it in between."""
    with state.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    position: dict[str, int] = json.loads(header["__metadata__"]["simplenet_training"])["position"]
    return position


def _same(first: Path, second: Path) -> bool:
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, write_idx_set: Callable[..., Path]) -> Path:
    return write_idx_set(tmp_path_factory.mktemp("data"), train=170, test=40)


@pytest.fixture(scope="module")
def one_epoch(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of one epoch, for tests that damage a copy of its state."""
    output = tmp_path_factory.mktemp("one-epoch")
    cifar.train("fashion-mnist", "cifar-310k", output, ONE_EPOCH, small)
    return output


@pytest.fixture(scope="module")
def whole(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an uninterrupted run."""
    output = tmp_path_factory.mktemp("whole")
    cifar.main(_arguments(small, output))
    return output


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=lambda sent: sent.name)
def test_resumed_run_gives_the_same_weights(tmp_path: Path, small: Path, whole: Path, sent: signal.Signals) -> None:
    state = tmp_path / checkpoint.STATE_NAME
    command = [sys.executable, str(SCRIPT), *_arguments(small, tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def is_in_second_epoch() -> bool:
        return state.is_file() and (at := _position(state))["epoch"] == 1 and at["step"] >= 3

    wait_while_running(process, is_in_second_epoch)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == (-sent if sent == signal.SIGKILL else 130)
    assert "Traceback" not in stderr
    for message in ("stopping after this step; press Ctrl-C twice", "ago; the same command with --resume continues it"):
        assert (message in stderr) == (sent != signal.SIGKILL)
    assert not (tmp_path / "cifar-310k.safetensors").exists()

    for name in (checkpoint.STATE_NAME, "last.safetensors", "best.safetensors"):
        (tmp_path / f".{name}.0123abcd.safetensors").touch()  # left by a kill during a save
    assert cifar.main(_arguments(small, tmp_path, "--resume")) == 0
    for name in ("cifar-310k.safetensors", "best.safetensors", "last.safetensors", checkpoint.STATE_NAME):
        assert _same(whole / name, tmp_path / name), name
    logs = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (whole, tmp_path)]
    for one, other in zip(*logs, strict=True):
        assert {**one, "seconds": 0, "images_per_second": 0} == {**other, "seconds": 0, "images_per_second": 0}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_resuming_a_finished_run_writes_the_results_again(tmp_path: Path, small: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    first = cifar.train("fashion-mnist", "cifar-310k", tmp_path, config, small)
    tensors = load_file(first.checkpoint)
    first.checkpoint.unlink()
    again = cifar.train("fashion-mnist", "cifar-310k", tmp_path, config, small, resume=True)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(again.checkpoint).items())
    assert (again.top1, again.images_per_second) == (first.top1, first.images_per_second)


def test_refuses_to_resume_or_overwrite_another_run(
    tmp_path: Path, small: Path, write_idx_set: Callable[..., Path]
) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    run = tmp_path / "run"
    cifar.train("fashion-mnist", "cifar-310k", run, config, small)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}

    def again(
        dataset: str = "fashion-mnist",
        variant: str = "cifar-310k",
        data: Path = small,
        resume: bool = True,
        **other: float,
    ) -> None:
        cifar.train(dataset, variant, run, dataclasses.replace(config, **other), data, resume=resume)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="holds a run already; continue it with --resume"):
        again(resume=False)
    with pytest.raises(UsageError, match="run with --epochs 1, not 2; resume with the command that started it"):
        again(epochs=2)
    with pytest.raises(UsageError, match=r"run with --weight-decay 0\.0005, not 0\.1"):
        again(weight_decay=0.1)
    with pytest.raises(UsageError, match="run with --dataset fashion-mnist, not mnist"):
        again("mnist")
    with pytest.raises(UsageError, match="run with --variant cifar-310k, not cifar-460k"):
        again(variant="cifar-460k")
    with pytest.raises(UsageError, match="run with training images 170, not 186"):
        again(data=write_idx_set(tmp_path / "other", train=186, test=40))
    with pytest.raises(UsageError, match="run with other images"):
        again(data=write_idx_set(tmp_path / "as many", train=170, test=40, classes=3))
    with pytest.raises(UsageError, match="no run to resume in"):
        cifar.train("fashion-mnist", "cifar-310k", tmp_path / "nowhere", config, small, resume=True)
    (run / checkpoint.STATE_NAME).unlink()
    with pytest.raises(UsageError, match="holds a run already; choose another --output for a new one"):  # no --resume
        again(resume=False)
    del before[checkpoint.STATE_NAME]
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_refuses_a_folder_in_use_by_another_run(tmp_path: Path, small: Path) -> None:
    output = tmp_path / "run"
    with (
        checkpoint.lock(output, Group()),
        pytest.raises(UsageError, match="is in use by another run; choose"),
    ):
        cifar.train("fashion-mnist", "cifar-310k", output, ONE_EPOCH, small)
    assert not output.exists()
    cifar.train("fashion-mnist", "cifar-310k", output, ONE_EPOCH, small)
    assert not (output / checkpoint.LOCK_NAME).exists()


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
def test_damaged_state_is_one_error_line(one_epoch: Path, tmp_path: Path, small: Path, damage: bytes | None) -> None:
    whole = (one_epoch / checkpoint.STATE_NAME).read_bytes()
    (tmp_path / checkpoint.STATE_NAME).write_bytes(whole[:-1000] if damage is None else damage)
    with pytest.raises(WeightsError, match=r"is damaged .*start again without --resume") as caught:
        cifar.train("fashion-mnist", "cifar-310k", tmp_path, ONE_EPOCH, small, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (None, []),
        ("options", []),
        ("options", 5),
        ("position", []),
        ("epoch", "1"),
        ("epoch", -1),
        ("step", [1]),
        ("seconds", None),
        ("best_top1", "high"),
        ("log", {}),
        ("log", []),
        ("log", [5]),
    ],
)
def test_edited_state_is_one_error_line(one_epoch: Path, tmp_path: Path, part: str | None, value: object) -> None:
    path = one_epoch / checkpoint.STATE_NAME
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["simplenet_training"])
    if part is None:
        header = value
    else:
        (header if part in header else header["position"])[part] = value
    edited = tmp_path / checkpoint.STATE_NAME
    edited.write_bytes(serialize(load_file(path), {"simplenet_training": json.dumps(header)}))
    network = SimpleNet(variants.get("cifar-310k"), 10)
    options = {} if not isinstance(header, dict) or not isinstance(header["options"], dict) else header["options"]
    with pytest.raises(WeightsError, match=r"is damaged .*start again without --resume") as caught:
        checkpoint.load(edited, network, network, torch.optim.SGD(network.parameters(), lr=0.1), options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("exists", [True, False])
def test_refused_run_removes_only_a_folder_that_it_made(tmp_path: Path, exists: bool) -> None:
    output = tmp_path / "run"
    if exists:
        output.mkdir()
    with checkpoint.lock(output, Group(torch.device("cpu"))):
        pass
    assert output.exists() == exists


def test_never_saves_weights_that_are_not_finite(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    state = tmp_path / checkpoint.STATE_NAME
    state.write_bytes(b"previous")
    with torch.no_grad():
        network.weight[0, 0] = torch.nan
    with pytest.raises(SimpleNetError, match="no longer finite"):
        checkpoint.save(state, network, network, optimizer, checkpoint.TrainState(), {})
    assert state.read_bytes() == b"previous"
