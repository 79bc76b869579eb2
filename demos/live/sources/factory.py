"""From what a person types as --source to an open source of frames.

with open_source("clip.avi") as source:
    while (frame := source.next()) is not None:
        ...
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from demos.live.sources.base import TYPE_NEXT, Source, SourceKind, check_size
from demos.live.sources.capture import (
    CaptureSource,
    OpenedCapture,
    csi_pipeline,
    open_camera,
    open_gstreamer,
    open_stream,
    open_video,
    redacted,
)
from demos.live.sources.files import ImageSequenceSource, VideoFile
from demos.live.sources.synthetic import open_synthetic
from simplenet.errors import DataError, SourceError, UsageError, one_line
from simplenet.images import SUFFIXES, find_images

STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp")
_SIZE = r"(?::(?P<width>\d{1,5})x(?P<height>\d{1,5}))?(?:@(?P<rate>\d{1,3}))?"
_LARGEST_SIDE, _FASTEST = 7680, 240


def open_source(
    text: str,
    *,
    loop: bool = False,
    pace: bool = False,
    reconnect_timeout_s: float = 60,
    connect_in_background: bool = False,
) -> Source:
    """The source that `text` names: a camera's number or /dev path, a stream's address, a video file, a picture, a
    folder of pictures, `synthetic[:640x480@30]`, `csi:0[:1280x720@30]` (the Jetson's camera) or `gst:PIPELINE`.

    Args:
        loop: files and pictures start again at the end.
        pace: files play at their own frame rate at most, pictures one a second; still, none is lost.
        reconnect_timeout_s: a live source that gives no frame for so long has failed for good.
        connect_in_background: open cameras and streams in the background, and retry; else a failure raises at once.

    Raises:
        SourceError: it cannot be opened; the message says why and what to type instead, and never a password.
        UsageError: an address of an unknown kind. BackendUnavailable: OpenCV, or its GStreamer, is not installed.
    """

    def live(
        name: str, kind: SourceKind, open: Callable[[], OpenedCapture], at_once: bool = not connect_in_background
    ) -> Source:
        opened = open() if at_once else None
        return CaptureSource(name, kind, open, opened, loop=loop, pace=pace, reconnect_timeout_s=reconnect_timeout_s)

    if re.fullmatch(r"[0-9]{1,3}", text) or text.startswith("/dev/"):
        name = one_line(f"camera {text}")
        return live(name, "camera", lambda: open_camera(text, name))
    if re.match(r"synthetic(?![^:@])", text):
        scene = _size(text, "synthetic", (640, 480, 30), "synthetic:640x480@30")
        return live(text, "synthetic", lambda: open_synthetic(*scene), at_once=True)
    if text.startswith("csi:"):
        size = _size(text, r"csi:\d{1,2}", (1280, 720, 30), "csi:0 or csi:0:1280x720@30")
        jetson_camera = csi_pipeline(int(text.split(":")[1].partition("@")[0]), *size)
        return live(text, "camera", lambda: open_gstreamer(jetson_camera, text))
    if text.startswith("gst:"):
        pipeline = text.removeprefix("gst:").strip()
        if not pipeline:
            raise UsageError("gst: needs a pipeline, such as gst:videotestsrc")
        name = one_line(f"gst:{re.split(r'[^A-Za-z0-9_-]', pipeline)[0]}", 40)  # the rest may hold a password
        return live(name, "stream", lambda: open_gstreamer(pipeline, name))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        name, scheme = redacted(text), text.partition("://")[0].lower()
        if scheme not in STREAMS:
            raise UsageError(f"{name} is of an unknown kind, {scheme}://; streams are {', '.join(STREAMS)}")
        return live(name, "stream", lambda: open_stream(text, name))
    if re.match(rf"(?:{'|'.join(STREAMS)}):", text, re.IGNORECASE):  # not shown: there may be a password in it
        raise UsageError("the address of a stream has two slashes, such as rtsp://camera/stream")
    return _open_file(Path(text), loop, pace)


def _size(text: str, start: str, default: tuple[int, int, int], example: str) -> tuple[int, int, int]:
    """Width, height and frames per second at the end of `text`, as far as it names them."""
    found = re.fullmatch(start + _SIZE, text)
    if found is None:
        raise UsageError(f"{one_line(text, 60)} is not understood; type {example}")
    named = (found["width"], found["height"], found["rate"])
    width, height, rate = (usual if value is None else int(value) for value, usual in zip(named, default, strict=True))
    if not (min(width, height) >= 16 and max(width, height) <= _LARGEST_SIDE and 1 <= rate <= _FASTEST):
        raise UsageError(
            f"{one_line(text, 60)}: sides are 16 to {_LARGEST_SIDE} pixels, at most {_FASTEST} frames a second"
        )
    check_size(width, height, text)
    return width, height, rate


def _open_file(path: Path, loop: bool, pace: bool) -> Source:
    name = one_line(str(path))
    try:
        exists, is_file, is_folder = path.exists(), path.is_file(), path.is_dir()
        if is_file:
            path.open("rb").close()
            size_bytes = path.stat().st_size
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {_perhaps_an_address(name)}: {_reason(error)}; {TYPE_NEXT}") from error
    if not exists:
        raise SourceError(f"no such video: {_perhaps_an_address(name)}; {TYPE_NEXT}")
    if is_folder or (is_file and path.suffix.lower() in SUFFIXES):
        try:
            return ImageSequenceSource(name, find_images(path), loop=loop, pace=pace)
        except DataError as error:
            raise SourceError(f"{one_line(error)}; {TYPE_NEXT}") from error
    if not is_file or not size_bytes:
        raise SourceError(f"{name} is {'empty' if is_file else 'not a regular file'}; {TYPE_NEXT}")
    capture, frame_rate, announced = open_video(path, name)
    reopen = (lambda: open_video(path, name)[0]) if loop else None
    return VideoFile(name, capture, announced, frame_rate=frame_rate, reopen=reopen, pace=pace)


def _reason(error: OSError | ValueError) -> str:
    """Without the file's name, which an OSError repeats."""
    return one_line((isinstance(error, OSError) and error.strerror) or error)


def _perhaps_an_address(name: str) -> str:
    """A file that is not there may be an address with a slip of the pen, and hold a password."""
    without_user = re.sub(r"^.*:.*@", "***@", name)
    return re.sub(r"(?i)([?#&/])[^?#&/]*(?:user|pass|pwd|key|token)[^/]*=.*", r"\1…", without_user)
