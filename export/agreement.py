"""Compare an exported model with PyTorch: the real model file, run on its own runtime."""

from __future__ import annotations

import math
import warnings
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
    from simplenet.weights import LoadedWeights

COSINE_FLOORS = {"fp32": 0.99999, "fp16": 0.999}
"""Lowest accepted cosine similarity of an image's logits with PyTorch's."""
INT8_TOP1_AGREEMENT_FLOOR = 0.9
"""Lowest accepted share of images with PyTorch's top-1. Not required of random weights: their logits are nearly equal
for every image, so their top-1 is unstable."""
VARIED_ERROR_LIMIT = 0.2
"""Highest accepted `relative_error` of int8 logits on `calibration.varied` images, or twice the error on the check
images if that is larger. Measured (cifar-310k and 5m, three data sets): calibrated with 15 or more typical images 0.02
to 0.13, with one class up to 0.12; where int8 lost more than 2 points of top-1, 0.30 to 1.3."""
FP16_MAX = 65504
_FP16_HEADROOM = 2
"""Other images have larger activations than the ones checked."""

_BATCH = 64
# The manifest's tolerance, relative to the largest difference in the check: other images may differ more.
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
        # One thread is as fast for small models, and spinning threads are very slow on a busy machine.
        runtime = runtimes.load(artifact, threads=1)
    with runtime:
        # In batches: a dynamic-batch model would take all images at once, which may not fit into memory.
        return np.concatenate([runtime.infer_any(batch) for batch in _batches(inputs)])


def reference_logits(loaded: LoadedWeights, images: ImageBatch) -> Float32Array:
    """Logits of the original network (batch norms not folded) in float32 [N, num_classes]."""
    import torch

    with torch.inference_mode():
        parts = [
            loaded.model(torch.from_numpy(preprocessing.normalize(batch, loaded.card.preprocessing))).numpy()
            for batch in _batches(images.inputs)
        ]
    return np.concatenate(parts)


