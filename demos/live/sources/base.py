"""Where frames come from: what every source is, whatever is behind it.

with open_source("clip.avi") as source:
    while (frame := source.next()) is not None:
        ...

Live sources (live_source.py) hand over the newest frame; files and pictures (file_source.py) every one.
"""

from __future__ import annotations

import abc
import math
import threading
import time
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from demos.live.sources.opencv import opencv
from simplenet.errors import SourceError

UInt8Array = npt.NDArray[np.uint8]
SourceState = Literal["running", "reconnecting", "ended", "failed"]
SourceKind = Literal["camera", "stream", "file", "images", "synthetic", "visitor"]

MAX_FRAME_MEGAPIXELS = 50
TYPE_NEXT = "name a video, a camera or a stream, or try --source synthetic"
BAD_FRAMES_IN_A_ROW, BAD_FRAMES_S = 8, 1.0


@dataclass(frozen=True)
class Frame:
    """`image` is RGB uint8 [H, W, 3], the receiver's to draw on; `captured_s` when it arrived, by time.perf_counter."""

    image: UInt8Array
    captured_s: float


class Capture(Protocol):
    """What is used of cv2.VideoCapture once it is open."""

    def read(self) -> tuple[bool, Any]: ...
    def release(self) -> None: ...


class Source(abc.ABC):
    """Frames one after another. Use it as a context manager, or call `close`; one thread asks for frames."""

    name: str
    """As shown to people; never with a password."""
    kind: SourceKind
    id: int = -1
    """Given by SourceScheduler.add."""
    is_live: bool = False
    """Whether frames come on their own, so that they have an age and can be missed. A stream that turns out to be a
    video with an end is not."""
    state: SourceState = "running"
    dropped: int = 0
    """Frames that a newer one replaced before they were asked for, from the first time one was asked for."""
    reconnects: int = 0
    """How often it was lost and came back."""
    note: str | None = None
    """What the person should know: why it reconnects or failed, which pictures were skipped, ..."""
    frame_rate: float | None = None
    """Frames per second that it announces."""

    def __init__(self, name: str, kind: SourceKind) -> None:
        self.name, self.kind = name, kind

    @abc.abstractmethod
    def next(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame, waited for; None after `timeout_s` and at the end (`state` tells which).

        Raises:
            SourceError: it failed for good.
        """

    @abc.abstractmethod
    def poll(self) -> Frame | None:
        """The next frame if it can be had without waiting for it. Only a file raises SourceError here."""

    @abc.abstractmethod
    def ready_at_s(self) -> float:
        """From when on `take` gives a frame, by time.perf_counter; `math.inf` where another thread will tell."""

    def subscribe(self, changed: threading.Condition) -> None:  # noqa: B027 - files have nothing to tell
        """From now on, also notifies `changed` whenever a frame arrives or the state changes."""

    def request_stop(self) -> None:  # noqa: B027 - where nothing runs, nothing has to stop
        """Asks for the end without waiting for it, so that several sources can be closed in the time of one."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of the file or device; harmless the second time. Any thread may call it."""

    @property
    def has_ended(self) -> bool:
        return self.state in ("ended", "failed")

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_size(width: float, height: float, name: str) -> None:
    """Raises SourceError for frames of more than `MAX_FRAME_MEGAPIXELS`."""
    if width * height > MAX_FRAME_MEGAPIXELS * 1e6:
        raise SourceError(
            f"{name} has frames of {width:.0f}x{height:.0f}, over {MAX_FRAME_MEGAPIXELS} megapixels; scale it down"
        )


def valid_frame_rate(frames_per_second: float) -> float | None:
    """What a file or device announces, if it can be true."""
    return frames_per_second if math.isfinite(frames_per_second) and 0 < frames_per_second <= 1000 else None


def next_deadline(due_s: float, period_s: float, now_s: float) -> float:
    """When the frame after the one that was due at `due_s` and came at `now_s` is due: a caller a little late catches
    up, one that is late by more than a frame does not rush."""
    return (due_s if now_s - due_s < period_s else now_s) + period_s


def read_pixels(capture: Capture, name: str) -> UInt8Array | None:
    """The next frame as OpenCV gives it, uint8 [H, W, 3] in the order blue, green, red, or None where there is none.

    Raises:
        SourceError: the frame cannot be used: too large, or of numbers that are no pixels. cv2.error: OpenCV failed.
    """
    found, pixels = capture.read()
    if not found or not isinstance(pixels, np.ndarray) or not pixels.size:
        return None
    check_size(pixels.shape[1] if pixels.ndim > 1 else pixels.size, pixels.shape[0], name)
    return _to_bgr(pixels, name)


def read_frame(capture: Capture, name: str) -> UInt8Array | None:
    """The same, but a few damaged frames between good ones are passed over; to OpenCV each looks like the end.

    Not so after a read that took long: what has stalled shall not be waited for eight times.
    """
    start_s = time.perf_counter()
    for _ in range(BAD_FRAMES_IN_A_ROW):
        if (pixels := read_pixels(capture, name)) is not None:
            return pixels
        if time.perf_counter() - start_s > BAD_FRAMES_S:
            return None
    return None


def to_rgb(bgr: UInt8Array) -> UInt8Array:
    cv2 = opencv()
    rgb: UInt8Array = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def _to_bgr(pixels: npt.NDArray[Any], name: str) -> UInt8Array:
    """Gray, 16-bit gray and frames with a fourth channel, as industrial cameras and GStreamer give them, too."""
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
