"""The end of a run: the last average of the weights, measured as its users get it, with all that is known of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from simplenet import weights
from simplenet.errors import one_line
from simplenet.model_card import ModelCard
from train import report
from train.checkpoint import TrainState
from train.distributed import Group
from train.loop import LAST, Data, Run


@dataclass(frozen=True)
class TrainingResult:
    """`top1` in percent of all readable test images, measured in float32 with the weights read back from the disk.

    `seconds` is the whole training with the epochs' evaluations, `images_per_second` that without them;
    `peak_memory_mb` is resident memory on a CPU and allocated memory on a GPU, of the first process, in 1e6 bytes.
    `best_top1` is the best epoch's, in the precision of the training (bf16, perhaps) and chosen by test accuracy: not a
    result. `unreadable_images` are those that the first process met since its last start.
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
        who = f"{self.processes} processes on " if self.processes > 1 else ""
        return one_line(
            f"{self.variant} on {self.dataset}: {self.top1:.2f} % top-1 after {epochs} "
            f"in {self.seconds:.0f} s ({self.images_per_second:.0f} images/s, {self.peak_memory_mb:.0f} MB{lost}) "
            f"on {who}{self.machine}: {self.checkpoint}",
            limit=2000,
        )


def finish(run: Run, data: Data, position: TrainState, dataset: str, command: str, half: bool) -> TrainingResult:
    """Writes <variant>.safetensors, .training.json and .training.png; with `half`, kernels and matrices as float16.

    Raises:
        SimpleNetError: they cannot be written.
    """
    card = run.card
    final = run.output / f"{card.variant}.safetensors"
    state = weights.load(card.variant, run.output / LAST).model.state_dict()
    if half:
        state = halved(state)
    weights.save(final, state, card)
    network = weights.load(card.variant, final).model.to(run.group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    top1, test_loss = data.evaluate(network, False, Group(run.group.device))
    training_seconds = sum(line["seconds"] for line in position.log)
    images = sum(line["seconds"] * line["images_per_second"] for line in position.log)
    result = TrainingResult(
        checkpoint=final,
        dataset=dataset,
        variant=card.variant,
        top1=round(top1, 2),
        test_loss=round(test_loss, 5),
        epochs=run.config.epochs,
        seconds=round(position.seconds, 1),
        images_per_second=round(images / training_seconds, 1),
        peak_memory_mb=round(max(position.peak_memory_bytes, report.peak_memory_bytes(run.group.device)) / 1e6, 1),
        best_top1=round(position.best_top1, 2),
        unreadable_images=data.unreadable_images,
        processes=run.group.size,
        machine=report.machine(run.group.device),
    )
    facts = {**asdict(result), "test_images": data.test_images, "recipe": asdict(run.config), "command": command}
    record(final, state, card, facts, log=position.log)
    report.write_curve(final.with_suffix(".training.png"), f"{card.variant} on {dataset}", position.log, result.top1)
    return result


def halved(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Kernels and matrices as float16: the rest is a thousandth of it, and has variances that float16 cannot hold."""
    return {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in state.items()}


def record(
    final: Path, state: Mapping[str, torch.Tensor], card: ModelCard, facts: Mapping[str, Any], **beside: Any
) -> None:
    """Writes .training.json with `facts` and what is `beside` them, and then the weights, whose card tells all `facts`.

    Raises:
        SimpleNetError: they cannot be written.
    """
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    known = {**{name: value for name, value in facts.items() if name != "checkpoint"}, "versions": versions}
    report.write_json(final.with_suffix(".training.json"), {**known, **beside})
    weights.save(final, state, replace(card, training=known))
