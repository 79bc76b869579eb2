"""Pictures made harder, a batch at a time, as tensor work on the device that trains."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from simplenet.preprocessing import Preprocessing

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class BatchRandom:
    """Random numbers for a batch of `count` images, of which this process has `part`: all processes draw for all.

    The generator is the CPU's wherever the images are, so that every device draws the same.
    """

    generator: torch.Generator
    count: int
    part: slice = field(default_factory=lambda: slice(None))
    device: torch.device = _CPU

    def integers(self, low: int, high: int) -> torch.Tensor:
        """int64 [len(part), 1], from `low` to below `high`."""
        drawn = torch.randint(low, high, (self.count, 1), generator=self.generator)
        return drawn[self.part].to(self.device, non_blocking=True)


def augment(pixels: torch.Tensor, translate: int, mirrored: torch.Tensor, random: BatchRandom) -> torch.Tensor:
    """uint8 [N, S, S, 3]: moved by up to `translate` pixels, black coming in; mirrored where bool [N] says so."""
    count, size = pixels.shape[:2]
    device = pixels.device
    padded = functional.pad(pixels, (0, 0, translate, translate, translate, translate))
    top, left = random.integers(0, 2 * translate + 1), random.integers(0, 2 * translate + 1)
    span = torch.arange(size, device=device)
    columns = torch.where(mirrored[:, None], size - 1 - span, span)
    images = torch.arange(count, device=device)[:, None, None]
    return padded[images, (top + span)[:, :, None], (left + columns)[:, None, :]]


def normalize(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 [N, S, S, 3] -> float32 [N, 3, S, S], channels_last: simplenet.preprocessing.normalize, on tensors."""
    mean, std = _constants(preprocessing, pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=8)
def _constants(preprocessing: Preprocessing, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(preprocessing.mean, device=device), torch.tensor(preprocessing.std, device=device)


def cutout(images: torch.Tensor, size: int, random: BatchRandom) -> torch.Tensor:
    """Normalized [N, 3, S, S]: a square of `size` pixels of each image set to 0, the mean; it may hang over."""
    if size == 0:
        return images
    side = images.shape[-1]
    top, left = (random.integers(-(size // 2), side - size // 2) for _ in range(2))
    span = torch.arange(side, device=images.device)
    rows = (span >= top) & (span < top + size)
    columns = (span >= left) & (span < left + size)
    hidden = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(hidden, 0.0)


def shrink(images: torch.Tensor, side: int) -> torch.Tensor:
    """[N, 3, S, S] -> [N, 3, side, side], channels_last: smoothed before it is sampled."""
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def mix(
    images: torch.Tensor, labels: torch.Tensor, classes: int, mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixup (faded into each other) or CutMix (a rectangle swapped) of each image with its neighbor in the batch.

    Neighbours 0 and 1, 2 and 3, ... are each other's partners, so that a batch gives the same pictures whole or in
    halves; `images` [N, 3, H, W] with an even N, `labels` int64 [N]. Where both are asked for, each batch takes one.

    Returns:
        The images, and float32 [N, classes] shares of each class that sum to 1.
    """
    targets = functional.one_hot(labels, classes).float()
    swap = mixup == 0 or (cutmix > 0 and float(torch.rand(1, generator=generator)) < 0.5)
    share = _beta(cutmix if swap else mixup, generator)
    partners, other_targets = _neighbors(images), _neighbors(targets)
    if swap:
        height, width = images.shape[-2:]
        rows, columns = _rectangle(height, width, share, generator)
        images = images.clone()
        images[:, :, rows, columns] = partners[:, :, rows, columns]
        hidden = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - hidden / (height * width)
    else:
        images = images.lerp(partners, 1 - share)
    return images, targets.lerp(other_targets, 1 - share)


def _neighbors(batch: torch.Tensor) -> torch.Tensor:
    """Images 1, 0, 3, 2, ... of a batch of even length; the memory format stays."""
    order = torch.arange(len(batch), device=batch.device) ^ 1
    return batch[order]


def _beta(parameter: float, generator: torch.Generator) -> float:
    """One draw of Beta(parameter, parameter); torch's own takes no generator."""
    first, second = torch._standard_gamma(torch.full((2,), parameter, dtype=torch.float64), generator=generator)
    return float(first / (first + second)) if first + second > 0 else 1.0


def _rectangle(height: int, width: int, share: float, generator: torch.Generator) -> tuple[slice, slice]:
    """Of about 1 - `share` of the area, anywhere; cut at the border."""
    side = (1 - share) ** 0.5
    center = torch.rand(2, generator=generator)
    sides = []
    for length, middle in zip((height, width), center.tolist(), strict=True):
        half, at = round(length * side) / 2, middle * length
        sides.append(slice(max(0, round(at - half)), min(length, round(at + half))))
    return sides[0], sides[1]
