"""The pages of a TIFF file and their tags. No pixel is read."""

from __future__ import annotations

import enum
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simplenet.errors import ImageError

Integers = npt.NDArray[np.integer[Any]]

_MAX_PAGES = 1000
_MAX_TAGS = 4096
_MAX_VALUES = 1_000_000
_TYPES = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}


class Tag(enum.IntEnum):
    SUBFILE_TYPE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    STRIP_HEIGHT = 278
    STRIP_SIZES = 279
    MAX_VALUE = 281
    PLANAR = 284
    PREDICTOR = 317
    PALETTE = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_SIZES = 325
    SUB_PAGES = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    SUBSAMPLING = 530


_KNOWN = frozenset(Tag)


@dataclass(frozen=True, eq=False)
class Page:
    """One image of a TIFF file: its tags, and the whole file."""

    content: bytes
    offset: int
    tags: dict[int, Integers]

    @property
    def order(self) -> str:
        """The byte order, as `struct` and NumPy name it."""
        return "<" if self.content.startswith(b"II") else ">"

    def values(self, tag: Tag, *default: int) -> list[int]:
        """Return the values of a tag, or `default` if it is missing or empty."""
        return [int(value) for value in self.tags.get(tag, ())] or list(default)

    def value(self, tag: Tag, default: int) -> int:
        """Return the first value of a tag, or `default`."""
        values = self.tags.get(tag)
        return default if values is None or not len(values) else int(values[0])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored; the orientation may swap them."""
        return self.value(Tag.WIDTH, 0), self.value(Tag.HEIGHT, 0)

    def as_first(self) -> bytes:
        """Return the file with this page as its first."""
        header = _header(self.content)
        return header.pack(header.unpack_from(self.content)[0], self.offset) + self.content[header.size :]


def is_tiff(content: bytes) -> bool:
    return content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def largest_page(content: bytes) -> Page:
    """Return the page with the most pixels; of equal ones, the first. The others may be thumbnails.

    Raises:
        ImageError: no page has a size.
    """
    pending, seen, pages = deque[int](), set[int](), list[Page]()
    try:
        pending.append(_header(content).unpack_from(content)[1])
        while pending and len(seen) < _MAX_PAGES:
            offset = pending.popleft()
            if offset == 0 or offset in seen:
                continue
            seen.add(offset)
            tags, following = _read_tags(content, offset)
            page = Page(content, offset, tags)
            pending += [following, *page.values(Tag.SUB_PAGES)[:_MAX_PAGES]]
            is_mask = page.value(Tag.SUBFILE_TYPE, 0) & 4
            if min(page.size) > 0 and not is_mask:
                pages.append(page)
    except (ValueError, struct.error):  # a damaged page; those before it may be intact
        pass
    if not pages:
        raise ImageError("damaged (a TIFF without a page); replace it")
    return max(pages, key=lambda page: page.size[0] * page.size[1])


def _header(content: bytes) -> struct.Struct:
    """Return the layout of the header; its second field is the offset of the first page."""
    order, is_big = ("<" if content.startswith(b"II") else ">"), b"+" in content[2:4]
    return struct.Struct(f"{order}8sQ" if is_big else f"{order}4sI")


def _read_tags(content: bytes, offset: int) -> tuple[dict[int, Integers], int]:
    """Return the known tags at `offset`, as views of `content`, and the offset of the next page."""
    header = _header(content)
    order, is_big = header.format[0], header.size == 16
    count_format, entry_format, width = ("Q", "HHQQ", 8) if is_big else ("H", "HHII", 4)
    (count,) = struct.unpack_from(order + count_format, content, offset)
    if count > _MAX_TAGS:
        raise ValueError("too many tags")
    start, entry = offset + struct.calcsize(order + count_format), struct.Struct(order + entry_format)
    end = start + count * entry.size
    tags: dict[int, Integers] = {}
    for at in range(start, end, entry.size):
        tag, kind, length, value = entry.unpack_from(content, at)
        if tag in _KNOWN and kind in _TYPES and length <= _MAX_VALUES:
            is_inside = length * int(_TYPES[kind][1]) <= width
            values_at = at + entry.size - width if is_inside else value
            tags[tag] = np.frombuffer(content, order + _TYPES[kind], length, values_at)
    (following,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, end)
    return tags, following
