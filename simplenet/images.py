"""Image files, which are untrusted input: read them as RGB, find them in folders, match folders with classes."""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from simplenet import files
from simplenet.errors import DataError, ImageError, one_line
from simplenet.labels import class_lookup
from simplenet.preprocessing import UInt8Array, check_image

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
            ".tiff", ".webp")  # fmt: skip
# Pillow's other readers start programs (EPS) or are little tested.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_MAX_PIXELS = 100_000_000
_MAX_BYTES = 1 << 30
_MAX_JPEG_SCANS = 100  # encoders write 10; 4 MB of empty scans would take ten minutes, 100 of 8 megapixels take 0.3 s
_EXIF_ORIENTATION = 0x0112
_filters_lock = threading.Lock()  # warnings.catch_warnings changes the filters of all threads


def read_rgb(path: str | Path, reduction: Callable[[int, int], float] | None = None) -> UInt8Array:
    """Read an image file as RGB uint8 [H, W, 3], turned upright by its EXIF orientation.

    Transparent pixels become white, 16-bit values are scaled to 8 bits (65535 becomes 255), CMYK is converted without
    its color profile, and of an animation the first frame is read.

    Args:
        reduction: a function of the upright image's width and height that returns the factor by which the result may
            be smaller. If it is 2 or more, a JPEG is decoded faster, at a half, quarter or eighth of its size.

    Raises:
        ImageError: missing, empty, truncated, not an image, over 100 megapixels, over 200 times as long as wide, or of
            floats or 32-bit integers. The message starts with the path.

    Example:
        images.read_rgb("cat.jpg").shape  # (480, 640, 3)
    """
    try:
        _check_file(Path(path))
        with open(path, "rb") as file:
            return _decode(file, _FORMATS, _MAX_PIXELS, reduction)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({one_line(files.error_message(error))}); replace it") from error
    except ValueError as error:  # a null byte in the path
        raise ImageError(f"{path}: damaged ({one_line(error)}); replace it") from error


def decode_rgb(content: bytes, *, formats: Sequence[str] = _FORMATS, max_pixels: int = _MAX_PIXELS) -> UInt8Array:
    """Decode an encoded image to RGB uint8 [H, W, 3], with the rules and limits of `read_rgb`.

    Args:
        content: the bytes of an image file.
        formats: the formats to accept, as Pillow names them.
        max_pixels: the limit on width * height, checked before anything is decoded.

    Raises:
        ImageError: not an image of these formats, truncated, damaged or too large.
    """
    return _decode(io.BytesIO(content), formats, max_pixels)


def find_images(path: str | Path) -> list[Path]:
    """Return the image files in a folder and its subfolders (one level), sorted; of a file, the file itself.

    Files are chosen by suffix, without hidden ones, and not opened.

    Raises:
        DataError: no such folder, or no image in it.
    """
    path = Path(path)
    try:
        if path.is_file():
            return [path]
        found = _images_in(path)
        for folder in _folders_in(path):
            found += _images_in(folder)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {files.error_message(error)}; name a folder of images") from error
    if not found:
        raise DataError(f"no images in {path}; it needs {' '.join(SUFFIXES)} files, or folders of them")
    return found


def fingerprint(folder: str | Path) -> str:
    """Return a hash, 16 hex digits, of the names and sizes of the images in a folder.

    Raises:
        DataError: as `find_images`.
    """
    found = find_images(folder)
    try:
        listing = "".join(f"{path.relative_to(folder)}\0{path.stat().st_size}\n" for path in found)
    except OSError as error:
        raise DataError(f"cannot read {folder}: {files.error_message(error)}; name a folder of images") from error
    return hashlib.sha256(os.fsencode(listing)).hexdigest()[:16]


def evaluation_folder(folder: Path, names: tuple[str, str]) -> Path:
    """Return the first of `folder`/`names` that exists: where a data set keeps its test images.

    Raises:
        DataError: there is none.
    """
    try:
        for name in names:
            if (folder / name).is_dir():
                return folder / name
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; name the data set's folder")
    except OSError as error:
        raise DataError(f"cannot read {folder}: {files.error_message(error)}; name another folder") from error
    missing = " nor ".join(f"{name}/<class>/*" for name in names)
    raise DataError(f"{folder} has neither {missing}; add one, or name another folder")


