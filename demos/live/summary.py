"""The summary of a live demo: latency per stage and model, frames and drops per source."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demos.console import table as make_table
from runtimes.timing import SAMPLES_FOR_P90, LatencySummary

if TYPE_CHECKING:
    from rich.console import Console

STAGES = {
    "capture": "waiting for a frame",
    "preprocess": "resize and crop",
    "infer": "inference, all models in turn",
    "post": "softmax and top-k",
    "draw": "overlay, window and recording",
}


@dataclass(frozen=True)
class ModelSummary:
    """Latency of one model. `agrees_percent`: how often its top-1 equals the first model's; None for the first."""

    name: str
    infer: LatencySummary
    agrees_percent: float | None
    compared: int

    @property
    def model_fps(self) -> float | None:
        """Frames per second if only this model ran, from its median latency."""
        return 1e3 / self.infer.p50_ms if self.infer.p50_ms > 0 else None


@dataclass(frozen=True)
class SourceSummary:
    """Frames of one source. `frame_age`, capture to processing, is None for files."""

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
    """One run of the live loop. `stages` holds the stages that ran; `seconds` excludes pauses."""

    ended: str
    frames: int
    seconds: float
    loop_fps: float | None
    stages: dict[str, LatencySummary]
    frame_age: LatencySummary | None
    models: tuple[ModelSummary, ...]
    sources: tuple[SourceSummary, ...]

    def to_json(self) -> dict[str, Any]:
        models = [{**dataclasses.asdict(model), "model_fps": model.model_fps} for model in self.models]
        return {**dataclasses.asdict(self), "models": models}


def print_summary(summary: Summary, title: str, console: Console) -> None:
    """Print the summary as tables."""
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    table = make_table("stage", "description", "p50 ms", "p90 ms", "frames")
    for stage, latency in summary.stages.items():
        table.add_row(stage, STAGES[stage], *_columns(latency))
    if summary.frame_age:
        table.add_row("frame age", "capture to preprocessing", *_columns(summary.frame_age))
    console.print(table, highlight=False)
    if summary.models:
        table = make_table("model", "agrees", "p50 ms", "p90 ms", "frames", "model FPS")
        are_compared = any(model.compared for model in summary.models)
        for model in summary.models:
            first = "reference" if are_compared else "-"
            agrees = first if model.agrees_percent is None else f"{model.agrees_percent:.1f} %"
            fps = "-" if model.model_fps is None else f"{model.model_fps:.1f}"
            table.add_row(model.name, agrees, *_columns(model.infer), fps)
        console.print(table, highlight=False)
    loop = f", loop {summary.loop_fps:.1f} FPS" if summary.loop_fps else ""
    lines = [f"{_count(summary.frames, 'frame')} in {summary.seconds:.2f} s{loop}; ended by {summary.ended}"]
    lines += map(_source_line, summary.sources)
    latencies = (*summary.stages.values(), *(model.infer for model in summary.models))
    if any(latency.p90_ms is None for latency in latencies):
        lines.append(f"-: a p90 needs {SAMPLES_FOR_P90} frames")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _source_line(source: SourceSummary) -> str:
    facts = [_count(source.frames, "frame")]
    if source.frame_age is not None:
        facts += [f"{source.dropped} dropped", _count(source.reconnects, "reconnect")]
    note = (source.note or "").removeprefix(source.name).lstrip(": ")
    return f"{source.name}: {', '.join(facts)}" + (f"; {note}" if note else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _columns(latency: LatencySummary) -> tuple[str, str, str]:
    return f"{latency.p50_ms:.3f}", "-" if latency.p90_ms is None else f"{latency.p90_ms:.3f}", str(latency.n)
