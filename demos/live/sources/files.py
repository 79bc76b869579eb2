"""Video files and image files, read in the thread of the loop, so that no frame is dropped."""

from __future__ import annotations

import abc
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from demos.live.sources.base import Frame, Pacer, Source, SourceKind, check_size
from demos.live.sources.opencv import FrameReader, to_rgb
from simplenet.errors import ImageError, SourceError, one_line
from simplenet.images import read_rgb
from simplenet.preprocessing import UInt8Array

IMAGES_PER_SECOND = 1.0
_MAX_NAMED = 3


class FileSource(Source):
    """Base of videos and images: reads one frame at a time, at most at its frame rate if paced."""

    def __init__(self, name: str, kind: SourceKind, frame_rate: float | None, pace: bool) -> None:
        super().__init__(name, kind)
        self.frame_rate = frame_rate
        self._pacer = Pacer(frame_rate if pace else None)
        self._lock = threading.Lock()

    @abc.abstractmethod
    def _read(self) -> UInt8Array | None:
        """Return the next frame, RGB uint8 [H, W, 3], or None at the end. Raises SourceError."""

    def _release(self) -> None:
        """Release the file."""

    def ready_at_s(self) -> float:
        return math.inf if self.has_ended else self._pacer.deadline_s

    def poll(self) -> Frame | None:
        with self._lock:
            if self.has_ended or time.perf_counter() < self._pacer.deadline_s:
                return None
            try:
                image = self._read()
            except SourceError as error:
                self.state, self.note = "failed", str(error)
                return None
            if image is None:
                self.state = "ended"
                return None
            now_s = time.perf_counter()
            self._pacer.advance(now_s)
        return Frame(image, now_s)

    def close(self) -> None:
        with self._lock:  # releasing during a read crashes
            if not self.has_ended:
                self.state = "ended"
            self._release()


class VideoFile(FileSource):
    """A video, opened again at its end if `loop`."""

    def __init__(self, name: str, open: Callable[[], FrameReader], *, loop: bool = False, pace: bool = False) -> None:
        self._open, self._loop, self._reader = open, loop, open()
        super().__init__(name, "file", self._reader.frame_rate, pace)

    def _read(self) -> UInt8Array | None:
        bgr = self._reader.read()
        if bgr is None:
            self.note = self._reader.missing_frames()
            if self._loop:
                self._release()
                self._reader = self._open()
                bgr = self._reader.read()
        return None if bgr is None else to_rgb(bgr)

    def _release(self) -> None:
        self._reader.release()


class ImageSequenceSource(FileSource):
    """Image files, one per frame. Unreadable files are skipped and named in `note`. `loop`: repeat."""

    def __init__(self, name: str, paths: Sequence[Path], *, loop: bool = False, pace: bool = False) -> None:
        is_paced = pace or (loop and len(paths) == 1)
        super().__init__(name, "images", IMAGES_PER_SECOND if is_paced else None, is_paced)
        self._count, self._loop = len(paths), loop
        self._remaining = itertools.cycle(paths) if loop else iter(paths)
        self._unreadable: dict[Path, str] = {}

    def _read(self) -> UInt8Array | None:
        for path in itertools.islice(self._remaining, self._count):
            try:
                image = read_rgb(path)
                check_size(image.shape[1], image.shape[0], str(path))
                return image
            except (ImageError, SourceError) as error:
                self._unreadable[path] = one_line(error)
                names = ", ".join(one_line(skipped.name, 60) for skipped in list(self._unreadable)[:_MAX_NAMED])
                more = f" and {len(self._unreadable) - _MAX_NAMED} more" if len(self._unreadable) > _MAX_NAMED else ""
                self.note = f"{len(self._unreadable)} of {self._count} images cannot be read: {names}{more}"
        if self._loop or len(self._unreadable) == self._count:
            first = next(iter(self._unreadable.values()))
            prefix = f"none of the {self._count} images in {self.name} can be read: "
            raise SourceError(first if self._count == 1 else prefix + first)
        return None
