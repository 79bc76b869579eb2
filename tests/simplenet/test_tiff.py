"""TIFF by its tags: every layout gives the pixels of a reference array, or a refusal that has the reason."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from simplenet import images, tiff_pages
from simplenet.errors import ImageError
from tests.simplenet import tiff_files

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9


def to_8_bits(values: np.ndarray, highest: int) -> np.ndarray:
    return np.floor(values / highest * 255 + 0.5).astype(np.uint8)


def random_samples(height: int, width: int, count: int, highest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest + 1, (height, width, count))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_layouts_give_the_pixels_of_the_reference(data: st.DataObject) -> None:
    draw = data.draw
    bits, photometric = draw(st.integers(1, 16)), draw(st.sampled_from([WHITE_IS_ZERO, BLACK_IS_ZERO, RGB]))
    order, is_big, is_signed = draw(st.sampled_from("<>")), draw(st.booleans()), draw(st.booleans())
    compression = draw(st.sampled_from([1, 8]))
    options = {
        "order": order,
        "compression": compression,
        "predictor": draw(st.sampled_from([1, 2])) if compression == 8 and bits in (8, 16) else 1,
        "is_planar": draw(st.booleans()),
        "strip_height": draw(st.integers(1, 20)),
        "tile": draw(st.sampled_from([None, 16, 32])),
    }
    colors = 3 if photometric == RGB else 1
    unused = draw(st.integers(0, 2))
    highest = (1 << bits) - 1
    samples = random_samples(draw(st.integers(1, 40)), draw(st.integers(1, 40)), colors + unused, highest)
    expected = to_8_bits(samples[..., :colors], highest)
    if photometric == WHITE_IS_ZERO:
        expected = 255 - expected
    tags = {339: [2 if is_signed else 1]} | ({338: [0] * unused} if unused else {})
    stored = samples ^ (1 << bits - 1) if is_signed else samples
    content = tiff_files.file([tiff_files.page(stored, bits, photometric, tags=tags, **options)], order, is_big)
    height, width = samples.shape[:2]
    assert np.array_equal(images.decode_rgb(content), np.broadcast_to(expected, (height, width, 3)))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma", "raw"])
@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA", "CMYK", "1"])
def test_compressions(tmp_path: Path, compression: str, mode: str) -> None:
    pixels = random_samples(70, 50, 3, 255).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.tif", compression=compression)
    expected = pixels[..., :1].repeat(3, 2) if mode == "I;16" else np.asarray(image.convert("RGB"))
    assert np.array_equal(images.read_rgb(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize(
    ("highest", "stored"), [(1023, 1023), (4095, 4095), (16_383, 16_383), (4095, 3900), (65_535, 0)]
)
def test_highest_value_of_a_camera_is_white(highest: int, stored: int) -> None:
    """Cameras store 10, 12 or 14 bits in words of 16. A file may also state the highest value that occurs in it."""
    values = np.linspace(0, highest, 64).astype(int).reshape(8, 8, 1)
    page = tiff_files.page(values, 16, BLACK_IS_ZERO, tags={281: [stored]})
    found = images.decode_rgb(tiff_files.file([page]))
    assert np.array_equal(found[..., :1], to_8_bits(values, highest))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("scale", [1, 257])
def test_palette(bits: int, scale: int) -> None:
    colors = random_samples(1 << bits, 3, 1, 255)[..., 0]
    colors[0] = 255
    samples = random_samples(9, 7, 1, (1 << bits) - 1)
    page = tiff_files.page(samples, bits, PALETTE, tags={320: list((colors.T * scale).ravel())})
    assert np.array_equal(images.decode_rgb(tiff_files.file([page])), colors[samples[..., 0]])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("is_planar", [False, True])
def test_alpha_shows_white(bits: int, is_planar: bool) -> None:
    highest = (1 << bits) - 1
    samples = np.array([[[highest, 0, 0, highest], [0, highest, 0, 0], [highest, 0, 0, highest // 2 + 1]]])
    premultiplied = np.concatenate([samples[..., :3] * samples[..., 3:] // highest, samples[..., 3:]], axis=2)
    for kind, values in ((2, samples), (1, premultiplied)):
        page = tiff_files.page(values, bits, RGB, is_planar=is_planar, tags={338: [kind]})
        found = images.decode_rgb(tiff_files.file([page]))[0].astype(int)
        assert np.abs(found - [[255, 0, 0], [255, 255, 255], [255, 127, 127]]).max() <= 1
    gray = tiff_files.page(samples[..., 2:], bits, BLACK_IS_ZERO, tags={338: [2]})
    assert images.decode_rgb(tiff_files.file([gray]))[0, :2].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("scale", [1, 257], ids=["8 bits", "16 bits"])
def test_cmyk_ycbcr_and_lab(scale: int) -> None:
    scene = (
        np.array([[[200, 30, 30], [30, 160, 40], [40, 40, 200], [250, 250, 250]]], np.uint8).repeat(4, 0).repeat(4, 1)
    )
    image, bits = Image.fromarray(scene), 8 if scale == 1 else 16
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    lab = ImageCms.applyTransform(image, ImageCms.buildTransformFromOpenProfiles(*profiles, "RGB", "LAB"))
    icc_lab = np.frombuffer(lab.tobytes(), np.uint8).reshape(4, 16, 3) ^ np.array([0, 128, 128], np.uint8)
    for photometric, stored, tags in (
        (CMYK, np.asarray(image.convert("CMYK")), {}),
        (YCBCR, np.asarray(image.convert("YCbCr")), {530: [1, 1]}),
        (CIELAB, np.frombuffer(lab.tobytes(), np.uint8).reshape(4, 16, 3), {}),
        (ICCLAB, icc_lab, {}),
    ):
        page = tiff_files.page(stored.astype(int) * scale, bits, photometric, tags=tags)
        found = images.decode_rgb(tiff_files.file([page])).astype(int)
        assert np.abs(found - scene).max() <= 4, photometric


def test_subsampled_ycbcr() -> None:
    """Each unit has four Y, one Cb and one Cr for 2x2 pixels."""
    scene = Image.new("RGB", (32, 16), (200, 60, 90))
    y, cb, cr = np.asarray(scene.convert("YCbCr"))[0, 0]
    units = bytes([y, y, y, y, cb, cr]) * (16 * 8)
    tags, _ = tiff_files.page(np.zeros((16, 32, 3), int), 8, YCBCR, tags={530: [2, 2]})
    found = images.decode_rgb(tiff_files.file([(tags, [units])])).astype(int)
    assert np.abs(found - np.asarray(scene)).max() <= 3


@pytest.mark.parametrize("quality", [None, 90])
def test_jpeg_inside_a_tiff(tmp_path: Path, quality: int | None) -> None:
    smooth = np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    options = {} if quality is None else {"quality": quality}
    Image.fromarray(smooth).save(tmp_path / "a.tif", compression="jpeg", **options)
    assert np.abs(images.read_rgb(tmp_path / "a.tif").astype(int) - smooth).mean() < 4


def test_fax_white_is_zero(tmp_path: Path) -> None:
    pixels = random_samples(32, 64, 1, 1)[..., 0] > 0
    for compression in ("group3", "group4", "tiff_ccitt"):
        Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
        assert np.array_equal(images.read_rgb(tmp_path / "a.tif")[..., 0] > 0, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_orientation(orientation: int, bits: int) -> None:
    page = tiff_files.page(random_samples(5, 9, 3, (1 << bits) - 1), bits, RGB, tags={274: [orientation]})
    plain = tiff_files.page(random_samples(5, 9, 3, (1 << bits) - 1), bits, RGB)
    upright = images.decode_rgb(tiff_files.file([plain]))
    turned = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
              6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90}  # fmt: skip
    assert np.array_equal(images.decode_rgb(tiff_files.file([page])), turned[orientation](upright))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
def test_reads_the_largest_page(order: str, is_big: bool) -> None:
    def one(value: int, side: int, **tags: list[int]) -> tuple:
        numbers = {int(tag[1:]): values for tag, values in tags.items()}
        return tiff_files.page(np.full((side, side, 1), value), 8, BLACK_IS_ZERO, order=order, tags=numbers)

    def first_pixel(*pages: tuple) -> int:
        return int(images.decode_rgb(tiff_files.file(pages, order, is_big))[0, 0, 0])

    assert first_pixel(one(10, 4, t254=[1]), one(20, 40)) == 20  # a thumbnail first
    assert first_pixel(one(10, 40), one(20, 20), one(30, 10)) == 10  # a pyramid
    assert first_pixel(one(10, 8), one(20, 8)) == 10  # a document
    assert first_pixel(one(10, 8), one(20, 80, t254=[4])) == 10  # a transparency mask


def test_reads_a_page_below_a_page() -> None:
    """Some cameras put the photograph below its thumbnail (SubIFDs)."""
    small, large = (tiff_files.page(np.full((side, side, 1), side), 8, BLACK_IS_ZERO) for side in (4, 40))
    content = bytearray(tiff_files.file([large, small]))
    (large_at,) = np.frombuffer(content, "<u4", 1, 4)
    content = bytearray(tiff_files.file([large, ({**small[0], 330: [int(large_at)]}, small[1])]))
    after_large = int(large_at) + 2 + 12 * content[large_at]
    content[4:8] = content[after_large : after_large + 4]  # begin with the small page
    content[after_large : after_large + 4] = bytes(4)
    assert images.decode_rgb(bytes(content)).tolist() == np.full((40, 40, 3), 40).tolist()


def test_pages_that_name_each_other_without_end() -> None:
    page = tiff_files.page(np.full((4, 4, 1), 90), 8, BLACK_IS_ZERO)
    tags = {**page[0], 330: [8] * 1000}
    content = bytearray(tiff_files.file([(tags, page[1])] * 900))
    content[-4:] = content[4:8]  # the last page is followed by the first
    assert images.decode_rgb(bytes(content))[0, 0, 0] == 90


@pytest.mark.parametrize(
    ("bits", "photometric", "tags", "reason"),
    [
        (32, BLACK_IS_ZERO, {339: [3]}, "its pixels are floats of unknown range; convert it to 8 or 16 bits"),
        (16, BLACK_IS_ZERO, {339: [3]}, "its pixels are floats of unknown range"),
        (64, RGB, {339: [3, 3, 3]}, "its pixels are floats of unknown range"),
        (32, BLACK_IS_ZERO, {}, "its pixels are 32-bit numbers of unknown range"),
        (32, BLACK_IS_ZERO, {339: [2]}, "its pixels are 32-bit numbers of unknown range"),
        (64, BLACK_IS_ZERO, {339: [6]}, "its pixels are complex numbers of unknown range"),
        (8, RGB, {258: [5, 6, 5]}, "a TIFF with samples of [5, 6] bits"),
        (8, CMYK, {}, "a TIFF with 1 samples per pixel"),
        (16, PALETTE, {}, "a TIFF with PhotometricInterpretation 3 and 16 bits"),
        (8, 32_844, {}, "a TIFF with PhotometricInterpretation 32844"),
        (16, 32_803, {}, "the unprocessed data of a camera's sensor; export it as JPEG"),
        (8, RGB, {259: [34_712]}, "a TIFF with the compression JPEG 2000, which cannot be read; save it with LZW"),
        (8, RGB, {259: [34_887]}, "a TIFF with the compression LERC"),
        (8, RGB, {259: [50_001]}, "a TIFF with the compression WebP"),
        (8, RGB, {259: [12_345]}, "a TIFF with the compression 12345"),
        (12, RGB, {259: [8], 317: [2]}, "a TIFF with the predictor 2 and 12 bits"),
        (8, PALETTE, {320: [1, 2, 3]}, "incomplete palette"),
        (8, RGB, {278: [0]}, "empty tiles"),
        (8, RGB, {256: [20_000], 257: [20_000]}, "20000x20000 pixels are over 100 million"),
        (16, RGB, {256: [9000], 257: [9000]}, "over 320 MiB without compression"),
        (8, RGB, {256: [0]}, "without a page"),
    ],
)
def test_names_what_cannot_be_shown(bits: int, photometric: int, tags: dict[int, list[int]], reason: str) -> None:
    samples = np.zeros((4, 6, 3 if photometric == RGB else 1), int)
    page = tiff_files.page(samples, bits, photometric, tags=tags)
    with pytest.raises(ImageError, match=re.escape(reason)) as caught:
        images.decode_rgb(tiff_files.file([page]))
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_an_image_error(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([8, 12, 16]))
    tile, compression = data.draw(st.sampled_from([None, 16])), data.draw(st.sampled_from([1, 8]))
    page = tiff_files.page(random_samples(20, 20, 3, (1 << bits) - 1), bits, RGB, tile=tile, compression=compression)
    content = bytearray(tiff_files.file([page, page]))
    tags_at = int(np.frombuffer(content, "<u4", 1, 4)[0])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(tags_at, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageError):
        assert images.decode_rgb(bytes(content[: data.draw(st.integers(8, len(content)))])).dtype == np.uint8


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("strip_height", [16, 64])
def test_truncated_file_is_refused(compression: str, strip_height: int) -> None:
    buffer = io.BytesIO()
    pixels = Image.fromarray(random_samples(50, 50, 3, 255).astype(np.uint8))
    pixels.save(buffer, "TIFF", compression=compression, tiffinfo={278: strip_height})
    content = buffer.getvalue()
    pixels_at = int(tiff_pages.largest_page(content).values(tiff_pages.Tag.STRIP_OFFSETS)[-1])
    for part in (9, len(content) // 2, pixels_at + 50):
        with pytest.raises(ImageError, match=r"damaged|incomplete"):
            images.decode_rgb(content[:part])
