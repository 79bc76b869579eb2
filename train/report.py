"""What a training run tells: progress, a line per epoch on disk and in TensorBoard, machine, memory, a curve."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import BarColumn, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from simplenet import files, hardware
from simplenet.errors import SimpleNetError, one_line

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class _Throughput(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} images/s" if task.speed else "")


def columns() -> tuple[ProgressColumn, ...]:
    """For a rich Progress counted in images, whose task has the field `note`."""
    return (
        TextColumn("{task.description}", markup=False),  # a folder's name is in it
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        _Throughput(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    )


class Log:
    """A line per epoch, on disk as soon as it is known: log.jsonl, and TensorBoard's files where that is installed.

    `lines` is what a resumed run has done already; it is extended in place. Where `writes` is False only `lines` grow.
    """

    def __init__(self, folder: Path, lines: list[dict[str, Any]], writes: bool = True) -> None:
        self.path = folder / "log.jsonl"
        self.lines = lines
        self._writes = writes
        self._board: SummaryWriter | None = None
        if writes:
            self._write("w", "".join(json.dumps(line) + "\n" for line in lines))
            self._board = _open_board(folder / "tensorboard", first_epoch=len(lines) + 1)

    def append(self, epoch: int, seconds: float, images_per_second: float, **measured: float) -> None:
        timing = {"epoch": epoch, "seconds": round(seconds, 2), "images_per_second": round(images_per_second, 1)}
        self.lines.append({**timing, **{name: round(value, 5) for name, value in measured.items()}})
        if self._writes:
            self._write("a", json.dumps(self.lines[-1]) + "\n")
        if self._board is not None:
            for name, value in self.lines[-1].items():
                if name != "epoch":
                    self._board.add_scalar(name, value, epoch)  # type: ignore[no-untyped-call]
            self._board.flush()  # type: ignore[no-untyped-call]

    def note(self) -> str:
        """The newest line for people."""
        if not self.lines:
            return ""
        line = self.lines[-1]
        return f"epoch {line['epoch']}: loss {line['train_loss']:.3f}, test {line['test_top1']:.2f} %"

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()  # type: ignore[no-untyped-call]

    def _write(self, mode: str, text: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise SimpleNetError(
                f"cannot write {self.path}: {error.strerror or error}; choose another --output"
            ) from error


def _open_board(folder: Path, first_epoch: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_epoch)  # type: ignore[no-untyped-call]


def machine(device: torch.device | None = None) -> str:
    """The processor, how many of its cores this process may use, and the GPU used."""
    cores = hardware.usable_cores()
    processor = f"{hardware.processor()}, {cores} {'core' if cores == 1 else 'cores'}"
    if device is not None and device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {processor}"
    return processor


def peak_memory_bytes(device: torch.device) -> int:
    """The most that this process has held so far: of the GPU's memory where it trains there, else resident memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return hardware.peak_resident_bytes()


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
    figure.suptitle(one_line(title), parse_math=False)
    with files.replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a folder's name may be in any script
        figure.savefig(temporary, dpi=110)
