"""The base class: softmax and top-k against their definitions, and wrong results of a vendor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from runtimes import Description, base, softmax, top_k
from simplenet.errors import ArtifactError, BackendError, UsageError
from tests.conftest import MakeArtifact

# Whole numbers give many ties.
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


class Stub(base.Runtime):
    """Returns `output`, or closes itself during `_run` if that is None."""

    FORMATS = ("onnx",)
    THREAD_SAFE = True
    output: Any = None

    def _open(self) -> None:
        pass

    def _run(self, batch: np.ndarray) -> Any:
        if self.output is None:
            self.close()
            raise AttributeError("no session")
        return self.output

    def _close(self) -> None:
        pass

    def _describe(self) -> Description:
        return Description("stub", "cpu", "fp32", 1, {})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ([np.zeros((1, 10), np.float32)], "gives list for 1 images"),
        (np.zeros((1, 10), bool), r"gives bool \[1, 10\] for"),
        (np.zeros((1, 10), np.int64), r"gives int64 \[1, 10\] for"),
        (np.array([["cat"] * 10]), r"gives <U3 \[1, 10\] for"),
        (np.zeros((1, 11), np.float32), r"gives float32 \[1, 11\] for"),
        (np.zeros(10, np.float32), r"gives float32 \[10\] for"),
    ],
)
def test_rejects_output_that_is_not_logits(make_artifact: MakeArtifact, output: Any, message: str) -> None:
    runtime = Stub(make_artifact("onnx", "fp32"), base.Options())
    runtime.output = output
    with pytest.raises(ArtifactError, match=f"{message}.*states logits of 10 classes, float32"):
        runtime.classify([np.zeros((28, 28, 3), np.uint8)])


def test_close_by_another_thread_is_reported(make_artifact: MakeArtifact) -> None:
    runtime = Stub(make_artifact("onnx", "fp32"), base.Options())
    with pytest.raises(BackendError, match="runtime is closed; load the artifact again"):
        runtime.classify([np.zeros((28, 28, 3), np.uint8)])


@pytest.mark.parametrize("k", [0, np.int64(-1), 2.0, np.float64(2), True, np.True_, None, "3", np.array([1, 2])])
def test_rejects_k_that_is_no_count(k: Any) -> None:
    with pytest.raises(UsageError, match=r"^k must be an integer of at least 1, not .*[0123TN]"):
        top_k(np.zeros((1, 3), np.float32), k)


def test_accepts_integers_of_numpy(make_artifact: MakeArtifact) -> None:
    assert len(top_k(np.zeros((1, 3), np.float32), np.uint8(2))[0]) == 2  # type: ignore[arg-type]
    threads = Stub(make_artifact("onnx", "fp32"), base.Options(threads=np.int64(2))).threads  # type: ignore[arg-type]
    assert (threads, type(threads)) == (2, int)
