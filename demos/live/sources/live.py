"""Live sources: another thread pushes frames, and only the newest one is kept."""

from __future__ import annotations

import math
import threading
import time

from demos.live.sources.base import Frame, Source, SourceKind, SourceState, UInt8Array
from simplenet.errors import SourceError


class LiveSource(Source):
    """Holds the newest frame that any thread has pushed. A condition variable wakes the reader; nothing polls.

    source = LiveSource("visitor 1", "visitor")
    source.push(image)                   # any thread
    frame = source.next(timeout_s=1)     # the thread of the loop
    """

    is_live = True

    def __init__(self, name: str, kind: SourceKind) -> None:
        super().__init__(name, kind)
        self._changed = threading.Condition()
        self._subscribers: list[threading.Condition] = []
        self._newest: tuple[UInt8Array, float] | None = None
        self._is_read = False

    def push(self, image: UInt8Array, captured_s: float | None = None) -> None:
        """Replace the newest frame. Ignored after the end.

        Args:
            image: RGB uint8 [H, W, 3]. The source takes ownership.
            captured_s: time.perf_counter() timestamp; default: now.
        """
        captured_s = time.perf_counter() if captured_s is None else captured_s
        with self._changed:
            if self.has_ended:
                return
            self.dropped += self._is_read and self._newest is not None
            self._newest, self.state = (image, captured_s), "running"
            self._changed.notify_all()
        self._notify_subscribers()

    def set_state(self, state: SourceState, note: str | None) -> None:
        """Change the state, and the reason for it. "ended" and "failed" are final."""
        with self._changed:
            if not self.has_ended:
                self.state, self.note = state, note
            self._changed.notify_all()
        self._notify_subscribers()

    def next(self, timeout_s: float | None = None) -> Frame | None:
        with self._changed:
            self._is_read = True
            self._changed.wait_for(lambda: self._newest is not None or self.has_ended, timeout_s)
        frame = self.poll()
        if frame is None and self.state == "failed":
            raise SourceError(self.note or f"{self.name} failed")
        return frame

    def poll(self) -> Frame | None:
        with self._changed:
            self._is_read = True
            newest, self._newest = self._newest, None
            self._changed.notify_all()
        return None if newest is None else Frame(self._to_rgb(newest[0]), newest[1])

    def ready_at_s(self) -> float:
        return math.inf if self._newest is None else 0.0

    def subscribe(self, changed: threading.Condition) -> None:
        with self._changed:
            if changed not in self._subscribers:
                self._subscribers.append(changed)

    def close(self) -> None:
        self.set_state("ended", self.note)
        with self._changed:
            self._newest = None

    def _to_rgb(self, pixels: UInt8Array) -> UInt8Array:
        """Convert a pushed frame when it is read, so that dropped frames cost nothing."""
        return pixels

    def _notify_subscribers(self) -> None:
        for changed in tuple(self._subscribers):
            with changed:
                changed.notify_all()
