"""Cameras and streams: a thread reads all the time and keeps only the newest frame; the model never sees old ones.

A condition variable wakes the caller the moment a frame arrives; nothing polls. A camera that is unplugged and a stream
that dies are opened again, with pauses that double; until then there is no frame, never a black one.
"""

from __future__ import annotations

import math
import threading
import time

from demos.live.sources.base import (
    Frame,
    Source,
    SourceKind,
    SourceState,
    UInt8Array,
)
from simplenet.errors import SourceError

READ_TIMEOUT_S = 5
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0


class LiveSource(Source):
    """The newest frame of whoever calls `push`, whichever thread that is."""

    is_live = True

    def __init__(self, name: str, kind: SourceKind) -> None:
        super().__init__(name, kind)
        self._changed = threading.Condition()
        self._told: list[threading.Condition] = []
        self._newest: tuple[UInt8Array, float] | None = None
        self._asked_for = False

    def push(self, pixels: UInt8Array, captured_s: float | None = None) -> None:
        """The newest frame, RGB uint8 [H, W, 3], the source's from now on; without a time, it has just come."""
        captured_s = time.perf_counter() if captured_s is None else captured_s
        with self._changed:
            if self.has_ended:
                return
            self.dropped += self._asked_for and self._newest is not None
            self._newest, self.state = (pixels, captured_s), "running"
            self._changed.notify_all()
        self._tell_others()

    def set_state(self, state: SourceState, note: str | None) -> None:
        """Another state, and why. One that ended or failed stays so."""
        with self._changed:
            if not self.has_ended:
                self.state, self.note = state, note
            self._changed.notify_all()
        self._tell_others()

    def next(self, timeout_s: float | None = None) -> Frame | None:
        with self._changed:
            self._asked_for = True
            self._changed.wait_for(lambda: self._newest is not None or self.has_ended, timeout_s)
        frame = self.poll()
        if frame is None and self.state == "failed":
            raise SourceError(self.note or f"{self.name} failed")
        return frame

    def poll(self) -> Frame | None:
        with self._changed:
            self._asked_for = True
            newest, self._newest = self._newest, None
            self._changed.notify_all()
        return None if newest is None else Frame(self._to_rgb(newest[0]), newest[1])

    def ready_at_s(self) -> float:
        return math.inf if self._newest is None else 0.0

    def subscribe(self, changed: threading.Condition) -> None:
        with self._changed:
            if changed not in self._told:
                self._told.append(changed)

    def close(self) -> None:
        self.set_state("ended", self.note)
        with self._changed:
            self._newest = None

    def _to_rgb(self, pixels: UInt8Array) -> UInt8Array:
        return pixels

    def _tell_others(self) -> None:
        for changed in tuple(self._told):
            with changed:
                changed.notify_all()
