"""From a picture of any size to what the model was trained on: one frozen configuration that travels with the weights.

The reference is what the training code did: Pillow's antialiased bicubic resize of the shorter side, then a center
crop. `to_model_input` computes the same pixels in one step, resizing only the crop, with its exact fractional box;
`reference` does it in the two original steps, for tests and for measuring how far the fast path is away.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simplenet import fast_resize
from simplenet.errors import ImageError, UsageError

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to `resize_shorter_side` pixels, center crop of `crop_size`, `padding` black pixels on each side,
    scale to 0..1, subtract `mean`, divide by `std` (RGB order). Interpolation is antialiased bicubic."""

    resize_shorter_side: int
    crop_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padding: int = 0

    @property
    def input_size(self) -> int:
        """Height and width of the model's input in pixels."""
        return self.crop_size + 2 * self.padding

    def check(self) -> None:
        """Raises UsageError where a value makes no sense: a manifest is a file that anybody may have written."""
        sizes = (self.resize_shorter_side, self.crop_size, self.padding)
        whole = all(type(size) is int for size in sizes)  # True and 2.0 are not
        if not whole or not 1 <= self.crop_size <= self.resize_shorter_side <= 4096 or not 0 <= self.padding <= 1024:
            raise UsageError(
                f"preprocessing has impossible sizes: resize {self.resize_shorter_side}, crop {self.crop_size}, "
                f"padding {self.padding}; export the artifact again"
            )
        numbers = (*self.mean, *self.std)
        sane = all(type(number) in (int, float) and -1e6 < number < 1e6 for number in numbers)  # and not NaN
        if len(self.mean) != 3 or len(self.std) != 3 or not sane or min(self.std) < 1e-6:
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
    """Where the model looks: `box` (left, top, right, bottom) in the picture's own pixels, fractions included."""

    resized_width: int
    resized_height: int
    left: int
    top: int
    box: tuple[float, float, float, float]


@functools.lru_cache(maxsize=64)
def crop_geometry(width: int, height: int, preprocessing: Preprocessing) -> CropGeometry:
    """Rounded as torchvision's Resize and CenterCrop do: the longer side truncates, the crop's corner goes to even."""
    shorter, crop = preprocessing.resize_shorter_side, preprocessing.crop_size
    if width <= height:
        resized_width, resized_height = shorter, int(shorter * height / width)
    else:
        resized_width, resized_height = int(shorter * width / height), shorter
    left, top = round((resized_width - crop) / 2.0), round((resized_height - crop) / 2.0)
    scale_x, scale_y = width / resized_width, height / resized_height
    right, bottom = min((left + crop) * scale_x, width), min((top + crop) * scale_y, height)  # not an ulp outside
    return CropGeometry(resized_width, resized_height, left, top, (left * scale_x, top * scale_y, right, bottom))


def check_image(image: object) -> UInt8Array:
    """`image` itself if it is RGB uint8 [H, W, 3] with sane sides, else ImageError."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"an image must be a uint8 array [height, width, 3] in RGB order, not {what}")
    height, width = image.shape[:2]
    if min(height, width) < 1 or max(height, width) > 65_535 or max(height, width) > 200 * min(height, width):
        raise ImageError(
            f"an image of {width}x{height} pixels cannot be used: sides 1 to 65535, at most 200 times as long as wide"
        )
    return image


def to_model_input(image: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """RGB uint8 [H, W, 3] of any size -> RGB uint8 [S, S, 3] with S = `preprocessing.input_size`; not yet normalized.

    The result is a new, writable, C-contiguous array that shares no memory with `image`.

    Raises:
        ImageError: not an RGB uint8 image, or an impossible size.
    """
    image = check_image(image)
    height, width = image.shape[:2]
    geometry = crop_geometry(width, height, preprocessing)
    crop = preprocessing.crop_size
    if (geometry.resized_width, geometry.resized_height) == (width, height):
        pixels = image[geometry.top : geometry.top + crop, geometry.left : geometry.left + crop].copy()
    else:
        pixels = _resize_crop(image, geometry, crop)
    return _pad(pixels, preprocessing.padding)


def reference(image: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """Like `to_model_input`, in the two steps of the training code: Pillow resize, then crop. Slow and exact."""
    from PIL import Image

    image = check_image(image)
    height, width = image.shape[:2]
    geometry = crop_geometry(width, height, preprocessing)
    resized = Image.fromarray(image).resize((geometry.resized_width, geometry.resized_height), Image.Resampling.BICUBIC)
    crop = preprocessing.crop_size
    cropped = resized.crop((geometry.left, geometry.top, geometry.left + crop, geometry.top + crop))
    return _pad(np.asarray(cropped), preprocessing.padding)


def normalize(batch: UInt8Array, preprocessing: Preprocessing) -> Float32Array:
    """uint8 [N, S, S, 3] -> float32 [N, 3, S, S], (x / 255 - mean) / std: the classic input of `--input float32`."""
    mean = np.asarray(preprocessing.mean, np.float32)
    std = np.asarray(preprocessing.std, np.float32)
    scaled = (batch.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def model_batch(cropped: UInt8Array, dtype: str, preprocessing: Preprocessing) -> npt.NDArray[Any]:
    """Cropped uint8 [N, S, S, 3] pictures as a model of that input dtype takes them: as they are, or normalized."""
    return cropped if dtype == "uint8" else normalize(cropped, preprocessing)


def resizer_name() -> str:
    """Which library makes pictures smaller here: 'cykooz-resizer' (fast), or 'Pillow' where that cannot be used."""
    return "cykooz-resizer" if fast_resize.available() else "Pillow"


def _pad(pixels: UInt8Array, padding: int) -> UInt8Array:
    return np.pad(pixels, ((padding, padding), (padding, padding), (0, 0))) if padding else pixels


def _resize_crop(image: UInt8Array, geometry: CropGeometry, crop: int) -> UInt8Array:
    if fast_resize.can_resize(geometry.box, crop):
        return fast_resize.resize(image, geometry.box, crop)
    from PIL import Image

    return np.array(Image.fromarray(image).resize((crop, crop), Image.Resampling.BICUBIC, box=geometry.box))
