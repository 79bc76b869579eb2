"""Import OpenCV with its settings (no log, timeouts, limits for FFmpeg), and read frames with it."""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from demos.live.sources.base import check_size
from simplenet.errors import SourceError, one_line
from simplenet.preprocessing import UInt8Array
from simplenet.vendors import vendor_import

MAX_DAMAGED_FRAMES, MAX_DAMAGED_S = 8, 1.0

# Read by OpenCV, FFmpeg and Qt when they load. Their messages are off: they repeat the errors that this project raises.
_ENVIRONMENT = {
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "5",  # seconds
    # Otherwise an address that does not respond blocks opening every other stream and file.
    "OPENCV_FFMPEG_IS_THREAD_SAFE": "1",
    "QT_LOGGING_RULES": "*.warning=false",
}

# Security: FFmpeg also opens playlists of other files and addresses (m3u8, ffconcat, dash, sdp), text, image sequences
# and devices. Only containers and plain streams are allowed.
_FFMPEG_OPTIONS = {
    "format_whitelist": "asf,avi,flv,gif,h264,hevc,ivf,"
    "live_flv,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mpjpeg,ogg,rtsp",
    "protocol_whitelist": "file,http,https,httpproxy,rtmp,rtp,srtp,tcp,tls,udp",
    "rtsp_flags": "prefer_tcp",  # OpenCV's own default, which it drops if options are given
}
_FFMPEG_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


@functools.cache
def opencv() -> Any:
    """Import cv2 with the environment that this project needs.

    Raises:
        BackendUnavailable: it is not installed; the message has the install command.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[_FFMPEG_VARIABLE] = _add_limits(os.environ.get(_FFMPEG_VARIABLE, ""))
    return vendor_import("cv2", "demos")


def is_unicode(text: str) -> bool:
    """Whether OpenCV can take `text`, for example a file name: it aborts the process on bytes that are not UTF-8."""
    return text == text.encode(errors="ignore").decode()


def _add_limits(options: str) -> str:
    """Add `_FFMPEG_OPTIONS` to the user's, which take precedence. Syntax: "name;value|name;value"."""
    users = [pair for pair in options.split("|") if ";" in pair]
    named = {pair.partition(";")[0] for pair in users}
    if "rtsp_transport" in named:
        named.add("rtsp_flags")
    return "|".join(users + [f"{name};{value}" for name, value in _FFMPEG_OPTIONS.items() if name not in named])


class DecodeError(SourceError):
    """OpenCV raised an error while reading. Opening the capture again may help."""


class FrameReader:
    """Reads an open capture frame by frame, and skips single damaged frames.

    Attributes:
        frame_rate: nominal frames per second, if known.
        announced_frames: the number in the header of a video; 0 for live streams.
        frames: how many frames were read.
    """

    def __init__(
        self,
        capture: Any,
        name: str,
        first: UInt8Array | None = None,
        frame_rate: float | None = None,
        announced_frames: int = 0,
    ) -> None:
        """`capture` has the `read` and `release` of cv2.VideoCapture; `first` is a frame that was read already."""
        self.frame_rate, self.announced_frames, self.frames = frame_rate, announced_frames, 0
        self._capture, self._name, self._first = capture, name, first

    def read(self) -> UInt8Array | None:
        """Return the next frame, BGR uint8 [H, W, 3], or None if there is none.

        Raises:
            DecodeError: OpenCV failed.
            SourceError: the frame is too large or not an 8-bit color or gray image.
        """
        frame, self._first = self._first, None
        if frame is None:
            frame = read_frame(self._capture, self._name)
        self.frames += frame is not None
        return frame

    def missing_frames(self) -> str | None:
        """Return a note if fewer frames were read than announced, for example from a truncated file."""
        if self.frames >= self.announced_frames:
            return None
        return f"{self._name} announces {self.announced_frames} frames, {self.frames} could be decoded"

    def release(self) -> None:
        self._capture.release()


def read_frame(capture: Any, name: str) -> UInt8Array | None:
    """As `FrameReader.read`. OpenCV reports a damaged frame like the end of a video, so a failed read is repeated."""
    start_s = time.perf_counter()
    for _ in range(MAX_DAMAGED_FRAMES):
        try:
            found, pixels = capture.read()
        except opencv().error as error:
            raise DecodeError(f"{name} cannot be decoded: {one_line(error)}") from error
        if found and isinstance(pixels, np.ndarray) and pixels.size:
            check_size(pixels.shape[1] if pixels.ndim > 1 else pixels.size, pixels.shape[0], name)
            return _to_bgr(pixels, name)
        if time.perf_counter() - start_s > MAX_DAMAGED_S:  # the read timed out, and the next would time out too
            break
    return None


def to_rgb(bgr: UInt8Array) -> UInt8Array:
    cv2 = opencv()
    rgb: UInt8Array = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def _to_bgr(pixels: npt.NDArray[Any], name: str) -> UInt8Array:
    """Convert 8- and 16-bit gray and 4-channel color, which industrial cameras and GStreamer give, to BGR uint8."""
    cv2 = opencv()
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and channels == 3:
        return pixels
    if pixels.dtype == np.uint16 and channels == 1:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype == np.uint8 and pixels.ndim in (2, 3) and channels in (1, 4):
        bgr: UInt8Array = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)
        return bgr
    raise SourceError(f"{name} gave a frame of {pixels.dtype} {list(pixels.shape)}, not 8-bit color or gray")
