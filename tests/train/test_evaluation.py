"""Evaluation against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simplenet import model
from train import augmentation, data, evaluation


def test_evaluation_counts_every_image_once() -> None:
    spec = data.get("cifar10").preprocessing
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (503, 32, 32, 3)).astype(np.uint8))
    labels = torch.zeros(503, dtype=torch.int64)
    network = model.create("cifar-310k", seed=3)
    with torch.inference_mode():
        logits = network(augmentation.normalise(pixels, spec))
    labels[:9] = logits[:9].argmax(1)
    labels[9:] = logits[9:].argmin(1)
    top1, loss = evaluation.evaluate(network, pixels, labels, spec, bf16=False)
    assert top1 == pytest.approx(100 * 9 / 503)
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4)
