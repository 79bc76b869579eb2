"""OpenVINO artifacts of the shipped model, opened with OpenVINO."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import openvino
import pytest

from simplenet.formats import FORMATS
from simplenet.manifest import METADATA_KEY, Manifest
from tests.conftest import MakeArtifact, slow_if_int8


@pytest.mark.parametrize(
    "precision", [pytest.param(each, marks=slow_if_int8(each)) for each in FORMATS["openvino"].precisions]
)
def test_embedded_manifest_equals_manifest_json(make_artifact: MakeArtifact, precision: str) -> None:
    artifact = make_artifact("openvino", precision)
    assert {path.name for path in artifact.folder.iterdir()} == {"model.xml", "model.bin", "manifest.json"}
    model = openvino.Core().read_model(artifact.model_file)
    embedded = Manifest.from_json(model.get_rt_info(METADATA_KEY).astype(str), where="the file")
    assert embedded == dataclasses.replace(artifact.manifest, files={"model.bin": artifact.manifest.files["model.bin"]})
    assert model.input("image").get_element_type() == openvino.Type.u8
    assert list(model.input("image").shape) == [1, 32, 32, 3]
    assert model.output("logits").get_element_type() == openvino.Type.f32


def test_shape_arithmetic_is_folded(make_artifact: MakeArtifact) -> None:
    model = openvino.Core().read_model(make_artifact("openvino", "fp32").model_file)
    operators = Counter(node.get_type_name() for node in model.get_ops())
    assert operators["Convolution"] == 13
    assert operators["Reshape"] == 2  # to rows for the normalization, and back
    assert not {"ShapeOf", "BatchNormInference", "Broadcast"} & set(operators)


def test_fp16_weights_are_half_as_large(make_artifact: MakeArtifact) -> None:
    single, half = (make_artifact("openvino", precision).folder / "model.bin" for precision in ("fp32", "fp16"))
    assert half.stat().st_size < 0.51 * single.stat().st_size


@pytest.mark.slow
def test_int8_computes_in_integers(make_artifact: MakeArtifact) -> None:
    artifact = make_artifact("openvino", "int8")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(artifact.model_file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    executed = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    convolutions = [
        info["runtimePrecision"].astype(str) for info in executed if info["layerType"].astype(str) == "Convolution"
    ]
    assert len(convolutions) == 13
    assert set(convolutions) <= {"u8", "i8"}


@pytest.mark.slow
def test_int8_normalizes_in_float32_without_a_transpose(make_artifact: MakeArtifact) -> None:
    model = openvino.Core().read_model(make_artifact("openvino", "int8").model_file)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    executed = Counter(node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops())
    assert executed["Transpose"] == 0  # the convolutions read the channels last, as the image has them
    types = [node.get_type_name() for node in model.get_ordered_ops() if node.get_type_name() != "Constant"]
    first = types.index("FakeQuantize")
    assert types[:first] == ["Parameter", "Convert", "Reshape", "Multiply", "Add"]  # float until the first convolution


@pytest.mark.slow
def test_int8_weights_cannot_saturate(make_artifact: MakeArtifact) -> None:
    model = openvino.Core().read_model(make_artifact("openvino", "int8").model_file)
    weights = [
        node.get_data() for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() == openvino.Type.i8
    ]  # fmt: skip
    assert len(weights) == 14
    assert max(np.abs(weight.astype(int)).max() for weight in weights) <= 64
