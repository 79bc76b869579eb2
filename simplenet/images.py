"""Pictures on disk, whoever wrote them: read as RGB, found in folders, matched with a model's classes."""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import threading
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from simplenet import files
from simplenet.errors import DataError, ImageError, one_line
from simplenet.preprocessing import UInt8Array, check_image

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
            ".tiff", ".webp")  # fmt: skip
# Pillow has readers that start other programs (EPS) or that few people test: a file of those kinds is refused.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_MOST_PIXELS = 100_000_000
_MOST_BYTES = 1 << 30
_MOST_JPEG_SCANS = 100  # encoders write 10; 4 MB of empty scans would take ten minutes, 100 of 8 megapixels take 0.3 s
_EXIF_ORIENTATION = 0x0112
_filters_lock = threading.Lock()  # warnings.catch_warnings changes the filters of all threads


def read_rgb(path: str | Path, reduction: Callable[[int, int], float] | None = None) -> UInt8Array:
    """The picture in a file as RGB uint8 [H, W, 3], upright as its EXIF orientation says.

    Transparent pixels show white, as on a page; 16-bit values are scaled to 8 bits (65535 becomes 255); CMYK is
    converted without its color profile; of an animation the first frame counts.

    Args:
        reduction: from the upright picture's width and height, by how much it may be smaller than in the file: where
            that is 2 or more, a JPEG is decoded at a half, quarter or eighth of its size, in a fraction of the time.

    Raises:
        ImageError: no file, no picture, empty, truncated, over 100 megapixels, of floats or 32-bit numbers, or too
            long and thin. The message starts with the path.
    """
    try:
        _check_file(Path(path))
        with open(path, "rb") as file:
            return _decode(file, _FORMATS, _MOST_PIXELS, reduction)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({one_line(files.reason(error))}); replace it") from error
    except ValueError as error:  # a null byte in the path
        raise ImageError(f"{path}: damaged ({one_line(error)}); replace it") from error


def decode_rgb(content: bytes, *, formats: Sequence[str] = _FORMATS, max_pixels: int = _MOST_PIXELS) -> UInt8Array:
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
    """The image files in a folder and in its folders (one level down: classes), sorted; or the one file `path` is.

    Only names count here, hidden ones do not; whether a file can be read, `read_rgb` tells.

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
        raise DataError(f"cannot read {path}: {files.reason(error)}; name a folder of pictures") from error
    if not found:
        raise DataError(f"no pictures in {path}; it needs {' '.join(SUFFIXES)} files, or folders of them")
    return found


def fingerprint(folder: str | Path) -> str:
    """16 hex digits that tell a folder of pictures from others: of the names and sizes of all `find_images`.

    Raises:
        DataError: as `find_images`.
    """
    found = find_images(folder)
    try:
        listing = "".join(f"{path.relative_to(folder)}\0{path.stat().st_size}\n" for path in found)
    except OSError as error:
        raise DataError(f"cannot read {folder}: {files.reason(error)}; name a folder of pictures") from error
    return hashlib.sha256(os.fsencode(listing)).hexdigest()[:16]


def held_out(folder: Path, names: tuple[str, str]) -> Path:
    """The folder of classes, `names` in order, that a data set's folder has for measuring; raises DataError if none."""
    try:
        for name in names:
            if (folder / name).is_dir():
                return folder / name
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; name the data set's folder")
    except OSError as error:
        raise DataError(f"cannot read {folder}: {files.reason(error)}; name another folder") from error
    wanted = " nor ".join(f"{name}/<class>/*" for name in names)
    raise DataError(f"{folder} has neither {wanted}; add one, or name another folder")


def labeled_folder(
    path: str | Path, labels: Sequence[str], class_ids: Sequence[str] = ()
) -> list[tuple[Path, int | None]]:
    """Every image of `find_images` with its class index, or None where its folder is not named as one of the classes.

    A folder is named as a class by its id or label, as `class_lookup` has it.

    Raises:
        DataError: no images; folders, but not one named as a class; or a name that two classes have.
    """
    path = Path(path)
    found = find_images(path)
    classes_named = class_lookup(labels, class_ids)
    named: dict[Path, int | None] = {}
    for folder in sorted({file.parent for file in found} - {path, path.parent}):
        indices = classes_named(folder.name)
        if len(indices) > 1:
            ids = ", ".join(class_ids[index] for index in indices) if class_ids else "distinct names"
            raise DataError(f"{folder} could be any of the classes {indices}; rename it to one of: {ids}")
        named[folder] = indices[0] if indices else None
    if named and not any(index is not None for index in named.values()):
        example = next(iter((*class_ids, *labels)), "")
        known = f"such as {example!r}" if example else "but this model has none"
        raise DataError(f"no folder in {path} is named as a class of the model ({known}); rename its folders")
    return [(file, named.get(file.parent)) for file in found]


def class_lookup(*name_lists: Sequence[str]) -> Callable[[str], list[int]]:
    """From a folder's name to the indices of the classes it may mean: those of that very name, else of one like it.

    Upper and lower case, spaces and punctuation make names alike.
    """
    exact: dict[str, set[int]] = {}
    alike: dict[str, set[int]] = {}
    for names in name_lists:
        for index, name in enumerate(names):
            exact.setdefault(name, set()).add(index)
            alike.setdefault(_key(name), set()).add(index)
    return lambda folder: sorted(exact.get(folder) or alike.get(_key(folder), set()))


def _check_file(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
        raise ImageError("a folder or device, not a picture; name a picture")
    if status.st_size == 0:
        raise ImageError("the file is empty; replace it")
    if status.st_size > _MOST_BYTES:
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
            if image.format in ("JPEG", "MPO") and _count_scans(file) > _MOST_JPEG_SCANS:
                raise ImageError(f"a JPEG of more than {_MOST_JPEG_SCANS} scans; save it again")
            if reduction is not None and (most := reduction(*_upright_size(image))) >= 2:
                image.draft("RGB", (math.ceil(image.width / most), math.ceil(image.height / most)))
            image.load()
            return check_image(_to_rgb(_upright(image)))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image of a supported format; convert it to {formats[0]}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"far over {max_pixels / 1e6:g} million pixels; make it smaller") from error
    except OSError as error:
        raise ImageError(f"cannot be read ({one_line(files.reason(error))}); replace it") from error
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
    """Reads no more than the header."""
    from PIL import Image

    Image.init()
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(file, formats=[name for name in formats if name in Image.OPEN])


def _orientation(image: Image.Image) -> int:
    """1, upright, to 8, as EXIF counts; 1 also where it says nothing sensible."""
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF is no reason to refuse the pixels
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    return orientation if isinstance(orientation, int) else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height once it is upright; reads no more than the header."""
    lies_on_its_side = _orientation(image) in (5, 6, 7, 8)
    return (image.height, image.width) if lies_on_its_side else image.size


def _upright(image: Image.Image) -> Image.Image:
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> UInt8Array:
    from PIL import Image

    if image.mode == "F":
        raise ImageError("its pixels are floats of unknown range; convert it to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image))
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
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


def _key(name: str) -> str:
    """'T-shirt/top', which cannot name a folder, and 't_shirt_top' are the same; so are the two ways to write 'é'."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    is_letter = [character.isalnum() or unicodedata.category(character)[0] == "M" for character in composed]
    kept = "".join(character if wanted else " " for character, wanted in zip(composed, is_letter, strict=True))
    return " ".join(kept.split()) or composed
