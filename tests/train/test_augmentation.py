"""Each augmentation against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simplenet import images
from simplenet.errors import ImageError
from train import augmentation
from train.augmentation import BatchRandom, RandomCrop


def _pixels(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3)).astype(np.uint8))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random(count: int, seed: int = 0) -> BatchRandom:
    return BatchRandom(_generator(seed), count)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), translate=st.integers(0, 3))
def test_shifts_all_images_and_mirrors_the_chosen(seed: int, translate: int) -> None:
    pixels, mirrored = _pixels(6, 9, seed), torch.arange(6) % 3 == 0
    augmented = augmentation.shift_and_mirror(pixels, translate, mirrored, _random(6, seed))
    shifts = range(2 * translate + 1)
    for before, after, is_mirrored in zip(pixels, augmented, mirrored, strict=True):
        padded = torch.nn.functional.pad(before, (0, 0, translate, translate, translate, translate))
        moved = [padded[top : top + 9, left : left + 9] for top in shifts for left in shifts]
        assert any(torch.equal(after, image.flip(1) if is_mirrored else image) for image in moved)


def test_shift_differs_between_images_and_repeats_with_seed() -> None:
    same = _pixels(1, 16).expand(64, 16, 16, 3)
    not_mirrored = torch.zeros(64, dtype=torch.bool)
    augmented = augmentation.shift_and_mirror(same, 2, not_mirrored, _random(64, 1))
    assert len({image.numpy().tobytes() for image in augmented}) > 20
    assert torch.equal(augmented, augmentation.shift_and_mirror(same, 2, not_mirrored, _random(64, 1)))


def test_shrinking_is_antialiased() -> None:
    even = torch.full((2, 3, 32, 32), 0.25)
    torch.testing.assert_close(augmentation.shrink(even, 24), torch.full((2, 3, 24, 24), 0.25))
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::2] = 1.0
    small = augmentation.shrink(stripes, 16)[..., 1:-1]
    torch.testing.assert_close(small, torch.full_like(small, 0.5))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), size=st.integers(0, 12))
def test_cutout_masks_one_rectangle(seed: int, size: int) -> None:
    images = augmentation.cutout(torch.ones(5, 3, 16, 16), size, _random(5, seed))
    for image in images:
        hidden = image[0] == 0
        assert torch.equal(image, (~hidden).float().expand(3, 16, 16))
        rows, columns = hidden.any(1).sum(), hidden.any(0).sum()
        assert max(rows, columns) <= size
        assert hidden.sum() == rows * columns
        assert (hidden.sum() > 0) == (size > 0)


def test_processes_draw_the_same_numbers() -> None:
    whole = BatchRandom(_generator(7), 12).integers(0, 1000)
    parts = [BatchRandom(_generator(7), 12, slice(start, start + 4)).integers(0, 1000) for start in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.5, 0.0), (0.0, 1.0), (0.4, 1.0)])
@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_mixing_matches_the_soft_labels(seed: int, mixup: float, cutmix: float) -> None:
    """Black and white neighbors: the share of white is the share of its class, in each image."""
    images = torch.zeros(6, 3, 8, 12)
    images[1::2] = 1
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    mixed, targets = augmentation.mix(images.clone(), labels, 5, mixup, cutmix, _generator(seed))
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    for index in range(6):
        white = labels[index | 1]
        torch.testing.assert_close(mixed[index].mean(), targets[index, white], atol=1e-5, rtol=0)
        assert set(targets[index].nonzero().flatten().tolist()) <= {int(labels[index]), int(labels[index ^ 1])}
    values = set(mixed.unique().tolist())
    if mixup == 0:
        assert values <= {0.0, 1.0}
    halves = [
        augmentation.mix(images[part].clone(), labels[part], 5, mixup, cutmix, _generator(seed))
        for part in (slice(0, 2), slice(2, 6))
    ]
    assert torch.equal(torch.cat([half[0] for half in halves]), mixed)
    assert torch.equal(torch.cat([half[1] for half in halves]), targets)


def _crop(seed: int, smallest: float = 0.1, flip: bool = True) -> RandomCrop:
    return RandomCrop.draw(np.random.default_rng(seed), smallest, flip)


@given(st.integers(0, 2**32), st.integers(1, 5000), st.integers(1, 5000), st.floats(0.01, 1))
def test_crop_has_a_valid_area_and_aspect_ratio(seed: int, width: int, height: int, smallest: float) -> None:
    left, top, right, bottom = _crop(seed, smallest).box(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    ratio = (right - left) / (bottom - top)
    assert 3 / 4 - 1e-6 <= ratio <= 4 / 3 + 1e-6
    fits = min(width, height) / max(width, height) >= 3 / 4
    if fits:
        assert (right - left) * (bottom - top) >= min(smallest, 0.74) * width * height * (1 - 1e-6)


def _smooth_jpeg(path: Path, width: int, height: int) -> Path:
    rows, columns = np.mgrid[:height, :width]
    smooth = 127 + 60 * np.sin(columns / 40 + rows / 70)[..., None] + 60 * np.cos(rows / 50)[..., None] * (1, 0.5, -1)
    Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8)).save(path, quality=95)
    return path


@pytest.mark.parametrize("seed", range(6))
def test_reduced_decoding_shows_the_same_crop(tmp_path: Path, seed: int) -> None:
    path, crop = _smooth_jpeg(tmp_path / "x.jpg", 1600, 1200), _crop(seed, 0.3, flip=seed % 2 == 0)
    whole = images.read_rgb(path)
    box = crop.box(1600, 1200)
    expected = np.asarray(Image.fromarray(whole).resize((64, 64), Image.Resampling.BICUBIC, box=box), np.int16)
    expected = expected[:, ::-1] if crop.mirrored else expected
    found = augmentation.read_crop(path, crop, 64)
    assert found.shape == (64, 64, 3)
    assert np.abs(found.astype(np.int16) - expected).mean() < 2


def test_jpeg_decoding_is_reduced_by_powers_of_two(tmp_path: Path) -> None:
    path = _smooth_jpeg(tmp_path / "x.jpg", 1600, 1200)
    for most, shape in ((1, (1200, 1600, 3)), (1.9, (1200, 1600, 3)), (2, (600, 800, 3)), (5, (300, 400, 3))):
        assert images.read_rgb(path, lambda width, height, most=most: most).shape == shape
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.new("RGB", (1600, 1200)).save(tmp_path / "turned.jpg", exif=rotated)
    seen: list[tuple[int, int]] = []
    assert images.read_rgb(tmp_path / "turned.jpg", lambda *size: seen.append(size) or 2.0).shape == (800, 600, 3)
    assert seen == [(1200, 1600)]  # after the EXIF rotation
    png = tmp_path / "x.png"
    Image.new("RGB", (64, 48)).save(png)
    assert images.read_rgb(png, lambda width, height: 8.0).shape == (48, 64, 3)


def test_enlarges_small_images_and_refuses_broken_ones(tmp_path: Path) -> None:
    Image.new("RGB", (7, 5), "red").save(tmp_path / "small.png")
    assert (augmentation.read_crop(tmp_path / "small.png", _crop(0), 32) == (255, 0, 0)).all()
    (tmp_path / "broken.jpg").write_bytes(b"x")
    with pytest.raises(ImageError, match="broken"):
        augmentation.read_crop(tmp_path / "broken.jpg", _crop(0), 32)
