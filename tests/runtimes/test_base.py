"""Softmax and top-k against their definitions."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from runtimes import base, softmax, top_k
from simplenet.errors import UsageError

# Whole numbers tie often.
LOGITS = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(-5, 5).map(float))


@given(logits=LOGITS, k=st.integers(1, 50))
def test_top_k_is_a_stable_sort_of_all_classes(logits: np.ndarray, k: int) -> None:
    for row, top in zip(logits, top_k(logits, k), strict=True):
        expected = sorted(range(len(row)), key=lambda index: (-row[index], index))[:k]
        assert [prediction.index for prediction in top] == expected
        total = sum(math.exp(value) for value in row.tolist())
        for prediction in top:
            assert prediction.probability == pytest.approx(math.exp(row[prediction.index]) / total, rel=1e-5)


@given(arrays(np.float32, (2, 7), elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_softmax_of_any_finite_logits_sums_to_one(logits: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # a difference of two huge logits may be -inf: probability 0
        assert softmax(logits).sum(axis=1) == pytest.approx([1, 1], rel=1e-5)


def test_labels_name_the_classes() -> None:
    (top,) = top_k(np.array([[0.0, 2.0, 1.0]], np.float32), 2, ("cat", "dog", "owl"))
    assert [prediction.label for prediction in top] == ["dog", "owl"]
    assert top_k(np.zeros((1, 1), np.float32), 1)[0][0].label == "class 0"


@pytest.mark.parametrize(
    ("siblings", "cores"),
    [
        (["0", "1", "2", "3"], 4),  # one thread a core, however the kernel numbers cores within clusters
        (["0,2", "1,3", "0,2", "1,3"], 2),
        (["0-1", "0-1", "2-3", "2-3"], 2),
        ([], 4),  # nothing known
    ],
)
def test_physical_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, siblings: list[str], cores: int) -> None:
    for cpu, text in enumerate(siblings):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(f"{text}\n")
    monkeypatch.setattr(base, "_CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert base.physical_cores() == cores


def test_k_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="k must be at least 1, not 0"):
        top_k(np.zeros((1, 3), np.float32), 0)
