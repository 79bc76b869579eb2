"""The recommended row within limits of accuracy, latency, memory and size."""

from __future__ import annotations

import pytest

from demos.benchmark.comparison import Comparison, Row
from demos.benchmark.recommendation import Limits, recommend
from tests.conftest import MakeArtifact
from tests.demos.benchmark.comparisons import compared, rows_with
from tests.demos.conftest import RunDemo


@pytest.fixture
def comparison(make_artifact: MakeArtifact) -> Comparison:
    """Row a is fast but less accurate, b and c are as accurate; c takes twice as long as b."""
    rows = rows_with(make_artifact("onnx", "fp32"), a=[1.0] * 300, b=[2.0] * 300, c=[4.0] * 300)
    rows[0].top1_percent = 88.0
    for row, memory_mb in zip(rows, (50, 400, 100), strict=True):
        assert row.timings is not None
        row.timings.peak_memory_mb = memory_mb
    return compared([*rows, Row("tensorrt", "fp32", reason="needs a GPU")])


def test_recommends_the_fastest_row_within_the_limits(comparison: Comparison) -> None:
    lines = recommend(comparison, Limits()).splitlines()
    assert lines[0] == "Recommended for this machine: b fp32."
    assert lines[1].startswith("b fp32: top-1 90.00 %, p50 2.000 ms, p99 2.000 ms, memory 400 MB, size ")
    assert lines[2].startswith('to load it: runtimes.load("')
    assert lines[2].endswith('", backend="b", precision="fp32")')
    assert lines[3].startswith("runner-up: c fp32: ")
    assert lines[3].endswith("; takes 2.00 [2.00, 2.00] times as long")
    assert lines[4] == "not within the limits: a fp32: drop 2 points, limit 0.5"
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(max_drop=3), "a"),
        (Limits(max_memory_mb=150), "c"),
        (Limits(max_p99_ms=3), "b"),
        (Limits(max_p99_ms=3, max_memory_mb=150, max_drop=5), "a"),
    ],
)
def test_limits_change_the_recommendation(comparison: Comparison, limits: Limits, name: str) -> None:
    assert recommend(comparison, limits).startswith(f"Recommended for this machine: {name} fp32.")


def test_no_row_within_the_limits_gives_each_reason(comparison: Comparison) -> None:
    lines = recommend(comparison, Limits(max_size_mb=0.001, max_p99_ms=1.5)).splitlines()
    assert lines[0] == "No row is within the limits; raise one, or export another variant."
    assert [line.partition(": ")[2].partition(":")[0] for line in lines[1:]] == ["a fp32", "b fp32", "c fp32"]
    assert "p99 4 ms, limit 1.5, size 1.25 MB, limit 0.001" in lines[3]


def test_unknown_p99_is_not_within_a_limit(make_artifact: MakeArtifact) -> None:
    result = compared(rows_with(make_artifact("onnx", "fp32"), a=[1.0] * 6))
    assert "a fp32: unknown p99, limit 100" in recommend(result, Limits(max_p99_ms=100))


def test_without_labels_the_drop_is_of_agreement(comparison: Comparison) -> None:
    for row in comparison.rows:
        row.top1_percent = None
    comparison.rows[0].agreement_percent = 99.0
    text = recommend(comparison, Limits())
    assert text.startswith("Recommended for this machine: b fp32.")
    assert "a fp32: drop 1 points, limit 0.5" in text


def test_rows_that_cannot_be_told_apart_are_undecided(make_artifact: MakeArtifact) -> None:
    noisy = [1.1, 1.3, 0.8, 1.2, 0.9, 1.4, 1.12, 0.95, 1.1, 1.07]
    rows = rows_with(make_artifact("onnx", "fp32"), a=[1.0] * 10, b=noisy)
    head = recommend(compared(rows), Limits()).splitlines()[0]
    assert head.startswith("Undecided between a fp32 and b fp32: ")
    assert "more rounds would decide: --rounds " in head
    rows = rows_with(make_artifact("onnx", "fp32"), a=[1.0] * 10, b=[1.001] * 10)
    head = recommend(compared(rows), Limits()).splitlines()[0]
    assert head.endswith("within the noise floor, so take the smaller or the more accurate one.")


def test_row_of_another_interpreter_is_not_recommended(comparison: Comparison) -> None:
    comparison.rows[1].python = "/other/python"
    assert recommend(comparison, Limits()).startswith("Recommended for this machine: c fp32.")


def test_limits_need_recommend(run_demo: RunDemo) -> None:
    result = run_demo("compare", "--max-p99-ms", "5")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "add --recommend" in result.stderr
