"""Preprocessing: geometry, the fast path against the reference, and Pillow as the fallback."""

from __future__ import annotations

import concurrent.futures
import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from simplenet import fast_resize
from simplenet.errors import ImageError, UsageError
from simplenet.preprocessing import (
    CIFAR10_PREPROCESSING,
    CIFAR100_PREPROCESSING,
    IMAGENET_PREPROCESSING,
    CropGeometry,
    Preprocessing,
    UInt8Array,
    crop_geometry,
    normalize,
    to_model_input,
)
from tests.reference_preprocessing import reference

ROOT = Path(__file__).parents[2]
GRAY28 = Preprocessing(28, 28, mean=(0.286,) * 3, std=(0.353,) * 3, padding=2)
CONFIGURATIONS = [IMAGENET_PREPROCESSING, CIFAR10_PREPROCESSING, GRAY28, Preprocessing(100, 37, (0, 0, 0), (1, 1, 1))]

MAX_MEAN_DIFFERENCE = 0.3  # gray levels, on images without single-pixel noise
MAX_DIFFERENCE = 8


def scene(width: int, height: int, seed: int = 0) -> UInt8Array:
    """Colored patches with soft edges, as in photographs."""
    noise = np.random.default_rng(seed).integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


@settings(max_examples=80)
@given(width=st.integers(1, 700), height=st.integers(1, 700), configuration=st.sampled_from(CONFIGURATIONS))
@example(width=21, height=15, configuration=GRAY28)  # crashes cykooz-resizer
@example(width=640, height=480, configuration=IMAGENET_PREPROCESSING)
@example(width=256, height=700, configuration=IMAGENET_PREPROCESSING)
@example(width=257, height=257, configuration=IMAGENET_PREPROCESSING)
def test_fast_path_is_within_tolerance_of_the_reference(width: int, height: int, configuration: Preprocessing) -> None:
    image = scene(width, height)
    if max(width, height) > 200 * min(width, height):
        return
    before = image.copy()
    fast, slow = to_model_input(image, configuration), reference(image, configuration)
    assert fast.shape == slow.shape == (configuration.input_size, configuration.input_size, 3)
    assert fast.dtype == slow.dtype == np.uint8
    difference = np.abs(fast.astype(int) - slow.astype(int))
    assert difference.mean() <= MAX_MEAN_DIFFERENCE
    assert difference.max() <= MAX_DIFFERENCE
    assert np.array_equal(image, before)


@settings(max_examples=200)
@given(width=st.integers(1, 5000), height=st.integers(1, 5000), configuration=st.sampled_from(CONFIGURATIONS))
def test_crop_box_is_inside_the_image_and_matches_the_crop(
    width: int, height: int, configuration: Preprocessing
) -> None:
    geometry = crop_geometry(width, height, configuration)
    left, top, right, bottom = geometry.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert min(geometry.resized_width, geometry.resized_height) == configuration.resize_shorter_side
    assert left / width * geometry.resized_width == pytest.approx(geometry.left)
    assert bottom / height * geometry.resized_height == pytest.approx(geometry.top + configuration.crop_size)
    assert abs(geometry.left - (geometry.resized_width - configuration.crop_size) / 2) <= 0.5


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), CropGeometry(341, 256, 58, 16, (58 * 640 / 341, 30.0, 282 * 640 / 341, 450.0))),
        ((480, 640), CropGeometry(256, 341, 16, 58, (30.0, 58 * 640 / 341, 450.0, 282 * 640 / 341))),
        ((224, 224), CropGeometry(256, 256, 16, 16, (14.0, 14.0, 210.0, 210.0))),
        ((500, 375), CropGeometry(341, 256, 58, 16, (58 * 500 / 341, 23.4375, 282 * 500 / 341, 351.5625))),
    ],
)
def test_geometry_is_rounded_as_in_torchvision(size: tuple[int, int], expected: CropGeometry) -> None:
    found = crop_geometry(*size, IMAGENET_PREPROCESSING)
    assert (found.resized_width, found.resized_height) == (expected.resized_width, expected.resized_height)
    assert (found.left, found.top) == (expected.left, expected.top)
    assert found.box == pytest.approx(expected.box)


@pytest.mark.skipif(not fast_resize.available(), reason="cykooz-resizer has no wheel for this machine")
def test_tolerance_detects_a_shift_of_half_a_pixel() -> None:
    """The tolerance is small enough to detect wrong geometry."""
    image = scene(640, 480)
    left, top, right, bottom = crop_geometry(640, 480, IMAGENET_PREPROCESSING).box
    right_place = fast_resize.resize(image, (left, top, right, bottom), 224)
    shifted = fast_resize.resize(image, (left + 0.5, top, right + 0.5, bottom), 224)
    slow = reference(image, IMAGENET_PREPROCESSING).astype(int)
    assert np.abs(right_place - slow).mean() < MAX_MEAN_DIFFERENCE
    assert np.abs(shifted - slow).mean() > 2 * MAX_MEAN_DIFFERENCE


