"""Check an exported model against PyTorch: run the model file on its runtime, and compare the logits."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import runtimes
from export.calibration import POOR_CALIBRATION_ADVICE, ImageBatch
from simplenet import metrics, preprocessing
from simplenet.artifacts import Artifact
from simplenet.errors import AgreementError, SimpleNetWarning, UntrainedWarning
from simplenet.preprocessing import Float32Array

if TYPE_CHECKING:
    import torch

    from simplenet.weights import LoadedWeights

COSINE_FLOORS = {"fp32": 0.99999, "fp16": 0.999}
"""Lowest accepted cosine similarity of an image's logits with PyTorch's."""
INT8_TOP1_AGREEMENT_FLOOR = 0.9
"""Lowest accepted share of images with PyTorch's top-1. It is not required of random weights: their logits are nearly
equal, so their top-1 is unstable."""
VARIED_ERROR_LIMIT = 0.2
"""Highest accepted `relative_error` of int8 on `calibration.varied` images; up to twice that of the check images is
accepted, too. Measured (cifar-310k and 5m, three datasets): 0.02 to 0.13 when calibrated with 15 or more typical images
or with one class; 0.26 to 1.3 where int8 lost more than 2 points of top-1."""
FP16_MAX = 65504
_FP16_HEADROOM = 2
"""FP16_MAX must be this many times the largest activation: images that were not checked may have larger ones."""

_BATCH = 64
# The manifest's tolerance is this many times the largest difference in the check: other images may differ more.
_TOLERANCE_MARGIN = 3.0
# The smallest absolute tolerance, as a share of the largest logit: CPUs round differently.
_MIN_TOLERANCES = {"fp32": 1e-4, "fp16": 2e-3, "int8": 0.0}


def run(artifact: Artifact, inputs: npt.NDArray[Any]) -> Float32Array:
    """Run `artifact` on its default backend.

    Args:
        inputs: any number of images in the model's layout: uint8 [N, S, S, 3] or float32 [N, 3, S, S].

    Returns:
        Logits, float32 [N, num_classes].
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedWarning)  # already shown when the weights were loaded
        # One thread is as fast for small models, and several that spin are very slow on a busy machine.
        runtime = runtimes.load(artifact, threads=1)
    with runtime:
        # A model with a dynamic batch would run all images at once, which may not fit into memory.
        return np.concatenate([runtime.infer_any(batch) for batch in _batches(inputs)])


def reference_logits(loaded: LoadedWeights, images: ImageBatch) -> Float32Array:
    """Logits of the original network (batch norms not folded), float32 [N, num_classes]."""
    import torch

    with torch.inference_mode():
        return np.concatenate([loaded.model(batch).numpy() for batch in _normalized_batches(loaded, images)])


