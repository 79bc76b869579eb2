"""A dataset that fits in memory: uint8 images on the training device, augmented batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from simplenet.datasets import LabeledImages
from simplenet.errors import DataError
from simplenet.preprocessing import Preprocessing, to_model_input
from train import augmentation, recipe
from train.augmentation import BatchRandom
from train.distributed import Group
from train.evaluation import Batch
from train.recipe import Recipe, RngStream, generator_for


def to_tensors(data: LabeledImages, preprocessing: Preprocessing) -> Batch:
    """Return the model's input, uint8 [N, S, S, 3], computed as in the runtimes, and labels int64 [N]."""
    pixels = np.stack([to_model_input(image, preprocessing) for image in data.images])
    return torch.from_numpy(pixels), torch.from_numpy(data.labels)


def reduced_side(side: int) -> int:
    """Return the side of the smaller images of --small-first, which have 9/16 of the pixels."""
    return side * 3 // 4


class InMemoryDataset:
    """The training and test split on the device: pixels uint8 [N, S, S, 3] and labels int64 [N].

    With `config.flip`, a random half of the images is mirrored in even epochs and the other half in odd epochs, so two
    epochs show every image both ways. With independent draws, half of the images would look the same in both (Jordan
    2024, arXiv:2404.00498).

    Raises:
        DataError: there are fewer images than one batch, or they do not fit in the GPU's memory.
        UsageError: the processes cannot share a batch equally.
    """

    def __init__(
        self, splits: tuple[LabeledImages, LabeledImages], preprocessing: Preprocessing, config: Recipe, group: Group
    ) -> None:
        self.preprocessing, self.config, self.group = preprocessing, config, group
        self.test_split = splits[1].split
        self.unreadable_images = sum(split.left_out for split in splits)
        self._classes = len(splits[0].classes)
        try:
            train, test = ([tensor.to(group.device) for tensor in to_tensors(split, preprocessing)] for split in splits)
        except torch.OutOfMemoryError as error:
            raise DataError("the images do not fit in the GPU's memory; use --device cpu, or free some") from error
        self.pixels, self.labels = train
        self._test = test
        recipe.check_batch(config, len(self.labels), group)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only: the last images of an epoch's random order are skipped."""
        return len(self.labels) // self.config.batch_size

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield this process's part of each batch: images float32 [N, 3, S, S] and labels or soft labels."""
        config, device, part = self.config, self.group.device, self.group.part(self.config.batch_size)
        generator = generator_for(config.seed, RngStream.ORDER, epoch)
        order = torch.randperm(len(self.labels), generator=generator).to(device)
        mirrored = self._mirrored_in(epoch)
        is_small = epoch < min(round(config.small_first * config.epochs), config.epochs - 1)  # never the last epoch
        for step in range(first_step, self.steps_per_epoch):
            generator = generator_for(config.seed, RngStream.AUGMENTATION, epoch, step)
            random = BatchRandom(generator, config.batch_size, part, device)
            chosen = order[step * config.batch_size : (step + 1) * config.batch_size][part]
            pixels = augmentation.shift_and_mirror(self.pixels[chosen], config.translate, mirrored[chosen], random)
            images = augmentation.cutout(augmentation.normalize(pixels, self.preprocessing), config.cutout, random)
            if is_small:
                images = augmentation.shrink(images, reduced_side(images.shape[-1]))
            labels = self.labels[chosen]
            if config.is_mixing:
                images, labels = augmentation.mix(images, labels, self._classes, config.mixup, config.cutmix, generator)
            yield images, labels

    def _mirrored_in(self, epoch: int) -> torch.Tensor:
        """Return which training images are mirrored in an epoch: bool [N], on the device."""
        count, device = len(self.labels), self.group.device
        if not self.config.flip:
            return torch.zeros(count, dtype=torch.bool, device=device)
        first = torch.randint(0, 2, (count,), generator=generator_for(self.config.seed, RngStream.VIEW))
        return (first + epoch).to(device) % 2 == 1

    def test_batches(self, group: Group) -> Iterator[Batch]:
        """Yield this process's part of the test split, as `evaluation.evaluate` takes it."""
        size = min(500, 4 * (self.config.batch_size // group.size))  # without gradients, 4 times the batch fits
        pixels, labels = (torch.split(tensor[group.rank :: group.size], size) for tensor in self._test)
        return zip(pixels, labels, strict=True)
