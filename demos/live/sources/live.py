"""Cameras and streams: a thread reads all the time and keeps only the newest frame; the model never sees old ones.

A condition variable wakes the caller the moment a frame arrives; nothing polls. A camera that is unplugged and a stream
that dies are opened again, with pauses that double; until then there is no frame, never a black one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from demos.live.sources.base import (
    Capture,
    Frame,
    Source,
    SourceKind,
    SourceState,
    UInt8Array,
    due_after,
    read_past_bad_frames,
    to_rgb,
)
from demos.live.sources.opencv import opencv
from simplenet.errors import SimpleNetError, SourceError, one_line

READ_TIMEOUT_S = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0


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
        frame = self.take()
        if frame is None and self.state == "failed":
            raise SourceError(self.note or f"{self.name} failed")
        return frame

    def take(self) -> Frame | None:
        with self._changed:
            self._asked_for = True
            newest, self._newest = self._newest, None
            self._changed.notify_all()
        return None if newest is None else Frame(self._to_rgb(newest[0]), newest[1])

    def due_s(self) -> float:
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


@dataclass(frozen=True)
class Opened:
    """What has given its `first` frame, blue-green-red uint8 [H, W, 3]. It ends where `announced_frames` is over 0."""

    capture: Capture
    first: UInt8Array
    frame_rate: float | None = None
    announced_frames: int = 0


class CaptureSource(LiveSource):
    """What OpenCV reads. A video with an end loses no frame and ends; anything else is opened again when it is lost.

    It has an end where its header or its server announces how many frames or seconds there are. Streams of JPEG
    pictures announce neither, so they are taken for live.
    """

    def __init__(
        self,
        name: str,
        kind: SourceKind,
        open: Callable[[], Opened],
        opened: Opened | None = None,
        *,
        loop: bool = False,
        pace: bool = False,
        patience_s: float = 60,
    ) -> None:
        """
        Args:
            open: opens it (again), or raises SourceError.
            opened: the first opening, if it was made already; else it is made in the background.
            loop: a video with an end starts again. pace: ... and plays at its own rate at most.
            patience_s: how long without a frame until it has failed for good.
        """
        super().__init__(name, kind)
        self._open, self._loop, self._pace, self._patience_s = open, loop, pace, patience_s
        self._stopping = self._ends = False
        if opened is None:
            self.state, self.note = "reconnecting", f"connecting to {name}"
        else:
            self._describe(opened)
        self._thread = threading.Thread(target=self._run, args=[opened], name=f"reader of {name}", daemon=True)
        self._thread.start()

    def stop_soon(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        self.stop_soon()
        super().close()
        if self._thread is not threading.current_thread():
            self._thread.join(READ_TIMEOUT_S + 1)  # a read that hangs ends by its own timeout

    def _to_rgb(self, pixels: UInt8Array) -> UInt8Array:
        return to_rgb(pixels)

    def _describe(self, opened: Opened) -> None:
        self._ends = opened.announced_frames > 0
        self.is_live, self.frame_rate = not self._ends, opened.frame_rate

    def _run(self, opened: Opened | None) -> None:
        """The thread: read until it is lost, pause, open again."""
        pause_s, had_frames = FIRST_PAUSE_S, False
        last_frame_s = time.perf_counter()
        reason = ""
        try:
            while not self._stopping:
                try:
                    opened = opened or self._open()
                except SourceError as error:
                    reason = str(error)
                if opened is not None:
                    self.reconnects += had_frames and not self._ends
                    self._describe(opened)
                    reason = self._read_all(opened)
                    opened, had_frames = None, True
                    pause_s, last_frame_s = FIRST_PAUSE_S, time.perf_counter()
                    if self._ends and self._loop:
                        continue
                    if self._ends:
                        self.set_state("ended", reason or None)
                        return
                left_s = self._patience_s - (time.perf_counter() - last_frame_s)
                if left_s <= 0:
                    self.set_state("failed", f"{self.name} gave no frame for {self._patience_s:g} s: {reason}")
                    return
                self.set_state("reconnecting", reason.partition(";")[0])
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, min(pause_s, left_s))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except SimpleNetError as error:  # a frame that cannot be used: the next opening would give the same
            self.set_state("failed", str(error))
        except Exception as error:  # noqa: BLE001 - a thread that died in silence would be waited for
            self.set_state("failed", f"{self.name} failed: {one_line(error)}")

    def _read_all(self, opened: Opened) -> str:
        """Hands over frames until there are no more; returns what to say about the end."""
        count, next_s = 0, 0.0
        period_s = 1 / opened.frame_rate if self._pace and self._ends and opened.frame_rate else 0.0
        pixels: UInt8Array | None = opened.first
        try:
            while pixels is not None and not self._stopping:
                if self._ends:
                    self._wait_until_wanted(next_s)
                    next_s = due_after(next_s, period_s, time.perf_counter())
                if not count:
                    self.note = None
                self.push(pixels)
                count += 1
                pixels = read_past_bad_frames(opened.capture, self.name)
        except opencv().error as error:
            return f"{self.name} cannot be decoded: {one_line(error)}"
        finally:
            opened.capture.release()  # here and not in close(): releasing under a running read() crashes
        if count < opened.announced_frames and not self._stopping:
            return f"{self.name} announces {opened.announced_frames} frames, {count} could be read"
        return "" if self._ends else f"{self.name} stopped giving frames"

    def _wait_until_wanted(self, next_s: float) -> None:
        """Of a video with an end no frame is replaced: until the last one was taken, and it is time for the next."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._newest is None)
            self._changed.wait_for(lambda: self._stopping, max(0.0, next_s - time.perf_counter()))
