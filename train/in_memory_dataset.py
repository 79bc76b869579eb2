"""A data set that fits in memory, as the loop wants it: uint8 on the device, augmented a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from simplenet.datasets import LabeledImages
from simplenet.errors import DataError
from simplenet.preprocessing import Preprocessing, to_model_input
from train import augmentation, evaluation, recipe
from train.augmentation import BatchRandom
from train.distributed import Group
from train.interruption import StopRequest
from train.recipe import Recipe, RngStream


def to_tensors(data: LabeledImages, preprocessing: Preprocessing) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's uint8 pixels [N, S, S, 3], by the very function that the runtimes use, and int64 labels [N]."""
    pixels = np.stack([to_model_input(image, preprocessing) for image in data.images])
    return torch.from_numpy(pixels), torch.from_numpy(data.labels)


def smaller(side: int) -> int:
    """Of the images that --small-first begins with: 9/16 of the pixels."""
    return side * 3 // 4


@dataclass(frozen=True)
class InMemoryDataset:
    """Both splits on the device: pixels uint8 [N, S, S, 3] and labels int64 [N].

    With `config.flip`, half of the images of an epoch are mirrored, and the other half in the next: so two epochs show
    both sides of every image, where chance would show half of them the same side twice (Jordan 2024, arXiv:2404.00498).
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    test: tuple[torch.Tensor, torch.Tensor]
    classes: int
    preprocessing: Preprocessing
    config: Recipe
    group: Group
    unreadable_images: int = 0
    """They were left out with a warning when the data set was read."""

    @classmethod
    def of(
        cls,
        splits: tuple[LabeledImages, LabeledImages],
        preprocessing: Preprocessing,
        config: Recipe,
        group: Group,
    ) -> InMemoryDataset:
        """Raises DataError where there is not one whole batch, or all do not fit into a GPU's memory, UsageError where
        a batch cannot be shared out."""
        try:
            train, test = ([tensor.to(group.device) for tensor in to_tensors(split, preprocessing)] for split in splits)
        except torch.OutOfMemoryError as error:
            raise DataError("the images do not fit into the GPU's memory; type --device cpu, or free some") from error
        recipe.check_batch(config, len(train[1]), group)
        classes = len(splits[0].classes)
        left_out = sum(split.left_out for split in splits)
        return cls(train[0], train[1], (test[0], test[1]), classes, preprocessing, config, group, left_out)

    @property
    def test_images(self) -> int:
        return len(self.test[1])

    @property
    def steps_per_epoch(self) -> int:
        """The last images of an epoch's order, fewer than a batch, wait for the next epoch."""
        return len(self.labels) // self.config.batch_size

    def epoch(self, epoch: int, first_step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This process's part of each batch: normalized float32 [N, 3, S, S], and what `cross_entropy` takes."""
        config, device = self.config, self.group.device
        part = self.group.part(config.batch_size)
        order = torch.randperm(len(self.labels), generator=_generator(config.seed, RngStream.ORDER, epoch)).to(device)
        mirrored = self._mirrored_in(epoch)
        for step in range(first_step, self.steps_per_epoch):
            random = BatchRandom(
                _generator(config.seed, RngStream.AUGMENTATION, epoch, step), config.batch_size, part, device
            )
            chosen = order[step * config.batch_size : (step + 1) * config.batch_size][part]
            batch = augmentation.augment(self.pixels[chosen], config.translate, mirrored[chosen], random)
            images = augmentation.cutout(augmentation.normalize(batch, self.preprocessing), config.cutout, random)
            if epoch < min(
                round(config.small_first * config.epochs), config.epochs - 1
            ):  # the last one is on whole images
                images = augmentation.shrink(images, smaller(images.shape[-1]))
            targets = self.labels[chosen]
            if config.mixup or config.cutmix:
                images, targets = augmentation.mix(
                    images, targets, self.classes, config.mixup, config.cutmix, random.generator
                )
            yield images, targets

    def _mirrored_in(self, epoch: int) -> torch.Tensor:
        """Bool [N], on the device."""
        count, device = len(self.labels), self.group.device
        if not self.config.flip:
            return torch.zeros(count, dtype=torch.bool, device=device)
        first = torch.randint(0, 2, (count,), generator=_generator(self.config.seed, RngStream.VIEW))
        return (first + epoch).to(device) % 2 == 1

    def evaluate(
        self, network: nn.Module, bf16: bool, group: Group, stop: StopRequest | None = None
    ) -> tuple[float, float]:
        """Top-1 in percent and mean cross-entropy of the test split; each process answers every size-th image."""
        pixels, labels = (tensor[group.rank :: group.size] for tensor in self.test)
        size = evaluation.batch_size(self.config.batch_size // self.group.size, most=500)
        batches = evaluation.in_batches(pixels, labels, size)
        top1, loss, _ = evaluation.evaluate(network, batches, self.preprocessing, bf16, group, stop)
        return top1, loss


def _generator(seed: int, purpose: RngStream, *path: int) -> torch.Generator:
    return torch.Generator().manual_seed(recipe.seed_for(seed, purpose, *path))
