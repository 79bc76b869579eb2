"""Writes TIFF files of layouts that Pillow cannot write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Page = tuple[Mapping[int, Sequence[int]], list[bytes]]
"""Tags, and strips or tiles."""


def pack(samples: npt.NDArray[np.integer], bits: int, order: str) -> bytes:
    """Return rows of samples [rows, samples] as bytes; each row begins with a new byte."""
    if bits in (8, 16, 32, 64):
        return samples.astype(f"{order}u{bits // 8}").tobytes()
    as_bits = (samples[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(as_bits.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def page(
    samples: npt.NDArray[np.integer],
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    compression: int = 1,
    predictor: int = 1,
    is_planar: bool = False,
    strip_height: int | None = None,
    tile: int | None = None,
    tags: Mapping[int, Sequence[int]] = {},
) -> Page:
    """Return the tags of a page and its strips or tiles.

    Args:
        samples: [height, width, samples per pixel], unsigned.
        tile: side of the tiles; None: strips of `strip_height`.
    """
    height, width, count = samples.shape
    across, down = (tile, tile) if tile else (width, strip_height or height)
    segments = []
    for plane in np.split(samples, count, axis=2) if is_planar else [samples]:
        for top in range(0, height, down):
            for left in range(0, width, across):
                part = plane[top : top + down, left : left + across].astype(np.int64)
                if tile:
                    missing = [(0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)]
                    part = np.pad(part, missing, mode="edge")
                if predictor == 2:
                    part = np.diff(part, axis=1, prepend=0) & ((1 << bits) - 1)
                packed = pack(part.reshape(len(part), -1), bits, order)
                segments.append(zlib.compress(packed) if compression == 8 else packed)
    fixed = {256: [width], 257: [height], 258: [bits] * count, 259: [compression], 262: [photometric], 277: [count],
             284: [2 if is_planar else 1], 317: [predictor]}  # fmt: skip
    fixed |= {322: [tile], 323: [tile]} if tile else {278: [down]}
    return {**fixed, **tags}, segments


def file(
    pages: Sequence[tuple[Mapping[int, Sequence[int]], list[bytes]]], order: str = "<", is_big: bool = False
) -> bytes:
    """Return a TIFF file of several pages, or a BigTIFF."""
    word, kind, count_format, width = ("Q", 16, "Q", 8) if is_big else ("I", 4, "H", 4)
    content = bytearray(struct.pack(f"{order}2sHHHQ", b"II" if order == "<" else b"MM", 43, 8, 0, 0))
    if not is_big:
        content = bytearray(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 0))
    pointer = len(content) - width
    for tags, segments in pages:
        places = []
        for segment in segments:
            places.append(len(content))
            content += segment
        is_tiled = 322 in tags
        tags = {**tags, 324 if is_tiled else 273: places, 325 if is_tiled else 279: [len(part) for part in segments]}
        entries = b""
        for tag, values in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(values)}{word}", *values)
            if len(packed) > width:
                place = struct.pack(f"{order}{word}", len(content))
                content += packed
                packed = place
            entries += struct.pack(f"{order}HH{word}", tag, kind, len(values)) + packed
        struct.pack_into(f"{order}{word}", content, pointer, len(content))
        content += struct.pack(f"{order}{count_format}", len(tags)) + entries
        pointer = len(content)
        content += bytes(width)
    return bytes(content)
