"""Quantize an OpenVINO model to int8 with NNCF.

Weights use 7 of the 8 bits, as in quantize.py: on an emulated Haswell, 8-bit weights lost 5 points of top-1.
An activation's range is that of all calibration images. NNCF's default, the mean of the batches' ranges, clips the
extremes: at batch 1 it lowered the lowest cosine of an image from 0.999 to 0.978.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from export import calibration
from export.publish import ExportContext
from simplenet.errors import ExportError, one_line, raise_if_from_signal_handler
from simplenet.vendors import vendor_import

METHOD = "nncf.quantize: per channel, min-max, uint8 activations, 7-bit weights"


def quantize(model: Any, inputs: npt.NDArray[Any], context: ExportContext) -> Any:
    """Return an int8 copy of an openvino.Model.

    If int8 loses more than `max_drop` on labeled check images, NNCF keeps the layers that cost the most accuracy in
    float32.

    Args:
        inputs: calibration images in the model's layout, uint8 [N, S, S, 3] or float32 [N, 3, S, S].

    Raises:
        BackendUnavailable: nncf is missing. ExportError: nncf cannot quantize the model.
    """
    nncf = import_nncf()
    advanced = importlib.import_module("nncf.quantization.advanced_parameters")
    ranges = importlib.import_module("nncf.quantization.range_estimator")
    parameters = advanced.AdvancedQuantizationParameters(
        overflow_fix=advanced.OverflowFix.ENABLE,
        activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
        disable_bias_correction=True,
    )
    size = context.input.batch or 1
    batches = calibration.in_batches(inputs, size)
    settings = {
        "calibration_dataset": nncf.Dataset(batches),
        "subset_size": len(batches),
        # Not the normalization: NNCF would round pixels to 256 levels between 0 and the brightest calibration pixel.
        "ignored_scope": nncf.IgnoredScope(_before_first_convolution(model), validate=False),
    }
    labels = context.check_images.labels
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF draws progress bars on stdout
        try:
            if labels is None:
                return nncf.quantize(model, **settings, advanced_parameters=parameters)
            validation = list(
                zip(
                    calibration.in_batches(context.model_inputs(context.check_images), size),
                    calibration.in_batches(labels, size),
                    strict=True,
                )
            )
            return nncf.quantize_with_accuracy_control(
                model,
                **settings,
                validation_dataset=nncf.Dataset(validation, lambda item: item[0]),
                validation_fn=_top1,
                max_drop=context.request.max_drop / 100,
                advanced_quantization_parameters=parameters,
            )
        except OSError:
            raise
        except Exception as error:  # nncf's errors have no common class
            raise_if_from_signal_handler(error)
            raise ExportError(f"NNCF cannot quantize this model: {one_line(error)}") from error


def _before_first_convolution(model: Any) -> list[str]:
    """Names of the operations of the normalization."""
    operations = model.get_ordered_ops()
    types = [operation.get_type_name() for operation in operations]
    before = operations[: types.index("Convolution")]
    return [operation.get_friendly_name() for operation in before if operation.get_type_name() == "Multiply"]


def _top1(compiled: Any, items: Any) -> float:
    return float(np.mean([compiled([inputs])[0].argmax(axis=1) == labels for inputs, labels in items]))


def import_nncf() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return vendor_import("nncf", "openvino-export")
