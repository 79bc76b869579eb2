"""What a training run tells: progress columns, a line per epoch, the machine's name, a summary file and a curve."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from simplenet import files
from simplenet.errors import SimpleNetError


class _Throughput(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} images/s" if task.speed else "")


def columns() -> tuple[ProgressColumn, ...]:
    """For a rich Progress counted in images, whose task has the field `note`."""
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Throughput(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )


class Log:
    """One JSON object per line, on disk as soon as it is known; a new run starts a new file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self._write("w", "")

    def append(self, epoch: int, seconds: float, images_per_second: float, **measured: float) -> None:
        timing = {"epoch": epoch, "seconds": round(seconds, 2), "images_per_second": round(images_per_second, 1)}
        self.lines.append({**timing, **{name: round(value, 5) for name, value in measured.items()}})
        self._write("a", json.dumps(self.lines[-1]) + "\n")

    def _write(self, mode: str, text: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise SimpleNetError(
                f"cannot write {self.path}: {error.strerror or error}; choose another --output"
            ) from error


def epochs_logged(path: Path) -> int:
    """How many whole epochs the log of the current run tells of."""
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def machine() -> str:
    """The processor, how many of its cores this process may use, and whether it computes bf16 itself."""
    name, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        facts = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        name, flags = facts.get("model name", name), facts.get("flags", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores" + (", AVX512-BF16" if "avx512_bf16" in flags else "")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Atomic; raises SimpleNetError where it cannot be written."""
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_curve(path: Path, title: str, lines: Sequence[Mapping[str, float]], top1: float) -> None:
    """Losses and test accuracy by epoch, as a PNG; atomic."""
    from matplotlib.figure import Figure

    epochs = [line["epoch"] for line in lines]
    figure = Figure(figsize=(8, 4), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    losses.plot(epochs, [line["train_loss"] for line in lines], marker=".", label="train (augmented, smoothed labels)")
    losses.plot(epochs, [line["test_loss"] for line in lines], marker=".", label="test (averaged weights)")
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    losses.legend()
    accuracy.plot(epochs, [line["test_top1"] for line in lines], marker=".", color="tab:green")
    accuracy.set(xlabel="epoch", ylabel="test top-1 in %", title=f"final: {top1:.2f} %")
    for axes in (losses, accuracy):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
