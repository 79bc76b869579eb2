"""From an ONNX graph to a TensorRT engine, by whichever TensorRT is here: 10 and 11 on a GPU, TensorRT-RTX without one.

The network is strongly typed: precision lives in the ONNX graph (fp16 tensors, or symmetric int8 QuantizeLinear and
DequantizeLinear), which is the one way that all three have in common.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from runtimes import gpu
from runtimes.base import vendor_import
from simplenet.errors import BackendUnavailable, ExportError, UsageError, one_line

if TYPE_CHECKING:
    import onnx

BUILDERS = ("auto", *gpu.TENSORRTS)
DYNAMIC_BATCH = (1, 8, 64)
"""Smallest, preferred and largest batch of an engine whose batch is dynamic; a runtime splits larger ones."""

# NVIDIA's advice: code for Turing (sm75) in an engine for newer GPUs slows those down, so it is built only when asked.
_OLDEST_DEFAULT_TARGET = 80


@dataclass(frozen=True)
class Engine:
    """`plan` is what trtexec, Triton and TensorRT itself read; `target` is what the manifest says of it."""

    plan: bytes
    target: dict[str, Any]


def choose_builder(asked: str) -> str:
    """'tensorrt' or 'tensorrt-rtx'. 'auto' is the full TensorRT where it is installed and has a GPU, else TensorRT-RTX.

    Raises:
        BackendUnavailable: what was asked for is not installed, or has no GPU to build on.
    """
    if asked not in BUILDERS:
        raise UsageError(f"unknown builder {asked!r}; choose from: {', '.join(BUILDERS)}")
    if asked in ("auto", "tensorrt"):
        try:
            gpu.tensorrt("tensorrt")
            gpu.first_gpu("building with the full TensorRT")
            return "tensorrt"
        except BackendUnavailable:
            if asked == "tensorrt":
                raise
    gpu.tensorrt("tensorrt-rtx")
    return "tensorrt-rtx"


def choose_targets(builder: str, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """The GPUs that an engine will be for: the one that is here, or with TensorRT-RTX those asked for, as in 'sm86'.

    None asked for: every one that TensorRT-RTX knows from Ampere (sm80) on.

    Raises:
        UsageError: TensorRT-RTX cannot build for one, or the full TensorRT is asked to build for others than its own.
    """
    trt = gpu.tensorrt(builder)
    if builder == "tensorrt":
        if asked:
            raise UsageError(
                "the full TensorRT builds for the GPU it runs on; drop --target, or --builder tensorrt-rtx"
            )
        return (gpu.first_gpu("building with the full TensorRT").compute_capability,)
    known = sorted((name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")), key=_number)
    for name in asked:
        if name not in known:
            raise UsageError(
                f"TensorRT-RTX {trt.__version__} cannot build for {name}, only for {', '.join(known)}; "
                "Orin (sm87) and Hopper (sm90) need the full TensorRT, on the device itself"
            )
    return tuple(name for name in known if (name in asked if asked else _number(name) >= _OLDEST_DEFAULT_TARGET))


def build(model: onnx.ModelProto, builder: str, targets: Sequence[str]) -> Engine:
    """Builds an engine.

    Args:
        model: as `prepared` gives it; a named first dimension of its input is a dynamic batch, see DYNAMIC_BATCH.
        builder: 'tensorrt' or 'tensorrt-rtx', as `choose_builder` answers.
        targets: as `choose_targets` answers.

    Raises:
        ExportError: the graph or a target is refused. BackendUnavailable: the builder is not installed.
    """
    refuse_asymmetric(model)
    trt = gpu.tensorrt(builder)
    log = gpu.error_log(trt)
    maker = trt.Builder(log)
    # The flag is TensorRT 10's; 11 and RTX know no other kind of network and ignore it.
    network = maker.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, model, log)
    config = _configure(trt, maker, network, targets if builder == "tensorrt-rtx" else ())
    plan = maker.build_serialized_network(network, config)
    if plan is None:
        reason = log.reason()
        advice = "" if "sm75" not in targets else "; sm75 takes --precision fp16 only"
        raise ExportError(f"{builder} {trt.__version__} cannot build for {', '.join(targets)}: {reason}{advice}")
    return Engine(bytes(plan), _describe(builder, trt, network, targets))


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph as TensorRT takes it: uint8 pictures are cast to float first and transposed then.

    Other runtimes are quicker the other way round, but TensorRT's uint8 tensors can be nothing but cast.
    """
    onnx = vendor_import("onnx", "export")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    nodes = result.graph.node
    pictures = {
        value.name for value in result.graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    }
    for transpose in nodes:
        if transpose.op_type != "Transpose" or transpose.input[0] not in pictures:
            continue
        between = transpose.output[0]
        users = [user for user, node in enumerate(nodes) if between in node.input]
        if len(users) != 1 or nodes[users[0]].op_type != "Cast":
            continue
        cast = nodes[users[0]]
        first, second = onnx.NodeProto(), onnx.NodeProto()
        first.CopyFrom(cast)
        second.CopyFrom(transpose)
        first.input[0], first.output[0] = transpose.input[0], between
        second.input[0], second.output[0] = between, cast.output[0]
        transpose.CopyFrom(first)
        cast.CopyFrom(second)
        described = [value for value in result.graph.value_info if value.name != between]  # no longer uint8
        del result.graph.value_info[:]
        result.graph.value_info.extend(described)
        break
    return result


def refuse_asymmetric(model: onnx.ModelProto) -> None:
    """Raises ExportError unless every quantization in the graph is to int8 with zero point 0.

    TensorRT's parser takes uint8 zero points of 0 (NNCF writes them) and reads the values as int8: silently wrong.
    """
    onnx = vendor_import("onnx", "export")
    numpy_helper = vendor_import("onnx.numpy_helper", "export")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is None:
            found = "no constant zero point"  # without one, ONNX means uint8
        elif zero_point.data_type != onnx.TensorProto.INT8:
            found = f"a zero point of type {onnx.TensorProto.DataType.Name(zero_point.data_type).lower()}"
        elif numpy_helper.to_array(zero_point).any():
            found = "a zero point other than 0"
        else:
            continue
        raise ExportError(
            f"{node.op_type} {node.name or node.output[0]!r} has {found}, but TensorRT takes symmetric int8 only; "
            "quantize with: python export/to_tensorrt.py --precision int8"
        )


def _parse(trt: ModuleType, network: Any, model: onnx.ModelProto, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(model.SerializeToString()):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reason = "; ".join(f"{error.node_name() or 'graph'}: {error.desc()}" for error in errors) or log.reason()
    raise ExportError(
        f"TensorRT {trt.__version__} cannot read the ONNX graph ({one_line(RuntimeError(reason))}); "
        "please report it with the command that led here"
    )


def _configure(trt: ModuleType, maker: Any, network: Any, rtx_targets: Sequence[str]) -> Any:
    config = maker.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, it computes "fp32" with 10 bits of mantissa
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # RTX: an engine that CUDA graphs can record
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if rtx_targets:
        config.num_compute_capabilities = len(rtx_targets)
        for index, target in enumerate(rtx_targets):
            if not config.set_compute_capability(trt.ComputeCapability.__members__[target.upper()], index):
                raise ExportError(f"TensorRT-RTX {trt.__version__} refuses {target}; leave it out of --target")
    tensor = network.get_input(0)
    batch, *rest = tensor.shape
    if batch == -1:
        profile = maker.create_optimization_profile()
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
