"""Import OpenCV with its settings (no log, timeouts), and read cameras with it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from demos.live.sources.base import DecodeError, FrameReader, check_size
from simplenet.errors import SourceError, one_line
from simplenet.preprocessing import UInt8Array
from simplenet.vendors import vendor_import

MAX_DAMAGED_FRAMES, MAX_DAMAGED_S = 8, 1.0

# Read by OpenCV and Qt when they load. Their messages are off: they repeat the errors that this project raises.
_ENVIRONMENT = {
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "5",  # seconds
    "QT_LOGGING_RULES": "*.warning=false",
}


@functools.cache
def opencv() -> Any:
    """Import cv2 with the environment that this project needs.

    Raises:
        BackendUnavailable: it is not installed; the message has the install command.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return vendor_import("cv2", "demos")


def pyav() -> Any:
    """Import PyAV, which keeps FFmpeg's log off. Raises BackendUnavailable as `opencv`.

    OpenCV's window hangs if PyAV's copies of libxcb-shm and others were loaded before its own: OpenCV's issue 21952.
    """
    for window_system in Path(opencv().__file__).parent.glob("qt/plugins/platforms/libqxcb.so"):
        with contextlib.suppress(OSError):  # without X11's libraries there will be no window
            ctypes.CDLL(str(window_system))
    return vendor_import("av", "demos")


def is_unicode(text: str) -> bool:
    """Whether OpenCV can take `text`, for example a file name: it aborts the process on bytes that are not UTF-8."""
    return text == text.encode(errors="ignore").decode()


class CaptureReader(FrameReader):
    """Reads a cv2.VideoCapture, or a stand-in with its `read` and `release`."""

    def __init__(self, capture: Any, name: str, frame_rate: float | None = None) -> None:
        self.frame_rate = frame_rate
        self._capture, self._name = capture, name
        self._first: UInt8Array | None = None

    def read_first(self) -> bool:
        """Read the frame that the next `read` returns. A camera that another program uses may give none."""
        self._first = self.read()
        return self._first is not None

    def read(self) -> UInt8Array | None:
        """As `FrameReader.read`. OpenCV reports a damaged frame like the end, so a failed read is repeated."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        start_s = time.perf_counter()
        for _ in range(MAX_DAMAGED_FRAMES):
            try:
                found, pixels = self._capture.read()
            except opencv().error as error:
                raise DecodeError(f"{self._name} cannot be decoded: {one_line(error)}") from error
            if found and isinstance(pixels, np.ndarray) and pixels.size:
                check_size(pixels.shape[1] if pixels.ndim > 1 else pixels.size, pixels.shape[0], self._name)
                return _to_rgb(pixels, self._name)
            if time.perf_counter() - start_s > MAX_DAMAGED_S:  # the read timed out, and the next would time out too
                break
        return None

    def release(self) -> None:
        self._capture.release()


def _to_rgb(pixels: npt.NDArray[Any], name: str) -> UInt8Array:
    """Convert BGR, and 8- and 16-bit gray and 4-channel color, which industrial cameras and GStreamer give."""
    cv2 = opencv()
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype == np.uint16 and channels == 1:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    conversion = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}.get(channels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or conversion is None:
        raise SourceError(f"{name} gave a frame of {pixels.dtype} {list(pixels.shape)}, not 8-bit color or gray")
    rgb: UInt8Array = cv2.cvtColor(pixels, conversion)
    return rgb
