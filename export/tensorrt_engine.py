"""Build a TensorRT engine from an ONNX graph: TensorRT 10 or 11 on a GPU, TensorRT-RTX without one.

The network is strongly typed: the ONNX graph sets the precision, by fp16 tensors or by symmetric int8 QuantizeLinear
and DequantizeLinear. Only this way is supported by all three TensorRTs.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from runtimes import gpu
from simplenet.errors import BackendUnavailable, ExportError, UsageError, check_choice, one_line

if TYPE_CHECKING:
    import onnx

BUILDERS = ("auto", *gpu.TENSORRTS)
DYNAMIC_BATCH = (1, 8, 64)
"""Smallest, preferred and largest batch of an engine with a dynamic batch; the runtime splits larger ones."""

# Turing (sm75) only on request: NVIDIA warns that code for it slows an engine down on newer GPUs.
_OLDEST_DEFAULT_TARGET = 80


@dataclass(frozen=True)
class Engine:
    """A serialized engine (`plan`), which trtexec and Triton read too, and its `target` for the manifest."""

    plan: bytes
    target: dict[str, Any]


def choose_builder(requested: str) -> str:
    """Return 'tensorrt' or 'tensorrt-rtx'.

    Args:
        requested: one of these, or 'auto': the full TensorRT if it is installed and has a GPU, else TensorRT-RTX.

    Raises:
        UsageError: unknown builder. BackendUnavailable: the builder is not installed, or has no GPU to build on.
    """
    check_choice("builder", requested, BUILDERS)
    if requested in ("auto", "tensorrt"):
        try:
            gpu.tensorrt("tensorrt")
            gpu.first_gpu("building with the full TensorRT")
            return "tensorrt"
        except BackendUnavailable:
            if requested == "tensorrt":
                raise
    gpu.tensorrt("tensorrt-rtx")
    return "tensorrt-rtx"


def choose_targets(builder: str, requested: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the GPUs to build an engine for, such as 'sm86'.

    Args:
        builder: 'tensorrt', which builds for the GPU of this machine, or 'tensorrt-rtx'.
        requested: for TensorRT-RTX only. Empty: every GPU that it supports, from Ampere (sm80) upwards.

    Raises:
        UsageError: TensorRT-RTX does not support a GPU, or targets are requested from the full TensorRT.
    """
    trt = gpu.tensorrt(builder)
    if builder == "tensorrt":
        if requested:
            raise UsageError(
                "the full TensorRT builds for the GPU it runs on; drop --target, or type --builder tensorrt-rtx"
            )
        return (gpu.first_gpu("building with the full TensorRT").compute_capability,)
    known = sorted((name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")), key=_number)
    for name in requested:
        if name not in known:
            raise UsageError(
                f"TensorRT-RTX {trt.__version__} cannot build for {name!r}, only for {', '.join(known)}; "
                "Orin (sm87) and Hopper (sm90) need the full TensorRT, on the target device"
            )
    return tuple(
        name for name in known if (name in requested if requested else _number(name) >= _OLDEST_DEFAULT_TARGET)
    )


def build(model: onnx.ModelProto, builder: str, targets: Sequence[str]) -> Engine:
    """Build an engine.

    Args:
        model: the graph; a named first dimension of its input is a dynamic batch (DYNAMIC_BATCH).
        builder: from `choose_builder`.
        targets: from `choose_targets`.

    Raises:
        ExportError: TensorRT rejects the graph or a target.
    """
    check_symmetric(model)
    trt = gpu.tensorrt(builder)
    log = gpu.error_log(trt)
    trt_builder = trt.Builder(log)
    # For TensorRT 10 only: in 11 and RTX every network is strongly typed, and the flag is ignored.
    network = trt_builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, model, log)
    config = _configure(trt, trt_builder, network, targets if builder == "tensorrt-rtx" else ())
    plan = trt_builder.build_serialized_network(network, config)
    if plan is None:
        reason = log.reason()
        advice = "" if "sm75" not in targets else "; sm75 supports --precision fp16 only"
        raise ExportError(f"{builder} {trt.__version__} cannot build for {', '.join(targets)}: {reason}{advice}")
    return Engine(bytes(plan), _describe(builder, trt, network, targets))


def check_symmetric(model: onnx.ModelProto) -> None:
    """Raise ExportError unless every QuantizeLinear and DequantizeLinear has an int8 zero point of 0.

    TensorRT's parser accepts uint8 zero points of 0 (NNCF writes them), but reads the values as int8. The results are
    wrong, and no error is raised.
    """
    from onnx import TensorProto, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
        # The default of a missing zero point is uint8.
        if zero_point is None or zero_point.data_type != TensorProto.INT8 or numpy_helper.to_array(zero_point).any():
            raise ExportError(
                f"{node.op_type} {node.name or node.output[0]!r} has no int8 zero point of 0, and TensorRT supports "
                "symmetric int8 only; type: python export/to_tensorrt.py --precision int8"
            )


def _parse(trt: ModuleType, network: Any, model: onnx.ModelProto, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(model.SerializeToString()):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reason = "; ".join(f"{error.node_name() or 'graph'}: {error.desc()}" for error in errors) or log.reason()
    raise ExportError(
        f"TensorRT {trt.__version__} cannot read the ONNX graph ({one_line(reason, 1000)}); "
        "report it as a bug, with the command"
    )


def _configure(trt: ModuleType, trt_builder: Any, network: Any, rtx_targets: Sequence[str]) -> Any:
    config = trt_builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # TF32 is on by default, and its mantissa has 10 bits
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # RTX: needed for CUDA graphs
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if rtx_targets:
        config.num_compute_capabilities = len(rtx_targets)
        for index, target in enumerate(rtx_targets):
            if not config.set_compute_capability(trt.ComputeCapability.__members__[target.upper()], index):
                raise ExportError(f"TensorRT-RTX {trt.__version__} does not accept {target}; remove it from --target")
    tensor = network.get_input(0)
    batch, *rest = tensor.shape
    if batch == -1:
        profile = trt_builder.create_optimization_profile()
        profile.set_shape(tensor.name, *((size, *rest) for size in DYNAMIC_BATCH))
        config.add_optimization_profile(profile)
    return config


def _number(target: str) -> int:
    return int(re.sub(r"\D", "", target))


def _describe(builder: str, trt: ModuleType, network: Any, targets: Sequence[str]) -> dict[str, Any]:
    target = {
        "builder": builder,
        "version": trt.__version__,
        "os": platform.system(),
        "machine": platform.machine(),
        "compute_capabilities": list(targets),
        "tf32": False,
    }
    if network.get_input(0).shape[0] == -1:
        target["batch"] = dict(zip(("smallest", "preferred", "largest"), DYNAMIC_BATCH, strict=True))
    return target
