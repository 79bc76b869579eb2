"""Name the kind of a file that is no readable image, and what to type instead."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

from simplenet import file_kinds

_CONVERT = "convert it to JPEG or PNG"
_DAMAGED = "an incomplete or damaged image; copy or download it again"
_RAW = "a camera's raw file; export it as JPEG"
_DAMAGED_BY_TEXT = "an image that was copied or saved as if it were text; copy it again as a binary file"
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_MAGIC = {
    b"\xef\xbb\xbf\xff\xd8": "a JPEG after a UTF-8 byte order mark; remove the mark: tail -c +4 {path} > fixed.jpg",
    b"\xef\xbb\xbf\x89PNG": "a PNG after a UTF-8 byte order mark; remove the mark: tail -c +4 {path} > fixed.png",
    b"\xef\xbb\xbfGIF8": "a GIF after a UTF-8 byte order mark; remove the mark: tail -c +4 {path} > fixed.gif",
    b"\x89PNG\r\r\n": _DAMAGED_BY_TEXT,
    b"\x89PNG\n": _DAMAGED_BY_TEXT,
    b"\xc3\xbf\xc3\x98\xc3\xbf": _DAMAGED_BY_TEXT,  # ÿØÿ, the start of a JPEG, in UTF-8
    b"\xef\xbf\xbd": _DAMAGED_BY_TEXT,  # the replacement character
    b"\xc2\x89PNG": _DAMAGED_BY_TEXT,
    b"/9j/": "an image as base64 text; decode it: base64 -d {path} > image.jpg",
    b"iVBORw0K": "an image as base64 text; decode it: base64 -d {path} > image.png",
    b"data:image/": "an image as base64 text; decode what follows the comma: base64 -d",
    b"\xff\x0a": f"a JPEG XL image; {_CONVERT}",
    b"\0\0\0\x0cJXL ": f"a JPEG XL image; {_CONVERT}",
    b"\xff\xd8\xff\xf7": f"a JPEG-LS image; {_CONVERT}",
    b"\xff\xfe": "a text file (UTF-16), not an image; name an image file",
    b"\xfe\xff": "a text file (UTF-16), not an image; name an image file",
    b"II\xbc": f"a JPEG XR image; {_CONVERT}",
    b"8BPS": f"a Photoshop file; {_CONVERT}",
    b"%PDF": "a PDF document; convert its pages: pdftoppm -png {path} page",
    b"%!PS": f"a PostScript file; {_CONVERT}",
    b"gimp xcf": f"a GIMP file; {_CONVERT}",
    b"v/1\x01": f"an OpenEXR image, whose pixels are floats; {_CONVERT}",
    b"#?RADIANCE": f"a Radiance image, whose pixels are floats; {_CONVERT}",
    b"SIMPLE  =": f"a FITS image; {_CONVERT}",
    b"\0\0\1\0": f"an icon; {_CONVERT}",
    b"qoif": f"a QOI image; {_CONVERT}",
    b"DDS ": f"a DDS texture; {_CONVERT}",
    b"P7\n": f"a PAM image; {_CONVERT}",
    b"FUJIFILMCCD-RAW": _RAW,
    b"IIRO": _RAW,
    b"IIRS": _RAW,
    b"IIU\0": _RAW,
    b"FOVb": _RAW,
    b"\x93NUMPY": "a NumPy array, not an image; save it as PNG",
    b"\x89HDF": "an HDF5 file, not an image",
    b"PK\x03\x04": "a zip archive; unpack it: unzip {path}",
}
_VIDEO_STARTS = {
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"FLV\1": "FLV",
    b"\0\0\1\xba": "MPEG",
    b"\0\0\1\xb3": "MPEG",
    b"OggS": "Ogg",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "WMV",
}


def describe(data: bytes, path: Path) -> str:
    """Say what a file is that Pillow cannot open, and what to type; "" if that is unknown.

    Args:
        data: the content, or its first 1024 bytes.
    """
    from PIL import Image

    start, quoted = data[:1024], shlex.quote(str(path))
    if kind := video_kind(start):
        return f"a video ({kind}), not an image; play it: python demos/webcam.py --source {quoted}"
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            return what.format(path=quoted)
    if brands := _brands(start):
        if b"crx " in brands:
            return _RAW
        is_avif = bool(brands & {b"avif", b"avis"})
        if ("AVIF" in Image.OPEN) if is_avif else importlib.util.find_spec("pillow_heif"):
            return _DAMAGED
        install = "an AVIF image; to read it: pip install --upgrade pillow"
        return install if is_avif else "a HEIC image; to read it: pip install pillow-heif"
    if start[128:132] == b"DICM":
        return f"a DICOM image; {_CONVERT}"
    if b"<svg" in start:
        return f"an SVG drawing; {_CONVERT}"
    if what := file_kinds.describe_other(data, path):
        return what
    if start.startswith(_IMAGE_STARTS) or (start.startswith(b"RIFF") and start[8:12] == b"WEBP"):
        return _DAMAGED
    if start.lstrip().startswith(_IMAGE_STARTS):
        count = len(start) - len(start.lstrip())
        return f"an image after {count} bytes of space; remove them: tail -c +{count + 1} {quoted} > fixed"
    if not start.strip(b"\0"):
        return "only zero bytes; copy or download it again"
    return "a text file, not an image; name an image file" if re.fullmatch(rb"[\t\n\r\x20-\x7e]+", start) else ""


def video_kind(start: bytes) -> str:
    """Return the container of a video, such as "MP4"; "" if a file's first bytes are no video's."""
    if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
        return "AVI"
    if start[4:8] == b"ftyp" and not _brands(start):
        return "MOV" if start[8:12] == b"qt  " else "MP4"
    if start[:1] == b"G" and start[188:189] == b"G" and start[376:377] == b"G":
        return "MPEG-TS"
    return next((kind for magic, kind in _VIDEO_STARTS.items() if start.startswith(magic)), "")


def is_heic(data: bytes) -> bool:
    brands = _brands(data)
    return bool(brands) and not brands & {b"avif", b"avis", b"crx "}


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of a HEIC, AVIF or Canon CR3 file; none for other files, such as MP4."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    still = {b"avif", b"avis", b"crx ", b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
    return brands if data[8:12] in still else set()
