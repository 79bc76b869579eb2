"""Time the stages of the live loop: capture, preprocess, infer, post, draw."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from demos.live.summary import STAGES, ModelSummary, SourceSummary, Summary
from runtimes.timing import LatencySummary, summarize

KEPT_SAMPLES = 10_000
"""A limit on memory: the loop may run for weeks. The summary covers the latest frames only."""
LIVE_SAMPLES = 1_000
"""Samples behind the percentiles in window and page: about the last half minute."""
_FRAME_AGE = "frame age"


class LatencyWindow:
    """The latest `KEPT_SAMPLES` latencies in milliseconds. One thread adds them, any thread reads them."""

    def __init__(self) -> None:
        self._ms: deque[float] = deque(maxlen=KEPT_SAMPLES)

    def add(self, milliseconds: float) -> None:
        self._ms.append(milliseconds)

    def latest_ms(self, count: int = KEPT_SAMPLES) -> list[float]:
        """Return at most `count` samples, oldest first."""
        return list(self._ms)[-count:]  # `list` holds the GIL, so no sample is added meanwhile

    def summary(self, count: int = KEPT_SAMPLES) -> LatencySummary | None:
        """Summarize the latest `count` samples; None if there are none."""
        return summarize(samples) if (samples := self.latest_ms(count)) else None


class StageTimer:
    """Latency of each stage per frame, and the loop's frame rate.

    timer = StageTimer()
    with timer.stage("capture"):
        source, frame = scheduler.next(0.1)
    timer.frame_done()
    timer.summary("end of file").stages["capture"].p50_ms
    """

    def __init__(self) -> None:
        self.frames = 0
        self._latencies = {stage: LatencyWindow() for stage in (*STAGES, _FRAME_AGE)}
        self._current_ms: dict[str, float] = {}
        self._frame_ends_s: deque[float] = deque(maxlen=30)
        self.start()

    def start(self) -> None:
        """Start the clock of the loop, after models are loaded and warmed up."""
        self._started_s = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as one of `STAGES`; repeated blocks of one frame are summed."""
        start_s = time.perf_counter()
        yield
        self.record(name, (time.perf_counter() - start_s) * 1e3)

    def record(self, name: str, milliseconds: float) -> None:
        """Add milliseconds to a stage of the current frame."""
        self._current_ms[name] = self._current_ms.get(name, 0.0) + milliseconds

    def frame_age(self, captured_s: float) -> float:
        """Record and return the age of the current frame, in milliseconds since `captured_s`."""
        age_ms = (time.perf_counter() - captured_s) * 1e3
        self._current_ms[_FRAME_AGE] = age_ms
        return age_ms

    def frame_done(self) -> None:
        """Count the current frame and its stages."""
        self.frames += 1
        for name, milliseconds in self._current_ms.items():
            self._latencies[name].add(milliseconds)
        self._current_ms.clear()
        self._frame_ends_s.append(time.perf_counter())

    def discard_frame(self) -> None:
        """Forget the stages of the current frame, which is not classified."""
        self._current_ms.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the block from the time of the loop."""
        start_s = time.perf_counter()
        yield
        self._started_s += time.perf_counter() - start_s
        self._frame_ends_s.clear()
        self.discard_frame()

    @property
    def seconds(self) -> float:
        """Time since the start, without pauses."""
        return time.perf_counter() - self._started_s

    def recent_fps(self) -> float:
        """Frame rate over the latest 30 frames; 0 before the second."""
        ends_s = list(self._frame_ends_s)
        elapsed_s = ends_s[-1] - ends_s[0] if ends_s else 0.0
        return (len(ends_s) - 1) / elapsed_s if elapsed_s > 0 else 0.0

    def summary(
        self, ended: str, models: Sequence[ModelSummary] = (), sources: Sequence[SourceSummary] = ()
    ) -> Summary:
        """Summarize the loop until now; `ended` is the reason, as in `webcam.run`."""
        seconds = self.seconds
        latencies = {stage: latency for stage, window in self._latencies.items() if (latency := window.summary())}
        frame_age = latencies.pop(_FRAME_AGE, None)
        return Summary(
            ended=ended,
            frames=self.frames,
            seconds=seconds,
            loop_fps=self.frames / seconds if self.frames and seconds > 0 else None,
            stages=latencies,
            frame_age=frame_age,
            models=tuple(models),
            sources=tuple(sources),
        )
