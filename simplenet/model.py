"""The network: a chain of convolutions, a global max pool and one linear layer."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from simplenet import variants
from simplenet.errors import UsageError
from simplenet.variants import Convolution, Variant


class SimpleNet(nn.Module):
    """A SimpleNet: normalized float32 [N, in_channels, H, W] -> logits float32 [N, num_classes].

    Modules have the names and indices of the reference implementation, so that official checkpoints load strictly.
    `dropout` is the rate of every Dropout2d.
    """

    def __init__(self, variant: Variant, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.features, channels = _features(variant, in_channels, dropout)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.features(images)
        pooled = functional.max_pool2d(maps, kernel_size=maps.shape[-2:])
        logits: torch.Tensor = self.classifier(self.dropout(pooled).flatten(1))
        return logits


def _features(variant: Variant, in_channels: int, dropout: float) -> tuple[nn.Sequential, int]:
    """Return the convolutional layers and their number of output channels."""
    modules: list[nn.Module] = []
    channels = in_channels
    strides = iter(variant.strides)
    for layer in variant.layers():
        if isinstance(layer, Convolution):
            convolution = nn.Conv2d(
                channels, layer.channels, layer.kernel_size, stride=next(strides, 1), padding=layer.kernel_size // 2
            )
            nn.init.xavier_uniform_(convolution.weight, gain=nn.init.calculate_gain("relu"))
            modules += [convolution, nn.BatchNorm2d(layer.channels, eps=1e-5, momentum=0.05), nn.ReLU(inplace=True)]
            if layer.has_dropout:
                modules.append(nn.Dropout2d(dropout))
            channels = layer.channels
        else:
            modules += [nn.MaxPool2d(2, stride=2), nn.Dropout2d(dropout)]
    return nn.Sequential(*modules), channels


def create(
    variant: str,
    num_classes: int | None = None,
    in_channels: int = 3,
    dropout: float = 0.0,
    seed: int = 0,
    device: str = "cpu",
) -> SimpleNet:
    """Create a randomly initialized network in eval mode; the global random state is unchanged.

    Args:
        num_classes: by default the variant's own (1000 or 10).
        seed: the same seed gives the same weights.
        device: 'meta' gives shapes only, without memory.

    Raises:
        UsageError: unknown variant, or fewer than one class or channel.

    Example:
        model.create("1.5m")(torch.zeros(1, 3, 224, 224)).shape  # [1, 1000]
    """
    spec = variants.get(variant)
    num_classes = spec.num_classes if num_classes is None else num_classes
    if num_classes < 1 or in_channels < 1:
        raise UsageError(f"a network needs at least 1 class and 1 channel, not {num_classes} and {in_channels}")
    with torch_defaults(), torch.device(device), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed every GPU
        model = SimpleNet(spec, num_classes, in_channels, dropout)
    return model.eval()


_lock = threading.RLock()


def _after_fork() -> None:
    """In the child process: replace the lock, whose holder may be a thread that exists only in the parent."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """Run a block with the default settings of PyTorch and NumPy, then restore the caller's.

    One thread at a time: `torch.export` is not thread-safe, and PyTorch has one default dtype for all threads.
    """
    with _lock, contextlib.ExitStack() as settings:
        dtype = torch.get_default_dtype()
        if dtype != torch.float32:
            settings.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                settings.enter_context(torch.autocast(device, enabled=False))
        settings.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        yield
