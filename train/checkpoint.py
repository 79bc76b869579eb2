"""The state of a training run on disk: everything that the next step depends on, in one file that is replaced whole.

training-state.safetensors holds the network, the average of its weights, the optimizer's memory and, as JSON in the
header, where the run is and what it was asked to do. Reading it runs nothing. Randomness needs no state: see
recipe.seed_for.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import nn

from simplenet import files
from simplenet.errors import SimpleNetError, UsageError, WeightsError, one_line

STATE_NAME = "training-state.safetensors"
_SCHEMA_VERSION = 1
_KEY = "simplenet_training"


@dataclass
class TrainState:
    """Where a run is: `epoch` whole epochs and `step` steps of the next one are done; seconds over all sittings."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    best_top1: float = -1.0
    log: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises ValueError where that is no place to be, as in a file that somebody has edited."""
        counts = (self.epoch, self.step, self.peak_memory_bytes)
        if any(isinstance(count, bool) or not isinstance(count, int) or count < 0 for count in counts):
            raise ValueError(f"a position of {self.epoch!r} epochs and {self.step!r} steps")
        sums = (self.loss_sum, self.epoch_seconds, self.seconds, self.best_top1)
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in sums):
            raise ValueError("a sum that is no number")
        if self.step and self.epoch_seconds <= 0:
            raise ValueError("steps that took no time")
        if not isinstance(self.log, list) or [line["epoch"] for line in self.log] != list(range(1, self.epoch + 1)):
            raise ValueError("the log is not that of the epochs")

    def end_epoch(self, evaluation_seconds: float, top1: float) -> None:
        """One more epoch is trained and measured."""
        self.seconds += self.epoch_seconds + evaluation_seconds
        self.epoch, self.step, self.loss_sum, self.epoch_seconds = self.epoch + 1, 0, 0.0, 0.0
        self.best_top1 = max(top1, self.best_top1)


def save(
    path: Path,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: TrainState,
    options: Mapping[str, Any],
) -> None:
    """Atomic: a crash, a full disk or a power cut leaves the old file.

    Raises:
        SimpleNetError: it cannot be written, or a weight is not a number: nothing good could come from resuming.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise SimpleNetError(f"{name} is not finite any more; try a lower --learning-rate")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"schema_version": _SCHEMA_VERSION, "options": dict(options), "position": dataclasses.asdict(position)}
    with files.replacing(path) as temporary:
        temporary.write_bytes(serialize(tensors, {_KEY: json.dumps(about)}))


def load(
    path: Path,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    options: Mapping[str, Any],
) -> TrainState:
    """Puts network, average and optimizer where they were, bit by bit, and says where that is.

    Args:
        options: what this run is asked to do, by the flag that says it; it must be what the saved run was asked.

    Raises:
        UsageError: no run to resume, or one with other options; the message names the first that differs.
        WeightsError: the file is damaged or of another network.
    """
    if not path.is_file():
        raise UsageError(
            f"there is no run to resume in {path.parent}; start one without --resume, or name its --output"
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            if about["schema_version"] != _SCHEMA_VERSION:
                raise WeightsError(f"{path} is of another version of this program; train it again")
            _check_options(path.parent, about["options"], options)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
        position = TrainState(**about["position"])
        for module, prefix in ((network, "network."), (average, "average.")):
            module.load_state_dict(_below(tensors, prefix))
        _restore(optimizer, _below(tensors, "optimizer."))
    except SimpleNetError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is damaged ({one_line(error, 120)}); start again without --resume and with another --output"
        ) from error
    return position


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """In the memory layout of the parameters: sums in another order would be other sums."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        if tensor.shape == parameters[int(index)].shape:
            tensor = torch.empty_like(parameters[int(index)], dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_options(folder: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, before in saved.items():  # a state says nothing of options that are younger than it is
        now = wanted.get(name)
        if before != now:
            raise UsageError(
                f"{folder} holds a run with {name} {_short(before)}, not {_short(now)}; "
                "resume it with the command that started it, where it was started, or choose another --output"
            )


def _short(value: object) -> str:
    return one_line(str(value), 60)
