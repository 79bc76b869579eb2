"""How to train: options, schedule, optimizer, average of the weights, precision, and where randomness comes from."""

from __future__ import annotations

import contextlib
import copy
import enum
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from simplenet.errors import DataError, UsageError
from simplenet.model import SimpleNet
from train.distributed import Group

WARM_UP_STEPS = 10  # of the average: it starts as the average of the last few steps


@dataclass(frozen=True)
class Recipe:
    """How to train. `translate` and `cutout` are pixels; `warmup` is the part of the steps in which the rate rises.

    `batch_size` counts the images of one step, whoever computes them: two processes take half of it each. `flip`
    mirrors half of the images. `small_first` is the part of the epochs in which images are smaller, and steps quicker.
    `mixup` and `cutmix` are the Beta distribution's parameter, 0 is off. `freeze` is how many convolutions, from the
    first, stay as they are.
    """

    epochs: int = 20
    batch_size: int = 128
    peak_learning_rate: float = 0.1
    warmup: float = 0.2
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    translate: int = 2
    cutout: int = 8
    flip: bool = True
    small_first: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    dropout: float = 0.0
    average_decay: float = 0.998
    freeze: int = 0
    bf16: bool = True
    seed: int = 0


DEFAULT = Recipe()


def check_batch(config: Recipe, images: int, group: Group) -> None:
    """Raises DataError where there is not one whole batch, UsageError where the group cannot share it."""
    group.part(config.batch_size)
    is_mixing = config.mixup > 0 or config.cutmix > 0
    if is_mixing and config.batch_size % (2 * group.size):
        raise UsageError(f"mixing takes pairs of images, so --batch {config.batch_size} must be even in every process")
    if images < config.batch_size:
        unit = 2 * group.size if is_mixing else group.size
        possible = images // unit * unit
        advice = f"use --batch {possible}" if possible >= 2 else "add some"
        raise DataError(f"there are {images} images to train on, fewer than one batch; {advice}")


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Triangle: linear from near 0 to `peak` over the first `warmup` part of `steps`, then linear to 0."""
    turn = max(1.0, warmup * steps)
    position = step + 1
    return peak * (position / turn if position <= turn else (steps + 1 - position) / (steps + 1 - turn))


def optimizer(model: nn.Module, weight_decay: float) -> torch.optim.SGD:
    """Nesterov SGD; only convolution and linear weights decay, biases and batch norm do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)


def freeze(model: SimpleNet, convolutions: int) -> None:
    """The first convolutions, with their batch norm and its statistics, stay as they are: call it after `train()`.

    Raises:
        UsageError: there are not so many.
    """
    frozen = 0
    for module in model.features:
        frozen += isinstance(module, nn.Conv2d)
        if frozen > convolutions:
            return
        module.eval().requires_grad_(False)
    if frozen < convolutions:
        raise UsageError(f"the network has {frozen} convolutions, so that {convolutions} cannot be frozen")


class WeightAverage:
    """An exponential moving average of a model's weights and batch norm statistics, after every step.

    The average over the last 1 / (1 - decay) steps; shorter at the start, so that the initial weights are forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self._of = model
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """`steps` counts all that the model has taken, this one included."""
        if not self._pairs:  # looked up once: that takes ten times as long as averaging
            self._pairs = list(zip(self.model.state_dict().values(), self._of.state_dict().values(), strict=True))
        weight = 1 - min(self.decay, steps / (steps + WARM_UP_STEPS))
        floating = [pair for pair in self._pairs if pair[0].dtype.is_floating_point]
        torch._foreach_lerp_([average for average, _ in floating], [current for _, current in floating], weight)
        for average, current in self._pairs:
            if not average.dtype.is_floating_point:
                average.copy_(current)


class RngStream(enum.IntEnum):
    """What randomness is for. The numbers are part of every run's result: never give one to something else."""

    ORDER = 0
    AUGMENTATION = 1
    DROPOUT = 2
    VIEW = 3  # which side or part of an image is shown
    SPLIT = 4


def seed_for(seed: int, purpose: RngStream, *path: int) -> int:
    """A seed of its own for every path of whole numbers (the epoch, the step, the image) of a run's `seed`.

    Nothing random in training depends on what was random before it: a run resumes at any step, and any number of
    processes agree, without a generator's state going anywhere.
    """
    return int(np.random.SeedSequence((seed, purpose, *path)).generate_state(1, np.uint64)[0] >> 1)


def computes_bf16(device: torch.device) -> bool:
    """Whether bf16 is worth it: GPUs since Ampere, CPUs with AVX512-BF16 or AMX; elsewhere it is emulated and slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(enabled: bool, device: torch.device | None = None) -> contextlib.AbstractContextManager[object]:
    """bf16 where it is safe: more than twice as fast on CPUs that have it."""
    return torch.autocast(device.type if device else "cpu", torch.bfloat16, enabled=enabled)
