"""ONNX artifacts of the shipped model, opened with other tools."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import export
import runtimes
from export import agreement, command_line
from export.calibration import ImageBatch
from export.to_onnx import export_onnx
from simplenet import artifacts, datasets, weights
from simplenet.errors import BackendUnavailable, DataError, SimpleNetWarning, UsageError
from simplenet.formats import FORMATS
from simplenet.manifest import METADATA_KEY, Manifest
from simplenet.preprocessing import to_model_input
from tests.conftest import MakeArtifact, slow_if_int8


@pytest.mark.parametrize(
    "precision", [pytest.param(each, marks=slow_if_int8(each)) for each in FORMATS["onnx"].precisions]
)
def test_embedded_manifest_equals_manifest_json(make_artifact: MakeArtifact, precision: str) -> None:
    artifact = make_artifact("onnx", precision)
    assert {path.name for path in artifact.folder.iterdir()} == {"model.onnx", "manifest.json"}
    session = onnxruntime.InferenceSession(artifact.model_file, providers=["CPUExecutionProvider"])
    embedded = Manifest.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY], where="the file")
    on_disk = artifacts.read(artifact.folder).manifest
    assert embedded == dataclasses.replace(on_disk, files={})
    assert on_disk == artifact.manifest
    assert on_disk.weights.name == "fashion-mnist"
    assert on_disk.labels[9] == "Ankle boot"
    assert on_disk.tools["onnxruntime"] == onnxruntime.__version__


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_int8_loses_at_most_half_a_point_of_top1(make_artifact: MakeArtifact, format: str) -> None:
    manifest = make_artifact(format, "int8").manifest
    assert manifest.measured["varied"]["relative_error"] < 0.1
    assert manifest.measured["varied"]["source"] != manifest.measured["agreement"]["source"]
    assert " on 160 images that int8 was not calibrated with (" in command_line.summary(make_artifact(format, "int8"))
    accuracy = manifest.measured["accuracy"]
    assert accuracy["images"] == 2000
    assert accuracy["top1_pytorch"] > 93
    assert accuracy["drop_points"] <= 0.5
    assert manifest.calibration is not None
    assert manifest.calibration["source"] == "fashion-mnist calibration"
    assert manifest.calibration["images"] == 500


@pytest.mark.slow
def test_poor_calibration_is_exported_on_request(tmp_path: Path) -> None:
    """One image, repeated."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(60):
        Image.fromarray(datasets.shipped("fashion-mnist", "calibration").images[0]).save(images / f"{index}.png")
    options = {"variant": "cifar-310k", "weights": "fashion-mnist", "precision": "int8", "calibration": images}
    with pytest.raises(DataError, match="are all the same"):
        export.make("onnx", **options, artifacts=tmp_path / "artifacts")
    assert not (tmp_path / "artifacts").exists()
    with pytest.warns(SimpleNetWarning, match="are all the same"):
        made = export.make("onnx", **options, artifacts=tmp_path / "artifacts", allow_poor_calibration=True)
    assert "are all the same" in (made.manifest.calibration or {})["doubt"]


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_fp16_is_checked_for_overflow_on_200_images(make_artifact: MakeArtifact, format: str) -> None:
    measured = make_artifact(format, "fp16").manifest.measured["fp16_range"]
    assert measured["images"] >= 200
    assert 1 < measured["largest_activation"] < 1000


@pytest.mark.slow
def test_int8_normalizes_in_float32(make_artifact: MakeArtifact) -> None:
    graph = onnx.load(make_artifact("onnx", "int8").model_file).graph
    types = [node.op_type for node in graph.node if node.op_type != "DequantizeLinear"]  # the weights' come first
    first = types.index("QuantizeLinear")
    assert types[:first] == ["Cast", "Reshape", "Mul", "Add", "Reshape", "Transpose"]


@pytest.mark.slow
def test_int8_weights_cannot_saturate(make_artifact: MakeArtifact) -> None:
    artifact = make_artifact("onnx", "int8")
    graph = onnx.load(artifact.model_file).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    for node in layers:
        assert [makers[name].op_type for name in node.input] == ["DequantizeLinear"] * 3
        weight = constants[makers[node.input[1]].input[0]]
        assert weight.dtype == np.int8
        assert np.abs(weight.astype(int)).max() <= 64  # two products of 64 x 255 fit into 16 bits
        assert constants[makers[node.input[1]].input[1]].shape == (weight.shape[0],)  # a scale for each channel
    assert Counter(node.op_type for node in graph.node)["Relu"] == 0  # the integer range clips
    assert artifact.size_bytes < 0.35 * make_artifact("onnx", "fp32").size_bytes


