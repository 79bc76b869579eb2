"""The results of a run: final weights, their accuracy, .training.json and the training curve."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from simplenet import checkpoints, files, hardware, vendors, weights
from simplenet.errors import SimpleNetError, SimpleNetWarning, WeightsError, one_line, raise_if_from_signal_handler
from simplenet.model import SimpleNet
from train import checkpoint, evaluation, loop, progress
from train.checkpoint import LAST_NAME, TrainState
from train.distributed import Group
from train.loop import Run, TrainingData


@dataclass(frozen=True)
class Result:
    """Final weights and their accuracy.

    Args:
        top1: percent of all readable images of `test_split`, in float32 with the stored weights.
        test_loss: mean cross-entropy on these images.
        unreadable_images: number of files that the first process could not read since its last start.
    """

    checkpoint: Path
    dataset: str
    variant: str
    test_split: str
    top1: float
    test_loss: float
    test_images: int
    unreadable_images: int
    machine: str

    def to_json(self) -> str:
        """Return the result as a JSON object."""
        return json.dumps({**asdict(self), "checkpoint": str(self.checkpoint)})


@dataclass(frozen=True)
class TrainingResult(Result):
    """The outcome of a run.

    Args:
        seconds: duration of training, with the evaluation after each epoch.
        images_per_second: speed of training, without evaluation.
        peak_memory_mb: of the first process, in 1e6 bytes; allocated memory on a GPU, else resident memory.
        best_top1: top1 of the best epoch, in the precision of training; selected on the test set, so optimistically
            biased.
    """

    epochs: int
    seconds: float
    images_per_second: float
    peak_memory_mb: float
    best_top1: float
    processes: int

    def summary(self) -> str:
        """Return the result in one line."""
        lost = f", {self.unreadable_images} unreadable images" if self.unreadable_images else ""
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        processes = f"{self.processes} processes on " if self.processes > 1 else ""
        return one_line(
            f"{self.variant} on {self.dataset}: {self.top1:.2f} % top-1 on {self.test_split} after {epochs} "
            f"in {self.seconds:.0f} s ({self.images_per_second:.0f} images/s, {self.peak_memory_mb:.0f} MB{lost}) "
            f"on {processes}{self.machine}: {self.checkpoint}",
            limit=2000,
        )


ResultT = TypeVar("ResultT", bound=Result)


def train_and_report(network: SimpleNet, data: TrainingData, run: Run) -> TrainingResult | None:
    """Train with the output folder locked, then write the results.

    Returns:
        The result, or None in all processes but the first.

    Raises:
        UsageError, SimpleNetError, KeyboardInterrupt: as `loop.train`.
    """
    with checkpoint.lock(run.output, run.group, run.command):
        state = loop.train(network, data, run)
        return _finish(run, data, state) if run.group.is_first else None


def _finish(run: Run, data: TrainingData, state: TrainState) -> TrainingResult:
    """Write <variant>.safetensors, .training.json and .training.png."""
    network = weights.load(run.card.variant, run.output / LAST_NAME).model
    seconds = sum(line["seconds"] for line in state.log)
    images = sum(line["seconds"] * line["images_per_second"] for line in state.log)
    result = store(
        network,
        data,
        run,
        TrainingResult,
        recipe=asdict(run.config),
        log=state.log,
        epochs=run.config.epochs,
        seconds=round(state.seconds, 1),
        images_per_second=round(images / seconds, 1),
        peak_memory_mb=round(max(state.peak_memory_bytes, progress.peak_memory_bytes(run.group.device)) / 1e6, 1),
        best_top1=round(state.best_top1, 2),
        processes=run.group.size,
    )
    try:
        write_curve(result.checkpoint.with_suffix(".training.png"), run.title, state.log, result.top1)
    except Exception as error:  # noqa: BLE001 - such as an AttributeError of NumPy
        raise_if_from_signal_handler(error)
        text = f"no training curve was drawn ({one_line(error)}); the same command with --resume draws it"
        if not isinstance(error, SimpleNetError):
            text += " once matplotlib works; type: pip install -c constraints.txt '.[train]'"
        warnings.warn(text, SimpleNetWarning, stacklevel=2)
    return result


def store(
    network: SimpleNet,
    data: TrainingData,
    run: Run,
    kind: Callable[..., ResultT],
    *,
    recipe: Mapping[str, Any],
    log: Sequence[Mapping[str, float]] = (),
    **values: Any,
) -> ResultT:
    """Measure the final weights in the precision in which they are stored; write them and .training.json.

    Args:
        kind: the class of the result; `values` are the fields that it adds to `Result`.
        recipe: the part of the recipe to record, in the weights' model card and in .training.json.
        log: one entry per epoch, only for .training.json.

    Raises:
        WeightsError: the weights or the loss are not finite.
        SimpleNetError: a file cannot be written.
    """
    path, group = run.output / f"{run.card.variant}.safetensors", Group(run.group.device)
    tensors = halved(network.state_dict()) if run.half else network.state_dict()
    network.load_state_dict(tensors)
    network.to(group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    top1, loss, count = evaluation.evaluate(network, data.test_batches(group), run.card.preprocessing, False, group)
    if not all(map(math.isfinite, (loss, *(float(tensor.abs().max()) for tensor in tensors.values())))):
        raise WeightsError("the weights to store are not finite; leave out --half, or average other runs")
    result = kind(
        checkpoint=path,
        dataset=run.dataset,
        variant=run.card.variant,
        test_split=data.test_split,
        top1=round(top1, 2),
        test_loss=round(loss, 5),
        test_images=count,
        unreadable_images=data.unreadable_images,
        machine=machine(group.device),
        **values,
    )
    training = {**asdict(result), "recipe": dict(recipe), "command": run.command}
    training["versions"] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    del training["checkpoint"]
    summary = {**training, "log": log} if log else training
    with files.replacing(path.with_suffix(".training.json")) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    checkpoints.save(path, tensors, replace(run.card, training=training))
    return result


def halved(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return convolution and linear weights as float16, and the rest unchanged.

    The rest is a small part of the file, and a variance may exceed float16's range.
    """
    return {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}


def machine(device: torch.device) -> str:
    """Return the processor's name, how many of its cores this process may use, and the GPU in use."""
    cores = hardware.usable_cores()
    processor = f"{hardware.processor()}, {cores} {'core' if cores == 1 else 'cores'}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {processor}"
    return processor


def write_curve(path: Path, title: str, log: Sequence[Mapping[str, float]], top1: float) -> None:
    """Plot losses and test accuracy by epoch as a PNG."""
    with vendors.matplotlib_cache():
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
