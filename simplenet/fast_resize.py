"""The fast resizer: Pillow's antialiased bicubic of a fractional box of a picture, within a grey level or so, in a
fifth of the time. It is the wheel cykooz-resizer, which not every platform has, and it only makes pictures smaller.
"""

from __future__ import annotations

import functools
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

UInt8Array = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

# cykooz-resizer works in the memory of Pillow's images: only with those versions whose layout it is known to read.
_PILLOW_VERSIONS = ("11", "12", "13")
_KEPT_PIXELS = 1 << 22
# Memory is kept between calls, for each thread its own: on a 640x480 frame, taking fresh pages from the operating
# system and giving them back costs three times as much as the resize itself.
_kept = threading.local()


def available() -> bool:
    """Whether `resize` works on this machine."""
    return _cykooz() is not None


def can_resize(box: Box, size: int) -> bool:
    """Whether `resize` may be called: it is there, and the picture gets narrower.

    Where it gets wider, and the first or last column lands exactly on one of the source, cykooz-resizer 4.0.1 reads
    outside its memory: it drops the column's zero weights, and takes what is left for what all columns reach. 21x15
    pixels to 28x28 ends the process. Narrower, two neighbouring weights cannot both be zero.
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
    if not image.flags.c_contiguous:
        image = part = np.ascontiguousarray(part)
    source = _canvas("source", part.shape[1], part.shape[0])
    # The part's bytes lie in the whole picture's rows: Pillow unpacks them from there, row by row.
    start = (part.__array_interface__["data"][0] - image.__array_interface__["data"][0]) if part is not image else 0
    stop = start + image.strides[0] * (part.shape[0] - 1) + part.shape[1] * 3
    source.frombytes(memoryview(image.reshape(-1))[start:stop], "raw", "RGB", image.strides[0], 1)  # type: ignore[arg-type]
    target = _canvas("target", size, size)
    left, top = left - columns.start, top - rows.start
    width, height = min(right - columns.start, part.shape[1]) - left, min(bottom - rows.start, part.shape[0]) - top
    options = cykooz.ResizeOptions(
        cykooz.ResizeAlg.convolution(cykooz.FilterType.catmull_rom),  # Pillow's bicubic under its own name
        crop_box=cykooz.CropBox(left, top, width, height),
    )
    cykooz.Resizer().resize_pil(source, target, options)
    return np.array(target)


def _needed(start: float, stop: float, size: int, limit: int) -> slice:
    """The pixels that a bicubic filter reaches from within the box: two of the larger of both pixel sizes beyond it."""
    reach = 2 * max(1.0, (stop - start) / size) + 1
    return slice(max(0, math.floor(start - reach)), min(limit, math.ceil(stop + reach)))


def _canvas(name: str, width: int, height: int) -> Image.Image:
    """An RGB image with any content, the same as last time in this thread if that had this size."""
    from PIL import Image

    canvas: Image.Image | None = getattr(_kept, name, None)
    if canvas is None or canvas.size != (width, height):
        canvas = Image.new("RGB", (width, height))
        setattr(_kept, name, canvas if width * height <= _KEPT_PIXELS else None)
    return canvas


@functools.lru_cache(maxsize=1)
def _cykooz() -> Any:
    """The module, or None where it cannot be used."""
    try:
        import cykooz_resizer
        import PIL
    except ImportError:
        return None
    return cykooz_resizer if PIL.__version__.split(".")[0] in _PILLOW_VERSIONS else None
