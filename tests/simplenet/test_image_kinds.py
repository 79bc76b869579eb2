"""Files that are no readable image: the refusal says what they are and what to type."""

from __future__ import annotations

import io
import re
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from simplenet import images
from simplenet.errors import ImageError


def encode(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (20, 220, 20)).save(buffer, format)
    return buffer.getvalue()


JPEG, PNG = encode("JPEG"), encode("PNG")
FTYP = b"\0\0\0\x18ftyp%s\0\0\0\0isommp41" + bytes(3000)
KINDS = {
    "page.jpg": (b"<!DOCTYPE html><html>log in</html>", "a web page"),
    "error.png": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    "error.jpg": (b'{"error": "not found"}', "a text file, not an image"),
    "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "type: git lfs pull"),
    "bom.jpg": (b"\xef\xbb\xbf" + JPEG, "remove the mark: tail -c +4"),
    "bom.png": (b"\xef\xbb\xbf" + PNG, "remove the mark: tail -c +4"),
    "spaces.jpg": (b"\r\n\r\n" + JPEG, "an image after 4 bytes of space; remove them: tail -c +5"),
    "line-ends.png": (PNG.replace(b"\n", b"\r\n"), "as if it were text; copy it again"),
    "unix.png": (PNG.replace(b"\r\n", b"\n"), "as if it were text; copy it again"),
    "utf8.jpg": (JPEG.decode("latin-1").encode(), "as if it were text; copy it again"),
    "replaced.jpg": (JPEG.decode("utf-8", "replace").encode(), "as if it were text; copy it again"),
    "base64.jpg": (b"/9j/4AAQSkZJRgABAQ==", "base64 -d"),
    "uri.png": (b"data:image/png;base64,iVBORw0KGgo=", "base64 -d"),
    "zeros.jpg": (bytes(5000), "only zero bytes"),
    "start.jpg": (JPEG[:20], "an incomplete or damaged image"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "incomplete ("),
    "half.png": (PNG[: len(PNG) - 30], "incomplete|damaged"),
    "clip.jpg": (FTYP % b"isom", "a video (MP4), not an image; play it: python demos/webcam.py --source"),
    "clip.mov": (FTYP % b"qt  ", "a video (MOV)"),
    "clip.webm": (b"\x1aE\xdf\xa3" + bytes(100), "a video (Matroska or WebM)"),
    "clip.avi": (b"RIFF\0\0\0\0AVI LIST" + bytes(100), "a video (AVI)"),
    "clip.ts": ((b"G" + bytes(187)) * 10, "a video (MPEG-TS)"),
    "clip.wmv": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(100), "a video (WMV)"),
    "a.psd": (b"8BPS" + bytes(100), "a Photoshop file; convert it"),
    "a.pdf": (b"%PDF-1.4\n" + bytes(100), "a PDF document"),
    "a.svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>', "an SVG drawing"),
    "a.jxl": (b"\xff\x0a" + bytes(100), "a JPEG XL image; convert it"),
    "a.jls": (b"\xff\xd8\xff\xf7" + bytes(100), "a JPEG-LS image"),
    "utf16.png": ("hello".encode("utf-16"), "a text file (UTF-16)"),
    "a.cr3": (FTYP % b"crx ", "a camera's raw file"),
    "a.raf": (b"FUJIFILMCCD-RAW" + bytes(100), "a camera's raw file"),
    "a.dcm": (bytes(128) + b"DICM" + bytes(100), "a DICOM image"),
    "a.zip": (b"PK\x03\x04" + bytes(100), "a zip archive; unpack it"),
    "a.gz": (b"\x1f\x8b" + bytes(100), "compressed with gzip; unpack it"),
    "a.npy": (b"\x93NUMPY" + bytes(100), "a NumPy array"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_names_the_kind_of_a_file(tmp_path: Path, name: str) -> None:
    content, reason = KINDS[name]
    (tmp_path / name).write_bytes(content)
    pattern = reason if "|" in reason else re.escape(reason)
    with pytest.raises(ImageError, match=rf"{re.escape(name)}: .*{pattern}") as caught:
        images.read_rgb(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".heic", ".txt", ".mp4", ""])
def test_content_and_not_the_suffix_decides(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(PNG)
    assert images.read_rgb(tmp_path / f"a{suffix}").shape == (30, 40, 3)


def test_large_video_is_a_video_still(tmp_path: Path) -> None:
    with open(tmp_path / "film.mp4", "wb") as file:
        file.write(FTYP % b"mp42")
        file.truncate(400 << 20)  # sparse: it takes no space on the disk
    with pytest.raises(ImageError, match=r"film.mp4: a video \(MP4\)"):
        images.read_rgb(tmp_path / "film.mp4")


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_is_read_with_pillow_heif_or_names_it(brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    content = FTYP % brand
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"a HEIC image; to read it: pip install pillow-heif"):
        images.decode_rgb(content)

    def register_heif_opener() -> None:
        Image.register_open(
            "HEIF", lambda file, name: Image.new("RGB", (6, 4), "red"), lambda start: start[4:8] == b"ftyp"
        )

    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    package = types.ModuleType("pillow_heif")
    package.register_heif_opener = register_heif_opener  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    assert images.decode_rgb(content).shape == (4, 6, 3)


def test_avif_is_damaged_or_needs_another_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN, "AVIF": Image.OPEN["PNG"]})
    with pytest.raises(ImageError, match="damaged"):
        images.decode_rgb(FTYP % b"avif")
    monkeypatch.setattr(Image, "OPEN", {name: opener for name, opener in Image.OPEN.items() if name != "AVIF"})
    with pytest.raises(ImageError, match="an AVIF image; to read it: pip install --upgrade pillow"):
        images.decode_rgb(FTYP % b"avif")


def test_photo_with_a_video_after_it_is_a_photo() -> None:
    assert images.decode_rgb(JPEG + FTYP % b"mp42").shape == (30, 40, 3)
