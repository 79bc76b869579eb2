"""The fast resizer: Pillow's antialiased bicubic of a fractional box of a picture, within a gray level or so, in a
fifth of the time. It is the wheel cykooz-resizer, which not every platform has, and it only makes pictures smaller.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

_KEPT_BYTES = 16 << 20  # holds a 1920x1080 frame twice; glibc learns from blocks up to 32 MiB


def available() -> bool:
    """Whether `resize` works on this machine."""
    return _cykooz() is not None


def can_resize(box: Box, size: int) -> bool:
    """Whether `resize` may be called: it is there, and the picture gets narrower.

    Where it gets wider, and the first or last column lands exactly on one of the source, cykooz-resizer 4.0.1 reads
    outside its memory: it drops the column's zero weights, and takes what is left for what all columns reach. 21x15
    pixels to 28x28 ends the process. Narrower, two neighboring weights cannot both be zero.
    """
    return available() and box[2] - box[0] > size


def resize(image: UInt8Array, box: Box, size: int) -> UInt8Array:
    """The `box` (left, top, right, bottom in pixels, within the picture) of RGB uint8 [H, W, 3] -> [size, size, 3].

    The result is a new array. Call it only where `can_resize` says so.
    """
    cykooz: Any = _cykooz()
    left, top, right, bottom = box
    columns, rows = _needed(left, right, size, image.shape[1]), _needed(top, bottom, size, image.shape[0])
    part = image[rows, columns]
    height, width = part.shape[:2]
    left, top, right, bottom = left - columns.start, top - rows.start, right - columns.start, bottom - rows.start
    source = cykooz.ImageData(width, height, cykooz.PixelType.U8x3, part.tobytes())
    target = cykooz.ImageData(size, size, cykooz.PixelType.U8x3)
    options = cykooz.ResizeOptions(
        cykooz.ResizeAlg.convolution(cykooz.FilterType.catmull_rom),  # Pillow's bicubic under its own name
        crop_box=cykooz.CropBox(left, top, min(right, width) - left, min(bottom, height) - top),
    )
    cykooz.Resizer().resize(source, target, options)
    resized: UInt8Array = np.frombuffer(target.get_buffer(), np.uint8).reshape(size, size, 3).copy()
    return resized


def _needed(start: float, stop: float, size: int, limit: int) -> slice:
    """The pixels that a bicubic filter reaches from within the box: two of the larger of both pixel sizes beyond it."""
    reach = 2 * max(1.0, (stop - start) / size) + 1
    return slice(max(0, math.floor(start - reach)), min(limit, math.ceil(stop + reach)))


@functools.lru_cache(maxsize=1)
def _cykooz() -> Any:
    """The module, or None where it has no wheel."""
    try:
        import cykooz_resizer
    except ImportError:
        return None
    # glibc gives large buffers back to the kernel at once, and a frame's page faults then cost twice as much as its
    # resize (640x480: 0.65 ms instead of 0.21). Freeing one larger block teaches it to keep them: mallopt(3), "dynamic
    # mmap threshold". The block is never touched, so it costs nothing; other allocators do not mind.
    bytes(_KEPT_BYTES)
    return cykooz_resizer
