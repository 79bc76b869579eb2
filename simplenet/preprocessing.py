"""Preprocessing: from an image of any size to the model's input, as configured in the manifest.

The reference implementation of SimpleNet resizes the shorter side with Pillow's antialiased bicubic filter, then takes
a center crop. `to_model_input` resizes only the crop, from its exact fractional box, which is faster; tests bound the
difference.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simplenet import fast_resize
from simplenet.errors import ImageError, UsageError

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side (antialiased bicubic), crop, pad with black, scale to 0..1, normalize.

    Sizes are in pixels, `padding` is added on each side; `mean` and `std` are in RGB order.
    """

    resize_shorter_side: int
    crop_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padding: int = 0

    @property
    def input_size(self) -> int:
        """Height and width of the model's input in pixels."""
        return self.crop_size + 2 * self.padding

    def with_size(self, size: int, padding: int | None = None) -> Preprocessing:
        """Return a copy for an input of `size` pixels; the ratio of resize to crop stays.

        `padding` is included in `size`. None: as it is if the size is the same, else 0.
        """
        if padding is None:
            padding = self.padding if size == self.input_size else 0
        crop = size - 2 * padding
        ratio = self.resize_shorter_side / self.crop_size  # 256 / 224 for ImageNet
        resize = self.resize_shorter_side if crop == self.crop_size else max(crop, round(crop * ratio))
        return replace(self, resize_shorter_side=resize, crop_size=crop, padding=padding)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocessing:
        """Build and check a configuration; raise TypeError, KeyError or UsageError if it is not valid."""
        preprocessing = cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        preprocessing.check()
        return preprocessing

    def check(self) -> None:
        """Raise UsageError for impossible values: a manifest is untrusted input."""
        sizes = (self.resize_shorter_side, self.crop_size, self.padding)
        integers = all(type(size) is int for size in sizes)  # True and 2.0 are not
        if not integers or not 1 <= self.crop_size <= self.resize_shorter_side <= 4096 or not 0 <= self.padding <= 1024:
            raise UsageError(
                f"preprocessing has impossible sizes: resize {self.resize_shorter_side}, crop {self.crop_size}, "
                f"padding {self.padding}; export the artifact again"
            )
        numbers = (*self.mean, *self.std)
        finite = all(type(number) in (int, float) and -1e6 < number < 1e6 for number in numbers)
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) < 1e-6:
            raise UsageError(
                f"preprocessing has impossible mean {self.mean} or std {self.std}; export the artifact again"
            )


IMAGENET_PREPROCESSING = Preprocessing(256, 224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CIFAR10_PREPROCESSING = Preprocessing(
    32, 32, mean=(125.3 / 255, 123.0 / 255, 113.9 / 255), std=(63.0 / 255, 62.1 / 255, 66.7 / 255)
)
CIFAR100_PREPROCESSING = Preprocessing(
    32, 32, mean=(129.3 / 255, 124.1 / 255, 112.4 / 255), std=(68.2 / 255, 65.4 / 255, 70.4 / 255)
)


@dataclass(frozen=True)
class CropGeometry:
    """The size after the resize, the crop's corner in it, and the crop's `box` in the original image.

    `box` is (left, top, right, bottom) in fractional pixels.
    """

    resized_width: int
    resized_height: int
    left: int
    top: int
    box: tuple[float, float, float, float]


@functools.lru_cache(maxsize=64)
def crop_geometry(width: int, height: int, preprocessing: Preprocessing) -> CropGeometry:
    """Return the crop for an image of this size, rounded as torchvision's Resize and CenterCrop do.

    The longer side is rounded down, the crop's corner to the nearest integer, half to even.
    """
    shorter, crop = preprocessing.resize_shorter_side, preprocessing.crop_size
    if width <= height:
        resized_width, resized_height = shorter, int(shorter * height / width)
    else:
        resized_width, resized_height = int(shorter * width / height), shorter
    left, top = round((resized_width - crop) / 2.0), round((resized_height - crop) / 2.0)
    scale_x, scale_y = width / resized_width, height / resized_height
    right, bottom = min((left + crop) * scale_x, width), min((top + crop) * scale_y, height)  # against rounding errors
    return CropGeometry(resized_width, resized_height, left, top, (left * scale_x, top * scale_y, right, bottom))


def check_image(image: object) -> UInt8Array:
    """Return an image as a plain array, not a subclass such as memmap.

    Raises:
        ImageError: not uint8 [H, W, 3], or an impossible size.
    """
    array = np.asarray(image) if isinstance(image, np.ndarray) and not isinstance(image, np.ma.MaskedArray) else None
    if array is None or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        what = type(image).__name__ if array is None else f"{array.dtype} {list(array.shape)}"
        hint = "; type: np.asarray(image.convert('RGB'))" if hasattr(image, "convert") else ""  # of Pillow
        raise ImageError(f"an image must be a uint8 array [height, width, 3] in RGB order, not {what}{hint}")
    height, width = array.shape[:2]
    if min(height, width) < 1 or max(height, width) > 65_535 or max(height, width) > 200 * min(height, width):
        raise ImageError(
            f"an image of {width}x{height} pixels cannot be used: its sides must be 1 to 65535 pixels, the longer "
            "one at most 200 times the shorter one"
        )
    return array


def to_model_input(image: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """Resize, crop and pad one image; the result is not normalized.

    Args:
        image: RGB uint8 [H, W, 3] of any size and memory layout.

    Returns:
        RGB uint8 [S, S, 3] with S = `preprocessing.input_size`: a new, writable, C-contiguous array.

    Raises:
        ImageError: not an RGB uint8 image, or an impossible size.
    """
    image = check_image(image)
    height, width = image.shape[:2]
    geometry = crop_geometry(width, height, preprocessing)
    crop = preprocessing.crop_size
    if (geometry.resized_width, geometry.resized_height) == (width, height):
        pixels = image[geometry.top : geometry.top + crop, geometry.left : geometry.left + crop].copy()
    elif fast_resize.can_resize(geometry.box, crop):
        pixels = fast_resize.resize(image, geometry.box, crop)
    else:
        from PIL import Image

        pixels = np.array(Image.fromarray(image).resize((crop, crop), Image.Resampling.BICUBIC, box=geometry.box))
    padding = preprocessing.padding
    return np.pad(pixels, ((padding, padding), (padding, padding), (0, 0))) if padding else pixels


def normalize(batch: UInt8Array, preprocessing: Preprocessing) -> Float32Array:
    """Normalize uint8 [N, S, S, 3] for `--input float32`: (x / 255 - mean) / std, float32 [N, 3, S, S]."""
    mean = np.asarray(preprocessing.mean, np.float32)
    std = np.asarray(preprocessing.std, np.float32)
    scaled = (batch.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def model_batch(cropped: UInt8Array, dtype: str, preprocessing: Preprocessing) -> npt.NDArray[Any]:
    """Return cropped uint8 [N, S, S, 3] unchanged for a uint8 model, normalized for a float32 model."""
    return cropped if dtype == "uint8" else normalize(cropped, preprocessing)
