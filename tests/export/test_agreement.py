"""Comparison of an exported model's logits with PyTorch's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export import agreement, calibration, publish, to_onnx
from export.calibration import ImageBatch
from export.export_model import ExportModel
from export.publish import BuildResult, ExportContext
from export.request import ExportRequest
from simplenet import preprocessing, weights
from simplenet.errors import AgreementError, SimpleNetWarning
from simplenet.weights import LoadedWeights
from tests.conftest import MakeArtifact

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(200, 10)).astype(np.float32)
LABELS = LOGITS.argmax(axis=1)


def image_batch(labels: Any = None) -> ImageBatch:
    return ImageBatch("these", np.zeros((len(LOGITS), 1, 1, 3), np.uint8), labels)


def compare_outputs(
    logits: Any, precision: str = "fp32", untrained: bool = False, labels: Any = None, max_drop: float = 1
) -> Any:
    return agreement.compare_outputs(
        logits.astype(np.float32), LOGITS, image_batch(labels), precision, untrained, max_drop
    )


def with_changed_top1(count: int) -> Any:
    """The same logits, with another top-1 for the first `count` images."""
    changed = LOGITS.copy()
    changed[np.arange(count), LABELS[:count]] = -5
    return changed


def test_equal_logits_agree() -> None:
    measured = compare_outputs(LOGITS)
    assert measured["agreement"] == {
        "images": 200,
        "source": "these",
        "cosine_min": pytest.approx(1.0),
        "max_absolute_difference": 0.0,
        "max_relative_error": 0.0,
        "top1_agreement": 1.0,
    }
    assert "accuracy" not in measured
    assert measured["tolerance"]["cosine"] == 0.99999
    assert 0 < measured["tolerance"]["absolute"] < 0.001


@given(st.floats(1e-7, 10))
def test_relative_error_is_the_largest_of_any_image(error: float) -> None:
    logits = LOGITS.astype(np.float64)
    logits[7, 3] += error
    measured = compare_outputs(logits, "int8", untrained=True)["agreement"]
    assert measured["max_absolute_difference"] == pytest.approx(error, rel=0.01, abs=1e-6)
    assert measured["max_relative_error"] == pytest.approx(error / np.abs(LOGITS[7]).max(), rel=0.01, abs=1e-6)


@pytest.mark.parametrize(("precision", "noise", "agrees"), [
    ("fp32", 1e-5, True), ("fp32", 1e-2, False), ("fp16", 1e-2, True), ("fp16", 0.1, False),
])  # fmt: skip
def test_float_precisions_require_a_high_cosine(precision: str, noise: float, agrees: bool) -> None:
    noisy = LOGITS + noise * RNG.normal(size=LOGITS.shape)
    if agrees:
        assert compare_outputs(noisy, precision)["agreement"]["cosine_min"] > agreement.COSINE_FLOORS[precision]
    else:
        with pytest.raises(AgreementError, match="cosine"):
            compare_outputs(noisy, precision)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rejects_logits_that_are_not_finite(value: float, precision: str) -> None:
    broken = LOGITS.copy()
    broken[3, 2] = value
    with pytest.raises(AgreementError, match="NaN or infinite logits for 1 images"):
        compare_outputs(broken, precision, untrained=True)


def test_rejects_another_number_of_classes() -> None:
    with pytest.raises(AgreementError, match=r"\[200, 9\]"):
        compare_outputs(LOGITS[:, :9])


def test_int8_may_change_top1_of_one_image_in_ten() -> None:
    assert compare_outputs(with_changed_top1(19), "int8")["agreement"]["top1_agreement"] == pytest.approx(0.905)
    with pytest.raises(AgreementError, match=r"89\.5%"):
        compare_outputs(with_changed_top1(21), "int8")


def test_int8_of_random_weights_is_measured_only() -> None:
    assert compare_outputs(with_changed_top1(150), "int8", untrained=True)["agreement"]["top1_agreement"] == 0.25


def test_float_precisions_reject_a_wrong_scale() -> None:
    """Cosines do not show it."""
    for logits in (5 * LOGITS, 0.9 * LOGITS):
        with pytest.raises(AgreementError, match="relative error"):
            compare_outputs(logits)


@pytest.mark.parametrize("outputs", [1, 2])
def test_few_outputs_are_compared_by_their_error(outputs: int) -> None:
    images, expected = image_batch(), LOGITS[:, :outputs]
    agreement.compare_outputs(expected * 1.0001, expected, images, "fp32", False, 1)
    for wrong in (expected * 5, expected + 0.1):
        with pytest.raises(AgreementError, match="relative error"):
            agreement.compare_outputs(wrong, expected, images, "fp32", False, 1)


def test_int8_is_compared_on_images_of_other_kinds() -> None:
    def compare(noise: float, expected: Any = LOGITS, **options: Any) -> Any:
        wrong = expected.copy()
        wrong[100:, 0] -= noise  # only in one half
        settings = {"check_error": 0.02, "required": True, "allow_poor": False} | options
        return agreement.compare_on_varied(wrong, expected, image_batch(), **settings)

    assert 0 < compare(0.1)["relative_error"] < agreement.VARIED_ERROR_LIMIT
    for scale in (1, 1000):  # of the logits in the other half
        expected = LOGITS * np.repeat([[scale], [1]], 100, axis=0).astype(np.float32)
        with pytest.raises(AgreementError, match=r"not calibrated with.*--allow-poor-calibration"):
            compare(2, expected)
    assert compare(2, required=False)["relative_error"] > agreement.VARIED_ERROR_LIMIT
    with pytest.warns(SimpleNetWarning, match="not calibrated with"):
        assert "not calibrated with" in compare(2, allow_poor=True)["doubt"]


def scaled(layer: int, factor: float) -> LoadedWeights:
    """The shipped network with larger activations after one batch norm, and equal logits."""
    loaded = weights.load("cifar-310k", "fashion-mnist")
    norms = [index for index, each in enumerate(loaded.model.features) if isinstance(each, torch.nn.BatchNorm2d)]
    norm: Any = loaded.model.features[norms[layer]]
    following: Any = loaded.model.features[norms[layer + 1] - 1]
    with torch.no_grad():
        norm.weight *= factor
        norm.bias *= factor
        following.weight /= factor
    return loaded


@pytest.mark.parametrize("layer", [0, 2, 5])
def test_fp16_overflow_names_the_layer(layer: int) -> None:
    images = calibration.varied(weights.load("cifar-310k", "fashion-mnist"))
    convolutions = [name for name, each in scaled(0, 1).model.named_modules() if isinstance(each, torch.nn.Conv2d)]
    assert 0 < agreement.check_fp16_range(scaled(layer, 10), images)["largest_activation"] < 30_000
    with pytest.raises(AgreementError, match=f"layer {re.escape(convolutions[layer])} .*--precision fp32"):
        agreement.check_fp16_range(scaled(layer, 50_000), images)


def test_fp16_may_use_half_of_its_range() -> None:
    images = calibration.varied(weights.load("cifar-310k", "fashion-mnist"))
    factor = 10_000 / agreement.check_fp16_range(scaled(0, 1000), images)["largest_activation"]
    largest = agreement.check_fp16_range(scaled(0, 3000 * factor), images)["largest_activation"]
    assert largest == pytest.approx(30_000, rel=0.1)
    with pytest.raises(AgreementError, match=r"reaches 4e\+04 .* ends at 65504, of which 1/2 may be used"):
        agreement.check_fp16_range(scaled(0, 4000 * factor), images)


def test_fp16_range_is_that_of_the_half_precision_network() -> None:
    loaded = weights.load("cifar-310k", "fashion-mnist")
    inputs = calibration.varied(loaded).inputs[::20]
    half, peaks = ExportModel(loaded.model, None, half=True), []
    for layer in half.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(lambda layer, inputs, output: peaks.append(float(output.abs().max())))
    half(torch.from_numpy(preprocessing.normalize(inputs, loaded.card.preprocessing)).half())
    found = agreement.check_fp16_range(loaded, ImageBatch("these", inputs, None))
    assert found["largest_activation"] == pytest.approx(max(peaks), rel=0.01)


def test_int8_may_lose_at_most_max_drop() -> None:
    allowed = compare_outputs(with_changed_top1(2), "int8", labels=LABELS)
    assert allowed["accuracy"] == {
        "dataset": "these",
        "images": 200,
        "top1": 99.0,
        "top1_pytorch": 100.0,
        "drop_points": 1.0,
    }
    with pytest.raises(AgreementError, match=r"loses 1.50 points of top-1, 1 are allowed.*--max-drop"):
        compare_outputs(with_changed_top1(3), "int8", labels=LABELS)
    assert compare_outputs(with_changed_top1(3), "int8", labels=LABELS, max_drop=2)["accuracy"]["drop_points"] == 1.5


@pytest.mark.parametrize(("classes", "right"), [(2, 2), (2, 50), (2, 55), (10, 0), (10, 10)])
def test_warns_if_pytorch_only_guesses(classes: int, right: int) -> None:
    """As with class folders of swapped contents."""
    logits = LOGITS[:100, :classes]
    labels = (logits.argmax(axis=1) + (np.arange(100) >= right)) % classes
    images = ImageBatch("these", np.zeros((100, 1, 1, 3), np.uint8), labels)
    with pytest.warns(
        SimpleNetWarning, match=rf"gets {right}\.0 % of 100 .*guessing {100 // classes} %.* type --labels"
    ):
        agreement.compare_outputs(logits, logits, images, "int8", False, 1)


@pytest.mark.parametrize(("classes", "count", "right"), [(2, 100, 65), (10, 100, 20), (2, 1, 1), (1, 9, 9)])
def test_does_not_warn_above_chance(classes: int, count: int, right: int) -> None:
    logits = LOGITS[:count, :classes]
    labels = (logits.argmax(axis=1) + (np.arange(count) >= right)) % classes
    images = ImageBatch("these", np.zeros((count, 1, 1, 3), np.uint8), labels)
    assert agreement.compare_outputs(logits, logits, images, "int8", False, 1)["accuracy"]["drop_points"] == 0


def test_wrong_export_leaves_the_old_artifact(tmp_path: Path, make_artifact: MakeArtifact) -> None:
    """The export has a bug: one convolution has the wrong sign."""
    correct = make_artifact("onnx", "fp32")
    old = tmp_path / "cifar-310k-fashion-mnist" / "onnx-fp32"
    shutil.copytree(correct.folder, old)
    graph = onnx.load(correct.model_file)
    weight = next(tensor for tensor in graph.graph.initializer if tensor.name == "features.2.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))

    def build(context: ExportContext) -> BuildResult:
        return BuildResult(lambda model_file, manifest_json: onnx.save(graph, model_file))

    before = {path: path.read_bytes() for path in old.iterdir()}
    request = ExportRequest("onnx", "cifar-310k", "fashion-mnist", artifacts=tmp_path)
    with pytest.raises(AgreementError, match="disagrees with PyTorch"):
        publish.publish(request, build, to_onnx.PACKAGES)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
