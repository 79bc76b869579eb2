"""A dataset of image files in class folders, decoded by worker processes while the network trains.

The random crop of an image depends only on the seed, the epoch and the image's index, so it is the same for any number
of workers or processes, and in a resumed run. An unreadable file is reported once and counted, and the next file is
used instead.
"""

from __future__ import annotations

import errno
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from simplenet import files, images
from simplenet.errors import DataError, ImageError, SimpleNetError, SimpleNetWarning
from simplenet.preprocessing import Preprocessing, UInt8Array, to_model_input
from train import augmentation, distributed, recipe
from train.augmentation import RandomCrop
from train.class_folders import LabeledFiles
from train.distributed import Group
from train.evaluation import Batch
from train.recipe import Recipe, RngStream, generator_for

_MOST_UNREADABLE_IN_A_ROW = 20  # more mean a broken disk or the wrong folder
_MOST_WARNINGS = 10
_EVALUATION = -1
_START_ADVICE: dict[int | None, str] = {
    errno.EMFILE: "fewer --workers, or allow more open files: ulimit -n 4096",
    errno.EAGAIN: "fewer --workers, or allow more processes: ulimit -u 4096",
    errno.ENOMEM: "or fewer --workers",
}

Key = tuple[int, int]
"""Epoch and index of the file. They determine the random crop; epoch -1 is evaluation, which has no random crop."""


@dataclass(frozen=True)
class Sample:
    """A decoded file: `pixels` uint8 [S, S, 3], or None if it and the next files are unreadable.

    `errors` are the messages about the unreadable files.
    """

    pixels: UInt8Array | None
    label: int
    errors: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _DecodedFiles(Dataset[Sample]):
    """Decodes the file of a key, in a worker process."""

    files: LabeledFiles
    preprocessing: Preprocessing
    seed: int
    crop_area: float
    flip: bool

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        errors: list[str] = []
        for offset in range(1 if epoch == _EVALUATION else min(_MOST_UNREADABLE_IN_A_ROW, len(self.files))):
            at = (index + offset) % len(self.files)
            try:
                return Sample(self._read(epoch, at), int(self.files.labels[at]), tuple(errors))
            except ImageError as error:
                errors.append(str(error))
        return Sample(None, int(self.files.labels[index]), tuple(errors))

    def _read(self, epoch: int, index: int) -> UInt8Array:
        path, spec = self.files.paths[index], self.preprocessing
        if epoch == _EVALUATION:
            return to_model_input(images.read_rgb(path), spec)
        generator = np.random.default_rng(recipe.seed_for(self.seed, RngStream.VIEW, epoch, index))
        crop = RandomCrop.draw(generator, self.crop_area, self.flip)
        pixels = augmentation.read_crop(path, crop, spec.crop_size)
        return np.pad(pixels, ((spec.padding, spec.padding), (spec.padding, spec.padding), (0, 0)))


