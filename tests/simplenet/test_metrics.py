"""Metrics of logits against plain float64 references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplenet import metrics

Rows = list[list[float]]
VALUES = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, 1.0])  # ties are frequent


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Rows, Rows]:
    images, classes = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    rows = st.lists(st.lists(VALUES, min_size=classes, max_size=classes), min_size=images, max_size=images)
    return draw(rows), draw(rows)


def f32(rows: Rows) -> metrics.Float32Array:
    return np.array(rows, np.float32)


@given(pairs())
def test_cosines_are_those_of_a_float64_reference(rows: tuple[Rows, Rows]) -> None:
    found = metrics.cosine_similarities(f32(rows[0]), f32(rows[1]))
    assert found.dtype == np.float64
    for cosine, a, b in zip(found, *rows, strict=True):
        norms = math.hypot(*a) * math.hypot(*b)
        expected = math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms if norms > 1e-30 else 0.0
        assert cosine == pytest.approx(expected, abs=1e-9) or norms < 1e-30
        assert -1 - 1e-9 <= cosine <= 1


def test_a_cosine_near_1_has_the_digits_of_float64() -> None:
    a = np.full((1, 1000), 1000.0, np.float32)
    b = a.copy()
    b[0, 0] += 1
    exact = (999 * 1000 + 1001) / math.sqrt(1000 * (999 * 1000**2 + 1001**2))
    assert 1 - metrics.cosine_similarities(a, b)[0] == pytest.approx(1 - exact, rel=1e-4)
    assert metrics.cosine_similarities(a, a)[0] == pytest.approx(1, abs=1e-15)


def test_the_cosine_of_a_zero_vector_is_0() -> None:
    zeros, ones = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    assert metrics.cosine_similarities(zeros, ones).tolist() == [0, 0]
    assert metrics.cosine_similarities(zeros, zeros).tolist() == [0, 0]


@given(pairs(), st.integers(1, 9))
def test_ranking_sorts_by_logit_and_ties_by_class(rows: tuple[Rows, Rows], k: int) -> None:
    best = metrics.ranked(f32(rows[0]), k)
    assert best.dtype == np.int64
    expected = [sorted(range(len(row)), key=lambda index, row=row: (-row[index], index))[:k] for row in rows[0]]
    assert best.tolist() == expected


@given(pairs(), st.integers(1, 9), st.data())
def test_top_k_counts_the_labels_among_the_best(rows: tuple[Rows, Rows], k: int, data: st.DataObject) -> None:
    logits = f32(rows[0])
    labels = data.draw(st.lists(st.integers(0, logits.shape[1] - 1), min_size=len(logits), max_size=len(logits)))
    expected = sum(label in row for label, row in zip(labels, metrics.ranked(logits, k).tolist(), strict=True))
    assert metrics.top_k_correct(logits, np.array(labels), k) == expected
    assert metrics.top_k_correct(logits, np.array(labels), logits.shape[1]) == len(logits)


@given(pairs())
def test_agreement_is_the_share_of_equal_top1(rows: tuple[Rows, Rows]) -> None:
    a, b = f32(rows[0]), f32(rows[1])
    equal = [x == y for x, y in zip(metrics.ranked(a, 1)[:, 0], metrics.ranked(b, 1)[:, 0], strict=True)]
    assert metrics.top1_agreement(a, b) == pytest.approx(sum(equal) / len(equal))
    assert metrics.top1_agreement(a, a) == 1


def test_one_class_is_always_right() -> None:
    logits = np.array([[3.0], [-1.0]], np.float32)
    assert metrics.ranked(logits, 5).tolist() == [[0], [0]]
    assert metrics.top_k_correct(logits, np.array([0, 0]), 1) == 2
    assert metrics.top1_agreement(logits, -logits) == 1
    assert metrics.cosine_similarities(logits, -logits).tolist() == [-1, -1]
