"""OpenCV, imported where it is first used: quiet, with timeouts for cameras that stall, and with bounds for FFmpeg."""

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
    # Otherwise one address that does not answer keeps every other stream and file from being opened meanwhile.
    "OPENCV_FFMPEG_IS_THREAD_SAFE": "1",
    "QT_LOGGING_RULES": "*.warning=false",
}

# FFmpeg also opens lists of other files and addresses (m3u8, ffconcat, dash, sdp), text, sequences of pictures and
# devices. Of what a stranger's file or server may be, only containers and plain streams are wanted.
_FORMATS = "asf,avi,flv,gif,h264,hevc,ivf,live_flv,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mpjpeg,ogg,rtsp"
_PROTOCOLS = "file,http,https,httpproxy,rtmp,rtp,srtp,tcp,tls,udp"
_FFMPEG_OPTIONS = {
    "format_whitelist": _FORMATS,
    "protocol_whitelist": _PROTOCOLS,
    "rtsp_flags": "prefer_tcp",  # OpenCV's own default, which is lost where options are given
}
_FFMPEG_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


@functools.cache
def opencv() -> Any:
    """The cv2 module.

    Raises:
        BackendUnavailable: it is not installed; the message says how to.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[_FFMPEG_VARIABLE] = _with_bounds(os.environ.get(_FFMPEG_VARIABLE, ""))
    return vendor_import("cv2", "demos")


def is_unicode(text: str) -> bool:
    """File names on Linux may be any bytes; in those that are no UTF-8, OpenCV ends the whole process."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_bounds(options: str) -> str:
    """In OpenCV's way of writing, "name;value|name;value": the user's own options, and ours where they say nothing."""
    theirs = [pair for pair in options.split("|") if ";" in pair]
    named = {pair.partition(";")[0] for pair in theirs}
    if "rtsp_transport" in named:
        named.add("rtsp_flags")
    return "|".join(theirs + [f"{name};{value}" for name, value in _FFMPEG_OPTIONS.items() if name not in named])
