"""Image files, which are untrusted, read as RGB."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simplenet import files, image_kinds, tiff, tiff_pages
from simplenet.errors import ImageError, one_line, raise_if_from_signal_handler
from simplenet.preprocessing import UInt8Array, check_image

if TYPE_CHECKING:
    from PIL import Image

# Pillow's other readers start programs (EPS) or are little tested.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
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
    with _naming(path):
        return _decode(_read(path), Path(path), _FORMATS, _MAX_PIXELS, reduction)


def read_frames(path: str | Path) -> Iterator[tuple[UInt8Array, float | None]]:
    """Yield the frames of an animated GIF, WebP, PNG or AVIF, and their durations in seconds.

    A still image is one frame with the duration None. One frame is decoded at a time, so their number needs no limit.

    Raises:
        ImageError: as `read_rgb`, also after the first frames.
    """
    with _naming(path):
        content = _read(path)
        with _naming_damage(content, Path(path), _FORMATS, _MAX_PIXELS), _open_page(content, _FORMATS) as image:
            if image.format not in _ANIMATED or not getattr(image, "is_animated", False):
                yield _decode(content, Path(path), _FORMATS, _MAX_PIXELS), None
                return
            for index in itertools.count(1 if image.info.get("default_image") else 0):  # for programs without APNG
                try:
                    image.seek(index)
                except EOFError:
                    return
                _check_pixels(image.width, image.height, _MAX_PIXELS)
                image.load()
                duration_s = image.info.get("duration", 0) / 1000
                # Browsers show frames of 10 ms and less for 100 ms, and files rely on it.
                yield check_image(_to_rgb(_upright(image))), duration_s if duration_s > 0.01 else 0.1


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
    return _decode(content, Path("FILE"), formats, max_pixels, reduction)


def _read(path: str | Path) -> bytes:
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would block
        raise ImageError("a folder or device, not an image file; name an image file")
    if status.st_size == 0:
        raise ImageError("the file is empty; replace it")
    with open(path, "rb") as file:
        if status.st_size > _MAX_BYTES:
            start = file.read(1024)
            what = image_kinds.describe(start, Path(path)) if image_kinds.video_kind(start) else ""
            raise ImageError(what or f"the file is over {_MAX_BYTES >> 20} MiB; make it smaller")
        return file.read()


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Begin the message of every error with the path."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise_if_from_signal_handler(error)
        reason, advice = one_line(files.error_message(error)), files.read_advice(error) or "replace it"
        raise ImageError(f"{path}: cannot be read ({reason}); {advice}") from error


def _decode(
    content: bytes,
    path: Path,
    formats: Sequence[str],
    max_pixels: int,
    reduction: Callable[[int, int], float] | None = None,
) -> UInt8Array:
    with _naming_damage(content, path, formats, max_pixels), _open_page(content, formats, max_pixels) as image:
        _check_pixels(image.width, image.height, max_pixels)
        if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > _MAX_JPEG_SCANS:
            raise ImageError(f"a JPEG of more than {_MAX_JPEG_SCANS} scans; save it again")
        if reduction is not None and (factor := reduction(*_upright_size(image))) >= 2:
            image.draft("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
        image.load()
        key = image.info.get("transparency")
        if image.format == "PNG" and content[24] == 16 and isinstance(key, tuple):  # Pillow compares 8 bits with its 16
            image.info["transparency"] = tuple(value >> 8 for value in key)
        if image.format == "PNG" and content[24] in (2, 4) and image.mode == "L" and isinstance(key, int):
            image.info["transparency"] = key * (255 // (2 ** content[24] - 1))  # Pillow scales the pixels only
        return check_image(_to_rgb(_upright(image)))


@contextlib.contextmanager
def _naming_damage(content: bytes, path: Path, formats: Sequence[str], max_pixels: int) -> Iterator[None]:
    """Raise ImageError in place of Pillow's exceptions."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        what = image_kinds.describe(content, path) if formats is _FORMATS else ""
        raise ImageError(what or f"not an image of a supported format; convert it to {formats[0]}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"far over {max_pixels / 1e6:g} million pixels; make it smaller") from error
    except MemoryError as error:
        raise ImageError("too large for the free memory; make it smaller, or close other programs") from error
    except Exception as error:  # Pillow's parsers raise exceptions of any type
        raise_if_from_signal_handler(error)
        if "truncated" in str(error).lower():
            raise ImageError(f"incomplete ({one_line(error)}); copy, download or send it again") from error
        raise ImageError(f"damaged ({one_line(error)}); replace it") from error


def _open(content: bytes, formats: Sequence[str]) -> Image.Image:
    """Open an image; only its header is read."""
    from PIL import Image

    Image.init()
    if "HEIF" in formats and image_kinds.is_heic(content):
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(content), formats=[name for name in formats if name in Image.OPEN])


def _open_page(content: bytes, formats: Sequence[str], max_pixels: int = _MAX_PIXELS) -> Image.Image:
    """Open an image with Pillow, or decode the largest page of a TIFF."""
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
        if isinstance(key := image.info.get("transparency"), int):
            levels[gray == key] = 255
        return np.repeat(levels[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
