"""Frames of animated images: their pixels, with disposal, and how long each is shown."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from simplenet import images
from simplenet.errors import ImageError

COLORS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (120, 120, 120))
DURATIONS_MS = [50, 200, 1000, 30]


def save_animation(path: Path, durations_ms: list[int] = DURATIONS_MS, **options: object) -> Path:
    frames = [Image.new("RGB", (32, 24), color) for color in COLORS[: len(durations_ms)]]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations_ms, **lossless, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif"])
def test_frames_have_their_own_durations(tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    found = list(images.read_frames(save_animation(tmp_path / f"a{suffix}")))
    assert [duration_s for _, duration_s in found] == pytest.approx([0.05, 0.2, 1.0, 0.03])
    for (pixels, _), color in zip(found, COLORS, strict=True):
        assert pixels.shape == (24, 32, 3)
        assert np.abs(pixels.astype(int) - color).max() <= 6


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_frames_without_a_time_are_shown_as_in_a_browser(tmp_path: Path, suffix: str) -> None:
    path = save_animation(tmp_path / f"a{suffix}", [0, 10, 20])
    assert [duration_s for _, duration_s in images.read_frames(path)] == pytest.approx([0.1, 0.1, 0.02])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif", ".mpo"])
def test_still_image_is_one_frame(tmp_path: Path, suffix: str) -> None:
    still = Image.new("RGB", (32, 24), (9, 9, 9))
    pages = {"save_all": True, "append_images": [still]} if suffix in (".tif", ".mpo") else {}
    still.save(tmp_path / f"a{suffix}", **pages)
    ((pixels, duration_s),) = images.read_frames(tmp_path / f"a{suffix}")
    assert np.array_equal(pixels, images.read_rgb(tmp_path / f"a{suffix}"))
    assert duration_s is None


def test_disposal_of_a_gif(tmp_path: Path) -> None:
    """The second frame changes a part of the first. The third is drawn on it, on the background, or on the first."""
    background = Image.new("RGBA", (20, 20), (200, 0, 0, 255))
    green, blue = (Image.new("RGBA", (20, 20), (0, 0, 0, 0)) for _ in range(2))
    green.paste((0, 200, 0, 255), (0, 0, 10, 10))
    blue.paste((0, 0, 200, 255), (10, 10, 20, 20))
    for disposal, corners in ((1, ([0, 200, 0],)), (2, ([255, 255, 255], [0, 0, 0])), (3, ([200, 0, 0],))):
        path = tmp_path / f"{disposal}.gif"
        options = {"duration": 100, "disposal": [1, disposal, 1]}
        background.save(path, save_all=True, append_images=[green, blue], **options)
        first, second, third = (pixels for pixels, _ in images.read_frames(path))
        assert first[5, 5].tolist() == [200, 0, 0]
        assert second[5, 5].tolist() == [0, 200, 0]
        assert second[15, 5].tolist() == [200, 0, 0]
        assert third[15, 15].tolist() == [0, 0, 200]
        assert third[5, 5].tolist() in corners


def test_image_for_programs_without_apng_is_no_frame(tmp_path: Path) -> None:
    path = save_animation(tmp_path / "a.png", default_image=True)
    assert len(list(images.read_frames(path))) == len(DURATIONS_MS) - 1


def test_damage_is_an_error_after_the_first_frames(tmp_path: Path) -> None:
    path = save_animation(tmp_path / "a.webp")
    content = bytearray(path.read_bytes())
    last = content.rindex(b"VP8L")
    content[last + 9 : last + 14] = bytes(5)
    path.write_bytes(content)
    seen = []
    with pytest.raises(ImageError, match=r"a.webp: damaged") as caught:
        seen.extend(images.read_frames(path))
    assert "\n" not in str(caught.value)


def test_frame_beyond_the_limit_of_pixels_is_refused(tmp_path: Path) -> None:
    """A frame of a GIF may be larger than its screen."""
    path = save_animation(tmp_path / "a.gif")
    content = bytearray(path.read_bytes())
    second = content.index(b"\x2c", content.index(b"\x2c") + 9)
    content[second + 5 : second + 9] = struct.pack("<HH", 60_000, 60_000)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"over 100 million|damaged"):
        list(images.read_frames(path))


def test_header_that_promises_frames_without_end_is_read_lazily(tmp_path: Path) -> None:
    path = save_animation(tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    at = content.index(b"acTL")
    content[at + 4 : at + 8] = struct.pack(">I", 2**31 - 1)
    content[at + 12 : at + 16] = struct.pack(">I", zlib.crc32(content[at : at + 12]))
    path.write_bytes(content)
    frames = images.read_frames(path)
    assert next(frames)[0][0, 0].tolist() == list(COLORS[0])
