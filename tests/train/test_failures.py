"""What goes wrong in PyTorch and can be helped is one line that says how."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from simplenet.errors import SimpleNetError
from train import cifar, failures


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "the GPU's memory is full .*--batch"),
        (MemoryError(), "the memory is full; lower --batch"),
    ],
)
def test_full_memory_says_what_to_lower(error: Exception, advice: str) -> None:
    with pytest.raises(SimpleNetError, match=advice), failures.explained():
        raise error


def test_a_batch_that_no_memory_can_hold(tmp_path: Path) -> None:
    with pytest.raises(SimpleNetError, match=r"the memory is full \(.*\); lower --batch"), failures.explained():
        torch.empty(1 << 50, dtype=torch.uint8)


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), failures.explained():
        torch.zeros(2) + torch.zeros(3)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the compiler is found in other ways")
def test_a_machine_without_a_compiler_is_told_to_leave_compile_out(
    tmp_path: Path, write_idx_set: Callable[..., Path]
) -> None:
    data = write_idx_set(tmp_path / "data", train=16, test=8)
    flags = ["--data", str(data), "--batch", "16", "--epochs", "1", "--compile", "--output", str(tmp_path / "run")]
    environment = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, cifar.__file__, *flags], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: --compile does not work here (")
    assert "Traceback" not in done.stderr
