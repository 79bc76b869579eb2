"""Accuracy and agreement of logits: for evaluate, compare, and the check of every export."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

FEWEST_CLASSES_FOR_TOP5 = 6
"""With fewer classes, every class is among the five best."""


def ranked(logits: Float32Array, k: int) -> Int64Array:
    """Return the `k` best classes per image, int64 [N, min(k, classes)]; ties: the lower index first."""
    best: Int64Array = np.argsort(-logits, axis=1, kind="stable")[:, :k].astype(np.int64)
    return best


def top_k_correct(logits: Float32Array, labels: Int64Array, k: int) -> int:
    """Count the images whose label, int64 [N], is among the `k` best of logits float32 [N, classes]."""
    return int((ranked(logits, k) == labels[:, None]).any(axis=1).sum())


def top1_agreement(logits: Float32Array, reference: Float32Array) -> float:
    """Return the share of images, 0 to 1, on which two logits, float32 [N, classes], have the same top-1."""
    return float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())


def cosine_similarities(logits: npt.NDArray[Any], reference: npt.NDArray[Any]) -> Float64Array:
    """Return the cosine similarity of two logits [N, classes] per image: float64 [N]; 0 for zero vectors.

    It is computed in float64: near 1, float32 has too few digits to distinguish a good export from a bad one.
    """
    a, b = logits.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: Float64Array = np.minimum((a * b).sum(axis=1) / np.maximum(norms, 1e-30), 1.0)
    return cosines
