"""Throughput of training and of its data pipeline: `make bench`. Nothing is asserted about time.

The figure is `images_per_second` in the column of extra information, without warm-up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from simplenet import model
from simplenet.datasets import LabeledImages
from simplenet.model_card import ModelCard
from simplenet.preprocessing import CIFAR10_PREPROCESSING, IMAGENET_PREPROCESSING
from train import cifar, loop, recipe
from train.class_folders import LabeledFiles
from train.distributed import Group
from train.folder_dataset import FolderDataset
from train.in_memory_dataset import InMemoryDataset
from train.recipe import Recipe

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
LABELS = tuple("abcdefghij")


def _noise(count: int) -> LabeledImages:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return LabeledImages("noise", pixels, rng.integers(0, 10, count), LABELS)


@pytest.mark.parametrize(
    ("variant", "batch", "steps"),
    [("cifar-310k", 128, 6), ("cifar-460k", 128, 6), ("cifar-5m", 64, 3), ("cifar-5m-extra-pool", 64, 3)],
)
def test_training_on_small_images(
    benchmark: BenchmarkFixture, tmp_path: Path, variant: str, batch: int, steps: int
) -> None:
    """The default recipe with all threads; bf16 where the CPU supports it."""
    if benchmark.disabled:  # untimed, as in `make test`
        batch, steps = 8, 1
    config = Recipe(epochs=2, batch_size=batch, peak_learning_rate=0.01, bf16=recipe.computes_bf16(CPU))
    data = InMemoryDataset((_noise(batch * steps), _noise(8)), CIFAR10_PREPROCESSING, config, Group())
    card = ModelCard(variant, 10, CIFAR10_PREPROCESSING, LABELS)

    def train() -> loop.TrainState:
        return loop.train(model.create(variant, 10), data, loop.Run(variant, tmp_path, config, card, {}))

    benchmark.group = "training, images a second"
    position = benchmark.pedantic(train, rounds=1, iterations=1)
    assert [line["epoch"] for line in position.log] == [1, 2]
    benchmark.extra_info["images_per_second"] = position.log[1]["images_per_second"]  # the first epoch is warm-up
    benchmark.extra_info["bf16"] = config.bf16


@pytest.mark.parametrize("processes", [1, 2])
def test_training_in_processes(benchmark: BenchmarkFixture, tmp_path: Path, processes: int) -> None:
    """The same global batch split across processes of one thread; `test_training_on_small_images` uses all threads."""
    images = _noise(128 if benchmark.disabled else 768)
    for split, count in (("train", len(images)), ("test", 8)):
        for index in range(count):
            path = tmp_path / "data" / split / LABELS[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.images[index]).save(path)
    start = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    flags = ["--dataset", "folder", "--data", tmp_path / "data", "--epochs", "2", "--output", tmp_path / "run"]
    command = [sys.executable, *start, cifar.__file__, *map(str, flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    benchmark.group = "training in processes, images a second"
    benchmark.pedantic(
        subprocess.run, (command,), {"env": environment, "check": True, "capture_output": True}, rounds=1, iterations=1
    )
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2]
    benchmark.extra_info["images_per_second"] = log[1]["images_per_second"]  # the first epoch is warm-up


@pytest.mark.parametrize("workers", [0, 2])
def test_decoding_jpegs(benchmark: BenchmarkFixture, tmp_path: Path, workers: int) -> None:
    """JPEGs of 500x375, ImageNet's average size, to normalized random crops of 224."""
    rows, columns = np.mgrid[:375, :500]
    paths = []
    for index in range(64):
        waves = 127 + 60 * np.sin(columns / (5 + index)) + 60 * np.cos(rows / (70 - index))
        noise = np.random.default_rng(index).integers(-9, 9, (375, 500, 3))
        paths.append(tmp_path / f"{index}.jpg")
        Image.fromarray(np.clip(waves[..., None] + noise, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    files = LabeledFiles(paths * 6, np.zeros(len(paths) * 6, np.int64))
    config = Recipe(batch_size=32)
    data = FolderDataset(files, files, 2, IMAGENET_PREPROCESSING, config, Group(), workers, crop_area=0.25)

    def read_epoch() -> float:
        batches = data.epoch(0, 0)
        next(batches)  # starts the workers
        started = time.perf_counter()
        count = sum(len(labels) for _, labels in batches)
        assert count == len(files) - config.batch_size
        return count / (time.perf_counter() - started)

    benchmark.group = "data pipeline, images a second"
    benchmark.extra_info["images_per_second"] = round(benchmark.pedantic(read_epoch, rounds=1, iterations=1))
