"""Decode a page of a TIFF by its tags: integers of 1 to 16 bits become 8 bits per sample.

Pillow knows only some layouts and misreads others: 12 bits become 16 times too dark, signed samples negative, and
16-bit WhiteIsZero is inverted. So it only decompresses, except where the compression defines the layout (JPEG, fax).
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from simplenet.errors import ImageError
from simplenet.preprocessing import UInt8Array
from simplenet.tiff_pages import Integers, Page, Tag

if TYPE_CHECKING:
    from PIL import Image

_MAX_BYTES = 320 << 20  # uncompressed
_MAX_SAMPLES = 64
_PREMULTIPLIED, _ALPHA = 1, 2
_CHUNK_SAMPLES = 1 << 24  # limits the size of temporary arrays
_CANNOT_KNOW = "of unknown range; convert it to 8 or 16 bits"
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB, _ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_SAMPLES_OF_COLOR = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _CIELAB: 3,
                     _ICCLAB: 3}  # fmt: skip
_SENSOR_DATA = (32803, 34892)
_UNCOMPRESSED, _PACKBITS = 1, 32773
_LOSSLESS = {_UNCOMPRESSED, 5, 8, _PACKBITS, 32946, 34925, 50000}  # LZW, Deflate (8, 32946), LZMA, Zstandard
_WITH_LAYOUT = {2, 3, 4, 6, 7, 32809}  # fax (2 to 4), JPEG (6, 7), ThunderScan
_OTHER_COMPRESSIONS = {22610: "JPEG XR", 33003: "JPEG 2000", 33005: "JPEG 2000", 34676: "SGILog", 34677: "SGILog",
                       34712: "JPEG 2000", 34713: "Nikon NEF", 34887: "LERC", 34892: "lossy DNG", 34934: "JPEG XR",
                       50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL"}  # fmt: skip


def decode(page: Page, open_image: Callable[[bytes], Image.Image]) -> Image.Image:
    """Return a page with 8 bits per sample, and its orientation in the EXIF data.

    Args:
        open_image: opens the content of a TIFF file with Pillow.

    Raises:
        ImageError: its range or color space cannot be known, Pillow cannot decompress it, or a tag is damaged.
    """
    from PIL import Image, TiffImagePlugin

    _check(page)
    photometric = _photometric(page)
    if page.value(Tag.COMPRESSION, 1) in _WITH_LAYOUT or _is_subsampled(page):
        # Pillow's own reader, for uncompressed files, does not know subsampling.
        before, TiffImagePlugin.READ_LIBTIFF = TiffImagePlugin.READ_LIBTIFF, True
        try:
            return open_image(page.as_first())
        finally:
            TiffImagePlugin.READ_LIBTIFF = before
    samples = _read_samples(page, open_image)
    count = _SAMPLES_OF_COLOR[photometric]
    color, size = np.ascontiguousarray(samples[..., :count]), page.size
    if photometric == _PALETTE:
        color = _palette(page)[color[..., 0]]
    elif photometric == _ICCLAB:
        color[..., 1:] ^= 128  # Pillow's a and b are signed, as in CIELab
    elif count == 1:
        color = color.repeat(3, axis=2)
    mode = {_CMYK: "CMYK", _YCBCR: "YCbCr", _CIELAB: "LAB", _ICCLAB: "LAB"}.get(photometric, "RGB")
    image = Image.frombytes(mode, size, color.tobytes(), "raw", mode)
    kinds = page.values(Tag.EXTRA_SAMPLES, *[_ALPHA] * (samples.shape[2] - count == 1))
    position = next((at for at, kind in enumerate(kinds) if kind in (_PREMULTIPLIED, _ALPHA)), None)
    if position is not None and count + position < samples.shape[2]:
        pixels = np.dstack([np.asarray(image.convert("RGB")), samples[..., count + position]])
        alpha_mode = "RGBa" if kinds[position] == _PREMULTIPLIED else "RGBA"
        image = Image.frombytes(alpha_mode, size, pixels.tobytes()).convert("RGBA")
    image.getexif()[Tag.ORIENTATION] = page.value(Tag.ORIENTATION, 1)
    return image


def _photometric(page: Page) -> int:
    return page.value(Tag.PHOTOMETRIC, _RGB if page.value(Tag.SAMPLES, 1) >= 3 else _BLACK_IS_ZERO)


def _is_subsampled(page: Page) -> bool:
    return _photometric(page) == _YCBCR and max(page.values(Tag.SUBSAMPLING, 2, 2)) > 1


def _has_predictor(page: Page) -> bool:
    return page.value(Tag.PREDICTOR, 1) != 1 and page.value(Tag.COMPRESSION, 1) not in (_UNCOMPRESSED, _PACKBITS)


def _palette(page: Page) -> UInt8Array:
    """Return the colors of a palette, uint8 [values, 3]."""
    values, count = page.tags.get(Tag.PALETTE, np.empty(0, np.uint16)), 1 << page.value(Tag.BITS, 1)
    if len(values) < 3 * count:
        raise ImageError("damaged (a TIFF with an incomplete palette); replace it")
    shift = 8 if values.max() > 255 else 0  # some programs write 8-bit colors
    colors: UInt8Array = (values[: 3 * count] >> shift).astype(np.uint8).reshape(3, count).T
    return colors


def _check(page: Page) -> None:
    """Raise ImageError if the samples cannot be brought to 8 bits of a known color space."""
    compression, photometric = page.value(Tag.COMPRESSION, 1), _photometric(page)
    bits, kinds = set(page.values(Tag.BITS, 1)), set(page.values(Tag.SAMPLE_FORMAT, 1)) - {4}  # 4: undefined
    samples, most_bits = page.value(Tag.SAMPLES, 1), max(page.values(Tag.BITS, 1))
    predictor = page.value(Tag.PREDICTOR, 1) if _has_predictor(page) else 1
    if photometric in _SENSOR_DATA:
        raise ImageError("the unprocessed data of a camera's sensor; export it as JPEG")
    if kinds - {1, 2}:
        raise ImageError(f"its pixels are {'floats' if kinds == {3} else 'complex numbers'} {_CANNOT_KNOW}")
    if most_bits > 16:
        raise ImageError(f"its pixels are {most_bits}-bit numbers {_CANNOT_KNOW}")
    if len(bits) > 1 or len(kinds) > 1 or most_bits < 1:
        raise ImageError(f"a TIFF with samples of {sorted(bits)} bits; save it as 8-bit RGB")
    if compression not in _LOSSLESS | _WITH_LAYOUT:
        name = _OTHER_COMPRESSIONS.get(compression, str(compression))
        raise ImageError(f"a TIFF with the compression {name}, which cannot be read; save it with LZW")
    if predictor not in (1, 2) or (predictor == 2 and most_bits not in (8, 16)):
        raise ImageError(f"a TIFF with the predictor {predictor} and {most_bits} bits; save it without predictor")
    if photometric not in _SAMPLES_OF_COLOR or (photometric == _PALETTE and most_bits > 8):
        raise ImageError(f"a TIFF with PhotometricInterpretation {photometric} and {most_bits} bits; save it as RGB")
    if not _SAMPLES_OF_COLOR[photometric] <= samples <= _MAX_SAMPLES and compression not in _WITH_LAYOUT:
        raise ImageError(f"a TIFF with {samples} samples per pixel; save it as RGB")


def _read_samples(page: Page, open_image: Callable[[bytes], Image.Image]) -> UInt8Array:
    """Return all samples with 8 bits, [H, W, samples]. Black is 0; indices of a palette are not scaled."""
    (width, height), samples = page.size, page.value(Tag.SAMPLES, 1)
    planes = samples if page.value(Tag.PLANAR, 1) == 2 else 1
    pixels, levels = np.empty((height, width, samples // planes * planes), np.uint8), _levels(page)
    are_8_bits = np.array_equal(levels, np.arange(256))
    for plane, target in enumerate(np.split(pixels, planes, axis=2)):
        top = 0
        for rows in _decompress(page, plane, planes, open_image):
            values = _unpack(rows, page).reshape(*rows.shape[:2], -1, samples // planes)
            if _has_predictor(page):
                values = np.add.accumulate(values, axis=2, dtype=values.dtype)
            bottom = min(height, top + len(rows))
            values = values.reshape(len(rows), -1, samples // planes)
            values = values[: bottom - top, :width]
            target[top:bottom] = values if are_8_bits else levels[values]
            top = bottom
    if _photometric(page) == _WHITE_IS_ZERO:
        pixels[..., 0] = 255 - pixels[..., 0]
    return pixels


def _decompress(
    page: Page, plane: int, planes: int, open_image: Callable[[bytes], Image.Image]
) -> Iterator[UInt8Array]:
    """Yield the rows of a plane, uint8 [rows, tiles across, bytes of a tile's row]. Strips are wide tiles."""
    (width, height), compression = page.size, page.value(Tag.COMPRESSION, 1)
    is_tiled = Tag.TILE_WIDTH in page.tags
    tile_width = page.value(Tag.TILE_WIDTH, 0) if is_tiled else width
    tile_height = page.value(Tag.TILE_HEIGHT, 0) if is_tiled else min(height, page.value(Tag.STRIP_HEIGHT, height))
    if min(tile_width, tile_height) < 1:
        raise ImageError("damaged (a TIFF with empty tiles); replace it")
    across, down = math.ceil(width / tile_width), math.ceil(height / tile_height)
    row_samples = tile_width * (page.value(Tag.SAMPLES, 1) // planes)
    row_bytes = math.ceil(row_samples * page.value(Tag.BITS, 1) / 8)
    if down * tile_height * across * row_bytes * planes > _MAX_BYTES:
        raise ImageError(f"over {_MAX_BYTES >> 20} MiB without compression; make it smaller")
    offsets = page.values(Tag.TILE_OFFSETS) or page.values(Tag.STRIP_OFFSETS)
    sizes = page.values(Tag.TILE_SIZES) or page.values(Tag.STRIP_SIZES)
    count = across * down * planes
    if compression == _UNCOMPRESSED and count <= len(offsets):
        last_height = tile_height if is_tiled else height - (down - 1) * tile_height
        sizes = ([tile_height * row_bytes] * (across * (down - 1)) + [last_height * row_bytes] * across) * planes
    elif not sizes and count == 1:
        sizes = [len(page.content)]
    elif sum(sizes) > 2 * len(page.content):  # tiles that share bytes make a small file slow
        raise ImageError("damaged (a TIFF with tiles larger than the file); replace it")
    if not count <= min(len(offsets), len(sizes)):
        raise ImageError("damaged (a TIFF without the places of its pixels); replace it")
    step = max(1, _CHUNK_SAMPLES // (across * row_samples * tile_height))
    for start in range(0, down, step):
        end = min(down, start + step)
        rows = (end if is_tiled else min(end, height / tile_height)) - start
        chosen = range((plane * down + start) * across, (plane * down + end) * across)
        parts = [page.content[offsets[at] : offsets[at] + sizes[at]] for at in chosen]
        if compression == _UNCOMPRESSED and any(len(part) < sizes[at] for part, at in zip(parts, chosen, strict=True)):
            raise ImageError("incomplete (a TIFF without some of its pixels); copy or download it again")
        shape = (round(rows * tile_height), across, row_bytes)
        if compression == _UNCOMPRESSED:
            yield _join(parts, shape, tile_height, page.value(Tag.FILL_ORDER, 1))
        else:
            with open_image(_tiff_of_bytes(page, parts, shape, tile_height, is_tiled)) as image:
                yield np.asarray(image).reshape(shape)


def _join(parts: list[bytes], shape: tuple[int, int, int], tile_height: int, fill_order: int) -> UInt8Array:
    """Return uncompressed tiles as rows."""
    rows, across, row_bytes = shape
    padded = math.ceil(rows / tile_height) * tile_height
    content = b"".join(parts)
    content += bytes(padded * across * row_bytes - len(content))  # the last strip is shorter
    joined = np.frombuffer(content, np.uint8).reshape(-1, across, tile_height, row_bytes)
    joined = joined.swapaxes(1, 2).reshape(padded, across, row_bytes)[:rows]
    return np.packbits(np.unpackbits(joined, axis=2, bitorder="little"), axis=2) if fill_order == 2 else joined


def _tiff_of_bytes(
    page: Page, parts: list[bytes], shape: tuple[int, int, int], tile_height: int, is_tiled: bool
) -> bytes:
    """Return an 8-bit TIFF with the same compressed tiles: Pillow returns their bytes unchanged."""
    rows, across, row_bytes = shape
    samples = next(count for count in (4, 3, 1) if row_bytes % count == 0)  # Pillow limits the number of pixels
    places = list(itertools.accumulate(map(len, parts), initial=8))
    tags = {
        Tag.WIDTH: [across * row_bytes // samples],
        Tag.HEIGHT: [rows],
        Tag.BITS: [8] * samples,
        Tag.COMPRESSION: [page.value(Tag.COMPRESSION, 1)],
        Tag.PHOTOMETRIC: [{4: _CMYK, 3: _RGB, 1: _BLACK_IS_ZERO}[samples]],
        Tag.FILL_ORDER: [page.value(Tag.FILL_ORDER, 1)],
        Tag.SAMPLES: [samples],
    }
    if is_tiled:
        tags |= {Tag.TILE_WIDTH: [row_bytes // samples], Tag.TILE_HEIGHT: [tile_height]}
    else:
        tags[Tag.STRIP_HEIGHT] = [tile_height]
    tags[Tag.TILE_OFFSETS if is_tiled else Tag.STRIP_OFFSETS] = places[:-1]
    tags[Tag.TILE_SIZES if is_tiled else Tag.STRIP_SIZES] = [len(part) for part in parts]
    entries, arrays = b"", b""
    arrays_at = places[-1] + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        entries += struct.pack("<HHI", tag, 4, len(values))
        entries += packed if len(values) == 1 else struct.pack("<I", arrays_at + len(arrays))
        arrays += packed if len(values) > 1 else b""
    head = struct.pack("<2sHI", b"II", 42, places[-1])
    return b"".join((head, *parts, struct.pack("<H", len(tags)), entries, bytes(4), arrays))


def _unpack(rows: UInt8Array, page: Page) -> Integers:
    """Return the samples of rows of bytes, uint8 or uint16 [rows, tiles, samples and padding]."""
    bits = page.value(Tag.BITS, 1)
    if bits == 8:
        return rows
    if bits == 16:
        return np.ascontiguousarray(rows).view(f"{page.order}u2").astype(np.uint16)
    width = page.value(Tag.TILE_WIDTH, page.size[0])
    planes = page.value(Tag.SAMPLES, 1) if page.value(Tag.PLANAR, 1) == 2 else 1
    first_bit = bits * np.arange(width * (page.value(Tag.SAMPLES, 1) // planes))
    at = first_bit // 8
    if bits == 1:
        return np.unpackbits(rows, axis=2)[..., : len(at)]
    padded = np.pad(rows, ((0, 0), (0, 0), (0, 2))).astype(np.uint32)
    window = padded[..., at] << 16 | padded[..., at + 1] << 8 | padded[..., at + 2]
    return (window >> (24 - bits - first_bit % 8).astype(np.uint32) & (1 << bits) - 1).astype(np.uint16)


def _levels(page: Page) -> UInt8Array:
    """Return the 8-bit level of every possible sample. Indices of a palette are not scaled."""
    bits, highest = page.value(Tag.BITS, 1), max(page.values(Tag.MAX_VALUE, 0))
    values = np.arange(1 << bits, dtype=np.uint32)
    if _photometric(page) == _PALETTE:
        return values.astype(np.uint8)
    if page.value(Tag.SAMPLE_FORMAT, 1) == 2:  # signed: the lowest value becomes 0
        values ^= 1 << bits - 1
    elif 255 <= highest < 1 << bits:  # a camera of 10, 12 or 14 bits names its highest value
        bits = highest.bit_length()
    white = (1 << bits) - 1
    return np.minimum((values * 255 + white // 2) // white, 255).astype(np.uint8)