def check_fp16_range(loaded: LoadedWeights, images: ImageBatch) -> dict[str, Any]:
    """Run the network with values rounded to float16, and return the manifest's `measured["fp16_range"]`.

    Every weight and the output of every layer is rounded, as on a GPU. (On a CPU, ONNX Runtime and OpenVINO compute
    fp16 models in float32, and PyTorch's own float16 takes 4 times as long.)

    Raises:
        AgreementError: an activation is too near to the largest float16; the message names the layer.
    """
    import torch

    from export.export_model import ExportModel

    model = ExportModel(loaded.model, None)
    peaks: dict[str, float] = {}

    def round_output(name: str, layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        peaks[name] = max(peaks.get(name, 0.0), float(output.abs().nan_to_num(torch.inf).max()))
        return output.half().float()

    # Layers are named as in the checkpoint; `model` has no batch norms, so it numbers them differently.
    for (name, _), (_, layer) in zip(_weighted_layers(loaded.model), _weighted_layers(model), strict=True):
        layer.register_forward_hook(functools.partial(round_output, name))
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
        for batch in _normalized_batches(loaded, images):
            model(batch.half().float())
    for name, peak in peaks.items():
        if peak > FP16_MAX / _FP16_HEADROOM:
            raise AgreementError(
                f"layer {name} reaches {peak:.3g} on {len(images)} images ({images.source}); fp16 ends at {FP16_MAX}, "
                f"of which 1/{_FP16_HEADROOM} may be used; export with --precision fp32"
            )
    return {"images": len(images), "source": images.source, "largest_activation": max(peaks.values())}


def compare_outputs(
    logits: Float32Array, expected: Float32Array, images: ImageBatch, precision: str, untrained: bool, max_drop: float
) -> dict[str, Any]:
    """Compare the exported model's logits with PyTorch's.

    Args:
        logits: of the exported model, float32 [N, num_classes].
        expected: of PyTorch, float32 [N, num_classes].
        images: the N images; with labels, accuracy is computed too.
        untrained: whether the weights are random; then int8 is measured, but not required to agree.
        max_drop: percentage points of top-1 that int8 may lose; ignored if the images have no labels.

    Returns:
        The manifest's `measured`: agreement, tolerance, and accuracy if the images have labels.

    Raises:
        AgreementError: the shapes differ, a logit is not finite, or the difference exceeds a floor or `max_drop`.
    """
    if logits.shape != expected.shape:
        raise AgreementError(f"the exported model gives {list(logits.shape)} logits, PyTorch {list(expected.shape)}")
    if not np.isfinite(logits).all():
        broken = int((~np.isfinite(logits)).any(axis=1).sum())
        advice = "; these weights overflow in fp16, export with --precision fp32" if precision == "fp16" else ""
        raise AgreementError(f"the exported model gives NaN or infinite logits for {broken} images{advice}")
    differences = np.abs(logits - expected).max(axis=1)
    cosine, difference = float(metrics.cosine_similarities(logits, expected).min()), float(differences.max())
    measured: dict[str, Any] = {
        "agreement": {
            "images": len(images),
            "source": images.source,
            "cosine_min": cosine,
            "max_absolute_difference": difference,
            "max_relative_error": float((differences / np.abs(expected).max(axis=1).clip(min=1e-12)).max()),
            "top1_agreement": metrics.top1_agreement(logits, expected),
        },
        "tolerance": {
            "cosine": COSINE_FLOORS.get(precision, max(-1.0, 1 - _TOLERANCE_MARGIN * (1 - cosine))),
            "absolute": max(_TOLERANCE_MARGIN * difference, _MIN_TOLERANCES[precision] * float(np.abs(expected).max())),
        },
    }
    if images.labels is not None and not untrained:
        measured["accuracy"] = _accuracy(logits, expected, images)
    if precision in COSINE_FLOORS:
        _require_float_agreement(logits, expected, precision, cosine)
    elif not untrained:
        _require_int8_agreement(measured, max_drop)
    return measured


def compare_on_varied(
    logits: Float32Array,
    expected: Float32Array,
    images: ImageBatch,
    check_error: float,
    required: bool,
    allow_poor: bool,
) -> dict[str, Any]:
    """Compare int8 logits on images that int8 was not calibrated with.

    Args:
        logits, expected: as in `compare_outputs`, for `images` from `calibration.varied`.
        check_error: `relative_error` of the check images.
        required: False for random weights: measure only.
        allow_poor: warn instead of raising AgreementError.

    Returns:
        The manifest's `measured["varied"]`.
    """
    middle = len(images) // 2  # each half separately, because the logits of one may be much larger
    error = max(relative_error(logits[part], expected[part]) for part in (slice(middle), slice(middle, None)))
    measured = {
        "images": len(images),
        "source": images.source,
        "relative_error": error,
        "top1_agreement": metrics.top1_agreement(logits, expected),
    }
    limit = max(VARIED_ERROR_LIMIT, 2 * check_error)
    if required and error > limit:
        doubt = (
            f"the int8 logits of images that int8 was not calibrated with ({images.source}) differ from PyTorch's by "
            f"{error:.0%}, {limit:.0%} is allowed"
        )
        if not allow_poor:
            raise AgreementError(f"{doubt}; {POOR_CALIBRATION_ADVICE}")
        warnings.warn(f"{doubt}; the model may be wrong on other images", SimpleNetWarning, stacklevel=2)
        measured["doubt"] = doubt
    return measured


def relative_error(logits: Float32Array, expected: Float32Array) -> float:
    """Root mean square of the error, divided by that of `expected` after each image's mean is subtracted."""
    return _rms(logits - expected) / max(_rms(expected - expected.mean(axis=1, keepdims=True)), 1e-12)


def _require_float_agreement(logits: Float32Array, expected: Float32Array, precision: str, cosine: float) -> None:
    """Raise AgreementError if the lowest cosine or the largest error of an image is out of bounds.

    A cosine shows no wrong scale, and hardly anything for one or two logits. So the error is limited, too: to that of
    two vectors of equal length with the lowest accepted cosine.
    """
    floor = COSINE_FLOORS[precision]
    limit = math.sqrt(2 * (1 - floor))
    errors = np.linalg.norm(logits - expected, axis=1)
    error = float(errors.max()) / max(_rms(np.linalg.norm(expected, axis=1)), 1e-12)
    if not (cosine > floor and error < limit):
        raise AgreementError(
            f"the exported {precision} model disagrees with PyTorch: the lowest cosine of {len(logits)} images is "
            f"{cosine:.6f}, it must be above {floor}, and the largest relative error is {error:.2g}, it must be "
            f"below {limit:.2g}; no artifact was written"
        )


def _require_int8_agreement(measured: dict[str, Any], max_drop: float) -> None:
    """Raise AgreementError if too many images have another top-1, or accuracy drops too much."""
    top1, drop = measured["agreement"]["top1_agreement"], measured.get("accuracy", {}).get("drop_points", 0.0)
    if top1 < INT8_TOP1_AGREEMENT_FLOOR:
        raise AgreementError(
            f"the int8 model agrees with PyTorch on {top1:.1%} of {measured['agreement']['images']} images, at least "
            f"{INT8_TOP1_AGREEMENT_FLOOR:.0%} is required; calibrate with more typical images: --calibration DIR"
        )
    if drop > max_drop:
        raise AgreementError(
            f"the int8 model loses {drop:.2f} points of top-1, {max_drop:g} are allowed; "
            "calibrate with more typical images, or allow it: --max-drop POINTS"
        )


def _rms(values: Float32Array) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def _accuracy(logits: Float32Array, expected: Float32Array, images: ImageBatch) -> dict[str, Any]:
    assert images.labels is not None
    top1, top1_pytorch = (
        100 * metrics.top_k_correct(each, images.labels, 1) / len(images) for each in (logits, expected)
    )
    chance = 1 / expected.shape[1]
    limit = 100 * (chance + 2 * math.sqrt(chance * (1 - chance) / len(images)))  # guessing is above it in 1 of 40 cases
    if top1_pytorch < min(limit, 100):
        text = (
            f"PyTorch itself gets {top1_pytorch:.1f} % of {len(images)} labeled images ({images.source}) right, "
            f"guessing {100 * chance:.3g} %, which hides what int8 loses; are the labels or the preprocessing wrong? "
            "check which images are in which folder, or type --labels FILE or --dataset NAME"
        )
        warnings.warn(text, SimpleNetWarning, stacklevel=2)
    return {
        "dataset": images.source,
        "images": len(images),
        "top1": round(top1, 4),
        "top1_pytorch": round(top1_pytorch, 4),
        "drop_points": round(top1_pytorch - top1, 4),
    }


def _weighted_layers(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """Names and modules of the convolutions and linear layers."""
    from torch import nn

    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]


def _normalized_batches(loaded: LoadedWeights, images: ImageBatch) -> Iterator[torch.Tensor]:
    import torch

    for batch in _batches(images.inputs):
        yield torch.from_numpy(preprocessing.normalize(batch, loaded.card.preprocessing))


def _batches(inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    return np.split(inputs, range(_BATCH, len(inputs), _BATCH))
