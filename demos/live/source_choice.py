"""From what a person types as --source to an open source of frames.

with open_source("clip.avi") as source:
    while (frame := source.next()) is not None:
        ...
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from demos.live.opencv import opencv
from demos.live.sources import STREAM_TIMEOUT_MS, TYPE_NEXT, LiveSource, Source, VideoFile, check_size
from simplenet.errors import SourceError, UsageError, one_line
from simplenet.images import SUFFIXES

_STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp")


def open_source(text: str) -> Source:
    """The source that `text` names: a camera's number, /dev/video path, a stream's address or a video file.

    Raises:
        SourceError: it cannot be opened; the message says why and what to type instead, and never a password.
        UsageError: an address of an unknown kind. BackendUnavailable: OpenCV is not installed.
    """
    if re.fullmatch(r"[0-9]{1,3}", text) or text.startswith("/dev/"):
        return _open_camera(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        return _open_stream(text)
    if re.match(rf"(?:{'|'.join(_STREAMS)}):", text, re.IGNORECASE):  # not shown: there may be a password in it
        raise UsageError("the address of a stream has two slashes, such as rtsp://camera/stream")
    return _open_file(Path(text))


def redacted(address: str) -> str:
    """A stream's address as it may be shown: no user, no password, no query (cameras carry passwords there too)."""
    without_user = re.sub(r"://.*@", "://***@", address, flags=re.DOTALL)
    return one_line(re.sub(r"[?#].*", "?…", without_user, flags=re.DOTALL))


def _open_camera(text: str) -> Source:
    cv2 = opencv()
    device = Path(text if text.startswith("/dev/") else f"/dev/video{text}")
    name = f"camera {text}"
    if sys.platform == "linux" and not device.exists():
        raise SourceError(f"no {name}: {device} does not exist; plug it in, or {TYPE_NEXT}")
    if sys.platform == "linux" and not device.is_char_device():
        raise SourceError(f"no {name}: {device} is not a device; {TYPE_NEXT}")
    capture = cv2.VideoCapture(int(text) if text.isdecimal() else text, cv2.CAP_ANY)
    if not capture.isOpened():
        raise SourceError(
            f"{name} cannot be opened; close other programs that use it, check that you may read it "
            f"(sudo usermod -aG video $USER), or {TYPE_NEXT}"
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    _check_announced_size(capture, name)
    return LiveSource(name, capture, may_end=False)


def _open_stream(address: str) -> Source:
    name, scheme = redacted(address), address.partition("://")[0].lower()
    if scheme not in _STREAMS:
        raise UsageError(f"{name} is of an unknown kind, {scheme}://; streams are {', '.join(_STREAMS)}")
    cv2 = opencv()
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise SourceError(f"{name} cannot be opened; check the address, user and password, or {TYPE_NEXT}")
    _check_announced_size(capture, name)
    return LiveSource(name, capture, may_end=True)


def _open_file(path: Path) -> Source:
    name = one_line(str(path))
    try:
        exists, is_file = path.exists(), path.is_file()
        if is_file:
            path.open("rb").close()
            size_bytes = path.stat().st_size
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {name}: {one_line(error)}; {TYPE_NEXT}") from error
    if not exists:
        raise SourceError(f"no such video: {name}; {TYPE_NEXT}")
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        kind = "a folder" if path.is_dir() else "a picture"
        raise SourceError(f"{name} is {kind}, not a video; type: python demos/classify.py {shlex.quote(name)}")
    if not is_file or not size_bytes:
        raise SourceError(f"{name} is {'empty' if is_file else 'not a regular file'}; {TYPE_NEXT}")
    cv2 = opencv()
    # FFmpeg alone, where OpenCV has it: its other readers take a name as a pattern or a sequence of pictures.
    has_ffmpeg = cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY)
    if not capture.isOpened():
        raise SourceError(f"{name} is not a video that OpenCV can read; {TYPE_NEXT}")
    _check_announced_size(capture, name)
    announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return VideoFile(name, capture, int(announced) if 0 < announced < 2**53 else 0)


def _check_announced_size(capture: Any, name: str) -> None:
    """Before a frame is decoded: what a file's header says is what memory would be taken for."""
    cv2 = opencv()
    check_size(capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT), name)
