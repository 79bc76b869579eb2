"""Times the stages of the live loop: capture, preprocess, infer, post, draw."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from demos.live.latency_window import LatencyWindow
from demos.live.summary import STAGES, ModelSummary, SourceSummary, Summary

_FPS_FRAMES = 30


class StageTimer:
    """Latency of each stage per frame, and the loop's frame rate.

    timer = StageTimer()
    with timer.stage("capture"):
        frame = source.next()
    timer.frame_done()
    timer.summary("end of file").stages["capture"].p50_ms
    """

    def __init__(self) -> None:
        self.frames = 0
        self._latencies = {stage: LatencyWindow() for stage in STAGES}
        self._frame_ages = LatencyWindow()
        self._current_ms: dict[str, float] = {}
        self._current_age_ms: float | None = None
        self._frame_ends_s: deque[float] = deque(maxlen=_FPS_FRAMES)
        self.start()

    def start(self) -> None:
        """Start the clock of the loop, after models are loaded and warmed up."""
        self._started_s = self._latest_s = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as one of `STAGES`; repeated blocks of one frame are summed."""
        start_s = time.perf_counter()
        yield
        self.record(name, (time.perf_counter() - start_s) * 1e3)

    def record(self, name: str, milliseconds: float) -> None:
        """Add time that was measured elsewhere to a stage of the current frame."""
        self._current_ms[name] = self._current_ms.get(name, 0.0) + milliseconds

    def frame_age(self, captured_s: float) -> float:
        """Record and return the age of the current frame, in milliseconds since `captured_s`."""
        self._current_age_ms = (time.perf_counter() - captured_s) * 1e3
        return self._current_age_ms

    def frame_done(self) -> None:
        """Commit the current frame. Stages of a frame that is never committed are not counted."""
        self.frames += 1
        for name, milliseconds in self._current_ms.items():
            self._latencies[name].add(milliseconds)
        if self._current_age_ms is not None:
            self._frame_ages.add(self._current_age_ms)
        self._discard_current()
        self._latest_s = time.perf_counter()
        self._frame_ends_s.append(self._latest_s)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the block from the time of the loop."""
        start_s = time.perf_counter()
        yield
        self._started_s += time.perf_counter() - start_s
        self._latest_s = max(self._latest_s, self._started_s)
        self._frame_ends_s.clear()
        self._discard_current()

    @property
    def seconds(self) -> float:
        """Time since the start, without pauses."""
        return time.perf_counter() - self._started_s

    def stop(self) -> None:
        """End the loop's time now rather than at its last frame."""
        self._latest_s = time.perf_counter()

    def recent_fps(self) -> float:
        """Frame rate over the latest 30 frames; 0 before the second."""
        ends_s = list(self._frame_ends_s)
        elapsed_s = ends_s[-1] - ends_s[0] if ends_s else 0.0
        return (len(ends_s) - 1) / elapsed_s if elapsed_s > 0 else 0.0

    def summary(
        self, ended: str, models: Sequence[ModelSummary] = (), sources: Sequence[SourceSummary] = ()
    ) -> Summary:
        """Summarize the frames until now; `ended` is the reason, as in `webcam.run`."""
        seconds = self._latest_s - self._started_s
        latencies = {stage: window.summary() for stage, window in self._latencies.items()}
        return Summary(
            ended=ended,
            frames=self.frames,
            seconds=seconds,
            loop_fps=self.frames / seconds if self.frames and seconds > 0 else None,
            stages={stage: latency for stage, latency in latencies.items() if latency is not None},
            frame_age=self._frame_ages.summary(),
            models=tuple(models),
            sources=tuple(sources),
        )

    def _discard_current(self) -> None:
        self._current_ms.clear()
        self._current_age_ms = None
