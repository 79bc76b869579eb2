"""A random crop of a photograph, decoded no larger than it has to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simplenet import fast_resize, images

UInt8Array = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

_TRIES = 10
_LONGEST = 4 / 3  # as long as wide, or as wide as long


@dataclass(frozen=True)
class CropChoice:
    """Where to look in a picture of any size: drawn before the picture is opened, so that decoding may be reduced."""

    areas: npt.NDArray[np.float64]
    """Shares of the picture's area, one a try."""
    ratios: npt.NDArray[np.float64]
    """Width by height, one a try."""
    across: float
    down: float
    mirrored: bool

    @classmethod
    def draw(cls, generator: np.random.Generator, smallest_area: float, flip: bool) -> CropChoice:
        return cls(
            areas=generator.uniform(smallest_area, 1, _TRIES),
            ratios=np.exp(generator.uniform(-math.log(_LONGEST), math.log(_LONGEST), _TRIES)),
            across=float(generator.random()),
            down=float(generator.random()),
            mirrored=flip and bool(generator.random() < 0.5),
        )

    def box(self, width: int, height: int) -> Box:
        """Left, top, right, bottom in pixels: the first try that fits, else the largest allowed crop of the center."""
        for area, ratio in zip(self.areas.tolist(), self.ratios.tolist(), strict=True):
            wide, high = math.sqrt(area * width * height * ratio), math.sqrt(area * width * height / ratio)
            if wide <= width and high <= height:
                left, top = self.across * (width - wide), self.down * (height - high)
                return left, top, min(left + wide, width), min(top + high, height)
        wide, high = min(width, height * _LONGEST), min(height, width * _LONGEST)
        left, top = (width - wide) / 2, (height - high) / 2
        return left, top, left + wide, top + high


def read_crop(path: Path, choice: CropChoice, size: int) -> UInt8Array:
    """RGB uint8 [size, size, 3]; bicubic and antialiased.

    Raises:
        ImageError: the file cannot be read.
    """

    def reduction(width: int, height: int) -> float:
        left, top, right, bottom = choice.box(width, height)
        return min(right - left, bottom - top) / size

    pixels = images.read_rgb(path, reduction)
    box = choice.box(pixels.shape[1], pixels.shape[0])
    crop = _resize(pixels, box, size)
    return np.ascontiguousarray(crop[:, ::-1]) if choice.mirrored else crop


def _resize(pixels: UInt8Array, box: Box, size: int) -> UInt8Array:
    if fast_resize.can_resize(box, size):
        return fast_resize.resize(pixels, box, size)
    from PIL import Image

    return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box))
