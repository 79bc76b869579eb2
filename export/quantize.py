"""Quantize an ONNX graph to int8, for ONNX Runtime or for TensorRT; the logits stay in float32.

For ONNX Runtime, weights use 7 of the 8 bits: on x86 CPUs without VNNI (AVX2 and older) its kernels add pairs of
products in 16 bits, which saturate with full 8-bit weights. Measured on an emulated Haswell, cifar-310k lost 3 points
of top-1 with 8 bits and none with 7. On CPUs with VNNI the two differ by less than 0.1 points.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy.typing as npt

from export import calibration
from simplenet.errors import ExportError, one_line, raise_if_from_signal_handler

ONNXRUNTIME_METHOD = "onnxruntime quantize_static: QDQ, per channel, min-max, int8 activations, 7-bit weights"
TENSORRT_METHOD = "onnxruntime quantize_static: QDQ, per channel, min-max, symmetric int8"


def for_onnxruntime(graph: Any, inputs: npt.NDArray[Any]) -> Any:
    """Quantize for ONNX Runtime's integer kernels on x86 and Arm.

    Args:
        graph: a float32 `onnx.ModelProto` from `onnx_graph.build`.
        inputs: calibration images in the graph's layout, uint8 [N, S, S, 3] or float32 [N, 3, S, S].

    Returns:
        The int8 `onnx.ModelProto`.

    Raises:
        ExportError: onnxruntime cannot quantize the graph.
    """
    return _quantize(graph, inputs, reduce_range=True)


def for_tensorrt(graph: Any, inputs: npt.NDArray[Any]) -> Any:
    """Quantize symmetrically, without QDQ between a Conv and its Relu, so that TensorRT can fuse them.

    Arguments, result and errors are those of `for_onnxruntime`.
    """
    quantized = ("Conv", "Gemm", "MatMul", "MaxPool", "ReduceMax")
    extra = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "QDQDisableWeightAdjustForInt32Bias": True,
        "OpTypesToExcludeOutputQuantization": [*quantized, "Add", "Relu", "Reshape", "Flatten"],
    }
    return _quantize(graph, inputs, op_types_to_quantize=["Conv", "Gemm", "MatMul"], extra_options=extra)


def _quantize(graph: Any, inputs: npt.NDArray[Any], **recipe: Any) -> Any:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    with tempfile.TemporaryDirectory() as folder:
        # quantize_static reads and writes files.
        float_file, prepared_file, int8_file = (str(Path(folder) / f"{name}.onnx") for name in ("float", "pre", "int8"))
        onnx.save(graph, float_file)
        try:
            shape_inference.quant_pre_process(float_file, prepared_file, skip_symbolic_shape=True)
            prepared = onnx.load(prepared_file).graph
            quantization.quantize_static(
                prepared_file,
                int8_file,
                _reader(quantization, prepared, inputs),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                # Normalization stays in float32: pixels have 8 bits, and rounding them again would lose accuracy.
                nodes_to_exclude=_before_first_convolution(prepared),
                **recipe,
            )
        except OSError:
            raise
        except Exception as error:  # onnxruntime's errors have no common class
            raise_if_from_signal_handler(error)
            raise ExportError(f"ONNX Runtime cannot quantize this graph: {one_line(error)}") from error
        result = onnx.load(int8_file)
    del result.metadata_props[:]
    return result


def _before_first_convolution(graph: Any) -> list[str]:
    types = [node.op_type for node in graph.node]
    return [node.name for node in graph.node[: types.index("Conv")]]


def _reader(quantization: Any, graph: Any, inputs: npt.NDArray[Any]) -> Any:
    """Return a CalibrationDataReader that yields the images in batches of the graph's batch size."""
    size = graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    batches = ({graph.input[0].name: batch} for batch in calibration.in_batches(inputs, size))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            return next(batches, None)

    return Reader()
