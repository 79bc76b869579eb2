"""Augmentation: random crops of image files on the CPU, transforms of batches on the training device."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from simplenet import fast_resize, images
from simplenet.preprocessing import Preprocessing, UInt8Array

Box = tuple[float, float, float, float]

_CPU = torch.device("cpu")
_CROP_TRIES = 10
_LARGEST_ASPECT_RATIO = 4 / 3


@dataclass(frozen=True)
class RandomCrop:
    """A random crop, drawn before the image is opened so that the decoder can reduce its resolution.

    Args:
        areas: candidate areas, as fractions of the image's area.
        ratios: candidate aspect ratios, width by height.
        x, y: position of the crop, from 0 to 1.
        mirrored: flip the crop horizontally.
    """

    areas: npt.NDArray[np.float64]
    ratios: npt.NDArray[np.float64]
    x: float
    y: float
    mirrored: bool

    @classmethod
    def draw(cls, generator: np.random.Generator, smallest_area: float, flip: bool) -> RandomCrop:
        limit = math.log(_LARGEST_ASPECT_RATIO)
        return cls(
            areas=generator.uniform(smallest_area, 1, _CROP_TRIES),
            ratios=np.exp(generator.uniform(-limit, limit, _CROP_TRIES)),
            x=float(generator.random()),
            y=float(generator.random()),
            mirrored=flip and bool(generator.random() < 0.5),
        )

    def box(self, width: int, height: int) -> Box:
        """Left, top, right, bottom in pixels: the first candidate that fits, else the largest center crop."""
        for area, ratio in zip(self.areas.tolist(), self.ratios.tolist(), strict=True):
            wide, high = math.sqrt(area * width * height * ratio), math.sqrt(area * width * height / ratio)
            if wide <= width and high <= height:
                left, top = self.x * (width - wide), self.y * (height - high)
                return left, top, min(left + wide, width), min(top + high, height)
        wide, high = min(width, height * _LARGEST_ASPECT_RATIO), min(height, width * _LARGEST_ASPECT_RATIO)
        left, top = (width - wide) / 2, (height - high) / 2
        return left, top, left + wide, top + high


def read_crop(path: Path, crop: RandomCrop, size: int) -> UInt8Array:
    """Read a crop of an image file and resize it to RGB uint8 [size, size, 3], bicubic and antialiased.

    Raises:
        ImageError: the file cannot be read.
    """

    def reduction(width: int, height: int) -> float:
        left, top, right, bottom = crop.box(width, height)
        return min(right - left, bottom - top) / size

    pixels = images.read_rgb(path, reduction)
    resized = _resize(pixels, crop.box(pixels.shape[1], pixels.shape[0]), size)
    return np.ascontiguousarray(resized[:, ::-1]) if crop.mirrored else resized


def _resize(pixels: UInt8Array, box: Box, size: int) -> UInt8Array:
    if fast_resize.can_resize(box, size):
        return fast_resize.resize(pixels, box, size)
    from PIL import Image

    return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box))


@dataclass(frozen=True)
class BatchRandom:
    """Random numbers for a global batch of `count` images, of which this process uses `part`.

    Every process draws the numbers for the whole batch on the CPU, so an image gets the same numbers on any device and
    with any number of processes.
    """

    generator: torch.Generator
    count: int
    part: slice = field(default_factory=lambda: slice(None))
    device: torch.device = _CPU

    def integers(self, low: int, high: int) -> torch.Tensor:
        """Return random integers from `low` to below `high`: int64 [length of `part`, 1]."""
        drawn = torch.randint(low, high, (self.count, 1), generator=self.generator)
        return drawn[self.part].to(self.device, non_blocking=True)


def shift_and_mirror(pixels: torch.Tensor, translate: int, mirrored: torch.Tensor, random: BatchRandom) -> torch.Tensor:
    """Shift each image by up to `translate` pixels, filling with black; mirror the images in `mirrored`.

    Args:
        pixels: uint8 [N, S, S, 3].
        mirrored: bool [N].
    """
    count, size = pixels.shape[:2]
    device = pixels.device
    padded = functional.pad(pixels, (0, 0, translate, translate, translate, translate))
    top, left = random.integers(0, 2 * translate + 1), random.integers(0, 2 * translate + 1)
    span = torch.arange(size, device=device)
    columns = torch.where(mirrored[:, None], size - 1 - span, span)
    index = torch.arange(count, device=device)[:, None, None]
    return padded[index, (top + span)[:, :, None], (left + columns)[:, None, :]]


def normalize(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Normalize uint8 [N, S, S, 3], as the runtimes do, to float32 [N, 3, S, S] in channels_last."""
    mean, std = _mean_and_std(preprocessing, pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=8)
