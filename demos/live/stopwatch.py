"""What a live loop measures: how long each stage of each frame took, and what that comes to in the end."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from runtimes.timing import SAMPLES_FOR_P90, LatencySummary, summarise

STAGES = {
    "capture": "waiting for a frame",
    "preprocess": "resize and crop",
    "infer": "the model alone",
    "post": "softmax and top-k",
    "draw": "overlay and window",
}
_AGE = "frame age"
_RECENT_FRAMES = 30
KEPT_SAMPLES = 10_000
"""A loop may run for weeks: percentiles are those of its latest frames."""


@dataclass(frozen=True)
class Summary:
    """What a live loop did. `stages` has a latency for every stage that ran; `frame_age` only live sources have."""

    ended: str
    frames: int
    dropped: int
    seconds: float
    loop_fps: float | None
    stages: dict[str, LatencySummary]
    frame_age: LatencySummary | None
    """From a frame's arrival to its hand-over to the model."""
    note: str | None = None

    @property
    def model_fps(self) -> float | None:
        """What the model alone would allow at its median latency."""
        infer = self.stages.get("infer")
        return 1e3 / infer.p50_ms if infer and infer.p50_ms > 0 else None

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "model_fps": self.model_fps}


class Stopwatch:
    """Times the stages of one loop after another frame; `summary` can be asked for at any moment."""

    def __init__(self) -> None:
        self.frames = 0
        self._samples_ms: dict[str, deque[float]] = {name: deque(maxlen=KEPT_SAMPLES) for name in (*STAGES, _AGE)}
        self._frame_ms: dict[str, float] = {}
        self._recent_s: deque[float] = deque(maxlen=_RECENT_FRAMES)
        self.start()

    def start(self) -> None:
        """The loop's own clock starts here, so that loading and warming up are not in it."""
        self._started_s = self._latest_s = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block as one of `STAGES` of the frame at hand."""
        start_s = time.perf_counter()
        yield
        self._frame_ms[name] = (time.perf_counter() - start_s) * 1e3

    def frame_done(self) -> None:
        """Counts the frame at hand and its stages; a frame that never gets here leaves no trace."""
        self.frames += 1
        for name, milliseconds in self._frame_ms.items():
            self._samples_ms[name].append(milliseconds)
        self._frame_ms.clear()
        self._latest_s = time.perf_counter()
        self._recent_s.append(self._latest_s)

    def frame_age(self, captured_s: float) -> None:
        """To be called when a live source's frame is handed over."""
        self._frame_ms[_AGE] = (time.perf_counter() - captured_s) * 1e3

    def this_frame_ms(self, stage: str) -> float:
        """The time of the frame at hand in a stage that it has been through."""
        return self._frame_ms[stage]

    def recent_fps(self) -> float:
        """Over the latest second or so; 0 before the second frame."""
        elapsed_s = self._recent_s[-1] - self._recent_s[0] if self._recent_s else 0.0
        return (len(self._recent_s) - 1) / elapsed_s if elapsed_s > 0 else 0.0

    def summary(self, ended: str, dropped: int = 0, note: str | None = None) -> Summary:
        seconds = self._latest_s - self._started_s
        latencies = {name: summarise(samples) for name, samples in self._samples_ms.items() if samples}
        frame_age = latencies.pop(_AGE, None)
        return Summary(
            ended=ended,
            frames=self.frames,
            dropped=dropped,
            seconds=seconds,
            loop_fps=self.frames / seconds if self.frames and seconds > 0 else None,
            stages=latencies,
            frame_age=frame_age,
            note=note,
        )


def show(summary: Summary, title: str, console: Console) -> None:
    """Prints the summary as a table for people."""
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("stage", "what it is"):
        table.add_column(heading)
    for heading in ("p50 ms", "p90 ms", "frames"):
        table.add_column(heading, justify="right")
    for stage, latency in summary.stages.items():
        table.add_row(stage, STAGES[stage], *_columns(latency))
    if summary.frame_age:
        table.add_row(_AGE, "from arrival to the model", *_columns(summary.frame_age))
    console.print(table, highlight=False)
    rates = [f"{summary.frames} frames in {summary.seconds:.2f} s", f"{summary.dropped} dropped"]
    rates += [f"loop {summary.loop_fps:.1f} FPS"] if summary.loop_fps else []
    rates += [f"model alone {summary.model_fps:.1f} FPS"] if summary.model_fps else []
    lines = [f"{', '.join(rates)}; ended by {summary.ended}", summary.note]
    if any(latency.p90_ms is None for latency in summary.stages.values()):
        lines.append(f"-: a p90 needs {SAMPLES_FOR_P90} frames to mean anything")
    for line in filter(None, lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _columns(latency: LatencySummary) -> tuple[str, str, str]:
    return f"{latency.p50_ms:.3f}", "-" if latency.p90_ms is None else f"{latency.p90_ms:.3f}", str(latency.n)
