"""A camera that gives one frame at a time, when the test says so."""

from __future__ import annotations

import queue
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from demos.live.sources.base import Frame, OpenError, Source
from demos.live.sources.capture import CaptureSource
from demos.live.sources.files import VideoFile
from demos.live.sources.opencv import CaptureReader
from simplenet.errors import SourceError
from tests.waiting import wait_until


class ScriptedCamera:
    """Stands in for cv2.VideoCapture: `read` blocks until the test calls `show` or `end`."""

    def __init__(self) -> None:
        self.frames: queue.Queue[npt.NDArray[np.uint8] | Exception | None] = queue.Queue()
        self.first: npt.NDArray[np.uint8] | None = None
        self.reads = self.releases = 0

    def read(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        assert not self.releases, "read after release"
        if self.first is not None:
            first, self.first = self.first, None
            return True, first
        self.reads += 1
        frame = self.frames.get(timeout=10)
        if isinstance(frame, Exception):
            raise frame
        return frame is not None, frame

    def release(self) -> None:
        self.releases += 1

    def show(self, brightness: int, width: int = 8, height: int = 8) -> None:
        self.frames.put(red_frame(brightness, width, height))

    def end(self) -> None:
        for _ in range(20):  # single damaged frames are skipped
            self.frames.put(None)

    def wait_for_reads(self, count: int) -> None:
        """Wait for read number `count`: the frames before it have been pushed."""
        wait_until(lambda: self.reads >= count)


def red_frame(brightness: int, width: int = 8, height: int = 8) -> npt.NDArray[np.uint8]:
    """A red frame in BGR order."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 2] = brightness
    return frame


def source_of(
    *cameras: ScriptedCamera,
    name: str = "camera 7",
    reconnect_timeout_s: float = 60,
) -> CaptureSource:
    """A source that opens one camera after the other, each with a first frame of brightness 1; then opening fails."""
    left = list(cameras)

    def open() -> CaptureReader:
        if not left:
            raise OpenError(f"{name} cannot be opened", "plug it in")
        left[0].first = red_frame(1)
        return CaptureReader(left.pop(0), name, 100.0)

    return CaptureSource(name, "camera", open, open(), reconnect_timeout_s=reconnect_timeout_s)


def video_of(capture: Any, name: str = "clip") -> VideoFile:
    return VideoFile(name, lambda: CaptureReader(capture, name))


def next_frame(source: Source, timeout_s: float = 30) -> Frame | None:
    """Wait for the next frame; None after `timeout_s` and at the end. Raises SourceError if the source failed."""
    deadline_s = time.perf_counter() + timeout_s
    while (frame := source.poll()) is None and not source.has_ended and time.perf_counter() < deadline_s:
        time.sleep(0.001)
    if frame is None and (frame := source.poll()) is None and source.state == "failed":  # the last one before it failed
        raise SourceError(source.note)
    return frame


def brightness(source: Source) -> float:
    """Mean of the next frame's red channel; the other channels must be dark."""
    frame = next_frame(source)
    assert frame is not None
    assert frame.image.dtype == np.uint8
    assert frame.image[..., 1:].max() < 40
    return float(frame.image[..., 0].mean())
