"""Live sources: another thread pushes frames, and only the newest one is kept."""

from __future__ import annotations

import math
import threading
import time

from demos.live.sources.base import Frame, Source, SourceKind, SourceState, UInt8Array


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

    def push(self, image: UInt8Array, captured_s: float | None = None) -> None:
        """Replace the newest frame. Ignored after the end.

        Args:
            image: RGB uint8 [H, W, 3]. The source takes ownership.
            captured_s: time.perf_counter() timestamp; default: now.
        """
        frame = Frame(image, time.perf_counter() if captured_s is None else captured_s)
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