def labeled_folder(
    path: str | Path, labels: Sequence[str], class_ids: Sequence[str] = ()
) -> list[tuple[Path, int | None]]:
    """Return every image of `find_images` with its class index, or None if its folder's name is no class.

    Args:
        labels, class_ids: the model's classes; `labels.class_lookup` compares them with the folders' names.

    Raises:
        DataError: no images; subfolders of which none is named after a class; or a name that two classes have.
    """
    path = Path(path)
    found = find_images(path)
    lookup = class_lookup(labels, class_ids)
    named: dict[Path, int | None] = {}
    for folder in sorted({file.parent for file in found} - {path, path.parent}):
        indices = lookup(folder.name)
        if len(indices) > 1:
            ids = ", ".join(class_ids[index] for index in indices) if class_ids else "distinct names"
            raise DataError(f"{folder} could be any of the classes {indices}; rename it to one of: {ids}")
        named[folder] = indices[0] if indices else None
    if named and not any(index is not None for index in named.values()):
        example = next(iter((*class_ids, *labels)), "")
        known = f"such as {example!r}" if example else "but this model has none"
        raise DataError(f"no folder in {path} is named after a class of the model ({known}); rename its folders")
    return [(file, named.get(file.parent)) for file in found]


def _check_file(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would block
        raise ImageError("a folder or device, not an image file; name an image file")
    if status.st_size == 0:
        raise ImageError("the file is empty; replace it")
    if status.st_size > _MAX_BYTES:
        raise ImageError("the file is over 1 GiB; make it smaller")


def _decode(
    file: IO[bytes],
    formats: Sequence[str],
    max_pixels: int,
    reduction: Callable[[int, int], float] | None = None,
) -> UInt8Array:
    """Decode an untrusted file. Every failure is an ImageError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with _open(file, formats) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(
                    f"{image.width}x{image.height} pixels are over {max_pixels / 1e6:g} million; make it smaller"
                )
            if image.format in ("JPEG", "MPO") and _count_scans(file) > _MAX_JPEG_SCANS:
                raise ImageError(f"a JPEG of more than {_MAX_JPEG_SCANS} scans; save it again")
            if reduction is not None and (factor := reduction(*_upright_size(image))) >= 2:
                image.draft("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
            image.load()
            return check_image(_to_rgb(_upright(image)))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image of a supported format; convert it to {formats[0]}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"far over {max_pixels / 1e6:g} million pixels; make it smaller") from error
    except OSError as error:
        raise ImageError(f"cannot be read ({one_line(files.error_message(error))}); replace it") from error
    except Exception as error:  # Pillow's parsers raise many other types
        raise ImageError(f"damaged ({one_line(error)}); replace it") from error


def _count_scans(file: IO[bytes]) -> int:
    """The number of start-of-scan markers in a JPEG file; metadata may add some."""
    position, count, last = file.tell(), 0, b""
    file.seek(0)
    while block := file.read(1 << 20):
        count += (last + block).count(b"\xff\xda")
        last = block[-1:]
    file.seek(position)
    return count


def _open(file: IO[bytes], formats: Sequence[str]) -> Image.Image:
    """Read the header only."""
    from PIL import Image

    Image.init()
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(file, formats=[name for name in formats if name in Image.OPEN])


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; damaged EXIF data may hold any integer."""
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF data: the pixels may be intact
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    return orientation if isinstance(orientation, int) else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height after `_upright`, from the header only."""
    is_sideways = _orientation(image) in (5, 6, 7, 8)
    return (image.height, image.width) if is_sideways else image.size


def _upright(image: Image.Image) -> Image.Image:
    from PIL import Image

    transposes = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    transpose = transposes.get(_orientation(image))
    return image if transpose is None else image.transpose(transpose)


def _to_rgb(image: Image.Image) -> UInt8Array:
    from PIL import Image

    if image.mode == "F":
        raise ImageError("its pixels are floats of unknown range; convert it to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _from_16_bits(gray: np.typing.NDArray[np.integer]) -> UInt8Array:
    if gray.min() < 0 or gray.max() > 65_535:
        raise ImageError("its pixels are 32-bit numbers of unknown range; convert it to 8 or 16 bits")
    levels = ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _folders_in(folder: Path) -> list[Path]:
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))
