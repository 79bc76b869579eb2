"""The ONNX graph that every format but PyTorch is made from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

from export import onnx_graph
from export.export_model import ExportModel
from simplenet import image_sets, metrics, model, preprocessing, variants
from simplenet.manifest import InputSpec
from simplenet.model import SimpleNet

SMALL = "cifar-310k"


def network_with_random_norms(variant: str) -> SimpleNet:
    """Random weights with random batch norms: the initial ones would have no effect when folded."""
    network = model.create(variant)
    random = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.running_mean.shape if module.running_mean is not None else ()
            module.running_mean = torch.rand(size, generator=random) * 0.2 - 0.1
            module.running_var = torch.rand(size, generator=random) + 0.5
            module.weight.data = torch.rand(size, generator=random) + 0.5
            module.bias.data = torch.rand(size, generator=random) * 0.2 - 0.1
    return network.eval()


def spec(variant: str, dtype: str = "uint8", batch: int | None = 1) -> InputSpec:
    size = variants.get(variant).preprocessing.input_size
    return InputSpec("image", dtype, "NHWC" if dtype == "uint8" else "NCHW", size, size, batch)


def graph_of(variant: str, dtype: str = "uint8", batch: int | None = 1, half: bool = False) -> Any:
    config = variants.get(variant).preprocessing
    return onnx_graph.build(network_with_random_norms(variant), config, spec(variant, dtype, batch), half)


def run(graph: Any, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    logits: npt.NDArray[np.float32] = session.run(["logits"], {"image": inputs})[0]
    return logits


def images_and_logits(variant: str, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Model inputs, and the logits of the original PyTorch network."""
    config = variants.get(variant).preprocessing
    images, _ = image_sets.load("synthetic", "evaluation", config, limit=count).all()
    with torch.inference_mode():
        return images, network_with_random_norms(variant)(
            torch.from_numpy(preprocessing.normalize(images, config))
        ).numpy()


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return float(metrics.cosine_similarities(a, b).min())


@pytest.fixture(scope="module")
def small() -> Any:
    return graph_of(SMALL)


@pytest.mark.parametrize(
    "name", [name if name == SMALL else pytest.param(name, marks=pytest.mark.slow) for name in variants.VARIANTS]
)
def test_every_variant_agrees_with_pytorch(name: str) -> None:
    images, expected = images_and_logits(name, 2)
    graph = graph_of(name, batch=2)
    logits = run(graph, images)
    assert logits.dtype == np.float32
    assert cosine(logits, expected) > 0.99999
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    operators = Counter(node.op_type for node in graph.graph.node)
    assert set(operators) <= {
        "Cast",
        "Reshape",
        "Mul",
        "Add",
        "Transpose",
        "Conv",
        "Relu",
        "MaxPool",
        "ReduceMax",
        "Gemm",
    }
    assert operators["Conv"] == operators["Relu"] > 10


def test_input_output_and_opset(small: Any) -> None:
    session = onnxruntime.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", [1, 32, 32, 3])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", [1, 10])
    assert [(opset.domain, opset.version) for opset in small.opset_import] == [("", 18)]
    assert small.ir_version <= 10  # the newest that ONNX Runtime 1.20 reads


def test_openvino_gives_the_same_logits(small: Any) -> None:
    images, expected = images_and_logits(SMALL, 1)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(small.SerializeToString(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert cosine(compiled([images])["logits"], expected) > 0.99999


def test_the_same_weights_give_the_same_bytes(small: Any) -> None:
    assert graph_of(SMALL).SerializeToString() == small.SerializeToString()


def test_float32_input_gives_the_same_logits(small: Any) -> None:
    images, _ = images_and_logits(SMALL, 1)
    graph = graph_of(SMALL, "float32")
    assert not {"Cast", "Reshape", "Mul", "Transpose"} & {node.op_type for node in graph.graph.node}
    normalized = preprocessing.normalize(images, variants.get(SMALL).preprocessing)
    np.testing.assert_allclose(run(graph, normalized), run(small, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "sizes"), [(None, (1, 5)), (8, (8,))])
def test_batches(batch: int | None, sizes: tuple[int, ...]) -> None:
    graph = graph_of(SMALL, batch=batch)
    for size in sizes:
        images, expected = images_and_logits(SMALL, size)
        assert cosine(run(graph, images), expected) > 0.99999
    if batch is not None:
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            run(graph, images[:1])


@pytest.mark.parametrize(("batch", "half"), [(1, False), (3, False), (None, False), (1, True), (None, True)])
def test_normalizes_whole_rows(batch: int | None, half: bool) -> None:
    """Constants of 3 values, one for each channel, are several times slower in ONNX Runtime's int8 graphs."""
    graph = graph_of(SMALL, batch=batch, half=half).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    nodes = {node.op_type: node for node in graph.node}
    assert [node.op_type for node in graph.node][:6] == ["Cast", "Reshape", "Mul", "Add", "Reshape", "Transpose"]
    assert shapes[nodes["Mul"].input[1]] == shapes[nodes["Add"].input[1]] == [32 * 3]


def test_normalization_equals_numpy() -> None:
    """All 256 levels, everywhere in the image: the largest value of each channel is that of every pixel."""
    config = variants.get(SMALL).preprocessing
    module = ExportModel(network_with_random_norms(SMALL), config)
    module.features, module.classifier = nn.Sequential(), nn.Identity()  # type: ignore[assignment]
    images = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 32, 32, 3)).copy()
    expected = preprocessing.normalize(images, config).max(axis=(2, 3))
    np.testing.assert_allclose(module(torch.from_numpy(images)), expected, rtol=1e-6, atol=1e-6)


def test_half_leaves_the_normalization_in_float32(small: Any) -> None:
    graph = graph_of(SMALL, half=True)
    types = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    weights = [types[name] for node in graph.graph.node if node.op_type in ("Conv", "Gemm") for name in node.input[1:]]
    assert set(weights) == {onnx.TensorProto.FLOAT16}
    assert {types[n.input[1]] for n in graph.graph.node if n.op_type in ("Mul", "Add")} == {onnx.TensorProto.FLOAT}
    images, expected = images_and_logits(SMALL, 1)
    assert run(graph, images).dtype == np.float32
    assert cosine(run(graph, images), expected) > 0.999
    assert graph.ByteSize() < 0.55 * small.ByteSize()


def test_onnxruntime_fuses_half_precision_relu(tmp_path: Path) -> None:
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    settings.log_severity_level = 3  # the optimized graph suits this processor only, and a warning says so
    half = graph_of(SMALL, half=True)
    onnxruntime.InferenceSession(half.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(settings.optimized_model_filepath).graph.node)
    assert operators["Max"] == 0  # the ReLU of opset 18, between two changes of the layout
    assert half.ir_version <= 10


def test_does_not_change_the_network() -> None:
    network = network_with_random_norms(SMALL)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    onnx_graph.build(network, variants.get(SMALL).preprocessing, spec(SMALL), half=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_contains_no_local_path(small: Any) -> None:
    assert str(Path.cwd()).encode() not in small.SerializeToString()
