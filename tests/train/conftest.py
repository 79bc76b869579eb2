from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

IDX_NAMES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def patterned(count: int, classes: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Noisy stripes, rows, checks and flat gray: classes that survive translation, flip and cutout."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28]
    patterns = np.stack([x // 2 % 2, y // 2 % 2, (x // 2 + y // 2) % 2, np.full_like(x, 0)]) * 180
    labels = (np.arange(count) % classes).astype(np.uint8)
    images = patterns[labels % 4] + rng.integers(0, 60, (count, 28, 28)) + 15 * (labels // 4)[:, None, None]
    return images.astype(np.uint8), labels


def in_batches(pixels: torch.Tensor, labels: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A test set in batches, as `evaluation.evaluate` takes it."""
    return zip(torch.split(pixels, size), torch.split(labels, size), strict=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: fast for tiny runs on a busy machine, and the same results as OMP_NUM_THREADS=1."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def write_idx_set() -> Callable[..., Path]:
    """Write a dataset in MNIST's format to a folder and return the folder."""

    def write(folder: Path, train: int, test: int, classes: int = 4) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for seed, (split, count) in enumerate({"train": train, "test": test}.items()):
            for name, array in zip(IDX_NAMES[split], patterned(count, classes, seed), strict=True):
                (folder / name).write_bytes(gzip.compress(idx_bytes(array), 1))
        return folder

    return write
