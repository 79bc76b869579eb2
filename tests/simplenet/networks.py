"""Networks with random weights, for tests of checkpoint files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from simplenet import model
from simplenet.model_card import ModelCard
from simplenet.preprocessing import CIFAR10_PREPROCESSING
from simplenet.weights import LoadedWeights

VARIANT = "cifar-310k"
Tensors = dict[str, torch.Tensor]


def state(variant: str = VARIANT, num_classes: int | None = None, seed: int = 3) -> Tensors:
    return dict(model.create(variant, num_classes, seed=seed).state_dict())


def card(variant: str = VARIANT, num_classes: int = 10, **values: Any) -> ModelCard:
    return ModelCard(variant, num_classes, CIFAR10_PREPROCESSING, **values)


def same(loaded: LoadedWeights, tensors: Tensors) -> bool:
    found = loaded.model.state_dict()
    return found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


GOOD = state()


def write(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def prefixed(prefix: str, tensors: Tensors = GOOD) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}
