"""Profiles of the shipped model's graphs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import export
from export import profile_graph
from simplenet.errors import SimpleNetError, UsageError
from tests.conftest import MakeArtifact, slow_if_int8


@pytest.mark.parametrize(
    ("format", "precision", "convolution"),
    [
        ("onnx", "fp32", "Conv"),
        ("openvino", "fp32", "Convolution"),
        pytest.param("onnx", "int8", "QLinearConv", marks=slow_if_int8("int8")),
        pytest.param("openvino", "int8", "Convolution", marks=slow_if_int8("int8")),
    ],
)
def test_shares_of_all_operations(make_artifact: MakeArtifact, format: str, precision: str, convolution: str) -> None:
    found = profile_graph.profile(make_artifact(format, precision).folder, threads=1, inferences=5)
    slowest = found.operations[0]
    assert (slowest.type, slowest.count) == (convolution, 13)
    assert [each.ms for each in found.operations] == sorted((each.ms for each in found.operations), reverse=True)
    assert sum(each.share for each in found.operations) == pytest.approx(1)
    assert sum(each.ms for each in found.operations) == pytest.approx(found.ms)
    assert found.not_convolution == pytest.approx(1 - slowest.share)
    assert (found.precision, found.threads) == (precision, 1)


def test_prints_a_table_and_writes_json(
    make_artifact: MakeArtifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [make_artifact(format, "fp32").folder for format in ("onnx", "openvino")]
    file = tmp_path / "profile.json"
    flags = ["--threads", "1", "--samples", "2", "--json", str(file)]
    assert profile_graph.main([*map(str, folders), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{folders[0]}: onnxruntime, fp32, threads: 1" in lines
    assert f"{folders[1]}: openvino, fp32, threads: 1" in lines
    assert sum("is not convolution" in line for line in lines) == 2
    profiles = json.loads(file.read_text())
    assert [profile["backend"] for profile in profiles] == ["onnxruntime", "openvino"]
    assert {operation["type"] for operation in profiles[0]["operations"]} >= {"Conv", "Gemm", "ReduceMax"}


def test_runs_a_dynamic_batch_of_floats(tmp_path: Path) -> None:
    options = {"variant": "cifar-310k", "weights": "random", "input": "float32", "batch": None}
    made = export.make("onnx", **options, artifacts=tmp_path)
    with pytest.warns(UserWarning, match="random weights"):
        types = {each.type for each in profile_graph.profile(made.model_file, inferences=1).operations}
    assert "Conv" in types
    assert "Cast" not in types


def test_other_formats_are_one_clear_line(make_artifact: MakeArtifact) -> None:
    folder = make_artifact("torch", "fp32").folder
    with pytest.raises(UsageError, match=r"is a torch artifact; name one of onnx or openvino"):
        profile_graph.profile(folder)


def test_rejects_what_it_cannot_run(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not bf16"):
        profile_graph.profile(make_artifact("onnx", "fp32").folder, precision="bf16")
    with pytest.raises(SimpleNetError, match="no artifact at"):
        profile_graph.profile(tmp_path / "missing")
    with pytest.raises(SystemExit):
        profile_graph.main(["--samples", "2"])
