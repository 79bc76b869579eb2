"""Top-1 accuracy and cross-entropy of a network on test images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from simplenet.errors import DataError
from simplenet.preprocessing import Preprocessing
from train.augmentation import normalize
from train.distributed import Group
from train.recipe import autocast
from train.signals import StopRequest

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images and labels on the model's device.

Test batches: uint8 [N, S, S, 3], not normalized, and int64 [N]. Training batches: float32 [N, 3, S, S], normalized, and
int64 [N], or soft labels float32 [N, classes].
"""


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    preprocessing: Preprocessing,
    bf16: bool,
    group: Group | None = None,
    stop: StopRequest | None = None,
) -> tuple[float, float, int]:
    """Evaluate `model` on test batches; each process of `group` passes its own batches.

    Returns:
        Top-1 in percent, mean cross-entropy, and the number of images, over all processes.

    Raises:
        KeyboardInterrupt: in all processes, if the `stop` of one of them is set.
        DataError: there are no images.
    """
    group = group or Group()
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=group.device)
    loss = torch.zeros((), dtype=torch.float64, device=group.device)
    count = 0
    for pixels, labels in batches:
        if stop and stop.is_set:
            break
        with autocast(bf16, pixels.device):
            logits = model(normalize(pixels, preprocessing)).float()
        correct += (logits.argmax(1) == labels).sum()
        loss += functional.cross_entropy(logits, labels, reduction="sum").double()
        count += len(labels)
    total_correct, total_loss, total, stops = group.total(int(correct), float(loss), count, bool(stop and stop.is_set))
    if stops:
        raise KeyboardInterrupt
    if not total:
        raise DataError("none of the test images can be read; check the folder")
    return 100 * total_correct / total, total_loss / total, int(total)
