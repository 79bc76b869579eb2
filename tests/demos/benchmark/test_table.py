"""The printed table and the plot of a comparison."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from demos.benchmark import plot, table
from demos.benchmark.comparison import Comparison, Row
from demos.benchmark.rounds import Timings
from demos.benchmark.workers import STAGES
from tests.conftest import MakeArtifact
from tests.demos.benchmark.comparisons import compared, rows_with, shown


def test_rows_that_cannot_be_told_apart_are_not_ranked(make_artifact: MakeArtifact) -> None:
    made = make_artifact("onnx", "fp32")
    drift = [1.0, 1.1, 1.2, 1.3, 1.2, 1.1, 1.0, 1.1]
    near = [ms * factor for ms, factor in zip(drift, [1.02, 0.99, 1.03, 0.98, 1.01, 1.02, 0.99, 1.0], strict=True)]
    rows = rows_with(made, a=[2 * ms for ms in drift], b=near, c=drift)
    result = compared(rows)
    text = shown(result)
    assert "model latency p50 1.1" in text
    assert "No difference measured to " in text
    assert "2.00 [2.00, 2.00]" in text  # c against the reference, a
    (twin,) = rows_with(made, b=[1.05 * ms for ms in near])
    twin.is_twin = True
    result = dataclasses.replace(result, twin=twin)
    assert result.noise == pytest.approx(0.05)
    assert "noise floor: 5.0 %. b fp32 was measured twice, in two processes; the ratio is 1.05 [1.05, 1.05]" in shown(
        result
    )


def test_difference_within_the_noise_floor_does_not_count(make_artifact: MakeArtifact) -> None:
    rows = rows_with(make_artifact("onnx", "fp32"), a=[1.0] * 8, b=[1.03] * 8)
    assert "The next, b fp32, takes 1.03 [1.03, 1.03] times as long." in shown(compared(rows))
    (twin,) = rows_with(make_artifact("onnx", "fp32"), a=[1.04] * 8)
    twin.is_twin = True
    text = shown(compared(rows, twin=twin))
    assert "No difference measured to b fp32 (1.03 [1.03, 1.03])." in text
    assert "no difference" in text.partition("cifar-310k")[0]


def test_too_few_rounds_have_no_interval(make_artifact: MakeArtifact) -> None:
    rows = rows_with(make_artifact("onnx", "fp32"), a=[2.0] * 5, b=[1.0] * 5)
    text = shown(compared(rows))
    (line,) = [line for line in text.splitlines() if line.split()[:1] == ["b"]]
    assert " 2.00 " in line
    assert "[" not in line
    assert "Too few rounds to tell whether others differ from it; type --rounds 6 or more." in text


def test_notes_name_assumptions_and_devices(make_artifact: MakeArtifact) -> None:
    made = make_artifact("onnx", "fp32")
    rows = rows_with(made, a=[2.0] * 6, b=[3.0] * 6)
    result = compared(rows)
    assert result.network == "cifar-310k with fashion-mnist weights"
    assumed = dataclasses.replace(made.manifest, preprocessing_source="assumed for cifar-310k")
    rows[0].artifact = dataclasses.replace(made, manifest=assumed)
    assert result.network == "cifar-310k with fashion-mnist weights; preprocessing: assumed for cifar-310k"
    assert rows[1].description is not None
    rows[1].description = dataclasses.replace(rows[1].description, threads=None, device="a GPU")
    assert "b fp32: ran on a GPU." in shown(result)


@pytest.fixture
def measured(make_artifact: MakeArtifact) -> Comparison:
    """Three rows with timings and one without, on images from a folder whose name is not valid UTF-8."""
    artifact = make_artifact("onnx", "fp32")
    rows = [
        Row("torch", "fp32", artifact, top1_percent=90.0, agreement_percent=100.0),
        Row("onnxruntime", "fp32", artifact, top1_percent=90.0, agreement_percent=100.0),
        Row("onnxruntime", "int8", artifact, top1_percent=89.6, agreement_percent=98.5),
        Row("tensorrt", "fp32", reason="needs an NVIDIA GPU"),
    ]
    for row, p50_ms in zip(rows, (1.2, 0.31, 0.3), strict=False):
        row.timings = Timings(0, 0, 0, {stage: [[p50_ms] * 3] for stage in STAGES})
    folder = os.fsdecode(b"/tmp/[train]a[b]c\xe9")  # Rich would take [train] for a style
    return Comparison(rows, rows[0], folder, 10, True, threads=1, rounds=1, frame="1x1 RGB")


def test_image_folder_is_printed_literally(measured: Comparison) -> None:
    console = Console(width=160, file=io.StringIO())
    table.show(measured, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "/tmp/[train]a[b]c\N{REPLACEMENT CHARACTER}" in shown.replace("\n", "")


@pytest.mark.parametrize("labeled", [True, False])
def test_plot_labels_every_measured_row(measured: Comparison, labeled: bool, tmp_path: Path) -> None:
    measured = dataclasses.replace(measured, labeled=labeled)
    plot.draw(measured, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    for name in ("torch fp32", "onnxruntime fp32", "onnxruntime int8"):
        assert f"<!-- {name} -->" in text
    assert "tensorrt" not in text
    assert ("top-1 accuracy (%)" if labeled else "agreement with torch fp32 (%)") in text
    plot.draw(measured, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 800