@pytest.mark.skipif(not fast_resize.available(), reason="cykooz-resizer has no wheel for this machine")
def test_each_thread_keeps_its_resizer(monkeypatch: pytest.MonkeyPatch) -> None:
    import cykooz_resizer

    made: list[int] = []
    real = cykooz_resizer.Resizer

    def make() -> object:
        made.append(threading.get_ident())
        return real()

    monkeypatch.setattr(cykooz_resizer, "Resizer", make)
    images = [scene(*size) for size in ((640, 480), (300, 500), (640, 480))]
    expected = [to_model_input(image, IMAGENET_PREPROCESSING) for image in images]
    made.clear()
    for _ in range(2):  # larger and smaller images in turn, in two new threads
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            found = [pool.submit(to_model_input, image, IMAGENET_PREPROCESSING).result() for image in images]
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    assert len(made) == 2


@pytest.mark.parametrize(
    ("configuration", "size"), [(CIFAR10_PREPROCESSING, 32), (IMAGENET_PREPROCESSING, 256), (GRAY28, 28)]
)
def test_pixels_are_unchanged_without_a_resize(configuration: Preprocessing, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    edge, padding = (size - configuration.crop_size) // 2, configuration.padding
    result = to_model_input(image, configuration)
    inner = result[padding : padding + configuration.crop_size, padding : padding + configuration.crop_size]
    assert np.array_equal(inner, image[edge : size - edge, edge : size - edge])
    assert result.sum() == inner.sum(dtype=int)  # the padding is black


@pytest.mark.parametrize("size", [(32, 32), (640, 480), (20, 30)])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_result_shares_no_memory(size: tuple[int, int], configuration: Preprocessing) -> None:
    image = scene(*size)
    result = to_model_input(image, configuration)
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not np.shares_memory(result, image)
    kept = result.copy()
    to_model_input(255 - image, configuration)
    assert np.array_equal(result, kept)


def test_views_give_the_same_result_as_copies() -> None:
    image = scene(640, 480)
    views = [image[:, ::-1], image[..., ::-1], image[::2, ::3], image[7:300, 5:411], image.transpose(1, 0, 2)]
    fortran = np.asfortranarray(image)
    fortran.setflags(write=False)
    for view in [*views, fortran]:
        expected = to_model_input(np.ascontiguousarray(view), IMAGENET_PREPROCESSING)
        assert np.array_equal(to_model_input(view, IMAGENET_PREPROCESSING), expected)


def test_threads_do_not_mix_images() -> None:
    scenes = [scene(300 + 10 * (index % 4), 260, index) for index in range(24)]
    expected = [to_model_input(image, IMAGENET_PREPROCESSING) for image in scenes]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: to_model_input(image, IMAGENET_PREPROCESSING), scenes * 4))
    assert all(np.array_equal(*pair) for pair in zip(found, expected * 4, strict=True))


@pytest.mark.parametrize(
    "image",
    [
        None,
        [[[0, 0, 0]]],
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 201, 3), np.uint8),
        np.zeros((1, 65_536, 3), np.uint8),
    ],
)
def test_rejects_what_is_no_image(image: object) -> None:
    with pytest.raises(ImageError, match="image"):
        to_model_input(image, IMAGENET_PREPROCESSING)  # type: ignore[arg-type]


def test_normalize() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    found = normalize(batch, CIFAR100_PREPROCESSING)
    assert found.dtype == np.float32
    assert (found.shape, found.flags.c_contiguous) == ((2, 3, 8, 8), True)
    for channel in range(3):
        mean, std = CIFAR100_PREPROCESSING.mean[channel], CIFAR100_PREPROCESSING.std[channel]
        assert found[:, channel] == pytest.approx((batch[..., channel] / 255 - mean) / std, abs=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {"crop_size": 0},
        {"crop_size": 257},
        {"resize_shorter_side": 5000},
        {"crop_size": 224.0},
        {"crop_size": True},
        {"padding": -1},
        {"mean": (0.5, 0.5)},
        {"std": (0.5, 0.5, 0.0)},
        {"std": (0.5, 0.5, math.inf)},
        {"mean": (0.5, 0.5, math.nan)},
        {"mean": (0.5, 0.5, 10**400)},
        {"mean": ("a", "b", "c")},
    ],
)
def test_impossible_values_are_a_usage_error(values: dict[str, object]) -> None:
    good = {"resize_shorter_side": 256, "crop_size": 224, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(UsageError, match="impossible"):
        Preprocessing(**{**good, **values}).check()  # type: ignore[arg-type]


WITHOUT = """
import sys
sys.modules['cykooz_resizer'] = None
import numpy as np
from simplenet import preprocessing as p
from simplenet.fast_resize import available
from tests.reference_preprocessing import reference
image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
found = p.to_model_input(image, p.IMAGENET_PREPROCESSING)
narrow = p.to_model_input(image[:16, :21], p.Preprocessing(28, 28, (0, 0, 0), (1, 1, 1)))
difference = np.abs(found.astype(int) - reference(image, p.IMAGENET_PREPROCESSING)).mean()
assert found.flags.writeable and narrow.shape == (28, 28, 3) and difference < 1, difference
print(available())
"""


def test_pillow_is_used_without_cykooz_resizer() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