@dataclass(eq=False)
class FolderDataset:
    """The training and test files.

    Args:
        workers: decoding processes per training process; 0 decodes in the training process.
        crop_area: the smallest fraction of an image that a random crop shows.

    Raises:
        DataError: there are fewer files than one batch.
        UsageError: the processes cannot share a batch equally.
    """

    train: LabeledFiles
    test: LabeledFiles
    classes: int
    preprocessing: Preprocessing
    config: Recipe
    group: Group
    workers: int
    crop_area: float

    def __post_init__(self) -> None:
        recipe.check_batch(self.config, len(self.train), self.group)
        self._batches: list[list[Key]] = []  # of the current epoch; changed in place, because the workers persist
        self._loader: DataLoader[Sample] | None = None
        self._unreadable: set[str] = set()

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only: the last images of an epoch's random order are skipped."""
        return len(self.train) // self.config.batch_size

    @property
    def test_split(self) -> str:
        return self.test.name

    @property
    def unreadable_images(self) -> int:
        """The number of unreadable files that this process has found since it started."""
        return len(self._unreadable)

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield this process's part of each batch: images float32 [N, 3, S, S] and labels or soft labels."""
        config, part = self.config, self.group.part(self.config.batch_size)
        generator = generator_for(config.seed, RngStream.ORDER, epoch)
        order = torch.randperm(len(self.train), generator=generator).tolist()
        starts = [step * config.batch_size for step in range(first_step, self.steps_per_epoch)]
        self._batches[:] = [
            [(epoch, index) for index in order[start : start + config.batch_size][part]] for start in starts
        ]
        if self._loader is None:
            self._loader = self._open(self.train, self._batches, keep_workers=True)
        for step, samples in enumerate(self._started(self._loader), start=first_step):
            pixels, labels = self._tensors(samples)
            images = augmentation.normalize(pixels, self.preprocessing)
            if config.is_mixing:
                generator = generator_for(config.seed, RngStream.AUGMENTATION, epoch, step)
                images, labels = augmentation.mix(images, labels, self.classes, config.mixup, config.cutmix, generator)
            yield images, labels

    def test_batches(self, group: Group) -> Iterator[Batch]:
        """Yield this process's part of the readable test images, preprocessed as in a runtime."""
        keys = [(_EVALUATION, index) for index in range(group.rank, len(self.test), group.size)]
        size = min(100, 4 * (self.config.batch_size // group.size))  # without gradients, 4 times the batch fits
        batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        for samples in self._started(self._open(self.test, batches, keep_workers=False)):
            self._warn(samples)
            if readable := [sample for sample in samples if sample.pixels is not None]:
                yield self._tensors(readable)

    def _open(self, files: LabeledFiles, batches: list[list[Key]], keep_workers: bool) -> DataLoader[Sample]:
        dataset = _DecodedFiles(files, self.preprocessing, self.config.seed, self.crop_area, self.config.flip)
        return DataLoader(
            dataset,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=list,
            persistent_workers=keep_workers and self.workers > 0,
            worker_init_fn=_start_worker,
        )

    def _started(self, loader: DataLoader[Sample]) -> Iterator[Sequence[Sample]]:
        """Start the decoding processes.

        Raises:
            SimpleNetError: they need shared memory, files or processes that the machine does not give.
        """
        try:
            return iter(loader)
        except OSError as error:
            for worker in multiprocessing.active_children():
                worker.kill()
            hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
            error.__traceback__ = None  # ends the half-made iterator, whose __del__ then fails
            sys.unraisablehook = hook
            advice = _START_ADVICE.get(error.errno, "or give the container shared memory: docker run --shm-size 1g")
            problem = f"cannot start {self.workers} decoding processes ({files.error_message(error)})"
            raise SimpleNetError(f"{problem}; use --workers 0, {advice}") from None

    def _tensors(self, samples: Sequence[Sample]) -> Batch:
        """Return images uint8 [N, S, S, 3] and labels int64 [N] on the device.

        Raises:
            DataError: a sample has no pixels.
        """
        self._warn(samples)
        pixels = [sample.pixels for sample in samples if sample.pixels is not None]
        if len(pixels) < len(samples):
            lost = next(sample for sample in samples if sample.pixels is None)
            raise DataError(f"{len(lost.errors)} images in a row cannot be read; the first: {lost.errors[0]}")
        batch, labels = torch.from_numpy(np.stack(pixels)), torch.tensor([sample.label for sample in samples])
        if self.group.device.type == "cuda":  # copying from pinned memory does not wait for the previous step
            batch, labels = batch.pin_memory(), labels.pin_memory()
        return batch.to(self.group.device, non_blocking=True), labels.to(self.group.device, non_blocking=True)

    def _warn(self, samples: Sequence[Sample]) -> None:
        """Count the unreadable files, and warn about the first ones."""
        for error in (error for sample in samples for error in sample.errors):
            if error not in self._unreadable:
                self._unreadable.add(error)
                if len(self._unreadable) <= _MOST_WARNINGS:
                    warnings.warn(f"left out: {error}", SimpleNetWarning, stacklevel=2)


def _start_worker(number: int) -> None:
    """Ignore Ctrl-C and the first SIGTERM: the main process ends its workers after it has saved the state.

    PyTorch's own check of the main process comes too late: a worker whose queue is full waits for it forever.
    """
    if parent := multiprocessing.parent_process():
        distributed.end_with(parent.pid or 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
