"""The state of a training run, from which --resume continues, and the lock on the output folder.

training-state.safetensors holds the network, its EMA and the optimizer's momentum; its header holds options, progress
and model card. The file is replaced atomically, and reading it executes no code. It holds no state of random
generators: every random number follows from the seed and the step (recipe.seed_for).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import nn

from simplenet import checkpoints, datasets, files, weights
from simplenet.errors import SimpleNetError, UsageError, WeightsError, one_line
from simplenet.model_card import CARD_KEY, ModelCard
from train.distributed import Group

STATE_NAME = "training-state.safetensors"
LAST_NAME, BEST_NAME = "last.safetensors", "best.safetensors"
LOCK_NAME = ".lock"
_SCHEMA_VERSION = 1
_KEY = "simplenet_training"


def holds_run(output: Path, variant: str) -> bool:
    """Whether `output` has files that a new run would replace: those of another run or of an average."""
    return any((output / name).exists() for name in (STATE_NAME, LAST_NAME, f"{variant}.safetensors"))


@contextlib.contextmanager
def lock(output: Path, group: Group, command: str = "") -> Iterator[None]:
    """Keep other runs out of `output`; the first process of a group holds the lock for all.

    The operating system releases the lock when the process ends, even if it is killed. Child processes do not inherit
    it. The lock file names the process and its `command`.

    Raises:
        UsageError: another run uses the folder.
    """
    with contextlib.ExitStack() as stack:
        if group.is_first:
            try:
                made = [folder for folder in (output, *output.parents) if not folder.exists()]
                output.mkdir(parents=True, exist_ok=True)
                held = stack.enter_context(filelock.FileLock(output / LOCK_NAME, blocking=False))
                stack.callback(_clean_up, output, made)
                if not isinstance(held, filelock.SoftFileLock):  # whose file has a format of its own
                    text = f"{os.getpid()} on {platform.node()}: {command}"
                    (output / LOCK_NAME).write_text(text, "utf-8", "surrogateescape")
            except filelock.Timeout:
                text = f"{output} is in use by another run; choose another --output{_holder(output)}"
                raise UsageError(text) from None
            except (OSError, NotImplementedError):
                pass  # the first write reports an unwritable folder; some network file systems have no locks
        yield


def _holder(output: Path) -> str:
    """Return how to stop the process that holds the lock."""
    with contextlib.suppress(OSError):  # on Windows, a locked file cannot be read
        process, _, where = (output / LOCK_NAME).read_text("utf-8", "replace").partition(" ")
        if process.isdecimal():
            return f", or stop that run: kill {process} ({one_line(where)})"
    return ", or wait until that run ends"


def _clean_up(output: Path, made: Sequence[Path]) -> None:
    """Remove the lock file, and the empty ones of the folders that this run made, as a refused run does."""
    with contextlib.suppress(OSError):  # on Windows, filelock itself removes the open file
        (output / LOCK_NAME).unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()


@dataclass
class TrainState:
    """Progress of a run: `epoch` whole epochs and `step` steps of the next one are done.

    `loss_sum` and `epoch_seconds` belong to the current epoch. `seconds` is the duration of all finished epochs, with
    evaluation. `log` has one entry per epoch.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    best_top1: float = -1.0
    log: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise ValueError for values that no run writes, such as those of an edited file."""
        counts = (self.epoch, self.step, self.peak_memory_bytes)
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError(f"{self.epoch!r} epochs and {self.step!r} steps")
        sums = (self.loss_sum, self.epoch_seconds, self.seconds, self.best_top1)
        if not all(type(value) in (int, float) and math.isfinite(value) for value in sums):
            raise ValueError("a sum that is not a number")
        if self.step and self.epoch_seconds <= 0:
            raise ValueError("steps that took no time")
        if not isinstance(self.log, list) or [line["epoch"] for line in self.log] != list(range(1, self.epoch + 1)):
            raise ValueError("a log of other epochs")


def save(
    path: Path,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    options: Mapping[str, Any],
    card: ModelCard | None = None,
) -> None:
    """Write the state atomically: after a crash, a full disk or a power cut, the old file is intact.

    Raises:
        SimpleNetError: the file cannot be written, or a weight is not finite.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in ema.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise SimpleNetError(f"{name} is no longer finite; try a lower --learning-rate")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"schema_version": _SCHEMA_VERSION, "options": dict(options), "position": dataclasses.asdict(state)}
    with files.replacing(path) as temporary:
        cards = {CARD_KEY: card.to_json()} if card else {}
        temporary.write_bytes(serialize(tensors, {_KEY: json.dumps(header), **cards}))


def saved_card(output: Path) -> ModelCard | None:
    """Return the model card of the run in `output`; None if its state cannot be read, which `load` reports."""
    with contextlib.suppress(WeightsError):
        return checkpoints.read(output / STATE_NAME).card
    return None


def load(
    path: Path,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    options: Mapping[str, Any],
) -> TrainState:
    """Restore network, EMA and optimizer, bit for bit, and return the progress.

    Args:
        options: this run's options by flag; they must equal those of the saved run.

    Raises:
        UsageError: there is no run to resume, or it has other options; the message names the first that differs.
        WeightsError: the file is damaged, or belongs to another network.
    """
    if not path.is_file():
        raise UsageError(
            f"there is no run to resume in {path.parent}; start one without --resume, or name its --output"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            if header["schema_version"] != _SCHEMA_VERSION:
                raise WeightsError(f"{path} was written by another version of this program; train again")
            for name, saved in header["options"].items():  # older states may have fewer options
                if saved != (now := options.get(name)) and not (name == "--weights" and _are_paths(saved, now)):
                    if name.endswith("fingerprint"):
                        raise UsageError(
                            f"{path.parent} holds a run with other images: names, sizes or contents of files have "
                            "changed since; restore them, or choose another --output"
                        )
                    before, requested = one_line(str(saved), 60), one_line(str(now), 60)
                    raise UsageError(
                        f"{path.parent} holds a run with {name} {before}, not {requested}; "
                        "resume with the command that started it, from the same folder, or choose another --output"
                    )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
        state = TrainState(**header["position"])
        for module, prefix in ((network, "network."), (ema, "average.")):
            module.load_state_dict(_with_prefix(tensors, prefix))
        _restore(optimizer, _with_prefix(tensors, "optimizer."))
    except SimpleNetError:
        raise
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is damaged ({one_line(error, 120)}); start again without --resume and with another --output"
        ) from error
    return state


def _are_paths(*initial: Any) -> bool:
    """Whether all values of --weights are files: resuming does not read them, so they may have moved."""
    return set(initial).isdisjoint({*weights.KEYWORDS, *datasets.shipped_weights()})


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the momentum in the parameters' memory layout: another layout changes the order of summation."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        if tensor.shape == parameters[int(index)].shape:
            tensor = torch.empty_like(parameters[int(index)], dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
