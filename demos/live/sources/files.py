"""Video files and image files, read in the thread of the loop, so that no frame is dropped."""

from __future__ import annotations

import abc
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from demos.live.sources.base import Frame, FrameReader, Pacer, Source, SourceKind, check_size
from simplenet.errors import ImageError, SourceError, one_line
from simplenet.images import read_frames, read_rgb
from simplenet.preprocessing import UInt8Array

IMAGES_PER_SECOND = 1.0
_MAX_NAMED = 3


class FileSource(Source):
    """Base of videos and images: reads one frame at a time, at its time in the file if paced."""

    def __init__(self, name: str, kind: SourceKind, frame_rate: float | None, pace: bool) -> None:
        super().__init__(name, kind)
        self.frame_rate = frame_rate
        self._pacer = Pacer(pace)
        self._lock = threading.Lock()
        self._end_s = 0.0
        """When the frame that was read last ends, in seconds from the first."""
        self._has_next = False
        self._next: tuple[UInt8Array, float] | None = None
        """The next frame, read ahead because its time says when it is due; None at the end."""

    @abc.abstractmethod
    def _read(self) -> tuple[UInt8Array, float] | None:
        """Set `_end_s`, and return the next frame, RGB uint8 [H, W, 3], and its time, or None at the end.

        Raises SourceError.
        """

    def _release(self) -> None:
        """Release the file."""

    def ready_at_s(self) -> float:
        return math.inf if self.has_ended else self._pacer.due_s if self._has_next else 0.0

    def poll(self) -> Frame | None:
        with self._lock:
            if self.has_ended:
                return None
            try:
                if not self._has_next:
                    self._next, self._has_next = self._read(), True
                    self._pacer.schedule(self._next[1] if self._next else self._end_s)
            except SourceError as error:
                self.state, self.note = "failed", str(error)
                return None
            now_s = time.perf_counter()
            if now_s < self._pacer.due_s:
                return None
            self._pacer.advance()
            frame, self._next, self._has_next = self._next, None, False
            if frame is None:
                self.state = "ended"
                return None
        return Frame(frame[0], now_s, frame[1], self._end_s - frame[1])

    def close(self) -> None:
        with self._lock:  # releasing during a read crashes
            if not self.has_ended:
                self.state = "ended"
            self._next = None
            self._release()


class VideoFile(FileSource):
    """A video, opened again at its end if `loop`."""

    def __init__(self, name: str, open: Callable[[], FrameReader], *, loop: bool = False, pace: bool = False) -> None:
        self._open, self._loop, self._reader = open, loop, open()
        self._start_s = 0.0
        super().__init__(name, "file", self._reader.frame_rate, pace)

    def _read(self) -> tuple[UInt8Array, float] | None:
        image = self._reader.read()
        self.note = self._reader.note
        if image is None and self._loop:
            self._start_s += self._reader.end_s
            self._release()
            self._reader = self._open()
            image = self._reader.read()
        self._end_s = self._start_s + self._reader.end_s
        return None if image is None else (image, self._start_s + (self._reader.media_s or 0.0))

    def _release(self) -> None:
        self._reader.release()


class ImageSequenceSource(FileSource):
    """Image files, one per frame; a single animated file is a sequence at its own times. `loop`: repeat.

    Unreadable files are skipped and named in `note`.
    """

    def __init__(self, name: str, paths: Sequence[Path], *, loop: bool = False, pace: bool = False) -> None:
        is_paced = pace or (loop and len(paths) == 1)
        super().__init__(name, "images", IMAGES_PER_SECOND if is_paced else None, is_paced)
        self._paths, self._loop = paths, loop
        self._frames = self._decode()
        self._unreadable: dict[Path, str] = {}

    def _read(self) -> tuple[UInt8Array, float] | None:
        for image, duration_s in self._frames:
            if duration_s is not None:
                self.frame_rate = None  # of an animation: each frame has its own duration
            media_s, self._end_s = self._end_s, self._end_s + (duration_s or 1 / IMAGES_PER_SECOND)
            return image, media_s
        return None

    def _decode(self) -> Iterator[tuple[UInt8Array, float | None]]:
        """Yield images and their durations in seconds. Raises SourceError if no file can be read."""
        has_read, is_single = True, len(self._paths) == 1
        while has_read:
            has_read = False
            for path in self._paths:
                try:
                    for image, duration_s in read_frames(path) if is_single else [(read_rgb(path), None)]:
                        check_size(image.shape[1], image.shape[0], str(path))
                        yield image, duration_s
                        has_read = True
                except (ImageError, SourceError) as error:
                    self._skip(path, error)
            if has_read and not self._loop:
                return
        first = next(iter(self._unreadable.values()))
        prefix = f"none of the {len(self._paths)} images in {self.name} can be read: "
        raise SourceError(first if is_single else prefix + first)

    def _skip(self, path: Path, error: Exception) -> None:
        self._unreadable[path] = one_line(error)
        names = ", ".join(one_line(skipped.name, 60) for skipped in list(self._unreadable)[:_MAX_NAMED])
        more = f" and {len(self._unreadable) - _MAX_NAMED} more" if len(self._unreadable) > _MAX_NAMED else ""
        self.note = f"{len(self._unreadable)} of {len(self._paths)} images cannot be read: {names}{more}"
        if len(self._paths) == 1:  # an animation that is damaged after its first frames
            self.note = self._unreadable[path]
