"""JPEG in and out. What comes in is hostile: its size is read from its header before anything is decoded."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from demos.live.sources.opencv import opencv
from simplenet.errors import ImageError

UInt8Array = npt.NDArray[np.uint8]

_START, _SCAN = b"\xff\xd8", b"\xff\xda"
_FRAME_HEADERS = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; nobody sends the others
_OTHER_FRAME_HEADERS = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_MOST_SCANS = 16
_QUALITY = 80


def decode(content: bytes, most_pixels: int) -> UInt8Array:
    """A JPEG as RGB uint8 [H, W, 3].

    Raises:
        ImageError: not a JPEG, truncated, damaged, or of more than `most_pixels`.
    """
    from PIL import Image

    plain, width, height = _without_metadata(content)
    if width * height > most_pixels:
        raise ImageError(f"{width}x{height} pixels are over {most_pixels / 1e6:g} million; make it smaller")
    if plain.count(_SCAN) > _MOST_SCANS:  # a progressive file of thousands of scans takes minutes to decode
        raise ImageError(f"a JPEG of more than {_MOST_SCANS} scans; save it as a plain one")
    try:
        with Image.open(io.BytesIO(plain), formats=("JPEG",)) as image:
            return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow's parsers let every kind out
        raise ImageError("a damaged or truncated JPEG; send it again") from error


def size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels that a JPEG's header announces. Raises ImageError where there is none."""
    return _without_metadata(content)[1:]


def encode(image: UInt8Array, longest_side: int) -> tuple[bytes, int, int]:
    """RGB uint8 [H, W, 3] as a JPEG, made smaller where it is longer than that; also its width and height."""
    cv2 = opencv()
    height, width = image.shape[:2]
    scale = longest_side / max(height, width)
    if scale < 1:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise ImageError(f"a picture of {width}x{height} cannot be encoded as JPEG")
    return content.tobytes(), width, height


def _without_metadata(content: bytes) -> tuple[bytes, int, int]:
    """The picture without EXIF, thumbnails, profiles and comments: unneeded, and parsers trip over them."""
    if not content.startswith(_START):
        raise ImageError("not a JPEG; send pictures as JPEG")
    kept, position, width, height = [_START], 2, 0, 0
    while True:
        while content[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
        marker, length = content[position : position + 2], int.from_bytes(content[position + 2 : position + 4], "big")
        segment = content[position : position + 2 + length]
        if len(marker) < 2 or marker[0] != 0xFF or length < 2 or len(segment) < 2 + length:
            raise ImageError("a damaged or truncated JPEG; send it again")
        code = marker[1]
        if code in _OTHER_FRAME_HEADERS:
            raise ImageError("a JPEG of a rare kind; save it as a plain one")
        if code in _FRAME_HEADERS:
            if len(segment) < 10 or width:
                raise ImageError("a damaged or truncated JPEG; send it again")
            height, width = int.from_bytes(segment[5:7], "big"), int.from_bytes(segment[7:9], "big")
        if marker == _SCAN:
            break
        is_metadata = code == 0xFE or (0xE1 <= code <= 0xEF and code != 0xEE)  # 0xEE tells how the colors are meant
        if not is_metadata:
            kept.append(segment)
        position += 2 + length
    if not width or not height:
        raise ImageError("a JPEG that does not say its size; save it again")
    return b"".join([*kept, content[position:]]), width, height
