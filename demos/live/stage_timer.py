"""What a live loop measures: how long each stage of each frame took, and what that comes to in the end."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demos.live.latency_window import LatencyWindow
from runtimes.timing import SAMPLES_FOR_P90, LatencySummary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STAGES = {
    "capture": "waiting for a frame",
    "preprocess": "resize and crop",
    "infer": "the model alone, or all models in turn",
    "post": "softmax and top-k",
    "draw": "overlay, window and recording",
}
_AGE = "frame age"
_RECENT_FRAMES = 30


@dataclass(frozen=True)
class ModelSummary:
    """One model of a live loop. `agrees_percent` is how often its top-1 was the first model's; None for the first."""

    name: str
    infer: LatencySummary
    agrees_percent: float | None
    compared: int

    @property
    def model_fps(self) -> float | None:
        """What this model alone would allow at its median latency."""
        return 1e3 / self.infer.p50_ms if self.infer.p50_ms > 0 else None

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "model_fps": self.model_fps}


@dataclass(frozen=True)
class SourceSummary:
    """One source of a live loop. `frame_age`, from a frame's arrival to its hand-over, only live ones have."""

    name: str
    kind: str
    state: str
    frames: int
    dropped: int
    reconnects: int
    frame_age: LatencySummary | None
    note: str | None


@dataclass(frozen=True)
class Summary:
    """What a live loop did. `stages` has a latency for every stage that ran; `seconds` does not count pauses."""

    ended: str
    frames: int
    seconds: float
    loop_fps: float | None
    stages: dict[str, LatencySummary]
    frame_age: LatencySummary | None
    models: tuple[ModelSummary, ...]
    sources: tuple[SourceSummary, ...]

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "models": [model.to_json() for model in self.models]}


class StageTimer:
    """Times the stages of one loop after another frame; `summary` can be asked for at any moment."""

    def __init__(self) -> None:
        self.frames = 0
        self._samples = {name: LatencyWindow() for name in (*STAGES, _AGE)}
        self._frame_ms: dict[str, float] = {}
        self._recent_s: deque[float] = deque(maxlen=_RECENT_FRAMES)
        self.start()

    def start(self) -> None:
        """The loop's own clock starts here, so that loading and warming up are not in it."""
        self._started_s = self._latest_s = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block as one of `STAGES` of the frame at hand; twice in a frame adds up."""
        start_s = time.perf_counter()
        yield
        self.record(name, (time.perf_counter() - start_s) * 1e3)

    def record(self, name: str, milliseconds: float) -> None:
        """For a stage that was timed elsewhere."""
        self._frame_ms[name] = self._frame_ms.get(name, 0.0) + milliseconds

    def frame_age(self, captured_s: float) -> float:
        """To be called when a live source's frame is handed over; returns its age in milliseconds."""
        self._frame_ms[_AGE] = (time.perf_counter() - captured_s) * 1e3
        return self._frame_ms[_AGE]

    def frame_done(self) -> None:
        """Counts the frame at hand and its stages; a frame that never gets here leaves no trace."""
        self.frames += 1
        for name, milliseconds in self._frame_ms.items():
            self._samples[name].add(milliseconds)
        self._frame_ms.clear()
        self._latest_s = time.perf_counter()
        self._recent_s.append(self._latest_s)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Takes the block out of the loop's time."""
        start_s = time.perf_counter()
        yield
        self._started_s += time.perf_counter() - start_s
        self._latest_s = max(self._latest_s, self._started_s)
        self._recent_s.clear()
        self._frame_ms.clear()

    @property
    def seconds(self) -> float:
        """Since the start, without pauses."""
        return time.perf_counter() - self._started_s

    def stop(self) -> None:
        """The loop has ended: also the time in which no frame came any more was its time."""
        self._latest_s = time.perf_counter()

    def recent_fps(self) -> float:
        """Over the latest second or so; 0 before the second frame."""
        recent = list(self._recent_s)
        elapsed_s = recent[-1] - recent[0] if recent else 0.0
        return (len(recent) - 1) / elapsed_s if elapsed_s > 0 else 0.0

    def summary(
        self, ended: str, models: Sequence[ModelSummary] = (), sources: Sequence[SourceSummary] = ()
    ) -> Summary:
        seconds = self._latest_s - self._started_s
        summaries = {name: samples.summary() for name, samples in self._samples.items()}
        latencies = {name: latency for name, latency in summaries.items() if latency is not None}
        frame_age = latencies.pop(_AGE, None)
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


def show(summary: Summary, title: str, console: Console) -> None:
    """Prints the summary as tables for people."""
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    table = _table("stage", "what it is", "p50 ms", "p90 ms", "frames")
    for stage, latency in summary.stages.items():
        table.add_row(stage, STAGES[stage], *_columns(latency))
    if summary.frame_age:
        table.add_row(_AGE, "from arrival to the models", *_columns(summary.frame_age))
    console.print(table, highlight=False)
    if summary.models:
        table = _table("model", "agrees", "p50 ms", "p90 ms", "frames", "model alone FPS")
        are_compared = any(model.compared for model in summary.models)
        for model in summary.models:
            first = "reference" if are_compared else "-"
            agrees = first if model.agrees_percent is None else f"{model.agrees_percent:.1f} %"
            fps = "-" if model.model_fps is None else f"{model.model_fps:.1f}"
            table.add_row(model.name, agrees, *_columns(model.infer), fps)
        console.print(table, highlight=False)
    rates = [f"{_counted(summary.frames, 'frame')} in {summary.seconds:.2f} s"]
    rates += [f"loop {summary.loop_fps:.1f} FPS"] if summary.loop_fps else []
    lines = [f"{', '.join(rates)}; ended by {summary.ended}", *map(_source_line, summary.sources)]
    latencies = (*summary.stages.values(), *(model.infer for model in summary.models))
    if any(latency.p90_ms is None for latency in latencies):
        lines.append(f"-: a p90 needs {SAMPLES_FOR_P90} frames to mean anything")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _source_line(source: SourceSummary) -> str:
    facts = [_counted(source.frames, "frame")]
    if source.frame_age is not None:
        facts += [f"{source.dropped} dropped", _counted(source.reconnects, "reconnect")]
    note = (source.note or "").removeprefix(source.name).lstrip(": ")
    return f"{source.name}: {', '.join(facts)}" + (f"; {note}" if note else "")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _table(*headings: str) -> Table:
    """The first two columns are words, the others numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="left" if position < 2 else "right")
    return table


def _columns(latency: LatencySummary) -> tuple[str, str, str]:
    return f"{latency.p50_ms:.3f}", "-" if latency.p90_ms is None else f"{latency.p90_ms:.3f}", str(latency.n)
