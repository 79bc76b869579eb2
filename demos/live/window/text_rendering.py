"""Text on pictures, in any script: by OpenCV 5's own font where it is there, else by Pillow.

OpenCV 4 can only write ASCII; Pillow, which preprocessing needs anyway, stands in for it with a font of the system
(DejaVu Sans on Linux) or, where there is none, its built-in Latin one.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from demos.live.sources.opencv import opencv

UInt8Array = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

CAPITAL = 0.7
"""The height of a capital letter as a share of the text's size."""
_REGULAR, _BOLD = 400, 700
_LONGEST = 300
_PILLOW_FONTS = {
    _REGULAR: ("DejaVuSans.ttf", "Arial.ttf", "LiberationSans-Regular.ttf"),
    _BOLD: ("DejaVuSans-Bold.ttf", "Arial Bold.ttf", "LiberationSans-Bold.ttf"),
}


def write(image: UInt8Array, text: str, x: int, baseline: int, size: int, color: Color, *, bold: bool = False) -> None:
    """Writes one line on RGB uint8 [H, W, 3], in place; what does not fit the picture is cut off at its edges."""
    text, weight = printable(text), _BOLD if bold else _REGULAR
    if not text or not image.size:
        return
    face = _face()
    if face is not None:
        opencv().putText(image, text, (x, baseline), color, face, size, weight)
        return
    left, top, alpha = _pillow_mask(text, size, weight)
    _blend(image, alpha, x + left, baseline + top, color)


@functools.lru_cache(4096)
def width_of(text: str, size: int, bold: bool = False) -> int:
    """Pixels from where the text starts to where it ends."""
    text, weight = printable(text), _BOLD if bold else _REGULAR
    face = _face()
    if face is not None:
        return int(opencv().getTextSize((1, 1), text, (0, 0), face, size, weight)[2])
    return int(_pillow_font(size, weight).getlength(text))


@functools.lru_cache(4096)
def fitted(text: str, size: int, width: int, bold: bool = False) -> str:
    """The text, or what fits of it into `width` pixels, with '…' for the rest; '' where nothing fits."""
    text = printable(text)
    if width_of(text, size, bold) <= width:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if width_of(text[:middle].rstrip() + "…", size, bold) <= width:
            fits = middle
        else:
            too_long = middle
    return text[:fits].rstrip() + "…" if fits else ""


@functools.lru_cache(256)
def wrapped(text: str, size: int, width: int, lines: int) -> tuple[str, ...]:
    """The text broken between words into at most `lines` lines of `width` pixels; what is left ends in '…'."""
    rows: list[str] = []
    words = printable(text).split(" ")
    while words and len(rows) < lines - 1:
        count = 1
        while count < len(words) and width_of(" ".join(words[: count + 1]), size) <= width:
            count += 1
        rows.append(fitted(" ".join(words[:count]), size, width))
        words = words[count:]
    return (*rows, fitted(" ".join(words), size, width)) if words else tuple(rows)


@functools.lru_cache(4096)
def printable(text: str) -> str:
    """Labels and addresses come from outside: no line breaks, no control characters, no surrogates, no endless text."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:_LONGEST])


@functools.cache
def _face() -> Any | None:
    """OpenCV 5's variable font, or None where it is another OpenCV or was built without its fonts."""
    cv2 = opencv()
    try:
        face = cv2.FontFace("sans")
        return face if face.getName() else None
    except (AttributeError, cv2.error):
        return None


@functools.cache
def _pillow_font(size: int, weight: int) -> Any:
    from PIL import ImageFont

    for name in _PILLOW_FONTS[weight]:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


@functools.lru_cache(512)
def _pillow_mask(text: str, size: int, weight: int) -> tuple[int, int, npt.NDArray[np.uint16]]:
    """Where the letters lie from the start of the baseline (left, top), and how much of each pixel they cover."""
    font = _pillow_font(size, weight)
    mask, (left, top) = font.getmask2(text, mode="L", anchor="ls")
    width, height = mask.size
    return left, top, np.array(mask, np.uint16).reshape(height, width, 1)


def _blend(image: UInt8Array, alpha: npt.NDArray[np.uint16], left: int, top: int, color: Color) -> None:
    height, width = image.shape[:2]
    rows = slice(max(0, top), min(height, top + alpha.shape[0]))
    columns = slice(max(0, left), min(width, left + alpha.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    share = alpha[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    under = image[rows, columns]
    under[:] = (under * (255 - share) + np.array(color, np.uint16) * share) // 255
