"""How good a network is on pictures that it has not seen."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from simplenet.preprocessing import Preprocessing
from train.augmentation import normalise
from train.recipe import autocast


@torch.inference_mode()
def count(
    model: nn.Module,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    preprocessing: Preprocessing,
    bf16: bool,
    batch: int = 500,
) -> tuple[int, float]:
    """How many of the uint8 images [N, S, S, 3] are answered rightly, and the sum of their cross-entropies."""
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=pixels.device)
    loss = torch.zeros((), dtype=torch.float64, device=pixels.device)
    for images, wanted in zip(torch.split(pixels, batch), torch.split(labels, batch), strict=True):
        with autocast(bf16, pixels.device):
            logits = model(normalise(images, preprocessing)).float()
        correct += (logits.argmax(1) == wanted).sum()
        loss += functional.cross_entropy(logits, wanted, reduction="sum").double()
    return int(correct), float(loss)


def evaluate(
    model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, preprocessing: Preprocessing, bf16: bool
) -> tuple[float, float]:
    """Top-1 in percent and mean cross-entropy of uint8 [N, S, S, 3], one plain view of each image."""
    correct, loss = count(model, pixels, labels, preprocessing, bf16)
    return 100 * correct / len(labels), loss / len(labels)
