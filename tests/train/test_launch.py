"""PyTorch errors that a user can fix become one line with the fix."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from simplenet.errors import SimpleNetError
from train import launch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "the GPU's memory is full .*--batch"),
        (MemoryError(), "the memory is full; lower --batch"),
    ],
)
def test_full_memory_says_what_to_lower(error: Exception, advice: str) -> None:
    with pytest.raises(SimpleNetError, match=advice), launch.friendly_errors():
        raise error


def test_explains_a_batch_too_large_for_memory(tmp_path: Path) -> None:
    with pytest.raises(SimpleNetError, match=r"the memory is full \(.*\); lower --batch"), launch.friendly_errors():
        torch.empty(1 << 50, dtype=torch.uint8)


class _KilledWhileDecoding(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_explains_a_killed_decoding_process() -> None:
    with pytest.raises(SimpleNetError, match="was killed; lower --workers"), launch.friendly_errors():
        list(DataLoader(_KilledWhileDecoding(), num_workers=1))


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), launch.friendly_errors():
        torch.zeros(2) + torch.zeros(3)


NO_COMPILER = """
import torch
from simplenet import cli
from train import launch

def main():
    with launch.friendly_errors():
        torch.compile(torch.nn.Linear(2, 2))(torch.zeros(1, 2))

cli.run(main)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the compiler is found in other ways")
def test_explains_a_missing_compiler(tmp_path: Path) -> None:
    inductor = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    environment = {**os.environ, "CXX": "/nowhere/g++", **inductor}
    done = subprocess.run(
        [sys.executable, "-c", NO_COMPILER], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: --compile does not work here (")
    assert "Traceback" not in done.stderr
