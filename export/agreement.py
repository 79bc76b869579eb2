"""Whether an exported model still says what the PyTorch model says, through the real runtime on the real file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import runtimes
from export.calibration import ImageBatch
from simplenet import metrics, preprocessing
from simplenet.artifacts import Artifact
from simplenet.errors import AgreementError, UntrainedWarning
from simplenet.preprocessing import Float32Array

if TYPE_CHECKING:
    from simplenet.weights import LoadedWeights

COSINE_FLOORS = {"fp32": 0.99999, "fp16": 0.999}
INT8_TOP1_AGREEMENT_FLOOR = 0.9
"""Of trained weights. Random ones answer nearly the same to every picture: their top-1 flips at a touch."""

_REFERENCE_BATCH = 64
# A picture that was not checked may differ a little more than the worst of those that were.
_TOLERANCE_MARGIN = 3.0
# Other processors round elsewhere: parts of the largest logit that even a perfect export may differ by.
_LEAST_TOLERANCES = {"fp32": 1e-4, "fp16": 2e-3, "int8": 0.0}


def check(artifact: Artifact, loaded: LoadedWeights, samples: ImageBatch, max_drop: float) -> dict[str, Any]:
    """Runs `artifact` on its own runtime and compares it with PyTorch.

    Args:
        max_drop: points of top-1 that int8 may lose where the pictures have labels.

    Returns:
        What the manifest's `measured` says: agreement, tolerance, and accuracy where the pictures have labels.

    Raises:
        AgreementError: it differs too much.
    """
    import torch

    expected = reference_logits(loaded, samples)
    inputs = preprocessing.model_batch(samples.inputs, artifact.manifest.input.dtype, loaded.card.preprocessing)
    torch_threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UntrainedWarning)  # said when the weights were chosen
            # One thread: small models are as quick, and threads that spin for a core are ruinous on a busy machine.
            runtime = runtimes.load(artifact, threads=1)
        with runtime:
            logits = in_turns(runtime, inputs)
    finally:
        torch.set_num_threads(torch_threads)  # PyTorch's own runtime sets it for the whole process
    return compare_outputs(
        logits, expected, samples, artifact.manifest.precision, loaded.origin.source == "random", max_drop
    )


def reference_logits(loaded: LoadedWeights, samples: ImageBatch) -> Float32Array:
    """What the original network, batch norms and all, says in float32: [N, num_classes]."""
    import torch

    with torch.inference_mode():
        parts = [
            loaded.model(torch.from_numpy(preprocessing.normalize(part, loaded.card.preprocessing))).numpy()
            for part in np.split(samples.inputs, range(_REFERENCE_BATCH, len(samples), _REFERENCE_BATCH))
        ]
    return np.concatenate(parts)


def in_turns(runtime: runtimes.Runtime, inputs: npt.NDArray[Any]) -> Float32Array:
    """`infer_any`, in batches that fit into memory where the model would take all at once."""
    return np.concatenate(
        [runtime.infer_any(part) for part in np.split(inputs, range(_REFERENCE_BATCH, len(inputs), _REFERENCE_BATCH))]
    )


def compare_outputs(
    logits: Float32Array, expected: Float32Array, samples: ImageBatch, precision: str, untrained: bool, max_drop: float
) -> dict[str, Any]:
    """The comparison itself; see `check`."""
    if logits.shape != expected.shape:
        raise AgreementError(f"the exported model gives {list(logits.shape)} logits, PyTorch {list(expected.shape)}")
    if not np.isfinite(logits).all():
        broken = int((~np.isfinite(logits)).any(axis=1).sum())
        advice = "; these weights are too large for it, use fp32" if precision == "fp16" else ""
        raise AgreementError(f"the exported model gives NaN or infinite logits for {broken} pictures{advice}")
    cosines, differences = metrics.cosine_similarities(logits, expected), np.abs(logits - expected).max(axis=1)
    cosine, difference = float(cosines.min()), float(differences.max())
    same = metrics.top1_agreement(logits, expected)
    measured: dict[str, Any] = {
        "agreement": {
            "pictures": len(samples),
            "source": samples.source,
            "cosine_min": cosine,
            "max_absolute_difference": difference,
            "max_relative_error": float((differences / np.abs(expected).max(axis=1).clip(min=1e-12)).max()),
            "top1_agreement": same,
        }
    }
    floor = COSINE_FLOORS.get(precision)
    if floor is not None and not cosine > floor:
        raise AgreementError(
            f"the exported {precision} model disagrees with PyTorch: cosine {cosine:.6f} on its worst picture, "
            f"{floor} is the least; nothing was kept"
        )
    if precision == "int8" and not untrained and same < INT8_TOP1_AGREEMENT_FLOOR:
        raise AgreementError(
            f"the int8 model agrees with PyTorch on {same:.1%} of {len(samples)} pictures, "
            f"{INT8_TOP1_AGREEMENT_FLOOR:.0%} is the least; calibrate with more typical pictures: --calibration DIR"
        )
    if samples.labels is not None and not untrained:
        measured["accuracy"] = _accuracy(logits, expected, samples)
        drop = measured["accuracy"]["drop_points"]
        if precision == "int8" and drop > max_drop:
            raise AgreementError(
                f"the int8 model loses {drop:.2f} points of top-1, {max_drop:g} are allowed; "
                "calibrate with more typical pictures, or allow it: --max-drop POINTS"
            )
    measured["tolerance"] = {
        "cosine": floor if floor is not None else max(-1.0, 1 - _TOLERANCE_MARGIN * (1 - cosine)),
        "absolute": max(_TOLERANCE_MARGIN * difference, _LEAST_TOLERANCES[precision] * float(np.abs(expected).max())),
    }
    return measured


def _accuracy(logits: Float32Array, expected: Float32Array, samples: ImageBatch) -> dict[str, Any]:
    top1, top1_pytorch = (
        100 * float((scores.argmax(axis=1) == samples.labels).mean()) for scores in (logits, expected)
    )
    return {
        "dataset": samples.source,
        "images": len(samples),
        "top1": round(top1, 4),
        "top1_pytorch": round(top1_pytorch, 4),
        "drop_points": round(top1_pytorch - top1, 4),
    }
