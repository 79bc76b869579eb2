"""The interfaces of sources and readers; `LiveSource`, which receives frames from another thread; and `Pacer`."""

from __future__ import annotations

import abc
import contextlib
import math
import threading
import time
from dataclasses import dataclass
from typing import Literal

from simplenet.errors import SourceError
from simplenet.preprocessing import UInt8Array

SourceState = Literal["running", "reconnecting", "ended", "failed"]
SourceKind = Literal["camera", "stream", "file", "images", "synthetic", "visitor"]

MAX_FRAME_MEGAPIXELS = 50
MAX_LATE_S = 0.1
HINT = "name a video, a camera or a stream, or try --source synthetic"


@dataclass(frozen=True)
class Frame:
    """One image of a source.

    Attributes:
        image: RGB uint8 [H, W, 3], owned by the receiver.
        captured_s: time.perf_counter() timestamp.
        media_s: presentation time in a file, seconds from its first frame, increasing also when the file is looped.
            None for live sources.
        duration_s: how long the file shows it, seconds; None if unknown.
    """

    image: UInt8Array
    captured_s: float
    media_s: float | None = None
    duration_s: float | None = None


class OpenError(SourceError):
    """A source cannot be opened. `problem` is the message without what to type."""

    def __init__(self, problem: str, remedy: str = HINT) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem


class DecodeError(SourceError):
    """Reading failed. Opening the source again may help."""


class FrameReader(abc.ABC):
    """Reads an open camera, stream or video frame by frame, in one thread.

    Attributes:
        is_live: False for files and for streams that announce their length.
        frame_rate: nominal frames per second, if known.
        media_s, end_s: when the frame that was read last starts and ends, in seconds from the first; not live.
        note: how many frames of a video are damaged or missing.
    """

    is_live = True
    frame_rate: float | None = None
    media_s: float | None = None
    end_s = 0.0
    note: str | None = None

    @abc.abstractmethod
    def read(self) -> UInt8Array | None:
        """Return the next frame, RGB uint8 [H, W, 3], or None if there is none.

        Raises:
            DecodeError: reading failed.
            SourceError: the frame is too large or of an unknown kind.
        """

    @abc.abstractmethod
    def release(self) -> None:
        """Close the file or device; not during a `read`."""


class Source(contextlib.AbstractContextManager["Source"]):
    """Frames in order, read by one thread through a SourceScheduler. Use it as a context manager or call `close`.

    Files are processed frame by frame; live sources drop stale frames. An open source raises no errors: if it fails,
    its `state` is "failed" and its `note` has the reason.
    """

    name: str
    """For display; contains no credentials."""
    kind: SourceKind
    id: int = -1
    """Set by SourceScheduler.add."""
    is_live: bool = False
    """Whether frames have an age and can be dropped. False for files, and for streams with a known number of frames."""
    state: SourceState = "running"
    dropped: int = 0
    """Number of frames that a newer one replaced before `poll` returned them, counted from the first `poll` on."""
    reconnects: int = 0
    note: str | None = None
    """Details for the user: why it is reconnecting or failed, which images were skipped."""
    frame_rate: float | None = None
    """Nominal frames per second, if known."""

    def __init__(self, name: str, kind: SourceKind) -> None:
        self.name, self.kind = name, kind

    @abc.abstractmethod
    def poll(self) -> Frame | None:
        """Return the next frame if it is ready, else None."""

    @abc.abstractmethod
    def ready_at_s(self) -> float:
        """When `poll` will return a frame, in time.perf_counter() seconds; inf if that is unknown."""

    def subscribe(self, changed: threading.Condition) -> None:
        """Notify `changed` whenever a frame arrives or the state changes."""

    def request_stop(self) -> None:
        """Signal the reader thread to stop, without waiting for it. `close` waits."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the file or device. Idempotent; any thread may call it."""

    @property
    def has_ended(self) -> bool:
        return self.state in ("ended", "failed")

    def __exit__(self, *_: object) -> None:
        self.close()


class LiveSource(Source):
    """Holds the newest frame that any thread has pushed.

    source = LiveSource("visitor 1", "visitor")
    source.push(image)        # any thread
    frame = source.poll()     # the thread of the loop
    """

    is_live = True

    def __init__(self, name: str, kind: SourceKind) -> None:
        super().__init__(name, kind)
        self._changed = threading.Condition()
        self._subscriber: threading.Condition | None = None
        self._newest: Frame | None = None
        self._is_read = False

    def push(
        self,
        image: UInt8Array,
        captured_s: float | None = None,
        media_s: float | None = None,
        duration_s: float | None = None,
    ) -> None:
        """Replace the newest frame. Ignored after the end.

        Args:
            image: RGB uint8 [H, W, 3]. The source takes ownership.
            captured_s: time.perf_counter() timestamp; default: now.
            media_s, duration_s: as in `Frame`.
        """
        frame = Frame(image, time.perf_counter() if captured_s is None else captured_s, media_s, duration_s)
        with self._changed:
            if self.has_ended:
                return
            self.dropped += self._is_read and self._newest is not None
            self._newest, self.state = frame, "running"
        self._notify_subscriber()

    def set_state(self, state: SourceState, note: str | None) -> None:
        """Change the state, and the reason for it. "ended" and "failed" are final."""
        with self._changed:
            if not self.has_ended:
                self.state, self.note = state, note
        self._notify_subscriber()

    def poll(self) -> Frame | None:
        with self._changed:
            self._is_read = True
            newest, self._newest = self._newest, None
            self._changed.notify_all()
        return newest

    def ready_at_s(self) -> float:
        return math.inf if self._newest is None else 0.0

    def subscribe(self, changed: threading.Condition) -> None:
        self._subscriber = changed

    def close(self) -> None:
        self.set_state("ended", self.note)
        with self._changed:
            self._newest = None

    def _notify_subscriber(self) -> None:
        if self._subscriber is not None:
            with self._subscriber:
                self._subscriber.notify_all()


class Pacer:
    """Computes when each frame of a file is due, from its time in the file.

    A frame that is less than `MAX_LATE_S` late delays no other. After a longer delay, such as a pause, all further
    frames are due later.
    """

    def __init__(self, is_on: bool) -> None:
        """Off: every frame is due at once."""
        self.due_s = 0.0
        """time.perf_counter() timestamp."""
        self._is_on, self._start_s = is_on, math.nan

    def schedule(self, media_s: float) -> None:
        """Set `due_s` of a frame; the first one is due now."""
        if self._is_on:
            if math.isnan(self._start_s):
                self._start_s = time.perf_counter() - media_s
            self.due_s = self._start_s + media_s

    def advance(self) -> None:
        """Call this when the frame is handed over."""
        late_s = time.perf_counter() - self.due_s
        if late_s > MAX_LATE_S:
            self._start_s += late_s


def check_size(width: float, height: float, name: str) -> None:
    """Raise SourceError for frames of more than `MAX_FRAME_MEGAPIXELS`."""
    if width * height > MAX_FRAME_MEGAPIXELS * 1e6:
        raise SourceError(
            f"{name} has frames of {width:.0f}x{height:.0f}, over {MAX_FRAME_MEGAPIXELS} megapixels; scale it down"
        )
