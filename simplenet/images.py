"""Image files, which are untrusted, read as RGB."""

from __future__ import annotations

import io
import math
import stat
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simplenet import file_kinds, files, tiff, tiff_pages
from simplenet.errors import ImageError, one_line, raise_if_from_signal_handler
from simplenet.preprocessing import UInt8Array, check_image

if TYPE_CHECKING:
    from PIL import Image

# Pillow's other readers start programs (EPS) or are little tested.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_MAX_PIXELS = 100_000_000
_MAX_BYTES = 320 << 20  # 100 megapixels of uncompressed RGB are 300 MB; the whole file is read into memory
_MAX_JPEG_SCANS = 100  # encoders write 10; 100 of 8 megapixels take 0.3 s, but a 4 MB file can hold 10 minutes of scans
_EXIF_ORIENTATION = 0x0112
_TRANSPOSES = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
               7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
_filters_lock = threading.Lock()  # warnings.catch_warnings changes the filters of all threads


def read_rgb(path: str | Path, reduction: Callable[[int, int], float] | None = None) -> UInt8Array:
    """Read an image file as RGB uint8 [H, W, 3], turned upright by its EXIF orientation.

    Transparent pixels become white, 16-bit values are scaled to 8 bits (65535 becomes 255), CMYK is converted without
    its color profile. Only the first frame of an animation and the largest page of a TIFF are read.

    Args:
        reduction: a function that gets width and height of the upright image and returns how many times smaller the
            result may be. From 2 on, a JPEG is decoded faster, at a half, quarter or eighth of its size.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, over 320 MiB, over 100 megapixels, or over 200
            times as long as wide, or its pixels are floats or 32-bit integers. The message starts with the path.

    Example:
        images.read_rgb("cat.jpg").shape  # (480, 640, 3)
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would block
            raise ImageError("a folder or device, not an image file; name an image file")
        if status.st_size == 0:
            raise ImageError("the file is empty; replace it")
        if status.st_size > _MAX_BYTES:
            raise ImageError(f"the file is over {_MAX_BYTES >> 20} MiB; make it smaller")
        return decode_rgb(Path(path).read_bytes(), reduction=reduction)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise_if_from_signal_handler(error)
        raise ImageError(f"{path}: cannot be read ({one_line(files.error_message(error))}); replace it") from error


def decode_rgb(
    content: bytes,
    *,
    formats: Sequence[str] = _FORMATS,
    max_pixels: int = _MAX_PIXELS,
    reduction: Callable[[int, int], float] | None = None,
) -> UInt8Array:
    """Decode the bytes of an image file to RGB uint8 [H, W, 3], with the rules and limits of `read_rgb`.

    Args:
        formats: the formats to accept, as Pillow names them.
        max_pixels: the limit on width * height, checked before anything is decoded.
        reduction: as in `read_rgb`.

    Raises:
        ImageError: not an image of these formats, truncated, damaged or too large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with _open_page(content, formats, max_pixels) as image:
            _check_pixels(image.width, image.height, max_pixels)
            if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > _MAX_JPEG_SCANS:
                raise ImageError(f"a JPEG of more than {_MAX_JPEG_SCANS} scans; save it again")
            if reduction is not None and (factor := reduction(*_upright_size(image))) >= 2:
                image.draft("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
            image.load()
            return check_image(_to_rgb(_upright(image)))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        what = file_kinds.describe_other(content, Path("FILE"))
        raise ImageError(what or f"not an image of a supported format; convert it to {formats[0]}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"far over {max_pixels / 1e6:g} million pixels; make it smaller") from error
    except Exception as error:  # Pillow's parsers raise exceptions of any type
        raise_if_from_signal_handler(error)
        raise ImageError(f"damaged ({one_line(error)}); replace it") from error


def _open(content: bytes, formats: Sequence[str]) -> Image.Image:
    """Open an image; only its header is read."""
    from PIL import Image

    Image.init()
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(content), formats=[name for name in formats if name in Image.OPEN])


def _open_page(content: bytes, formats: Sequence[str], max_pixels: int) -> Image.Image:
    """Open an image, or the largest page of a TIFF; a TIFF may be decoded."""
    if "TIFF" not in formats or not tiff_pages.is_tiff(content):
        return _open(content, formats)
    page = tiff_pages.largest_page(content)
    _check_pixels(*page.size, max_pixels)
    return tiff.decode(page, lambda content: _open(content, ["TIFF"]))


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels are over {max_pixels / 1e6:g} million; make it smaller")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; damaged EXIF data may hold any integer."""
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged EXIF data: the pixels may be intact
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    return orientation if isinstance(orientation, int) else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height after `_upright`, from the header only."""
    is_sideways = _orientation(image) in (5, 6, 7, 8)
    return (image.height, image.width) if is_sideways else image.size


def _upright(image: Image.Image) -> Image.Image:
    from PIL import Image

    name = _TRANSPOSES.get(_orientation(image))
    return image if name is None else image.transpose(Image.Transpose[name])


def _to_rgb(image: Image.Image) -> UInt8Array:
    from PIL import Image

    if image.mode == "F":
        raise ImageError("its pixels are floats of unknown range; convert it to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        gray = np.asarray(image)
        if gray.min() < 0 or gray.max() > 65_535:
            raise ImageError("its pixels are 32-bit numbers of unknown range; convert it to 8 or 16 bits")
        levels = ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(levels[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
