"""Video files and pictures: read frame by frame in the caller's thread, so none is lost however slow the model is."""

from __future__ import annotations

import abc
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from demos.live.sources.base import (
    TYPE_NEXT,
    Capture,
    Frame,
    Source,
    SourceKind,
    UInt8Array,
    check_size,
    next_deadline,
    read_frame,
    to_rgb,
)
from demos.live.sources.opencv import opencv
from simplenet.errors import ImageError, SourceError, one_line
from simplenet.images import read_rgb

IMAGES_PER_SECOND = 1.0
_MOST_NAMED = 3


class FileSource(Source):
    """What videos and pictures share: an end, a pace, and one thread that reads at a time."""

    def __init__(self, name: str, kind: SourceKind, frame_rate: float | None, pace: bool) -> None:
        """`pace`: at most `frame_rate` frames a second, as they are meant to be seen."""
        super().__init__(name, kind)
        self.frame_rate = frame_rate
        self._period_s = 1 / frame_rate if pace and frame_rate else 0.0
        self._next_s = 0.0
        self._failure: SourceError | None = None
        self._reading = threading.Lock()
        self._closed = threading.Event()

    @abc.abstractmethod
    def _read(self) -> UInt8Array | None:
        """The next frame in RGB, or None at the end. Raises SourceError."""

    def _release(self) -> None:
        """Lets go of the file."""

    def ready_at_s(self) -> float:
        return math.inf if self.has_ended else self._next_s

    def next(self, timeout_s: float | None = None) -> Frame | None:
        wait_s = self._next_s - time.perf_counter()
        if wait_s > 0:
            self._closed.wait(wait_s if timeout_s is None else min(wait_s, timeout_s))
            if timeout_s is not None and timeout_s < wait_s:
                return None
        return self._take()

    def poll(self) -> Frame | None:
        return self._take() if time.perf_counter() >= self._next_s else None

    def close(self) -> None:
        self._closed.set()
        with self._reading:  # never under a running read
            if not self.has_ended:
                self.state = "ended"
            self._release()

    def _take(self) -> Frame | None:
        with self._reading:
            if self._failure is not None:
                raise self._failure
            if self.has_ended or self._closed.is_set():
                return None
            try:
                image = self._read()
            except SourceError as error:
                self._failure, self.state, self.note = error, "failed", str(error)
                raise
            now_s = time.perf_counter()
            if image is None:
                self.state = "ended"
                return None
            self._next_s = next_deadline(self._next_s, self._period_s, now_s)
        return Frame(image, now_s)


class VideoFile(FileSource):
    """A video. With `reopen` it starts again at the end."""

    def __init__(
        self,
        name: str,
        capture: Capture,
        announced_frames: int = 0,
        *,
        frame_rate: float | None = None,
        reopen: Callable[[], Capture] | None = None,
        pace: bool = False,
    ) -> None:
        super().__init__(name, "file", frame_rate, pace)
        self._capture, self._announced, self._reopen = capture, announced_frames, reopen
        self._count = 0

    def _read(self) -> UInt8Array | None:
        bgr = self._decode()
        if bgr is None and self._count:
            if self._count < self._announced:
                self.note = f"{self.name} announces {self._announced} frames, {self._count} could be decoded"
            if self._reopen is None:
                return None
            self._capture.release()
            self._capture, self._count = self._reopen(), 0
            bgr = self._decode()
        if bgr is None:
            raise SourceError(f"{self.name} holds no frame that can be decoded; {TYPE_NEXT}")
        self._count += 1
        return to_rgb(bgr)

    def _decode(self) -> UInt8Array | None:
        try:
            return read_frame(self._capture, self.name)
        except opencv().error as error:
            raise SourceError(f"{self.name} cannot be decoded: {one_line(error)}") from error

    def _release(self) -> None:
        self._capture.release()


class ImageSequenceSource(FileSource):
    """Picture files, each a frame. One that cannot be read is named in `note`, counted and skipped.

    With `loop` they start again at the end, and a single one stays.
    """

    def __init__(self, name: str, paths: Sequence[Path], *, loop: bool = False, pace: bool = False) -> None:
        paced = pace or (loop and len(paths) == 1)
        super().__init__(name, "images", IMAGES_PER_SECOND if paced else None, paced)
        self._paths, self._loop = tuple(paths), loop
        self._position = 0
        self.unreadable: dict[Path, str] = {}
        """Which pictures were skipped, and why."""

    def _read(self) -> UInt8Array | None:
        for _ in self._paths:
            if self._position == len(self._paths):
                if not self._loop:
                    return None
                self._position = 0
            path = self._paths[self._position]
            self._position += 1
            try:
                image = read_rgb(path)
                check_size(image.shape[1], image.shape[0], str(path))
                return image
            except (ImageError, SourceError) as error:
                self.unreadable[path] = one_line(error)
                self._note_unreadable()
        if self._loop or len(self.unreadable) == len(self._paths):
            first = next(iter(self.unreadable.values()))
            several = f"none of the {len(self._paths)} pictures in {self.name} can be used: "
            raise SourceError(first if len(self._paths) == 1 else several + first)
        return None

    def _note_unreadable(self) -> None:
        named = [one_line(path.name, 60) for path in list(self.unreadable)[:_MOST_NAMED]]
        more = len(self.unreadable) - len(named)
        self.note = f"{len(self.unreadable)} of {len(self._paths)} pictures cannot be used: {', '.join(named)}"
        self.note += f" and {more} more" if more else ""
