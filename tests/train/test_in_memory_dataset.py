"""InMemoryDataset: its batches, in one process or several."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from simplenet import preprocessing
from simplenet.datasets import LabeledImages
from simplenet.errors import DataError, UsageError
from train import augmentation, data, in_memory_dataset
from train.distributed import Group
from train.in_memory_dataset import InMemoryDataset
from train.recipe import Recipe

CONFIG = Recipe(batch_size=8, dropout=0.1, mixup=0.3, cutmix=1.0)


def _images(count: int, side: int, seed: int = 0) -> LabeledImages:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    return LabeledImages("random", pixels, rng.integers(0, 10, count), tuple("abcdefghij"))


@pytest.mark.parametrize(("name", "side"), [("fashion-mnist", 28), ("mnist", 28), ("cifar10", 32), ("cifar10", 40)])
def test_training_and_runtimes_share_the_model_input(name: str, side: int) -> None:
    spec, images = data.get(name).preprocessing, _images(5, side)
    pixels, labels = in_memory_dataset.to_tensors(images, spec)
    at_runtime = np.stack([preprocessing.to_model_input(image, spec) for image in images.images])
    np.testing.assert_array_equal(pixels.numpy(), at_runtime)
    assert pixels.shape == (5, 32, 32, 3)
    assert pixels.dtype == torch.uint8
    np.testing.assert_array_equal(labels.numpy(), images.labels)

    normalized = augmentation.normalize(pixels, spec)
    np.testing.assert_array_max_ulp(
        normalized.contiguous().numpy(), preprocessing.normalize(at_runtime, spec), maxulp=1
    )
    assert normalized.is_contiguous(memory_format=torch.channels_last)


def _data(config: Recipe = CONFIG, rank: int = 0, size: int = 1) -> InMemoryDataset:
    spec = data.get("cifar10")
    group = Group(rank=rank, size=size)
    return InMemoryDataset((_images(30, 32), _images(9, 32, 1)), spec.preprocessing, config, group)


def test_processes_share_the_batches_of_one() -> None:
    whole = list(_data().epoch(3, 0))
    halves = [list(_data(rank=rank, size=2).epoch(3, 0)) for rank in (0, 1)]
    assert len(whole) == 3
    for batch, *parts in zip(whole, *halves, strict=True):
        for index in (0, 1):  # images and targets
            assert torch.equal(batch[index], torch.cat([part[index] for part in parts]))


def test_an_epoch_can_start_at_any_step() -> None:
    whole, rest = list(_data().epoch(3, 0)), list(_data().epoch(3, 2))
    assert len(rest) == 1
    assert torch.equal(rest[0][0], whole[2][0])
    assert not torch.equal(next(_data().epoch(4, 0))[0], whole[0][0])


PLAIN = dataclasses.replace(CONFIG, mixup=0.0, cutmix=0.0, translate=0, cutout=0)


def _as_bytes(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_flip_alternates_between_epochs() -> None:
    everything = _data(dataclasses.replace(PLAIN, batch_size=30))
    shown = [_as_bytes(next(everything.epoch(epoch, 0))[0]) for epoch in range(3)]
    unmirrored = augmentation.normalize(everything.pixels, everything.preprocessing)
    assert shown[0] == shown[2]
    assert not shown[0] & shown[1]
    assert shown[0] | shown[1] == _as_bytes(unmirrored) | _as_bytes(unmirrored.flip(3))
    assert 0 < len(shown[0] & _as_bytes(unmirrored)) < 30


def test_small_first_shrinks_the_first_epochs() -> None:
    small = _data(dataclasses.replace(PLAIN, epochs=5, small_first=0.4))
    sides = [next(small.epoch(epoch, 0))[0].shape[-1] for epoch in range(5)]
    assert sides == [24, 24, 32, 32, 32]
    nearly_all = _data(dataclasses.replace(PLAIN, epochs=4, small_first=0.9))
    assert [next(nearly_all.epoch(epoch, 0))[0].shape[-1] for epoch in range(4)] == [24, 24, 24, 32]
    (before, labels), (after, same) = next(_data(PLAIN).epoch(1, 0)), next(small.epoch(1, 0))
    assert torch.equal(labels, same)
    torch.testing.assert_close(after, augmentation.shrink(before, 24))
    assert after.is_contiguous(memory_format=torch.channels_last)


def test_refuses_impossible_batch_sizes() -> None:
    with pytest.raises(UsageError, match="3 processes cannot share 8 images"):
        _data(size=3)
    with pytest.raises(UsageError, match="--batch 8 must be a multiple of 16"):
        _data(size=8)
    with pytest.raises(DataError, match="30 images to train on, fewer than one batch; use --batch 30"):
        _data(dataclasses.replace(CONFIG, batch_size=32))
    with pytest.raises(DataError, match="30 images to train on, fewer than one batch; use --batch 28"):
        _data(dataclasses.replace(CONFIG, batch_size=32), size=2)  # they mix pairs of images
    with pytest.raises(DataError, match="30 images to train on, fewer than one batch; add images"):
        _data(dataclasses.replace(CONFIG, batch_size=128), size=64)


def test_counts_unreadable_images() -> None:
    splits = (dataclasses.replace(_images(30, 32), left_out=2), dataclasses.replace(_images(8, 32), left_out=1))
    images = InMemoryDataset(splits, data.get("cifar10").preprocessing, CONFIG, Group())
    assert images.unreadable_images == 3
    assert sum(len(labels) for _, labels in images.test_batches(Group())) == 8
