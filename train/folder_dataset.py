"""A folder of photographs, as the loop wants it: decoded by worker processes while the network trains.

What a file becomes depends on the seed, the epoch and the file alone: not on how many workers or processes there are,
nor on where a run was resumed. A file that cannot be read is named once and counted, and the next one takes its place.
"""

from __future__ import annotations

import hashlib
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from simplenet import images
from simplenet.errors import DataError, ImageError
from simplenet.files import reason
from simplenet.preprocessing import Preprocessing, to_model_input
from train import augmentation, evaluation, recipe
from train.class_folders import UnreadableImagesWarning
from train.crops import CropChoice, UInt8Array, read_crop
from train.distributed import Group
from train.interruption import StopRequest
from train.recipe import Recipe, RngStream

_MOST_IN_A_ROW = 20  # unreadable files: then it is the disk, or the wrong folder
_MOST_NAMED = 10

Key = tuple[int, int]
"""Which epoch (for its random crop; -1 is the plain view of evaluation) and which file."""


@dataclass(frozen=True)
class LabeledFiles:
    """Image files and their classes, int64 [N]."""

    paths: Sequence[Path]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self, folder: Path) -> str:
        """Of the names below `folder`, sizes, order and classes: a run is not to be resumed with other files.

        Raises:
            DataError: a file is gone.
        """
        try:
            sizes = [path.stat().st_size for path in self.paths]
        except OSError as error:
            raise DataError(f"cannot read {folder}: {reason(error)}; let nobody change it meanwhile") from error
        names = (path.relative_to(folder).as_posix() for path in self.paths)
        listing = "\n".join(f"{name}\0{size}" for name, size in zip(names, sizes, strict=True))
        digest = hashlib.sha256(listing.encode("utf-8", "surrogateescape"))
        digest.update(self.labels.data)
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Sample:
    """`pixels` uint8 [S, S, 3], or None where this file (and, in training, those after it) cannot be read."""

    pixels: UInt8Array | None
    label: int
    complaints: tuple[str, ...]


class _Decoded(Dataset[Sample]):
    """Files by key, decoded; it lives in the worker processes."""

    def __init__(
        self, files: LabeledFiles, preprocessing: Preprocessing, seed: int, crop_area: float, flip: bool
    ) -> None:
        self._files, self._preprocessing = files, preprocessing
        self._seed, self._crop_area, self._flip = seed, crop_area, flip

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        complaints: list[str] = []
        for offset in range(1 if epoch < 0 else min(_MOST_IN_A_ROW, len(self._files))):
            at = (index + offset) % len(self._files)
            try:
                return Sample(self._read(epoch, at), int(self._files.labels[at]), tuple(complaints))
            except ImageError as error:
                complaints.append(str(error))
        return Sample(None, int(self._files.labels[index]), tuple(complaints))

    def _read(self, epoch: int, index: int) -> UInt8Array:
        path, spec = self._files.paths[index], self._preprocessing
        if epoch < 0:
            return to_model_input(images.read_rgb(path), spec)
        generator = np.random.default_rng(recipe.seed_for(self._seed, RngStream.VIEW, epoch, index))
        crop = read_crop(path, CropChoice.draw(generator, self._crop_area, self._flip), spec.crop_size)
        return np.pad(crop, ((spec.padding, spec.padding), (spec.padding, spec.padding), (0, 0)))


class _Plan:
    """The batches of keys that a loader asks for next; the epoch is changed under a loader whose workers live on."""

    def __init__(self) -> None:
        self.batches: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@dataclass