@pytest.mark.parametrize(
    ("format", "precision"),
    [
        pytest.param(format.name, precision, marks=slow_if_int8(precision))
        for format in FORMATS.values() if format.name != "tensorrt"
        for precision in format.precisions
    ],
)  # fmt: skip
def test_other_images_stay_within_the_stated_tolerance(
    make_artifact: MakeArtifact, format: str, precision: str
) -> None:
    artifact = make_artifact(format, precision)
    loaded = weights.load("cifar-310k", "fashion-mnist")
    images = datasets.shipped("fashion-mnist", "calibration").images[:100]
    inputs = np.stack([to_model_input(image, artifact.manifest.preprocessing) for image in images])
    expected = agreement.reference_logits(loaded, ImageBatch("training images", inputs, None))
    with runtimes.load(artifact, threads=1) as runtime:
        logits = runtime.infer_any(inputs)
    measured = agreement.compare_outputs(logits, expected, ImageBatch("", inputs, None), precision, False, 0)[
        "agreement"
    ]
    tolerance = artifact.manifest.measured["tolerance"]
    assert measured["cosine_min"] >= tolerance["cosine"]
    assert measured["max_absolute_difference"] <= tolerance["absolute"]
    assert tolerance["absolute"] < 2  # the logits span 10


@pytest.mark.slow
def test_other_inputs_get_folders_of_their_own(tmp_path: Path) -> None:
    options = {"variant": "cifar-310k", "weights": "random", "artifacts": tmp_path}
    made = [
        export_onnx(**options),  # type: ignore[arg-type]
        export_onnx(**options, input="float32", batch=8, precision="int8"),  # type: ignore[arg-type]
        export_onnx(**options, batch=None),  # type: ignore[arg-type]
    ]
    names = ["onnx-fp32", "onnx-int8-float32-batch8", "onnx-fp32-dynamic"]
    assert [artifact.folder for artifact in made] == [tmp_path / "cifar-310k-random" / name for name in names]
    plain, batched, dynamic = made
    assert batched.manifest.input.shape == (8, 3, 32, 32)
    assert dynamic.manifest.input.shape == (None, 32, 32, 3)
    image = np.full((32, 32, 3), 200, np.uint8)
    logits = []
    for artifact in made:
        with pytest.warns(UserWarning, match="random weights"), runtimes.load(artifact, threads=1) as runtime:
            logits.append(runtime.infer_any(runtime.preprocess([image] * 3)))
    assert batched.manifest.calibration is not None
    assert batched.manifest.calibration["source"] == "synthetic: for latency only"
    np.testing.assert_allclose(logits[0], logits[2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits[0], logits[1], atol=0.1 * np.abs(logits[0]).max())
    assert plain.manifest.weights.source == "random"


@pytest.mark.parametrize(("format", "missing", "extra"), [
    ("onnx", "onnxslim", "export"), ("openvino", "onnxscript", "export"),
    ("openvino", "nncf", "openvino-export"),
])  # fmt: skip
def test_missing_package_is_reported_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, missing: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    steps: list[str] = []
    command = re.escape(f"pip install '.[{extra}]'")
    with pytest.raises(BackendUnavailable, match=f"{missing} cannot be imported .*{command}"):
        export.make(format, variant="cifar-310k", precision="int8", artifacts=tmp_path, progress=steps.append)
    assert steps == list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("options", "message"), [
    ({"precision": "bf16"}, "bf16 is a way to run an fp32 artifact"),
    ({"precision": "int7"}, "did you mean 'int8'"),
    ({"input": "uint9"}, "did you mean 'uint8'"),
    ({"batch": 0}, "batch .* must be an integer of 1 to .*, not 0"),
    ({"batch": "1"}, "batch .* must be an integer of 1 to .*, not '1'"),
    ({"artifacts": 5}, "artifacts must be the path of a folder, not 5"),
    ({"batch": 1.5}, "batch .* must be an integer of 1 to"),
    ({"max_drop": "1"}, "max_drop must be 0 to 100 points of top-1, not '1'"),
    ({"max_drop": None}, "max_drop must be 0 to 100 points of top-1, not None"),
    ({"max_drop": float("nan")}, "max_drop must be 0 to 100 points"),
    ({"overrides": None}, "overrides must be a CardOverrides, not None"),
    ({"variant": "1.6m"}, "unknown variant '1.6m'"),
])  # fmt: skip
def test_rejects_invalid_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_onnx(**{"artifacts": tmp_path, **options})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