def half_range(loaded: LoadedWeights, images: ImageBatch) -> dict[str, Any]:
    """Run the network in half precision, and return the largest absolute activation for the manifest.

    Every weight and the output of every layer is rounded to float16, as on a GPU. (On a CPU, ONNX Runtime and OpenVINO
    compute fp16 models in float32, and PyTorch's own float16 takes 4 times as long.)

    Raises:
        AgreementError: an activation is not far enough below the largest float16; the message names the layer.
    """
    import torch

    from export.export_model import ExportModel

    model = ExportModel(loaded.model, None)
    # Names of the checkpoint's layers: without batch norms, `model` counts differently.
    names, layers = (
        {name: layer for name, layer in each.named_modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))}
        for each in (loaded.model, model)
    )
    peaks = dict.fromkeys(names, 0.0)

    def rounding(name: str) -> Any:
        def hook(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            peaks[name] = max(peaks[name], float(output.abs().nan_to_num(torch.inf).max()))
            return output.half().float()

        return hook

    for name, layer in zip(names, layers.values(), strict=True):
        layer.register_forward_hook(rounding(name))
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
        for batch in _batches(images.inputs):
            model(torch.from_numpy(preprocessing.normalize(batch, loaded.card.preprocessing)).half().float())
    for name, peak in peaks.items():
        if peak > FP16_MAX / _FP16_HEADROOM:
            raise AgreementError(
                f"layer {name} reaches {peak:.3g} on {len(images)} images ({images.source}): fp16 ends at {FP16_MAX}, "
                f"and {_FP16_HEADROOM} times the range is required; export with --precision fp32"
            )
    return {"images": len(images), "source": images.source, "largest_activation": max(peaks.values())}


def compare_on_varied(
    logits: Float32Array, expected: Float32Array, images: ImageBatch, error: float, required: bool, allow_poor: bool
) -> dict[str, Any]:
    """Compare int8 logits on images that int8 was not calibrated with.

    Args:
        logits, expected: as in `compare_outputs`, for `images` from `calibration.varied`.
        error: `relative_error` of the check images.
        required: False for random weights: measure only.
        allow_poor: warn instead of raising AgreementError.

    Returns:
        The manifest's `measured["varied"]`.
    """
    half = len(images) // 2  # one half may have much larger logits
    errors = [relative_error(logits[part], expected[part]) for part in (slice(half), slice(half, None))]
    measured = {
        "images": len(images),
        "source": images.source,
        "relative_error": max(errors),
        "top1_agreement": metrics.top1_agreement(logits, expected),
    }
    limit = max(VARIED_ERROR_LIMIT, 2 * error)
    if required and max(errors) > limit:
        problem = (
            f"the int8 logits of images that int8 was not calibrated with ({images.source}) differ from PyTorch's by "
            f"{max(errors):.0%}, {limit:.0%} is allowed"
        )
        if not allow_poor:
            raise AgreementError(f"{problem}; {POOR_CALIBRATION_ADVICE}")
        warnings.warn(f"{problem}; the model may be wrong on other images", SimpleNetWarning, stacklevel=2)
        measured["doubt"] = problem
    return measured


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
    cosines, differences = metrics.cosine_similarities(logits, expected), np.abs(logits - expected).max(axis=1)
    cosine, difference = float(cosines.min()), float(differences.max())
    top1_agreement = metrics.top1_agreement(logits, expected)
    measured: dict[str, Any] = {
        "agreement": {
            "images": len(images),
            "source": images.source,
            "cosine_min": cosine,
            "max_absolute_difference": difference,
            "max_relative_error": float((differences / np.abs(expected).max(axis=1).clip(min=1e-12)).max()),
            "top1_agreement": top1_agreement,
        }
    }
    floor = COSINE_FLOORS.get(precision)
    if floor is not None:
        # Cosines do not show a wrong scale, nor anything of one output and little of two. This limit is the error at
        # which the cosine of two vectors of equal length is `floor`.
        limit = math.sqrt(2 * (1 - floor))
        error = float(
            np.linalg.norm(logits - expected, axis=1).max() / max(_rms(expected) * expected.shape[1] ** 0.5, 1e-12)
        )
        if not (cosine > floor and error < limit):
            raise AgreementError(
                f"the exported {precision} model disagrees with PyTorch: the lowest cosine of {len(images)} images is "
                f"{cosine:.6f}, it must be above {floor}, and the largest relative error is {error:.2g}, it must be "
                f"below {limit:.2g}; no artifact was written"
            )
    if precision == "int8" and not untrained and top1_agreement < INT8_TOP1_AGREEMENT_FLOOR:
        raise AgreementError(
            f"the int8 model agrees with PyTorch on {top1_agreement:.1%} of {len(images)} images, at least "
            f"{INT8_TOP1_AGREEMENT_FLOOR:.0%} is required; calibrate with more typical images: --calibration DIR"
        )
    if images.labels is not None and not untrained:
        measured["accuracy"] = _accuracy(logits, expected, images)
        drop = measured["accuracy"]["drop_points"]
        if precision == "int8" and drop > max_drop:
            raise AgreementError(
                f"the int8 model loses {drop:.2f} points of top-1, {max_drop:g} are allowed; "
                "calibrate with more typical images, or allow it: --max-drop POINTS"
            )
    measured["tolerance"] = {
        "cosine": floor if floor is not None else max(-1.0, 1 - _TOLERANCE_MARGIN * (1 - cosine)),
        "absolute": max(_TOLERANCE_MARGIN * difference, _MIN_TOLERANCES[precision] * float(np.abs(expected).max())),
    }
    return measured


def relative_error(logits: Float32Array, expected: Float32Array) -> float:
    """Return the error's root mean square, divided by that of the differences between an image's expected logits."""
    return _rms(logits - expected) / max(_rms(expected - expected.mean(axis=1, keepdims=True)), 1e-12)


def _rms(values: Float32Array) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def _accuracy(logits: Float32Array, expected: Float32Array, images: ImageBatch) -> dict[str, Any]:
    assert images.labels is not None
    top1, top1_pytorch = (
        100 * metrics.top_k_correct(each, images.labels, 1) / len(images) for each in (logits, expected)
    )
    return {
        "dataset": images.source,
        "images": len(images),
        "top1": round(top1, 4),
        "top1_pytorch": round(top1_pytorch, 4),
        "drop_points": round(top1_pytorch - top1, 4),
    }


def _batches(inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    return np.split(inputs, range(_BATCH, len(inputs), _BATCH))