class FolderDataset:
    """Both splits on disk. `crop_area` is the smallest part of a photograph that a random crop shows."""

    train: LabeledFiles
    test: LabeledFiles
    classes: int
    preprocessing: Preprocessing
    config: Recipe
    group: Group
    workers: int
    crop_area: float
    _plan: _Plan = field(default_factory=_Plan)
    _loader: DataLoader[Sample] | None = None
    _unreadable: set[str] = field(default_factory=set)
    _unreadable_tests: int = 0

    def __post_init__(self) -> None:
        recipe.check_batch(self.config, len(self.train), self.group)

    @property
    def steps_per_epoch(self) -> int:
        """The last images of an epoch's order, fewer than a batch, wait for the next epoch."""
        return len(self.train) // self.config.batch_size

    @property
    def test_images(self) -> int:
        return len(self.test) - self._unreadable_tests

    @property
    def unreadable_images(self) -> int:
        return len(self._unreadable)

    def epoch(self, epoch: int, first_step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This process's part of each batch: normalized float32 [N, 3, S, S], and what `cross_entropy` takes."""
        config, part = self.config, self.group.part(self.config.batch_size)
        generator = torch.Generator().manual_seed(recipe.seed_for(config.seed, RngStream.ORDER, epoch))
        order = torch.randperm(len(self.train), generator=generator).tolist()
        batches = [order[step * config.batch_size :][: config.batch_size] for step in range(self.steps_per_epoch)]
        self._plan.batches = [[(epoch, index) for index in batch[part]] for batch in batches[first_step:]]
        if self._loader is None:
            self._loader = self._open(self.train, self._plan, keep_workers=True)
        for step, samples in enumerate(self._loader, start=first_step):
            pixels, labels = self._tensors(samples)
            inputs = augmentation.normalize(pixels, self.preprocessing)
            if config.mixup or config.cutmix:
                random = torch.Generator().manual_seed(
                    recipe.seed_for(config.seed, RngStream.AUGMENTATION, epoch, step)
                )
                inputs, labels = augmentation.mix(inputs, labels, self.classes, config.mixup, config.cutmix, random)
            yield inputs, labels

    def evaluate(
        self, network: nn.Module, bf16: bool, group: Group, stop: StopRequest | None = None
    ) -> tuple[float, float]:
        """Top-1 in percent and mean cross-entropy of the readable test images, just as a runtime sees them."""
        batches = self._test_batches(group)
        top1, loss, count = evaluation.evaluate(network, batches, self.preprocessing, bf16, group, stop)
        self._unreadable_tests = len(self.test) - count
        return top1, loss

    def _test_batches(self, group: Group) -> Iterator[evaluation.Batch]:
        keys = [(-1, index) for index in range(group.rank, len(self.test), group.size)]
        plan = _Plan()
        size = evaluation.batch_size(self.config.batch_size // self.group.size, most=100)
        plan.batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        for samples in self._open(self.test, plan, keep_workers=False):
            self._note(samples)
            readable = [sample for sample in samples if sample.pixels is not None]
            if readable:
                yield self._tensors(readable)

    def _open(self, files: LabeledFiles, plan: _Plan, keep_workers: bool) -> DataLoader[Sample]:
        dataset = _Decoded(files, self.preprocessing, self.config.seed, self.crop_area, self.config.flip)
        return DataLoader(
            dataset,
            batch_sampler=plan,  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=list,
            persistent_workers=keep_workers and self.workers > 0,
            worker_init_fn=_start_worker,
        )

    def _tensors(self, samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [N, S, S, 3] and int64 [N] on the device; raises DataError where nothing could take a file's place."""
        self._note(samples)
        pixels = [sample.pixels for sample in samples if sample.pixels is not None]
        if len(pixels) < len(samples):
            lost = next(sample for sample in samples if sample.pixels is None)
            raise DataError(f"{len(lost.complaints)} images in a row cannot be read; the first: {lost.complaints[0]}")
        batch, labels = torch.from_numpy(np.stack(pixels)), torch.tensor([sample.label for sample in samples])
        if self.group.device.type == "cuda":  # from pinned memory, copies do not wait for the step before
            batch, labels = batch.pin_memory(), labels.pin_memory()
        return batch.to(self.group.device, non_blocking=True), labels.to(self.group.device, non_blocking=True)

    def _note(self, samples: Sequence[Sample]) -> None:
        """Names files that cannot be read, each once, and counts them."""
        for complaint in (complaint for sample in samples for complaint in sample.complaints):
            if complaint not in self._unreadable:
                self._unreadable.add(complaint)
                if len(self._unreadable) <= _MOST_NAMED:
                    warnings.warn(f"left out: {complaint}", UnreadableImagesWarning, stacklevel=2)


def _start_worker(number: int) -> None:
    """A stop of the whole process group is for the main process, which ends the workers when it has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))  # the second one counts
