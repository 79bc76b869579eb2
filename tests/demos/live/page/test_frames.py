"""JPEG in from visitors, with its limits, and JPEG out to viewers."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from demos.live.page.frames import encode_jpeg
from demos.live.page.visitor import MAX_PIXELS, decode_frame
from simplenet.errors import ImageError
from tests.demos.live.page.conftest import plain


def encoded(width: int = 64, height: int = 48, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(plain("green", width, height)).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def announcing(width: int, height: int) -> bytes:
    """A small JPEG whose header announces another size."""
    content = bytearray(encoded())
    at = content.index(b"\xff\xc0")
    struct.pack_into(">HH", content, at + 5, height, width)
    return bytes(content)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 100}, {"comment": b"hello"}, {"exif": b"Exif\0\0nonsense"}]
)
def test_decodes_jpeg(options: dict[str, object]) -> None:
    image = decode_frame(encoded(**options))
    assert image.shape == (48, 64, 3)
    np.testing.assert_allclose(image.reshape(-1, 3).mean(axis=0), (20, 220, 20), atol=3)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_cmyk_become_rgb(mode: str) -> None:
    assert decode_frame(encoded(mode=mode)).shape == (48, 64, 3)


def test_encode_then_decode() -> None:
    content = encode_jpeg(plain("blue", 640, 480))
    np.testing.assert_allclose(decode_frame(content), plain("blue", 640, 480), atol=6)


@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (3000, 4000), (5000, 1), (1, 5000)])
def test_encodes_at_most_1280_pixels_a_side(width: int, height: int) -> None:
    with Image.open(io.BytesIO(encode_jpeg(plain("red", width, height)))) as image:
        assert max(image.size) == 1280


def test_rejects_100_megapixel_header_before_decoding() -> None:
    content = announcing(10_000, 10_000)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="10000x10000 pixels are over 8 million"):
            decode_frame(content)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_rejects_thousands_of_scans() -> None:
    content = encoded(progressive=True)
    last = content.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="scans"):
        decode_frame(content[:-2] + content[last:-2] * 2000 + content[-2:])


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"GIF89a" + bytes(99), b"\x89PNG\r\n\x1a\n" + bytes(99), announcing(0, 0),
     announcing(64, 0), encoded()[:200], encoded(quality=100)[:-200], b"\xff\xd8" + b"\xff" * 1000,
     b"\xff\xd8\xff\xda\x00\x02", encoded().replace(b"\xff\xc0", b"\xff\xc3")],
)  # fmt: skip
def test_rejects_what_is_no_complete_jpeg(content: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode_frame(content)
    assert "\n" not in str(caught.value)


@settings(max_examples=150)
@given(st.data())
def test_damaged_jpeg_is_at_most_an_image_error(data: st.DataObject) -> None:
    content = bytearray(encoded(progressive=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_frame(bytes(content))
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert image.shape[0] * image.shape[1] <= MAX_PIXELS


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_random_bytes_are_an_image_error(content: bytes) -> None:
    with pytest.raises(ImageError):
        decode_frame(b"\xff\xd8" + content)
