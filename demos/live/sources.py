"""Where frames come from: a video file, every frame of it, or a camera or stream, always its newest frame.

with open_source("clip.avi") as source:
    while (frame := source.next()) is not None:
        ...
"""

from __future__ import annotations

import abc
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from demos.live.opencv import CAMERA_STALL_S, opencv
from simplenet.errors import SourceError, one_line

UInt8Array = npt.NDArray[np.uint8]

LARGEST_FRAME_MEGAPIXELS = 50
STREAM_TIMEOUT_MS = 5_000
TYPE_NEXT = "name a video, a camera or a stream: --source clip.mp4, --source 0 or --source rtsp://…"


@dataclass(frozen=True)
class Frame:
    """`image` is RGB uint8 [H, W, 3], the receiver's to draw on; `captured_s` when it arrived, by time.perf_counter."""

    image: UInt8Array
    captured_s: float


class Capture(Protocol):
    """What is used of cv2.VideoCapture."""

    def read(self) -> tuple[bool, Any]: ...
    def release(self) -> None: ...


class Source(abc.ABC):
    """Frames one after another. Use it as a context manager, or call `close`; it is read by one thread."""

    is_live = False
    """Whether frames come on their own, so that they have an age and can be missed."""
    dropped = 0
    """Frames that a newer one replaced before they were asked for, from the first `next` on."""
    note: str | None = None
    """After the end: what the person should know about it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abc.abstractmethod
    def next(self) -> Frame | None:
        """The next frame, waited for if need be, or None at the end.

        Raises:
            SourceError: the camera or stream failed, or a frame cannot be used.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of the file or device; harmless the second time."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VideoFile(Source):
    """A file: decoded in the caller's thread, frame by frame, so none is lost however slow the model is."""

    def __init__(self, name: str, capture: Capture, announced_frames: int) -> None:
        super().__init__(name)
        self._capture, self._announced = capture, announced_frames
        self._count = 0

    def next(self) -> Frame | None:
        bgr = _read(self._capture, self.name)
        captured_s = time.perf_counter()
        if bgr is None:
            if not self._count:
                raise SourceError(f"{self.name} holds no frame that can be decoded; {TYPE_NEXT}")
            if self._count < self._announced:
                self.note = f"{self.name} announces {self._announced} frames, {self._count} could be decoded"
            return None
        self._count += 1
        return Frame(_rgb(bgr), captured_s)

    def close(self) -> None:
        self._capture.release()


class LiveSource(Source):
    """A camera or stream: a thread reads all the time and keeps only the newest frame; the model never sees old ones.

    A condition variable wakes the caller the moment a frame arrives; nothing polls.
    """

    is_live = True

    def __init__(self, name: str, capture: Capture, *, may_end: bool, timeout_s: float = 2 * CAMERA_STALL_S) -> None:
        """A camera may not end, a stream may; `timeout_s` bounds the wait for one frame."""
        super().__init__(name)
        self._capture, self._may_end, self._timeout_s = capture, may_end, timeout_s
        self._changed = threading.Condition()
        self._newest: tuple[UInt8Array, float] | None = None
        self._stopping = self._ended = False
        self._failure: Exception | None = None
        self._arrived = self._asked_for = False
        self._thread = threading.Thread(target=self._read_until_stopped, name=f"reader of {name}", daemon=True)
        self._thread.start()

    def next(self) -> Frame | None:
        with self._changed:
            self._asked_for = True
            if not self._changed.wait_for(lambda: self._newest is not None or self._ended, self._timeout_s):
                raise SourceError(f"{self.name} gave no frame for {self._timeout_s:g} s; is it still connected?")
            newest, self._newest = self._newest, None
        if newest is None:
            if self._failure is not None:
                raise self._failure
            if self._arrived and self._may_end:
                return None
            raise SourceError(
                f"{self.name} stopped giving frames; is it still connected?"
                if self._arrived
                else f"{self.name} gave no frame at all; {TYPE_NEXT}"
            )
        bgr, captured_s = newest
        return Frame(_rgb(bgr), captured_s)

    def close(self) -> None:
        self._stopping = True
        self._thread.join(STREAM_TIMEOUT_MS / 1e3 + 1)  # a read that hangs ends by its own timeout

    def _read_until_stopped(self) -> None:
        failure: Exception | None = None
        try:
            while not self._stopping:
                bgr = _read(self._capture, self.name)
                if bgr is None:
                    break
                with self._changed:
                    self.dropped += self._asked_for and self._newest is not None
                    self._newest, self._arrived = (bgr, time.perf_counter()), True
                    self._changed.notify()
        except Exception as error:  # noqa: BLE001 - it is raised where the frame is waited for
            failure = error
        finally:
            self._capture.release()  # here and not in close(): releasing under a running read() crashes
            with self._changed:
                self._failure, self._ended = failure, True
                self._changed.notify()


def check_size(width: float, height: float, name: str) -> None:
    """Raises SourceError for frames of more than `LARGEST_FRAME_MEGAPIXELS`."""
    if width * height > LARGEST_FRAME_MEGAPIXELS * 1e6:
        raise SourceError(
            f"{name} has frames of {width:.0f}x{height:.0f}, over {LARGEST_FRAME_MEGAPIXELS} megapixels; scale it down"
        )


def _read(capture: Capture, name: str) -> UInt8Array | None:
    """The next frame as OpenCV gives it, BGR uint8 [H, W, 3], or None where there is none."""
    cv2 = opencv()
    try:
        found, bgr = capture.read()
    except cv2.error as error:
        raise SourceError(f"{name} cannot be decoded: {one_line(error)}") from error
    if not found or bgr is None:
        return None
    if bgr.dtype != np.uint8 or bgr.ndim != 3 or bgr.shape[2] != 3:
        raise SourceError(f"{name} gave a frame of {bgr.dtype} {list(bgr.shape)}, not 8-bit colour")
    check_size(bgr.shape[1], bgr.shape[0], name)
    pixels: UInt8Array = bgr
    return pixels


def _rgb(bgr: UInt8Array) -> UInt8Array:
    cv2 = opencv()
    rgb: UInt8Array = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb
