"""Each augmentation against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train import augmentation
from train.augmentation import BatchRandom


def _pixels(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3)).astype(np.uint8))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _dice(count: int, seed: int = 0) -> BatchRandom:
    return BatchRandom(_generator(seed), count)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), translate=st.integers(0, 3))
def test_augmentation_moves_all_and_mirrors_those_that_it_should(seed: int, translate: int) -> None:
    pixels, mirrored = _pixels(6, 9, seed), torch.arange(6) % 3 == 0
    augmented = augmentation.augment(pixels, translate, mirrored, _dice(6, seed))
    shifts = range(2 * translate + 1)
    for before, after, is_mirrored in zip(pixels, augmented, mirrored, strict=True):
        padded = torch.nn.functional.pad(before, (0, 0, translate, translate, translate, translate))
        moved = [padded[top : top + 9, left : left + 9] for top in shifts for left in shifts]
        assert any(torch.equal(after, image.flip(1) if is_mirrored else image) for image in moved)


def test_augmentation_differs_between_images_and_repeats_with_its_seed() -> None:
    same = _pixels(1, 16).expand(64, 16, 16, 3)
    as_they_are = torch.zeros(64, dtype=torch.bool)
    augmented = augmentation.augment(same, 2, as_they_are, _dice(64, 1))
    assert len({image.numpy().tobytes() for image in augmented}) > 20
    assert torch.equal(augmented, augmentation.augment(same, 2, as_they_are, _dice(64, 1)))


def test_shrinking_keeps_what_is_even_and_smooths_what_is_not() -> None:
    even = torch.full((2, 3, 32, 32), 0.25)
    torch.testing.assert_close(augmentation.shrink(even, 24), torch.full((2, 3, 24, 24), 0.25))
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::2] = 1.0
    small = augmentation.shrink(stripes, 16)[..., 1:-1]
    torch.testing.assert_close(small, torch.full_like(small, 0.5))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), size=st.integers(0, 12))
def test_cutout_hides_one_rectangle_of_at_most_its_size(seed: int, size: int) -> None:
    images = augmentation.cutout(torch.ones(5, 3, 16, 16), size, _dice(5, seed))
    for image in images:
        hidden = image[0] == 0
        assert torch.equal(image, (~hidden).float().expand(3, 16, 16))
        rows, columns = hidden.any(1).sum(), hidden.any(0).sum()
        assert max(rows, columns) <= size
        assert hidden.sum() == rows * columns
        assert (hidden.sum() > 0) == (size > 0)


def test_all_processes_draw_for_all_and_take_their_part() -> None:
    whole = BatchRandom(_generator(7), 12).integers(0, 1000)
    parts = [BatchRandom(_generator(7), 12, slice(start, start + 4)).integers(0, 1000) for start in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.5, 0.0), (0.0, 1.0), (0.4, 1.0)])
@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_mixing_is_with_the_neighbor_and_in_the_shares_of_the_targets(seed: int, mixup: float, cutmix: float) -> None:
    """Black and white neighbors: the share of white is the share of its class, in each picture."""
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
