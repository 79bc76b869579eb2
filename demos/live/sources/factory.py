"""Opens the source that --source names."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

from demos.live.sources import capture
from demos.live.sources.base import HINT, FrameReader, OpenError, Source, SourceKind, check_size
from demos.live.sources.capture import CaptureSource
from demos.live.sources.ffmpeg import VideoReader
from demos.live.sources.files import ImageSequenceSource, VideoFile
from demos.live.sources.opencv import is_unicode
from demos.live.sources.synthetic import open_synthetic
from simplenet import image_kinds
from simplenet.errors import DataError, ImageError, SourceError, UsageError, one_line
from simplenet.files import error_message
from simplenet.image_folders import SUFFIXES, find_images
from simplenet.images import read_rgb

STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp")
_SIZE = r"(?::(\d{1,5})x(\d{1,5}))?(?:@(\d{1,3}))?"
_MIN_SIDE, _MAX_SIDE, _MAX_RATE = 16, 7680, 240


def open_source(
    text: str,
    *,
    loop: bool = False,
    pace: bool = False,
    reconnect_timeout_s: float = 60,
    connect_in_background: bool = False,
) -> Source:
    """Open a camera, stream, video, image, folder of images, or the synthetic scene.

    Args:
        text: a camera's number or /dev path, a stream's address, a file, a folder, `synthetic[:640x480@30]`,
            `csi:0[:1280x720@30]` (a Jetson's camera) or `gst:PIPELINE`.
        loop: restart files at their end.
        pace: play videos as fast as their times say, and images at one per second. No frame is dropped.
        reconnect_timeout_s: a live source fails after this time without a frame.
        connect_in_background: open cameras and streams in the background, and retry, instead of raising an error.

    Raises:
        SourceError: the source cannot be opened. The message has the reason, what to type, and no credentials.
        UsageError: `text` is an unknown kind of address.
        BackendUnavailable: OpenCV, its GStreamer or PyAV is not installed.
    """

    def live(name: str, kind: SourceKind, open: Callable[[], FrameReader]) -> Source:
        reader = None if connect_in_background else open()
        return CaptureSource(name, kind, open, reader, loop=loop, pace=pace, reconnect_timeout_s=reconnect_timeout_s)

    if re.fullmatch(r"[0-9]{1,3}", text) or text.startswith("/dev/"):
        name = one_line(f"camera {text}")
        return live(name, "camera", lambda: capture.open_camera(text, name))
    if re.match(r"synthetic(?![^:@])", text):
        size = _parse_size(text, "synthetic", (640, 480, 30), "synthetic:640x480@30")
        open_scene = functools.partial(open_synthetic, *size)
        return CaptureSource(text, "synthetic", open_scene, open_scene())
    if text.startswith("csi:"):
        size = _parse_size(text, r"csi:\d{1,2}", (1280, 720, 30), "csi:0 or csi:0:1280x720@30")
        csi_camera = capture.csi_pipeline(int(text.split(":")[1].partition("@")[0]), *size)
        return live(text, "camera", lambda: capture.open_gstreamer(csi_camera, text))
    if text.startswith("gst:"):
        pipeline = text.removeprefix("gst:").strip()
        if not pipeline:
            raise UsageError("gst: needs a pipeline, such as gst:videotestsrc")
        name = one_line(f"gst:{re.split(r'[^A-Za-z0-9_-]', pipeline)[0]}", 40)  # the rest may hold a password
        return live(name, "stream", lambda: capture.open_gstreamer(pipeline, name))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        name, scheme = redacted(text), text.partition("://")[0].lower()
        if scheme not in STREAMS:
            raise UsageError(f"{name} has the unknown scheme {scheme}://; use one of {', '.join(STREAMS)}")
        if not is_unicode(text):
            raise OpenError(f"{name} has bytes that are not UTF-8", f"check the address, or {HINT}")
        address = scheme + text[len(scheme) :]  # FFmpeg knows only lower case
        return live(name, "stream", lambda: VideoReader(address, name, is_file=False))
    if re.match(rf"(?:{'|'.join(STREAMS)}):", text, re.IGNORECASE):  # not shown: it may hold a password
        raise UsageError("the address of a stream needs two slashes, such as rtsp://camera/stream")
    return _open_file(Path(text), loop, pace)


def redacted(address: str) -> str:
    """Remove user, password, query, and values after "=" in the path: cameras accept passwords in all of these."""
    without_user = re.sub(r"://.*@", "://***@", address, flags=re.DOTALL)
    without_query = re.sub(r"[?#].*", "?…", without_user, flags=re.DOTALL)
    return one_line(re.sub(r"=[^/]*", "=…", without_query))


def _parse_size(text: str, prefix: str, default: tuple[int, int, int], example: str) -> tuple[int, int, int]:
    """Parse width, height and frame rate after the regular expression `prefix`."""
    found = re.fullmatch(prefix + _SIZE, text)
    if found is None:
        raise UsageError(f"{one_line(text, 60)} cannot be parsed; type {example}")
    width, height, rate = (int(value or usual) for value, usual in zip(found.groups(), default, strict=True))
    if not (min(width, height) >= _MIN_SIDE and max(width, height) <= _MAX_SIDE and 1 <= rate <= _MAX_RATE):
        limits = f"width and height are {_MIN_SIDE} to {_MAX_SIDE} pixels, the frame rate at most {_MAX_RATE}"
        raise UsageError(f"{one_line(text, 60)} is out of range; {limits}")
    check_size(width, height, text)
    return width, height, rate


def _open_file(path: Path, loop: bool, pace: bool) -> Source:
    name = one_line(str(path))
    try:
        size_bytes, is_file, is_folder = path.stat().st_size, path.is_file(), path.is_dir()
        start = b""
        if is_file:
            with path.open("rb") as file:
                start = file.read(1024)
    except FileNotFoundError:
        raise SourceError(f"no such video: {_redacted_path(name)}; {HINT}") from None
    except (OSError, ValueError) as error:
        reason = one_line(error_message(error))
        raise SourceError(f"cannot read {_redacted_path(name)}: {reason}; {HINT}") from None
    if is_folder:
        try:
            return ImageSequenceSource(name, find_images(path), loop=loop, pace=pace)
        except DataError as error:
            raise SourceError(f"{one_line(error)}; {HINT}") from error
    if not is_file or not size_bytes:
        raise SourceError(f"{name} is {'empty' if is_file else 'not a regular file'}; {HINT}")
    # Read as what the suffix says; if that fails, as the other. The path is absolute, because FFmpeg takes the start
    # of a relative one, such as "concat:", for a protocol.
    has_suffix, images = path.suffix.lower() in SUFFIXES, ImageSequenceSource(name, [path], loop=loop, pace=pace)
    if (has_suffix and _is_image(path)) or image_kinds.is_heic(start):  # of HEIC, FFmpeg would read one tile
        return images
    try:
        return VideoFile(name, lambda: VideoReader(str(path.absolute()), name, is_file=True), loop=loop, pace=pace)
    except OpenError:
        if has_suffix or _is_image(path):
            return images  # an image that cannot be read says why when it is read
        raise


def _is_image(path: Path) -> bool:
    try:
        read_rgb(path)
    except ImageError:
        return False
    return True


def _redacted_path(name: str) -> str:
    """Redact a missing file's name, which may be a mistyped address with a password."""
    without_user = re.sub(r"^.*:.*@", "***@", name)
    return re.sub(r"(?i)([?#&/])[^?#&/]*(?:user|pass|pwd|key|token)[^/]*=.*", r"\1…", without_user)
