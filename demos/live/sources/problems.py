"""Say why a file or an address gives no video, and what to do."""

from __future__ import annotations

import errno
import re
import socket
import urllib.parse
from typing import Any

from demos.live.sources.base import HINT
from simplenet.errors import one_line

# Per class of PyAV's errors: what is wrong, what to do.
_ERRORS = {
    "HTTPUnauthorizedError": ("wants another user and password (401)", "type scheme://USER:PASSWORD@host/path"),
    "HTTPForbiddenError": ("refuses access (403)", "check the user's rights and the path"),
    "HTTPNotFoundError": ("does not exist (404)", "check the path after the host"),
    "HTTPServerError": ("has an error of its own (5xx)", "wait, or restart the camera"),
    "ConnectionRefusedError": ("refuses the connection", "check host and port, and that the camera is on"),
    "ExitError": ("does not answer", "check host and port, and that the camera is on"),
    "TimeoutError": ("does not answer", "check host and port, and that the camera is on"),
    "EOFError": ("closes the connection without a frame", "check the path"),
    "InvalidDataError": ("sends nothing that FFmpeg can read", "check the path"),
    "ArgumentError": ("is no address, or its format is not allowed", "check the address"),
}
_CONTENTS = {  # what a file or address holds that is no video, by its first bytes
    "a text in JSON": rb"\s*[{\[]\s*[\"{\[}\]]",
    "a web page": rb"\s*<(!doctype html|html)",
    "a playlist": rb"\s*(#EXTM3U|ffconcat|\[playlist\]|<\?xml|<MPD|v=0)",
    "one image": rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF....WEBP",
    "an MP4 without its index, such as a recording that was not finished": rb"....ftyp",
    "only zeros": rb"\0+$",
}


def content_of(head: bytes) -> str:
    """What a file or address with these first bytes holds that is no video; empty if that is unknown."""
    return next((kind for kind, start in _CONTENTS.items() if re.match(start, head, re.I | re.S)), "")


def is_not(name: str, content: str, is_file: bool) -> tuple[str, str]:
    """What is wrong with a file or address that holds no video, and what to do."""
    if is_file:
        return f"{name} is not a video that FFmpeg can read" + f", but {content}" * bool(content), HINT
    return f"{name} gives {content}, not a stream", "name the address of the camera's stream"


def explain(error: Any, address: str = "", head: bytes | None = None) -> tuple[str, str]:
    """What is wrong with a stream, and what to do. Not str(error), which contains the address.

    Args:
        error: one of PyAV's.
        head: the first bytes of an address that could be opened, but not as a video.
    """
    if head == b"":
        return "sends nothing", "check the path"
    if head:
        late = " in time" * (type(error).__name__ == "ExitError")
        return f"sends data, but FFmpeg recognizes no video{late}", "check the path"
    if error.errno == errno.EIO:  # also FFmpeg's error for an unknown host
        try:
            socket.getaddrinfo(urllib.parse.urlsplit(address).hostname, 80)
        except (OSError, ValueError):
            return "has an unknown host", "check the name of the host"
        return "breaks off", "check the address"
    return _ERRORS.get(type(error).__name__, (f"reports {one_line(error.strerror)}", "check the address"))
