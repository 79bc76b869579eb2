"""A visitor's own camera: frames that a WebSocket brings become a source that the loop serves like any other."""

from __future__ import annotations

import math
import threading

from demos.live.sources import Frame, Source


class VisitorSource(Source):
    """Keeps the newest frame pushed until the loop takes it. `push` is for any thread."""

    is_live = True

    def __init__(self, name: str) -> None:
        super().__init__(name, "visitor")
        self._changed = threading.Condition()
        self._lock = threading.Lock()
        self._newest: Frame | None = None

    def push(self, frame: Frame) -> None:
        """Hands a frame over; one that was not taken yet is replaced, and counted as dropped."""
        with self._lock:
            self.dropped += self._newest is not None
            self._newest = frame
        self._notify()

    def next(self, timeout_s: float | None = None) -> Frame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self.has_ended, timeout_s)
        return self.take()

    def take(self) -> Frame | None:
        with self._lock:
            newest, self._newest = self._newest, None
        return newest

    def due_s(self) -> float:
        return math.inf if self._newest is None else -math.inf

    def tell(self, changed: threading.Condition) -> None:
        self._changed = changed

    def close(self) -> None:
        self.state = "ended"
        self._notify()

    def _notify(self) -> None:
        changed = self._changed
        with changed:
            changed.notify_all()
