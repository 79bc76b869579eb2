"""From logits to predictions: softmax over all classes, and the top k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simplenet.errors import check_integer
from simplenet.preprocessing import Float32Array


@dataclass(frozen=True)
class Prediction:
    """One class of a top-k; `probability` is the softmax over all classes."""

    label: str
    index: int
    probability: float


def softmax(logits: Float32Array) -> Float32Array:
    """Softmax over the last axis, shifted by the maximum to avoid overflow."""
    with np.errstate(all="ignore"):  # a probability may underflow to 0, whatever the caller's np.seterr
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        result: Float32Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def top_k(logits: Float32Array, k: int, labels: Sequence[str] = ()) -> list[list[Prediction]]:
    """Return for each row its min(k, C) most probable classes, best first; ties: the lower index first.

    Args:
        logits: finite float32 [N, C].
        labels: class names by index; without them, 'class <index>'.

    Raises:
        UsageError: k is not an integer, or less than 1.
    """
    k = check_integer("k", k, minimum=1)
    return [
        _top_k_of_row(row, probabilities, min(k, len(row)), labels)
        for row, probabilities in zip(logits, softmax(logits), strict=True)
    ]


def _top_k_of_row(row: Float32Array, probabilities: Float32Array, k: int, labels: Sequence[str]) -> list[Prediction]:
    # Sorting all classes of ImageNet takes longer than the softmax.
    candidates = np.flatnonzero(row >= np.partition(row, -k)[-k])
    best = candidates[np.argsort(-row[candidates], kind="stable")][:k]
    return [
        Prediction(labels[index] if labels else f"class {index}", index, probability)
        for index, probability in zip(best.tolist(), probabilities[best].tolist(), strict=True)
    ]
