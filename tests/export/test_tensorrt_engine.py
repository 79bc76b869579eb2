"""Engines of small handwritten graphs, built by TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import tensorrt_engine
from runtimes import gpu
from simplenet.errors import BackendUnavailable, ExportError, UsageError

try:
    trt: Any = gpu.tensorrt("tensorrt-rtx")
except BackendUnavailable as missing:
    pytest.skip(str(missing), allow_module_level=True)

AMPERE_AND_LATER = ["sm80", "sm86", "sm89", "sm120", "sm121"]


def convolution_graph(batch: int | str = 1) -> onnx.ModelProto:
    """uint8 NHWC images, cast, transposed and convolved, as exported for TensorRT."""
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["pixels", "weights"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMax", ["maps", "axes"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 16, 16, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def quantized_graph(zero_point: np.ndarray[Any, Any] | None) -> onnx.ModelProto:
    """A quantized and dequantized input and a ReLU; with a uint8 zero point of 0, as NNCF writes it."""
    inputs = ["scale"] if zero_point is None else ["scale", "zero_point"]
    nodes = [
        helper.make_node("QuantizeLinear", ["image", *inputs], ["quantized"], name="quantize"),
        helper.make_node("DequantizeLinear", ["quantized", *inputs], ["restored"], name="dequantize"),
        helper.make_node("Relu", ["restored"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(np.array(0.1, np.float32), "scale")]
    if zero_point is not None:
        constants.append(numpy_helper.from_array(zero_point, "zero_point"))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("image", "logits")]
    graph = helper.make_graph(nodes, "quantized", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def build(model: onnx.ModelProto, *targets: str) -> tensorrt_engine.Engine:
    return tensorrt_engine.build(model, "tensorrt-rtx", tensorrt_engine.choose_targets("tensorrt-rtx", targets))


def test_plan_equals_that_of_the_raw_builder() -> None:
    model = convolution_graph()
    engine = build(model, "sm89")
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network()
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString())
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    assert engine.plan == bytes(builder.build_serialized_network(network, config))


def test_target_names_builder_and_gpus() -> None:
    target = build(convolution_graph()).target
    assert target["builder"] == "tensorrt-rtx"
    assert target["version"] == trt.__version__
    assert target["os"] in ("Linux", "Windows")
    assert set(AMPERE_AND_LATER) <= set(target["compute_capabilities"])
    assert "sm75" not in target["compute_capabilities"]
    assert target["tf32"] is False
    assert "batch" not in target


def test_dynamic_batch_gets_a_profile() -> None:
    model = convolution_graph("batch")
    target = build(model, "sm86", "sm120", "sm86").target
    assert target["batch"] == {"smallest": 1, "preferred": 8, "largest": 64}
    assert target["compute_capabilities"] == ["sm86", "sm120"]


def test_uint8_can_only_be_cast() -> None:
    """Why ExportModel casts images before anything else."""
    model = convolution_graph()
    cast, transpose = model.graph.node[:2]
    cast.op_type, transpose.op_type = "Transpose", "Cast"
    cast.attribute[0].CopyFrom(helper.make_attribute("perm", [0, 3, 1, 2]))
    transpose.attribute[0].CopyFrom(helper.make_attribute("to", TensorProto.FLOAT))
    onnx.checker.check_model(model, full_check=True)
    with pytest.raises(ExportError, match="UInt8"):
        build(model)


def test_accepts_symmetric_int8() -> None:
    assert build(quantized_graph(np.array(0, np.int8))).plan


@pytest.mark.parametrize("zero_point", [np.array(0, np.uint8), np.array(7, np.int8), np.array(0, np.int16), None])
def test_rejects_quantization_that_is_not_symmetric_int8(zero_point: np.ndarray[Any, Any] | None) -> None:
    with pytest.raises(ExportError, match=r"QuantizeLinear 'quantize' has .*to_tensorrt.py --precision int8"):
        build(quantized_graph(zero_point))


def test_parser_error_names_the_node() -> None:
    model = convolution_graph()
    model.graph.node[2].op_type, model.graph.node[2].name = "Nonsense", "the_node"
    with pytest.raises(ExportError, match=r"cannot read the ONNX graph .*the_node") as caught:
        build(model)
    assert "\n" not in str(caught.value)


def test_unsupported_target_lists_the_supported_ones() -> None:
    with pytest.raises(UsageError, match=r"cannot build for 'sm87', only for .*sm86.*need the full TensorRT"):
        build(convolution_graph(), "sm86", "sm87")


def test_fp32_gemm_for_sm75_suggests_fp16() -> None:
    model = convolution_graph()
    model.graph.node.append(helper.make_node("Gemm", ["logits", "matrix"], ["scores"]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4), np.float32), "matrix"))
    model.graph.output[0].name = "scores"
    assert build(model).plan
    with pytest.raises(ExportError, match=r"cannot build for sm75: .*sm75 supports --precision fp16 only"):
        build(model, "sm75")


def test_chooses_the_installed_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # its import fails
    assert tensorrt_engine.choose_builder("auto") == "tensorrt-rtx"
    assert tensorrt_engine.choose_builder("tensorrt-rtx") == "tensorrt-rtx"
    with pytest.raises(BackendUnavailable, match=r"tensorrt cannot be imported .*JetPack"):
        tensorrt_engine.choose_builder("tensorrt")
    with pytest.raises(UsageError, match="unknown builder"):
        tensorrt_engine.choose_builder("tvm")


def test_without_any_builder_gives_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable, match=r"pip install '\.\[tensorrt\]'"):
        tensorrt_engine.choose_builder("auto")


def test_without_gpu_auto_chooses_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # installed, but without a GPU
    monkeypatch.setattr(gpu, "first_gpu", _no_gpu)
    assert tensorrt_engine.choose_builder("auto") == "tensorrt-rtx"
    with pytest.raises(BackendUnavailable, match="no GPU for the test"):
        tensorrt_engine.choose_builder("tensorrt")


def test_full_tensorrt_rejects_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    with pytest.raises(UsageError, match="drop --target"):
        tensorrt_engine.choose_targets("tensorrt", ("sm86",))


def _no_gpu(purpose: str) -> gpu.Gpu:
    raise BackendUnavailable(f"{purpose}: no GPU for the test")
