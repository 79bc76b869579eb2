"""Text on RGB images: in any script with the font of OpenCV 5, in ASCII with the strokes of OpenCV 4."""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

from demos.live.sources.opencv import opencv
from simplenet.errors import printable
from simplenet.preprocessing import UInt8Array

Color = tuple[int, int, int]

CAPITAL_HEIGHT = 0.7  # of the text's size
_REGULAR, _BOLD, _HERSHEY_PIXELS = 400, 700, 30  # weights in OpenCV 5; text size in OpenCV 4 at scale 1
_ASCII = str.maketrans({"…": "...", "≠": "!="})
_printable = functools.lru_cache(4096)(lambda text: printable(text[:300]))  # labels come from files and the network


def write(image: UInt8Array, text: str, x: int, baseline: int, size: int, color: Color, *, bold: bool = False) -> None:
    """Write one line on RGB uint8 [H, W, 3], in place; clipped at the image's edges."""
    cv2, face, text = opencv(), _face(), _printable(text)
    if not text or not image.size:
        return
    if face is not None:
        cv2.putText(image, text, (x, baseline), color, face, size, _BOLD if bold else _REGULAR)
    else:
        cv2.putText(image, _ascii(text), (x, baseline), 0, size / _HERSHEY_PIXELS, color, 1 + bold, cv2.LINE_AA)


@functools.lru_cache(4096)
def width_of(text: str, size: int, bold: bool = False) -> int:
    """The width of the text in pixels."""
    cv2, face, text = opencv(), _face(), _printable(text)
    if face is not None:
        return int(cv2.getTextSize((1, 1), text, (0, 0), face, size, _BOLD if bold else _REGULAR)[2])
    return int(cv2.getTextSize(_ascii(text), 0, size / _HERSHEY_PIXELS, 1 + bold)[0][0])


@functools.lru_cache(4096)
def fitted(text: str, size: int, width: int, bold: bool = False) -> str:
    """The text, cut to `width` pixels with '…' at its end; '' if not even one letter fits."""
    text = _printable(text)
    if width_of(text, size, bold) <= width:
        return text
    while text and width_of(f"{text}…", size, bold) > width:
        text = text[:-1].rstrip()
    return f"{text}…" if text else ""


def _ascii(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.translate(_ASCII))
    base = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return base.encode("ascii", "replace").decode()


@functools.cache
def _face() -> Any | None:
    """OpenCV 5's variable font; None with OpenCV 4, or if OpenCV was built without its fonts."""
    cv2 = opencv()
    try:
        face = cv2.FontFace("sans")
        return face if face.getName() else None
    except (AttributeError, cv2.error):
        return None
