"""Evaluation against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simplenet import model
from simplenet.errors import DataError
from tests.train.conftest import in_batches
from train import augmentation, data, evaluation
from train.distributed import Group
from train.signals import StopRequest


def test_evaluation_counts_every_image_once() -> None:
    spec = data.get("cifar10").preprocessing
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (103, 32, 32, 3)).astype(np.uint8))
    labels = torch.zeros(103, dtype=torch.int64)
    network = model.create("cifar-310k", seed=3)
    with torch.inference_mode():
        logits = network(augmentation.normalize(pixels, spec))
    labels[:9] = logits[:9].argmax(1)
    labels[9:] = logits[9:].argmin(1)
    top1, loss, count = evaluation.evaluate(network, in_batches(pixels, labels, 20), spec, bf16=False)
    assert count == 103
    assert top1 == pytest.approx(100 * 9 / 103)
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4)


class _OfTwo(Group):
    """A process without a stop request, beside one with a stop request."""

    def total(self, *values: float) -> list[float]:
        return [*values[:-1], values[-1] + 1]


def test_all_processes_stop_when_one_has_a_stop_request() -> None:
    spec = data.get("cifar10").preprocessing
    batches = [(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))]
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(model.create("cifar-310k"), batches, spec, False, _OfTwo(), StopRequest())


def test_refuses_a_split_without_readable_images() -> None:
    with pytest.raises(DataError, match="none of the test images can be read; check the folder"):
        evaluation.evaluate(model.create("cifar-310k"), [], data.get("cifar10").preprocessing, False)
