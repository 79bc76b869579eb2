"""A dataset of image files in class folders, decoded by worker processes while the network trains.

An image's random crop depends only on the seed, the epoch and the file: not on the number of workers or processes, nor
on where a run was resumed. An unreadable file is reported once and counted, and the next file takes its place.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from simplenet import images
from simplenet.errors import DataError, ImageError
from simplenet.preprocessing import Preprocessing, to_model_input
from train import augmentation, evaluation, recipe
from train.augmentation import RandomCrop, UInt8Array
from train.class_folders import LabeledFiles, UnreadableImagesWarning
from train.distributed import Group
from train.recipe import Recipe, RngStream, generator_for
from train.signals import StopRequest

_MOST_UNREADABLE_IN_A_ROW = 20  # more than this: a broken disk, or the wrong folder
_MOST_WARNINGS = 10
_EVALUATION = -1

Key = tuple[int, int]
"""The epoch, which selects the random crop, and the index of the file. Epoch -1 is evaluation, without random crop."""


@dataclass(frozen=True)
class Sample:
    """A decoded file: `pixels` uint8 [S, S, 3], or None if it and its replacements are unreadable."""

    pixels: UInt8Array | None
    label: int
    errors: tuple[str, ...]


class _DecodedFiles(Dataset[Sample]):
    """Decodes the file of a key, in a worker process."""

    def __init__(
        self, files: LabeledFiles, preprocessing: Preprocessing, seed: int, crop_area: float, flip: bool
    ) -> None:
        self._files, self._preprocessing = files, preprocessing
        self._seed, self._crop_area, self._flip = seed, crop_area, flip

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        errors: list[str] = []
        for offset in range(1 if epoch == _EVALUATION else min(_MOST_UNREADABLE_IN_A_ROW, len(self._files))):
            at = (index + offset) % len(self._files)
            try:
                return Sample(self._read(epoch, at), int(self._files.labels[at]), tuple(errors))
            except ImageError as error:
                errors.append(str(error))
        return Sample(None, int(self._files.labels[index]), tuple(errors))

    def _read(self, epoch: int, index: int) -> UInt8Array:
        path, spec = self._files.paths[index], self._preprocessing
        if epoch == _EVALUATION:
            return to_model_input(images.read_rgb(path), spec)
        generator = np.random.default_rng(recipe.seed_for(self._seed, RngStream.VIEW, epoch, index))
        crop = RandomCrop.draw(generator, self._crop_area, self._flip)
        pixels = augmentation.read_crop(path, crop, spec.crop_size)
        return np.pad(pixels, ((spec.padding, spec.padding), (spec.padding, spec.padding), (0, 0)))


class _BatchSampler:
    """The batches of keys of an epoch, replaced between epochs because the loader's workers persist."""

    def __init__(self) -> None:
        self.batches: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@dataclass
class FolderDataset:
    """The training and test files.

    Args:
        workers: decoding processes per training process; 0 decodes in the training process.
        crop_area: the smallest fraction of an image that a random crop shows.
    """

    train: LabeledFiles
    test: LabeledFiles
    classes: int
    preprocessing: Preprocessing
    config: Recipe
    group: Group
    workers: int
    crop_area: float
    _sampler: _BatchSampler = field(default_factory=_BatchSampler)
    _loader: DataLoader[Sample] | None = None
    _unreadable: set[str] = field(default_factory=set)
    _unreadable_tests: int = 0

    def __post_init__(self) -> None:
        recipe.check_batch(self.config, len(self.train), self.group)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only: the last images of an epoch's random order are skipped."""
        return len(self.train) // self.config.batch_size

    @property
    def test_images(self) -> int:
        return len(self.test) - self._unreadable_tests

    @property
    def unreadable_images(self) -> int:
        return len(self._unreadable)

    def epoch(self, epoch: int, first_step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield this process's part of each batch: images float32 [N, 3, S, S] and labels or soft labels."""
        config, part = self.config, self.group.part(self.config.batch_size)
        generator = generator_for(config.seed, RngStream.ORDER, epoch)
        order = torch.randperm(len(self.train), generator=generator).tolist()
        batches = [order[step * config.batch_size :][: config.batch_size] for step in range(self.steps_per_epoch)]
        self._sampler.batches = [[(epoch, index) for index in batch[part]] for batch in batches[first_step:]]
        if self._loader is None:
            self._loader = self._open(self.train, self._sampler, keep_workers=True)
        for step, samples in enumerate(self._loader, start=first_step):
            pixels, labels = self._tensors(samples)
            images = augmentation.normalize(pixels, self.preprocessing)
            if config.is_mixing:
                generator = generator_for(config.seed, RngStream.AUGMENTATION, epoch, step)
                images, labels = augmentation.mix(images, labels, self.classes, config.mixup, config.cutmix, generator)
            yield images, labels

    def evaluate(
        self, network: nn.Module, bf16: bool, group: Group, stop: StopRequest | None = None
    ) -> tuple[float, float]:
        """Top-1 in percent and mean cross-entropy on the readable test images, preprocessed as in a runtime."""
        batches = self._test_batches(group)
        top1, loss, count = evaluation.evaluate(network, batches, self.preprocessing, bf16, group, stop)
        self._unreadable_tests = len(self.test) - count
        return top1, loss

    def _test_batches(self, group: Group) -> Iterator[evaluation.Batch]:
        keys = [(_EVALUATION, index) for index in range(group.rank, len(self.test), group.size)]
        sampler = _BatchSampler()
        size = evaluation.batch_size(self.config.batch_size // self.group.size, largest=100)
        sampler.batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        for samples in self._open(self.test, sampler, keep_workers=False):
            self._warn(samples)
            readable = [sample for sample in samples if sample.pixels is not None]
            if readable:
                yield self._tensors(readable)

    def _open(self, files: LabeledFiles, sampler: _BatchSampler, keep_workers: bool) -> DataLoader[Sample]:
        dataset = _DecodedFiles(files, self.preprocessing, self.config.seed, self.crop_area, self.config.flip)
        return DataLoader(
            dataset,
            batch_sampler=sampler,  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=list,
            persistent_workers=keep_workers and self.workers > 0,
            worker_init_fn=_start_worker,
        )

    def _tensors(self, samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images uint8 [N, S, S, 3] and labels int64 [N] on the device; raises DataError if one has no pixels."""
        self._warn(samples)
        pixels = [sample.pixels for sample in samples if sample.pixels is not None]
        if len(pixels) < len(samples):
            lost = next(sample for sample in samples if sample.pixels is None)
            raise DataError(f"{len(lost.errors)} images in a row cannot be read; the first: {lost.errors[0]}")
        batch, labels = torch.from_numpy(np.stack(pixels)), torch.tensor([sample.label for sample in samples])
        if self.group.device.type == "cuda":  # copies from pinned memory do not wait for the previous step
            batch, labels = batch.pin_memory(), labels.pin_memory()
        return batch.to(self.group.device, non_blocking=True), labels.to(self.group.device, non_blocking=True)

    def _warn(self, samples: Sequence[Sample]) -> None:
        """Count unreadable files and warn about each once."""
        for error in (error for sample in samples for error in sample.errors):
            if error not in self._unreadable:
                self._unreadable.add(error)
                if len(self._unreadable) <= _MOST_WARNINGS:
                    warnings.warn(f"left out: {error}", UnreadableImagesWarning, stacklevel=2)


def _start_worker(number: int) -> None:
    """Ignore signals: the main process ends the workers after saving. A second SIGTERM ends a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
