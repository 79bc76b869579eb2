"""A killed trainer leaves no process and no lock behind; the lock names its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import numpy as np
import psutil
import pytest
from PIL import Image

from simplenet.errors import UsageError
from tests.waiting import wait_until, wait_while_running
from train import checkpoint, cifar, imagefolder
from train.distributed import Group

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(cifar.__file__).parents[1])}
FLAGS = ["--variant", "cifar-310k", "--batch", "8", "--epochs", "500", "--device", "cpu", "--save-minutes", "0"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(20):
            Image.fromarray(rng.integers(0, 255, (120, 120, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


def _is_any_running(processes: list[psutil.Process]) -> bool:
    return any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["96", "32"], ids=["full queues", "short queues"])
def test_killed_trainer_leaves_neither_workers_nor_lock(photos: Path, tmp_path: Path, size: str) -> None:
    arguments = [str(photos), *FLAGS, "--size", size, "--workers", "2", "--output", str(tmp_path)]
    command = [sys.executable, imagefolder.__file__, *arguments]
    process = subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=ENVIRONMENT)
    wait_while_running(process, (tmp_path / checkpoint.STATE_NAME).is_file)
    with pytest.raises(UsageError, match=rf"kill {process.pid} \(on .*: python train/imagefolder\.py {photos} "):
        imagefolder.main([*arguments, "--resume"])
    workers = psutil.Process(process.pid).children()
    assert len(workers) >= 2
    process.kill()
    process.wait()
    with checkpoint.lock(tmp_path, Group()):
        pass
    wait_until(lambda: not _is_any_running(workers), seconds=60)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_ranks_end_with_a_killed_torchrun(count: int, tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    data, output = write_idx_set(tmp_path / "data", train=80, test=11), tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--standalone"]
    command = [*launcher, cifar.__file__, "--data", str(data), "--output", str(output), *FLAGS]
    process = subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=ENVIRONMENT)
    wait_while_running(process, (output / checkpoint.STATE_NAME).is_file)
    ranks = psutil.Process(process.pid).children()
    assert len(ranks) == count
    process.kill()
    process.wait()
    wait_until(lambda: not _is_any_running(ranks), seconds=60)
    process.communicate()
    with checkpoint.lock(output, Group()):
        pass


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (None, r"or stop that run: kill PID \(on .*: python train/cifar\.py --dataset mnist\)"),
        ("", "or wait until that run ends"),
        ("not a process", "or wait until that run ends"),
    ],
)
def test_lock_says_how_to_stop_its_holder(tmp_path: Path, content: str | None, advice: str) -> None:
    advice = advice.replace("PID", str(os.getpid()))
    with checkpoint.lock(tmp_path, Group(), "python train/cifar.py --dataset mnist"):
        if content is not None:  # of another program, or not written yet
            (tmp_path / checkpoint.LOCK_NAME).write_text(content)
        with (
            pytest.raises(UsageError, match=f"in use by another run; choose another --output, {advice}"),
            checkpoint.lock(tmp_path, Group()),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_lock_left_by_a_killed_process_is_free(tmp_path: Path) -> None:
    (tmp_path / checkpoint.LOCK_NAME).write_text("1 on elsewhere: python train/cifar.py")
    with checkpoint.lock(tmp_path, Group()):
        assert (tmp_path / checkpoint.LOCK_NAME).read_text().startswith(f"{os.getpid()} on ")


def test_forked_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
from train import checkpoint
from train.distributed import Group
with checkpoint.lock(Path({str(tmp_path)!r}), Group()):
    if os.fork() == 0:
        time.sleep(600)
    print(flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=ENVIRONMENT, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    try:
        with checkpoint.lock(tmp_path, Group()):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
