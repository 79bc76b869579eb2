"""What the training loop stands on: pixels to tensors, augmentation, schedule, optimizer, averaging, evaluation."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from simplenet.datasets import LabelledImages
from simplenet.preprocessing import Preprocessing, to_model_input


@dataclass(frozen=True)
class Recipe:
    """How to train. `translate` and `cutout` are pixels; `warmup` is the part of the steps in which the rate rises."""

    epochs: int = 20
    batch_size: int = 128
    peak_learning_rate: float = 0.1
    warmup: float = 0.2
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    translate: int = 2
    cutout: int = 8
    average_decay: float = 0.998
    bf16: bool = True
    seed: int = 0


DEFAULT = Recipe()


def to_tensors(data: LabelledImages, preprocessing: Preprocessing) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's uint8 pixels [N, S, S, 3], by the very function that the runtimes use, and int64 labels [N]."""
    pixels = np.stack([to_model_input(image, preprocessing) for image in data.images])
    return torch.from_numpy(pixels), torch.from_numpy(data.labels)


def augment(pixels: torch.Tensor, translate: int, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """uint8 [N, S, S, 3]: each image moved by up to `translate` pixels, black coming in, and mirrored half the time."""
    count, size = pixels.shape[:2]
    padded = functional.pad(pixels, (0, 0, translate, translate, translate, translate))
    top, left = torch.randint(0, 2 * translate + 1, (2, count, 1), generator=generator)
    span = torch.arange(size)
    columns = span.expand(count, size)
    if flip:
        mirrored = torch.randint(0, 2, (count, 1), generator=generator) == 1
        columns = torch.where(mirrored, size - 1 - columns, columns)
    images = torch.arange(count)[:, None, None]
    return padded[images, (top + span)[:, :, None], (left + columns)[:, None, :]]


def normalise(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 [N, S, S, 3] -> float32 [N, 3, S, S], channels_last: simplenet.preprocessing.normalise, on tensors."""
    scaled = (pixels.float() / 255 - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    return scaled.permute(0, 3, 1, 2)


def cutout(images: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Normalised [N, 3, S, S]: a square of `size` pixels of each image set to 0, the mean; it may hang over."""
    count, side = images.shape[0], images.shape[-1]
    top, left = torch.randint(-(size // 2), side - size // 2, (2, count, 1), generator=generator)
    span = torch.arange(side)
    rows = (span >= top) & (span < top + size)
    columns = (span >= left) & (span < left + size)
    hidden = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(hidden, 0.0)


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


class WeightAverage:
    """An exponential moving average of a model's weights and batch norm statistics, after every step.

    The average over the last 1 / (1 - decay) steps; shorter at the start, so that the initial weights are forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        weight = 1 - min(self.decay, self.updates / (self.updates + 10))
        for average, current in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(current, weight)
            else:
                average.copy_(current)


def autocast(enabled: bool) -> contextlib.AbstractContextManager[object]:
    """bf16 where it is safe: more than twice as fast on CPUs that have it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    preprocessing: Preprocessing,
    bf16: bool,
    batch: int = 500,
) -> tuple[float, float]:
    """Top-1 in percent and mean cross-entropy of uint8 [N, S, S, 3], one plain view of each image."""
    model.eval()
    correct, loss = 0, 0.0
    for images, wanted in zip(torch.split(pixels, batch), torch.split(labels, batch), strict=True):
        with autocast(bf16):
            logits = model(normalise(images, preprocessing)).float()
        correct += int((logits.argmax(1) == wanted).sum())
        loss += float(functional.cross_entropy(logits, wanted, reduction="sum"))
    return 100 * correct / len(labels), loss / len(labels)
