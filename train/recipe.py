"""The training recipe: hyperparameters, initial network, schedule, optimizer, EMA, precision, seeds."""

from __future__ import annotations

import contextlib
import copy
import enum
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from simplenet import model, weights
from simplenet.errors import DataError, SimpleNetWarning, UsageError
from simplenet.model import SimpleNet
from simplenet.model_card import NO_OVERRIDES, CardOverrides, ModelCard
from train.distributed import Group

_EMA_WARMUP_STEPS = 10


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a run.

    Args:
        batch_size: global batch size, split across processes.
        warmup: fraction of the steps in which the learning rate rises.
        translate: largest shift of an image, in pixels.
        cutout: side of the masked square, in pixels.
        flip: mirror half of the images.
        small_first: fraction of the epochs, at the start, that train on smaller (so faster) images.
        mixup, cutmix: parameter of the Beta distribution; 0 turns it off.
        average_decay: decay of the weights' EMA, per step.
        freeze: number of leading convolutions that are not trained.
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

    @property
    def is_mixing(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


DEFAULT = Recipe()


def check_batch(config: Recipe, images: int, group: Group) -> None:
    """Check that the batch size suits the number of images and processes.

    Raises:
        DataError: there are fewer images than one batch.
        UsageError: the processes cannot share a batch equally.
    """
    group.part(config.batch_size)
    if config.is_mixing and config.batch_size % (2 * group.size):
        raise UsageError(
            f"mixing needs pairs of images in every process; --batch {config.batch_size} must be a multiple of "
            f"{2 * group.size}"
        )
    if images < config.batch_size:
        unit = 2 * group.size if config.is_mixing else group.size
        possible = images // unit * unit
        advice = f"use --batch {possible}" if possible >= 2 else "add images"
        raise DataError(f"there are {images} images to train on, fewer than one batch; {advice}")


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Return the rate at `step`: a linear rise to `peak` in the fraction `warmup`, then a linear fall."""
    peak_step = max(1.0, warmup * steps)
    position = step + 1
    return peak * (position / peak_step if position <= peak_step else (steps + 1 - position) / (steps + 1 - peak_step))


def initial_network(
    variant: str,
    weights_name: str,
    labels: tuple[str, ...],
    config: Recipe,
    overrides: CardOverrides = NO_OVERRIDES,
    weights_key: str | None = None,
    resume: bool = False,
) -> tuple[SimpleNet, ModelCard | None]:
    """Create a network for the classes `labels`.

    The last layer is new unless the weights are for the same classes. If they do not name theirs, a warning says what
    becomes of it.

    Args:
        weights_name, weights_key: the values of --weights and --weights-key.
        overrides: preprocessing and labels of the initial weights, in place of those of their card.
        resume: do not read the initial weights: the state to resume from has all weights.

    Returns:
        The network, and the card of the initial weights (None for random ones and with `resume`).

    Raises:
        UsageError: unknown variant or weights.
        WeightsError: the weights are damaged, unsafe, or belong to another variant.
    """
    new = model.create(variant, len(labels), dropout=config.dropout, seed=config.seed)
    if resume or (weights_name == "random" and weights_key is None):
        return new, None
    loaded = weights.load(variant, weights_name, overrides=overrides, key=weights_key)
    tensors = loaded.model.state_dict()
    is_kept = loaded.card.labels == labels and loaded.card.num_classes == len(labels)
    if loaded.card.num_classes == len(labels) and ("labels" in loaded.assumed or not loaded.card.labels):
        how = f"is kept, as if they were {labels[0]!r} to {labels[-1]!r}" if is_kept else "starts new"
        text = f"{weights_name} does not name its classes, so its last layer {how}"
        advice = "if that is wrong, name them: train/imagefolder.py --labels FILE"
        warnings.warn(f"{text}; {advice}", SimpleNetWarning, stacklevel=2)
    if not is_kept:
        tensors |= {name: tensor for name, tensor in new.state_dict().items() if name.startswith("classifier.")}
    new.load_state_dict(tensors)
    return new, loaded.card


def optimizer(network: nn.Module, weight_decay: float) -> torch.optim.SGD:
    """Create SGD with Nesterov momentum; weight decay applies to convolution and linear weights only."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)


def freeze(network: SimpleNet, convolutions: int) -> None:
    """Freeze the first convolutions and their batch norm; call it after every `network.train()`.

    Raises:
        UsageError: the network has fewer convolutions.
    """
    frozen = 0
    for module in network.features:
        frozen += isinstance(module, nn.Conv2d)
        if frozen > convolutions:
            return
        module.eval().requires_grad_(False)
    if frozen < convolutions:
        raise UsageError(f"the network has {frozen} convolutions, not {convolutions}; choose a smaller --freeze")


class ModelEma:
    """An exponential moving average (EMA) of a model's weights and batch norm statistics.

    The decay is lower in the first steps, so that the initial weights soon have little effect.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(source).eval().requires_grad_(False)
        self.decay = decay
        self._source = source
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Include the source's current weights; `steps` is the number of optimizer steps so far."""
        if not self._pairs:  # collected once: collecting takes ten times as long as averaging
            self._pairs = list(zip(self.model.state_dict().values(), self._source.state_dict().values(), strict=True))
        weight = 1 - min(self.decay, steps / (steps + _EMA_WARMUP_STEPS))
        floating = [pair for pair in self._pairs if pair[0].dtype.is_floating_point]
        torch._foreach_lerp_([average for average, _ in floating], [current for _, current in floating], weight)
        for average, current in self._pairs:
            if not average.dtype.is_floating_point:
                average.copy_(current)


class RngStream(enum.IntEnum):
    """The uses of random numbers. Results depend on the values: do not reuse or renumber them."""

    ORDER = 0
    AUGMENTATION = 1
    DROPOUT = 2
    VIEW = 3  # mirroring and cropping
    SPLIT = 4


def seed_for(seed: int, stream: RngStream, *path: int) -> int:
    """Derive an independent seed for each stream and path, such as (epoch, step), from `seed`.

    No random number in training depends on earlier ones. So generator states are neither saved to resume a run nor sent
    to other processes.
    """
    return int(np.random.SeedSequence((seed, stream, *path)).generate_state(1, np.uint64)[0] >> 1)


def generator_for(seed: int, stream: RngStream, *path: int) -> torch.Generator:
    """Create a CPU generator seeded with `seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, stream, *path))


def computes_bf16(device: torch.device) -> bool:
    """Whether bf16 is fast: on GPUs since Ampere, and on CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(enabled: bool, device: torch.device | None = None) -> contextlib.AbstractContextManager[object]:
    """Return PyTorch's automatic mixed precision with bf16."""
    return torch.autocast(device.type if device else "cpu", torch.bfloat16, enabled=enabled)
