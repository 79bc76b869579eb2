"""The results of a run: final weights, their accuracy, .training.json and the training curve."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from simplenet import checkpoints, files, hardware, weights
from simplenet.errors import one_line
from simplenet.model import SimpleNet
from simplenet.model_card import ModelCard
from train import checkpoint, loop, progress
from train.checkpoint import LAST_NAME, TrainState
from train.distributed import Group
from train.loop import Run, TrainingData


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a run.

    Args:
        top1: percent of all readable test images, in float32 with the stored weights.
        test_loss: mean cross-entropy of the same.
        seconds: training with the evaluation after each epoch.
        images_per_second: training without evaluation.
        peak_memory_mb: of the first process, in 1e6 bytes; allocated memory on a GPU, else resident memory.
        best_top1: that of the best epoch, in the precision of training; selected on the test set, so optimistically
            biased.
        unreadable_images: those that the first process found since it last started.
    """

    checkpoint: Path
    dataset: str
    variant: str
    top1: float
    test_loss: float
    epochs: int
    seconds: float
    images_per_second: float
    peak_memory_mb: float
    best_top1: float
    unreadable_images: int
    processes: int
    machine: str

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "checkpoint": str(self.checkpoint)})

    def summary(self) -> str:
        lost = f", {self.unreadable_images} unreadable images" if self.unreadable_images else ""
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        processes = f"{self.processes} processes on " if self.processes > 1 else ""
        return one_line(
            f"{self.variant} on {self.dataset}: {self.top1:.2f} % top-1 after {epochs} "
            f"in {self.seconds:.0f} s ({self.images_per_second:.0f} images/s, {self.peak_memory_mb:.0f} MB{lost}) "
            f"on {processes}{self.machine}: {self.checkpoint}",
            limit=2000,
        )


def train_and_report(network: SimpleNet, data: TrainingData, run: Run) -> TrainingResult | None:
    """Train with the output folder locked, then write the results.

    Returns:
        The result, or None in all processes but the first.

    Raises:
        UsageError, SimpleNetError, KeyboardInterrupt: as `loop.train`.
    """
    with checkpoint.lock(run.output, run.group):
        state = loop.train(network, data, run)
        return _finish(run, data, state) if run.group.is_first else None


def _finish(run: Run, data: TrainingData, state: TrainState) -> TrainingResult:
    """Write <variant>.safetensors, .training.json and .training.png."""
    card, device = run.card, run.group.device
    final = run.output / f"{card.variant}.safetensors"
    tensors = weights.load(card.variant, run.output / LAST_NAME).model.state_dict()
    if run.half:
        tensors = halved(tensors)
    checkpoints.save(final, tensors, card)
    network = weights.load(card.variant, final).model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    top1, test_loss = data.evaluate(network, False, Group(device))
    training_seconds = sum(line["seconds"] for line in state.log)
    images = sum(line["seconds"] * line["images_per_second"] for line in state.log)
    result = TrainingResult(
        checkpoint=final,
        dataset=run.dataset,
        variant=card.variant,
        top1=round(top1, 2),
        test_loss=round(test_loss, 5),
        epochs=run.config.epochs,
        seconds=round(state.seconds, 1),
        images_per_second=round(images / training_seconds, 1),
        peak_memory_mb=round(max(state.peak_memory_bytes, progress.peak_memory_bytes(device)) / 1e6, 1),
        best_top1=round(state.best_top1, 2),
        unreadable_images=data.unreadable_images,
        processes=run.group.size,
        machine=machine(device),
    )
    facts = {
        **asdict(result),
        "test_images": data.test_images,
        "recipe": asdict(run.config),
        "command": run.command,
    }
    record(final, tensors, card, facts, log=state.log)
    write_curve(final.with_suffix(".training.png"), run.title, state.log, result.top1)
    return result


def halved(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convolution and linear weights as float16; the rest is small, and variances may exceed its range."""
    return {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}


def record(
    final: Path, tensors: Mapping[str, torch.Tensor], card: ModelCard, facts: Mapping[str, Any], **more: Any
) -> None:
    """Write `facts` and `more` to .training.json, and the weights with `facts` in their card.

    Raises:
        SimpleNetError: a file cannot be written.
    """
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    training = {**{name: value for name, value in facts.items() if name != "checkpoint"}, "versions": versions}
    with files.replacing(final.with_suffix(".training.json")) as temporary:
        temporary.write_text(json.dumps({**training, **more}, indent=2) + "\n", encoding="utf-8")
    checkpoints.save(final, tensors, replace(card, training=training))


def machine(device: torch.device) -> str:
    """The processor, how many of its cores this process may use, and the GPU in use."""
    cores = hardware.usable_cores()
    processor = f"{hardware.processor()}, {cores} {'core' if cores == 1 else 'cores'}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {processor}"
    return processor


def write_curve(path: Path, title: str, log: Sequence[Mapping[str, float]], top1: float) -> None:
    """Plot losses and test accuracy by epoch as a PNG."""
    from matplotlib.figure import Figure

    epochs = [line["epoch"] for line in log]
    figure = Figure(figsize=(8, 4), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    losses.plot(epochs, [line["train_loss"] for line in log], marker=".", label="train (augmented, smoothed labels)")
    losses.plot(epochs, [line["test_loss"] for line in log], marker=".", label="test (EMA weights)")
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    losses.legend()
    accuracy.plot(epochs, [line["test_top1"] for line in log], marker=".", color="tab:green")
    accuracy.set(xlabel="epoch", ylabel="test top-1 in %", title=f"final: {top1:.2f} %")
    for axes in (losses, accuracy):
        axes.grid(alpha=0.3)
    figure.suptitle(one_line(title), parse_math=False)
    with files.replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a folder's name may be in any script
        figure.savefig(temporary, dpi=110)
