"""FolderDataset: the same batches for any number of workers and processes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from simplenet import images, preprocessing
from simplenet.preprocessing import Preprocessing
from train import evaluation
from train.class_folders import LabeledFiles
from train.distributed import Group
from train.folder_dataset import FolderDataset
from train.recipe import Recipe

SPEC = Preprocessing(28, 24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), padding=2)
CONFIG = Recipe(batch_size=4, mixup=0.5, cutmix=1.0, bf16=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> LabeledFiles:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{index}.png" for index in range(13)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (*rng.integers(20, 90, 2), 3), np.uint8)).save(path)
    return LabeledFiles(paths, np.arange(13) % 3)


def _data(
    files: LabeledFiles, rank: int = 0, size: int = 1, workers: int = 0, config: Recipe = CONFIG
) -> FolderDataset:
    return FolderDataset(files, files, 3, SPEC, config, Group(rank=rank, size=size), workers, crop_area=0.3)


def test_batches_depend_neither_on_processes_nor_workers(files: LabeledFiles) -> None:
    whole = list(_data(files).epoch(2, 0))
    halves = [list(_data(files, rank, 2, workers=rank).epoch(2, 0)) for rank in (0, 1)]
    assert [tuple(inputs.shape) for inputs, _ in whole] == [(4, 3, 28, 28)] * 3
    for batch, *parts in zip(whole, *halves, strict=True):
        for index in (0, 1):  # images and targets
            assert torch.equal(batch[index], torch.cat([part[index] for part in parts]))
    entered = list(_data(files).epoch(2, 1))
    assert torch.equal(entered[0][0], whole[1][0])
    assert not torch.equal(next(iter(_data(files).epoch(3, 0)))[0], whole[0][0])


def test_evaluation_preprocesses_like_a_runtime(files: LabeledFiles) -> None:
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(inputs.clone())
            return torch.nn.functional.one_hot(torch.zeros(len(inputs), dtype=torch.int64), 3).float()

    data = _data(files, config=dataclasses.replace(CONFIG, mixup=0.0, cutmix=0.0))
    data.config = dataclasses.replace(data.config, batch_size=2)
    top1, *_ = evaluation.evaluate(Spy(), data.test_batches(Group()), SPEC, False)
    assert [len(inputs) for inputs in seen] == [8, 5]  # four times --batch, plus the rest
    assert top1 == pytest.approx(100 * 5 / 13)
    pixels = np.stack([preprocessing.to_model_input(images.read_rgb(path), SPEC) for path in files.paths])
    np.testing.assert_array_max_ulp(
        torch.cat(seen).contiguous().numpy(), preprocessing.normalize(pixels, SPEC), maxulp=1
    )
