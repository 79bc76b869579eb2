"""Images in every format that Pillow can write, and damaged images."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from simplenet import images
from simplenet.errors import ImageError
from simplenet.preprocessing import UInt8Array

RED, WHITE = [255, 0, 0], [255, 255, 255]


def rgb(height: int = 20, width: int = 30, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, pixels: UInt8Array | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_formats_are_exact(tmp_path: Path, suffix: str) -> None:
    found = images.read_rgb(save(tmp_path / f"a{suffix}", rgb()))
    assert found.dtype == np.uint8
    assert np.array_equal(found, rgb())
    assert found.flags.writeable


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_are_close(tmp_path: Path, suffix: str) -> None:
    smooth = np.linspace(0, 255, 30, dtype=np.uint8)[None, :, None].repeat(20, 0).repeat(3, 2)
    found = images.read_rgb(str(save(tmp_path / f"a{suffix}", smooth, quality=95)))
    assert np.abs(found.astype(int) - smooth).mean() < 3


def test_reads_the_format_from_the_content(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", rgb()).rename(tmp_path / "a.jpg")
    assert np.array_equal(images.read_rgb(path), rgb())


def test_greyscale_bilevel_and_palette(tmp_path: Path) -> None:
    gray = rgb()[..., 0]
    assert np.array_equal(images.read_rgb(save(tmp_path / "gray.png", gray)), gray[..., None].repeat(3, 2))
    bilevel = Image.fromarray(gray > 127)
    expected = ((gray > 127) * 255).astype(np.uint8)[..., None].repeat(3, 2)
    assert np.array_equal(images.read_rgb(save(tmp_path / "bilevel.png", bilevel)), expected)
    palette = Image.fromarray(rgb()).quantize(16)
    assert np.array_equal(images.read_rgb(save(tmp_path / "palette.png", palette)), np.asarray(palette.convert("RGB")))


def test_transparency_shows_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., :3] = RED
    pixels[:, 1, 3], pixels[:, 2:, 3] = 128, 255
    found = images.read_rgb(save(tmp_path / "rgba.png", pixels))
    assert found[0, 0].tolist() == WHITE  # not the hidden red
    assert found[0, 1].tolist() == [255, 127, 127]
    assert found[0, 3].tolist() == RED
    gray = Image.fromarray(np.dstack([np.zeros((4, 4), np.uint8), pixels[..., 3]]), "LA")
    assert images.read_rgb(save(tmp_path / "la.png", gray))[0, 0].tolist() == WHITE
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert images.read_rgb(save(tmp_path / "p.png", palette, transparency=1))[0, 0].tolist() == WHITE
    assert images.read_rgb(save(tmp_path / "p2.png", palette, transparency=0))[0, 0].tolist() == RED
    keyed = Image.new("RGB", (4, 4), (255, 0, 0))
    assert images.read_rgb(save(tmp_path / "rgb.png", keyed, transparency=(255, 0, 0)))[0, 0].tolist() == WHITE


def test_cmyk(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for name in ("a.jpg", "a.tif"):
        found = images.read_rgb(save(tmp_path / name, cmyk))
        assert np.abs(found.astype(int) - RED).max() < 8, name


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 25_700, 32_768, 65_407, 65_535]], np.uint16)
    found = images.read_rgb(save(tmp_path / f"a{suffix}", Image.fromarray(values)))
    assert found.shape == (1, 8, 3)
    assert found[0, :, 0].tolist() == [0, 0, 1, 1, 100, 128, 255, 255]
    assert (found == found[..., :1]).all()


def test_16_bit_big_endian_tiff_with_orientation(tmp_path: Path) -> None:
    values = np.array([[0, 65_535, 25_700]], ">u2")
    exif = Image.Exif()
    exif[0x0112] = 3
    found = images.read_rgb(save(tmp_path / "a.tif", Image.fromarray(values), exif=exif))
    assert found[0, :, 0].tolist() == [100, 255, 0]


def _png16(color_type: int, values: np.ndarray, *, transparent: tuple[int, ...] = (), bits: int = 16) -> bytes:
    """Pillow cannot write 16 bits per color, nor 2 or 4 bits; for the latter, `values` are packed bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width * (8 // bits if bits < 8 else 1), height, bits, color_type, 0, 0, 0)
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def test_16_bits_per_color(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png16(2, np.full((3, 5, 3), (65_535, 25_700, 0), np.uint16)))
    assert images.read_rgb(tmp_path / "a.png")[1, 1].tolist() == [255, 100, 0]


def test_16_bits_with_a_transparent_value() -> None:
    gray = np.array([[1000, 30_000, 30_001]], np.uint16)
    found = images.decode_rgb(_png16(0, gray[..., None], transparent=(30_000,)))
    assert found[0, :, 0].tolist() == [4, 255, 117]
    color = np.array([[[30_000, 200, 9000], [200, 30_000, 9000]]], np.uint16)
    found = images.decode_rgb(_png16(2, color, transparent=(200, 30_000, 9000)))
    assert found.tolist() == [[[117, 0, 35], WHITE]]


@pytest.mark.parametrize(("bits", "packed", "key", "expected"), [
    (2, 0b00_01_10_11, 1, [0, 255, 170, 255]), (2, 0b01_01_10_00, 2, [85, 85, 255, 0]),
    (4, 0x3A, 10, [51, 255]), (4, 0x0F, 0, [255, 255]),
])  # fmt: skip
def test_few_bits_with_a_transparent_value(bits: int, packed: int, key: int, expected: list[int]) -> None:
    content = _png16(0, np.array([[packed]], np.uint8), transparent=(key,), bits=bits)
    assert images.decode_rgb(content)[0, :, 0].tolist() == expected


def test_16_bits_with_alpha() -> None:
    opaque, hidden = [25_700, 65_535], [25_700, 0]
    assert images.decode_rgb(_png16(4, np.array([[opaque, hidden]], np.uint16))).tolist() == [[[100] * 3, WHITE]]
    colors = np.array([[[25_700, 0, 65_535, 65_535], [0, 0, 0, 0]]], np.uint16)
    assert images.decode_rgb(_png16(6, colors)).tolist() == [[[100, 0, 255], WHITE]]


@pytest.mark.parametrize("highest", [1, 15, 255, 1000, 1023, 4095, 65_535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_portable_maps_of_any_highest_value(highest: int, kind: str) -> None:
    samples = 1 if kind in ("P2", "P5") else 3
    values = np.random.default_rng(0).integers(0, highest + 1, (6, 5, samples))
    header = f"{kind}\n# a comment\n5 6\n{highest}\n".encode()
    plain = " ".join(map(str, values.ravel())).encode()
    raw = values.astype(">u2" if highest > 255 else "u1").tobytes()
    found = images.decode_rgb(header + (plain if kind in ("P2", "P3") else raw))
    assert np.abs(found - values / highest * 255).max() <= 0.51


def test_16_bit_jpeg_2000() -> None:
    values = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG2000")
    assert np.abs(images.decode_rgb(buffer.getvalue())[..., 0] - values / 257).max() <= 0.51


@pytest.mark.parametrize("mode", ["F", "I"])
def test_rejects_pixels_of_unknown_range(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.tif", Image.new(mode, (4, 4), -5))
    with pytest.raises(ImageError, match=r"a.tif: its pixels are .* of unknown range; convert it"):
        images.read_rgb(path)


ORIENTATIONS = {  # EXIF orientation -> how the file stores an upright image
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(ORIENTATIONS[orientation](rgb()))
    options = {"lossless": True} if suffix == ".webp" else {}
    assert np.array_equal(images.read_rgb(save(tmp_path / f"a{suffix}", stored, exif=exif, **options)), rgb())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_orientation_in_xmp_only(tmp_path: Path, suffix: str) -> None:
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    if suffix == ".png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        options: dict[str, object] = {"pnginfo": info}
    else:
        options = {"xmp": packet}
    assert images.read_rgb(save(tmp_path / f"a{suffix}", rgb(20, 30), **options)).shape == (30, 20, 3)


def test_orientation_of_a_jpeg_and_invalid_orientations(tmp_path: Path) -> None:
    exif = Image.Exif()
    for orientation, shape in ((6, (30, 20, 3)), (9, (20, 30, 3)), (0, (20, 30, 3))):
        exif[0x0112] = orientation
        assert images.read_rgb(save(tmp_path / "a.jpg", rgb(), exif=exif)).shape == shape


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_reads_the_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    options = {} if suffix == ".tif" else {"duration": 100}
    if suffix == ".webp":
        options["lossless"] = True
    path = save(tmp_path / f"a{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert np.abs(images.read_rgb(path).astype(int) - RED).max() <= 2


def test_rejects_what_is_no_image_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "page.png").write_text("<html>")
    cases = {
        tmp_path / "missing.jpg": "cannot be read .No such file",
        tmp_path: "a folder or device",
        tmp_path / "empty.jpg": "the file is empty",
        tmp_path / "text.jpg": "a text file, not an image",
        tmp_path / "page.png": "a web page, not the file itself; open it in a browser",
        tmp_path / ("x" * 5000): "File name too long",
        tmp_path / "a\0b": "embedded null",
    }
    if os.name != "nt":
        os.mkfifo(tmp_path / "fifo.jpg")
        cases |= {tmp_path / "fifo.jpg": "a folder or device", Path("/dev/zero"): "a folder or device"}
    for path, reason in cases.items():
        with pytest.raises(ImageError, match=reason) as caught:
            images.read_rgb(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_rejects_a_format_that_starts_a_program(tmp_path: Path) -> None:
    path = save(tmp_path / "a.eps", Image.new("RGB", (8, 8))).rename(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="a PostScript file; convert it"):
        images.read_rgb(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".tif", ".bmp"])
def test_rejects_truncated_images(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"whole{suffix}", rgb(100, 100)).read_bytes()
    for part in (len(whole) // 2, 30, 4):
        (tmp_path / f"a{suffix}").write_bytes(whole[:part])
        with pytest.raises(ImageError, match=f"a{suffix}: "):
            images.read_rgb(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (10_001, 10_000, "10001x10000 pixels are over 100 million"),
        (20_000, 20_000, "far over 100 million|are over 100 million"),
        (2**31 - 1, 2**31 - 1, "over 100 million|damaged|cannot be read"),
    ],
)
def test_rejects_a_bomb_before_decoding(tmp_path: Path, width: int, height: int, reason: str) -> None:
    content = bytearray(save(tmp_path / "a.png", np.zeros((2, 2), np.uint8)).read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        images.read_rgb(tmp_path / "a.png")


def test_rejects_a_text_bomb_in_a_png(tmp_path: Path) -> None:
    notes = PngInfo()
    notes.add_text("a", "x" * 50_000_000, zip=True)
    path = save(tmp_path / "a.png", rgb(), pnginfo=notes)
    assert path.stat().st_size < 200_000
    with pytest.raises(ImageError, match=r"a.png: damaged .*too large"):
        images.read_rgb(path)


def test_rejects_extreme_aspect_ratios(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a.png: an image of 500x1 pixels cannot be used"):
        images.read_rgb(save(tmp_path / "a.png", rgb(1, 500)))


def test_damaged_bytes_give_an_image_or_an_image_error(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    chance = random.Random(0)
    for suffix in (".jpg", ".png", ".gif", ".webp", ".tif"):
        options = {} if suffix == ".gif" else {"exif": exif}
        whole = save(tmp_path / f"whole{suffix}", rgb(), **options).read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                content[chance.randrange(min(len(content), 400))] = chance.randrange(256)
            (tmp_path / f"a{suffix}").write_bytes(content)
            with contextlib.suppress(ImageError):
                found = images.read_rgb(tmp_path / f"a{suffix}")
                assert found.dtype == np.uint8
                assert found.shape[2] == 3


def test_threads_leave_the_warning_filters_unchanged(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", rgb(200, 200))
    before = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(images.read_rgb, [path] * 100))
    assert all(np.array_equal(found[0], other) for other in found)
    assert warnings.filters == before


def encode(format: str = "JPEG", size: tuple[int, int] = (8, 6), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (20, 220, 20)).save(buffer, format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_decodes_bytes_like_files() -> None:
    image = images.decode_rgb(encode("PNG"))
    assert image.shape == (6, 8, 3)
    assert image[0, 0].tolist() == [20, 220, 20]


def test_decode_checks_format_and_size_first() -> None:
    with pytest.raises(ImageError, match=r"^not an image of a supported format; convert it to JPEG$"):
        images.decode_rgb(encode("PNG"), formats=("JPEG",))
    with pytest.raises(ImageError, match=r"^8x6 pixels are over 4e-05 million"):
        images.decode_rgb(encode(), max_pixels=40)


def test_rejects_jpeg_with_thousands_of_scans(tmp_path: Path) -> None:
    content = encode(progressive=True)
    last = content.rindex(b"\xff\xda")
    content = content[:-2] + content[last:-2] * 2000 + content[-2:]
    (tmp_path / "bomb.jpg").write_bytes(content)
    with pytest.raises(ImageError, match="scans"):
        images.decode_rgb(content)
    with pytest.raises(ImageError, match="scans"):
        images.read_rgb(tmp_path / "bomb.jpg")


def test_rejects_a_file_larger_than_any_image_in_the_limits(tmp_path: Path) -> None:
    with open(tmp_path / "huge.bmp", "wb") as file:
        file.truncate(400 << 20)  # sparse: it takes no space on the disk
    with pytest.raises(ImageError, match=r"huge\.bmp: the file is over 320 MiB; make it smaller"):
        images.read_rgb(tmp_path / "huge.bmp")
