"""How good a network is on pictures that it has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional

from simplenet.errors import DataError
from simplenet.preprocessing import Preprocessing
from train.augmentation import normalize
from train.distributed import Group
from train.interruption import StopRequest
from train.recipe import autocast

Batch = tuple[torch.Tensor, torch.Tensor]
"""One plain view of each image, uint8 [N, S, S, 3], and their classes, int64 [N], on the model's device."""


def batch_size(trained_at_once: int, most: int) -> int:
    """Evaluation forgets what training keeps of every layer: where a batch can be trained on, so many fit as well."""
    return min(4 * trained_at_once, most)


def in_batches(pixels: torch.Tensor, labels: torch.Tensor, size: int) -> Iterator[Batch]:
    return zip(torch.split(pixels, size), torch.split(labels, size), strict=True)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    preprocessing: Preprocessing,
    bf16: bool,
    group: Group | None = None,
    stop: StopRequest | None = None,
) -> tuple[float, float, int]:
    """Top-1 in percent, mean cross-entropy and how many images they are over, from the batches of the whole group.

    Raises:
        KeyboardInterrupt: a stop was asked for meanwhile, in any process; all of them raise it.
        DataError: there is not one image.
    """
    group = group or Group()
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=group.device)
    loss = torch.zeros((), dtype=torch.float64, device=group.device)
    count = 0
    for pixels, labels in batches:
        if stop and stop.wanted:
            break
        with autocast(bf16, pixels.device):
            logits = model(normalize(pixels, preprocessing)).float()
        correct += (logits.argmax(1) == labels).sum()
        loss += functional.cross_entropy(logits, labels, reduction="sum").double()
        count += len(labels)
    of_all = group.total(int(correct), float(loss), count, bool(stop and stop.wanted))
    if of_all[3]:
        raise KeyboardInterrupt
    if not of_all[2]:
        raise DataError("not one of the test images can be read; check the folder")
    return 100 * of_all[0] / of_all[2], of_all[1] / of_all[2], int(of_all[2])
