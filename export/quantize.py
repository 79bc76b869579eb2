"""int8 ONNX graphs: one recipe for ONNX Runtime, another for TensorRT. Both keep the logits float32.

Weights are quantized to 7 of the 8 bits for ONNX Runtime: on x86 processors without VNNI (AVX2 and older) its kernels
add pairs of products in 16 bits, which saturate with full 8-bit weights: measured on an emulated Haswell, cifar-310k
fell by 3 points of top-1, with 7 bits by none; on processors with VNNI the two differ by less than 0.1 points.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from export import calibration
from runtimes.base import vendor_import
from simplenet.errors import ExportError, one_line

ONNXRUNTIME_METHOD = "onnxruntime quantize_static: QDQ, per channel, min-max, int8 activations, 7-bit weights"
TENSORRT_METHOD = "onnxruntime quantize_static: QDQ, per channel, min-max, symmetric int8"

# Normalization stays in float32: pixels have 8 bits already, a second rounding would only lose some.
_NORMALIZATION = ("Transpose", "Cast", "Mul", "Add")


def quantize_for_onnxruntime(fp32_onnx: Path, int8_onnx: Path, inputs: npt.NDArray[Any]) -> None:
    """Writes the int8 graph that ONNX Runtime runs with its integer kernels on x86 and Arm.

    Args:
        fp32_onnx: a graph of `onnx_graph.build`.
        inputs: calibration pictures as that graph takes them, uint8 [N, S, S, 3] or float32 [N, 3, S, S].

    Raises:
        BackendUnavailable: onnxruntime is missing. ExportError: it refused the graph.
    """
    _quantize(fp32_onnx, int8_onnx, inputs, reduce_range=True)


def quantize_for_tensorrt(fp32_onnx: Path, int8_onnx: Path, inputs: npt.NDArray[Any]) -> None:
    """Writes the explicit, symmetric int8 graph that TensorRT's parser takes, Conv and Relu left fusable.

    Arguments and errors as `quantize_for_onnxruntime`.
    """
    quantized = ("Conv", "Gemm", "MatMul", "MaxPool", "ReduceMax")
    extra = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "QDQDisableWeightAdjustForInt32Bias": True,
        "OpTypesToExcludeOutputQuantization": [*quantized, "Add", "Relu", "Reshape", "Flatten"],
    }
    _quantize(fp32_onnx, int8_onnx, inputs, op_types_to_quantize=["Conv", "Gemm", "MatMul"], extra_options=extra)


def _quantize(fp32_onnx: Path, int8_onnx: Path, inputs: npt.NDArray[Any], **recipe: Any) -> None:
    onnx = vendor_import("onnx", "export")
    quantization = vendor_import("onnxruntime.quantization", "export")
    shape_inference = vendor_import("onnxruntime.quantization.shape_inference", "export")
    with tempfile.TemporaryDirectory(dir=int8_onnx.parent) as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        try:
            shape_inference.quant_pre_process(str(fp32_onnx), str(prepared), skip_symbolic_shape=True)
            graph = onnx.load(prepared).graph
            quantization.quantize_static(
                str(prepared),
                str(int8_onnx),
                _reader(quantization, graph, inputs),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                nodes_to_exclude=[node.name for node in graph.node if node.op_type in _NORMALIZATION],
                **recipe,
            )
        except OSError:
            raise
        except Exception as error:  # ONNX Runtime's own errors have no class in common
            raise ExportError(f"ONNX Runtime cannot quantize this graph: {one_line(error)}") from error
    model = onnx.load(int8_onnx)
    del model.metadata_props[:]
    onnx.save(model, int8_onnx)


def _reader(quantization: Any, graph: Any, inputs: npt.NDArray[Any]) -> Any:
    """The pictures in batches of the size the graph takes."""
    size = graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    batches = ({graph.input[0].name: batch} for batch in calibration.in_batches(inputs, size))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            return next(batches, None)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that ONNX Runtime logs on the root logger, and without tracebacks of what is raised anyhow."""
    tracebacks = logging.getLogger("onnxruntime.quantization.shape_inference")
    level = tracebacks.level

    def is_not_advice(record: logging.LogRecord) -> bool:
        return "Please consider" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_not_advice)
    tracebacks.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        tracebacks.setLevel(level)
        root.removeFilter(is_not_advice)