def _mean_and_std(preprocessing: Preprocessing, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(preprocessing.mean, device=device), torch.tensor(preprocessing.std, device=device)


def cutout(images: torch.Tensor, size: int, random: BatchRandom) -> torch.Tensor:
    """Set a random square of each normalized image [N, 3, S, S] to 0; it may cross the image's border."""
    if size == 0:
        return images
    side = images.shape[-1]
    top, left = (random.integers(-(size // 2), side - size // 2) for _ in range(2))
    span = torch.arange(side, device=images.device)
    rows = (span >= top) & (span < top + size)
    columns = (span >= left) & (span < left + size)
    masked = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(masked, 0.0)


def shrink(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resize [N, 3, S, S] to [N, 3, side, side], antialiased, in the same memory format."""
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def mix(
    images: torch.Tensor, labels: torch.Tensor, classes: int, mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply mixup (blend two images) or CutMix (swap a rectangle); if both are on, choose one per batch.

    Images 0 and 1, 2 and 3, ... are mixed with each other, so the result is the same if the batch is split across
    processes.

    Args:
        images: [N, 3, H, W], with an even N.
        labels: int64 [N].
        mixup, cutmix: parameters of the Beta distributions; 0 is off.

    Returns:
        The images, and soft labels float32 [N, classes] that sum to 1.
    """
    soft_labels = functional.one_hot(labels, classes).float()
    use_cutmix = mixup == 0 or (cutmix > 0 and float(torch.rand(1, generator=generator)) < 0.5)
    share = _beta(cutmix if use_cutmix else mixup, generator)
    partners, partner_labels = _swap_pairs(images), _swap_pairs(soft_labels)
    if use_cutmix:
        height, width = images.shape[-2:]
        rows, columns = _rectangle(height, width, share, generator)
        images = images.clone()
        images[:, :, rows, columns] = partners[:, :, rows, columns]
        swapped = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - swapped / (height * width)
    else:
        images = images.lerp(partners, 1 - share)
    return images, soft_labels.lerp(partner_labels, 1 - share)


def _swap_pairs(batch: torch.Tensor) -> torch.Tensor:
    """Return items 1, 0, 3, 2, ... of a batch of even length, in the same memory format."""
    order = torch.arange(len(batch), device=batch.device) ^ 1
    return batch[order]


def _beta(parameter: float, generator: torch.Generator) -> float:
    """Draw one sample of Beta(parameter, parameter); torch.distributions takes no generator."""
    first, second = torch._standard_gamma(torch.full((2,), parameter, dtype=torch.float64), generator=generator)
    return float(first / (first + second)) if first + second > 0 else 1.0


def _rectangle(height: int, width: int, share: float, generator: torch.Generator) -> tuple[slice, slice]:
    """Return rows and columns of a random rectangle, of the image's area times (1 - `share`), cut at the border."""
    side = (1 - share) ** 0.5
    center = torch.rand(2, generator=generator)
    sides = []
    for length, middle in zip((height, width), center.tolist(), strict=True):
        half, at = round(length * side) / 2, middle * length
        sides.append(slice(max(0, round(at - half)), min(length, round(at + half))))
    return sides[0], sides[1]
