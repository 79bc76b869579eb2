"""Random crops: inside the picture, the same at every scale of decoding, and near to what full decoding gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from simplenet import images
from simplenet.errors import ImageError
from train.crops import CropChoice, read_crop


def _choice(seed: int, smallest: float = 0.1, flip: bool = True) -> CropChoice:
    return CropChoice.draw(np.random.default_rng(seed), smallest, flip)


@given(st.integers(0, 2**32), st.integers(1, 5000), st.integers(1, 5000), st.floats(0.01, 1))
def test_a_crop_is_inside_not_too_small_and_not_too_long(seed: int, width: int, height: int, smallest: float) -> None:
    left, top, right, bottom = _choice(seed, smallest).box(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    ratio = (right - left) / (bottom - top)
    assert 3 / 4 - 1e-6 <= ratio <= 4 / 3 + 1e-6
    fits = min(width, height) / max(width, height) >= 3 / 4
    if fits:
        assert (right - left) * (bottom - top) >= min(smallest, 0.74) * width * height * (1 - 1e-6)


def _photograph(path: Path, width: int, height: int) -> Path:
    rows, columns = np.mgrid[:height, :width]
    smooth = 127 + 60 * np.sin(columns / 40 + rows / 70)[..., None] + 60 * np.cos(rows / 50)[..., None] * (1, 0.5, -1)
    Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8)).save(path, quality=95)
    return path


@pytest.mark.parametrize("seed", range(6))
def test_reduced_decoding_shows_the_same_crop(tmp_path: Path, seed: int) -> None:
    path, choice = _photograph(tmp_path / "x.jpg", 1600, 1200), _choice(seed, 0.3, flip=seed % 2 == 0)
    whole = images.read_rgb(path)
    box = choice.box(1600, 1200)
    expected = np.asarray(Image.fromarray(whole).resize((64, 64), Image.Resampling.BICUBIC, box=box), np.int16)
    expected = expected[:, ::-1] if choice.mirrored else expected
    found = read_crop(path, choice, 64)
    assert found.shape == (64, 64, 3)
    assert np.abs(found.astype(np.int16) - expected).mean() < 2


def test_a_jpeg_is_decoded_no_larger_than_asked_and_never_smaller(tmp_path: Path) -> None:
    path = _photograph(tmp_path / "x.jpg", 1600, 1200)
    for most, shape in ((1, (1200, 1600, 3)), (1.9, (1200, 1600, 3)), (2, (600, 800, 3)), (5, (300, 400, 3))):
        assert images.read_rgb(path, lambda width, height, most=most: most).shape == shape
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    Image.new("RGB", (1600, 1200)).save(tmp_path / "turned.jpg", exif=on_its_side)
    seen: list[tuple[int, int]] = []
    assert images.read_rgb(tmp_path / "turned.jpg", lambda *size: seen.append(size) or 2.0).shape == (800, 600, 3)
    assert seen == [(1200, 1600)]  # as people see it, and as the crop is chosen
    png = tmp_path / "x.png"
    Image.new("RGB", (64, 48)).save(png)
    assert images.read_rgb(png, lambda width, height: 8.0).shape == (48, 64, 3)


def test_small_pictures_are_enlarged_and_broken_ones_refused(tmp_path: Path) -> None:
    Image.new("RGB", (7, 5), "red").save(tmp_path / "small.png")
    assert (read_crop(tmp_path / "small.png", _choice(0), 32) == (255, 0, 0)).all()
    (tmp_path / "broken.jpg").write_bytes(b"x")
    with pytest.raises(ImageError, match="broken"):
        read_crop(tmp_path / "broken.jpg", _choice(0), 32)
