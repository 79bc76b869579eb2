"""OpenCV, imported where it is first used: quiet, and with timeouts for cameras that stall."""

from __future__ import annotations

import functools
import os
from typing import Any

from runtimes.base import vendor_import

CAMERA_STALL_S = 5

# Read by OpenCV, FFmpeg and Qt when they load. What they would print, this project raises as one clear line.
_ENVIRONMENT = {
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": str(CAMERA_STALL_S),
    "QT_LOGGING_RULES": "*.warning=false",
}


@functools.cache
def opencv() -> Any:
    """The cv2 module; asking for it again costs nothing.

    Raises:
        BackendUnavailable: it is not installed; the message says how to.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return vendor_import("cv2", "demos")
