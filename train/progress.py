"""The progress of a run: bar, log.jsonl, TensorBoard and peak memory."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from simplenet import cli, files, hardware
from simplenet.errors import SimpleNetWarning, one_line, raise_if_from_signal_handler

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def bar(visible: bool) -> Progress:
    """Create a progress bar on stderr. A task counts images; its field `note` is the text at the end."""
    return Progress(
        TextColumn("{task.description}", markup=False),  # may contain a folder's name
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=cli.console(),
        disable=not visible,
    )


class Log:
    """One line per epoch, in log.jsonl and, if TensorBoard works, in its event files.

    Args:
        folder: where log.jsonl and tensorboard/ go.
        lines: one entry per finished epoch; `append` adds to this list.
        writes: whether to write the files: only the first process does.
    """

    def __init__(self, folder: Path, lines: list[dict[str, Any]], writes: bool = True) -> None:
        self.path = folder / "log.jsonl"
        self.lines = lines
        self._writes = self._uses_board = writes
        self._board: SummaryWriter | None = None
        if writes:
            self._write()

    def append(self, epoch: int, seconds: float, images_per_second: float, **metrics: float) -> None:
        """Record an epoch; `metrics` are losses and accuracy by name."""
        timing = {"epoch": epoch, "seconds": round(seconds, 2), "images_per_second": round(images_per_second, 1)}
        self.lines.append({**timing, **{name: round(value, 5) for name, value in metrics.items()}})
        if self._writes:
            self._write()
        if self._uses_board:
            with self._board_errors():
                if self._board is None:  # not earlier: on a full disk, its thread would print a traceback
                    from torch.utils.tensorboard import SummaryWriter

                    folder = str(self.path.parent / "tensorboard")
                    self._board = SummaryWriter(folder, purge_step=epoch)  # type: ignore[no-untyped-call]
                for name, value in self.lines[-1].items():
                    if name != "epoch":
                        self._board.add_scalar(name, value, epoch)  # type: ignore[no-untyped-call]
                self._board.flush()  # type: ignore[no-untyped-call]

    def _write(self) -> None:
        with files.replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")

    @contextlib.contextmanager
    def _board_errors(self) -> Iterator[None]:
        """Turn any error of TensorBoard into a warning, and stop using it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - such as a TypeError of protobuf
            raise_if_from_signal_handler(error)
            self._board, self._uses_board = None, False
            text = f"no TensorBoard files are written ({one_line(error)}); log.jsonl has the same values"
            warnings.warn(f"{text}; to install it: pip install '.[train]'", SimpleNetWarning, stacklevel=3)

    def note(self) -> str:
        """Return the last epoch in a few words, for the progress bar."""
        if not self.lines:
            return ""
        line = self.lines[-1]
        return (
            f"epoch {line['epoch']}: loss {line['train_loss']:.3f}, test {line['test_top1']:.2f} %, "
            f"{line['images_per_second']:.0f} images/s"
        )

    def close(self) -> None:
        """Close TensorBoard's files."""
        if self._board is not None:
            with self._board_errors():
                self._board.close()  # type: ignore[no-untyped-call]


def peak_memory_bytes(device: torch.device) -> int:
    """Return this process's peak so far: allocated GPU memory on a GPU, else resident memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return hardware.peak_resident_bytes()
