"""Exports to real TensorRT-RTX engines: building them needs no GPU, running them does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import runtimes
from export import onnx_graph, tensorrt_engine, to_tensorrt
from runtimes import gpu
from simplenet import artifacts
from simplenet.errors import BackendError, BackendUnavailable, ExportError, UsageError
from simplenet.model import SimpleNet
from tests.conftest import MakeArtifact

try:
    trt: Any = gpu.tensorrt("tensorrt-rtx")
except BackendUnavailable as missing:
    pytest.skip(str(missing), allow_module_level=True)


def no_gpu(purpose: str) -> gpu.Gpu:
    raise BackendUnavailable(f"{purpose} needs an NVIDIA GPU and driver to run; none in this test")


@pytest.fixture(scope="module", autouse=True)
def cached_onnx_graphs() -> Iterator[None]:
    """PyTorch's exporter takes seconds, and most tests here start from the same graph."""
    graphs: dict[Any, onnx.ModelProto] = {}
    real = onnx_graph.build

    def build(model: SimpleNet, *settings: Any) -> onnx.ModelProto:
        key = (float(model.classifier.weight.detach().sum()), *settings)
        if key not in graphs:
            graphs[key] = real(model, *settings)
        copy = onnx.ModelProto()
        copy.CopyFrom(graphs[key])
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "build", build)
        yield


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, whether this machine has one or not."""
    monkeypatch.setattr(gpu, "first_gpu", no_gpu)


@pytest.fixture
def built_graphs(monkeypatch: pytest.MonkeyPatch) -> list[onnx.ModelProto]:
    """The graphs that the builder received."""
    graphs: list[onnx.ModelProto] = []
    real = tensorrt_engine.build

    def build(model: onnx.ModelProto, *others: Any) -> tensorrt_engine.Engine:
        graphs.append(model)
        return real(model, *others)

    monkeypatch.setattr(tensorrt_engine, "build", build)
    return graphs


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder of four images to calibrate with."""
    folder = tmp_path / "image_folder"
    folder.mkdir()
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((260, 240)).save(folder / f"{seed}.png")
    return folder


def parsed(graph: onnx.ModelProto) -> Any:
    """The network that TensorRT parses from a graph, and the objects that must live as long as it."""
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network()
    parser = trt.OnnxParser(network, log)
    assert parser.parse(graph.SerializeToString()), parser.get_error(0).desc()
    return network, (log, builder, parser)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:int8 is calibrated with only")
@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_builds_every_precision_of_an_imagenet_variant(
    tmp_path: Path, precision: str, built_graphs: list[onnx.ModelProto], image_folder: Path
) -> None:
    made = to_tensorrt.export_tensorrt(
        variant="1.5m", weights="random", precision=precision, artifacts=tmp_path, calibration=image_folder
    )
    assert made.folder == tmp_path / "1.5m-random" / f"tensorrt-{precision}"
    assert sorted(file.name for file in made.folder.iterdir()) == ["manifest.json", "model.engine"]
    assert made.size_bytes > 3_000_000

    network, owners = parsed(built_graphs[0])
    image, logits = network.get_input(0), network.get_output(0)
    assert (image.name, image.dtype, tuple(image.shape)) == ("image", trt.uint8, (1, 224, 224, 3))
    assert (logits.name, logits.dtype, tuple(logits.shape)) == ("logits", trt.float32, (1, 1000))
    convolutions = [layer for layer in network if layer.type == trt.LayerType.CONVOLUTION]
    assert len(convolutions) == 13
    computed_in = trt.float16 if precision == "fp16" else trt.float32
    assert {layer.get_input(0).dtype for layer in convolutions} == {computed_in}
    quantized = sum(layer.type == trt.LayerType.QUANTIZE for layer in network)
    assert (quantized >= len(convolutions)) == (precision == "int8")
    del network, owners

    manifest = artifacts.read(made.folder).manifest
    assert manifest.target is not None
    assert manifest.target["builder"] == "tensorrt-rtx"
    assert manifest.target["version"] == trt.__version__
    assert manifest.measured["engine"].startswith("built, not run: this engine needs an NVIDIA GPU")
    assert "ONNX graph" in manifest.measured["checked"]
    assert manifest.measured["agreement"]["cosine_min"] > {"fp32": 0.99999, "fp16": 0.999, "int8": 0.9}[precision]
    assert (manifest.calibration is not None) == (precision == "int8")
    with pytest.raises(BackendUnavailable, match="needs an NVIDIA GPU") as caught:
        runtimes.load(made.folder)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_int8_loses_at_most_half_a_point_of_top1(make_artifact: MakeArtifact) -> None:
    measured = make_artifact("tensorrt", "int8").manifest.measured
    assert measured["accuracy"]["images"] >= 1000
    assert measured["accuracy"]["drop_points"] <= 0.5


@pytest.mark.usefixtures("without_gpu")
def test_dynamic_float32_batch_for_one_target(tmp_path: Path) -> None:
    made = to_tensorrt.export_tensorrt(
        variant="cifar-310k",
        weights="random",
        precision="fp16",
        input="float32",
        batch=None,
        targets=["sm86"],
        artifacts=tmp_path,
    )
    assert made.manifest.target is not None
    assert made.manifest.target["batch"] == {"smallest": 1, "preferred": 8, "largest": 64}
    assert made.manifest.target["compute_capabilities"] == ["sm86"]
    assert made.manifest.input.shape == (None, 3, 32, 32)


@pytest.mark.usefixtures("without_gpu")
def test_fixed_batch_is_checked_in_padded_batches(tmp_path: Path) -> None:
    made = to_tensorrt.export_tensorrt(variant="cifar-310k", weights="random", batch=5, artifacts=tmp_path)
    assert made.manifest.measured["agreement"]["images"] % 5  # the last batch was padded
    assert made.manifest.measured["agreement"]["cosine_min"] > 0.99999


def test_failed_export_leaves_the_old_engine(
    tmp_path: Path, without_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"variant": "cifar-310k", "weights": "random", "artifacts": tmp_path}
    made = to_tensorrt.export_tensorrt(**options)
    before = made.model_file.read_bytes()
    with pytest.raises(ExportError, match="sm75 supports --precision fp16 only"):
        to_tensorrt.export_tensorrt(**options, targets=["sm75"])
    monkeypatch.setattr(to_tensorrt, "_run_on_cpu", lambda *_: np.zeros((16, 10), np.float32))
    with pytest.raises(ExportError, match="disagrees"):
        to_tensorrt.export_tensorrt(**options)
    assert artifacts.read(made.folder).model_file.read_bytes() == before
    assert [folder.name for folder in made.folder.parent.iterdir()] == ["tensorrt-fp32"]


def test_manifest_records_that_the_gpu_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "first_gpu", lambda _purpose: gpu.Gpu("Fake Hopper", "sm90"))
    made = to_tensorrt.export_tensorrt(
        variant="cifar-310k", weights="random", builder="tensorrt-rtx", targets=["sm86"], artifacts=tmp_path
    )
    assert made.manifest.measured["engine"] == "built, not run: this machine's GPU is sm90, the engine is for sm86"


def test_engine_must_run_if_its_gpu_is_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "first_gpu", lambda _purpose: gpu.Gpu("Fake RTX", "sm00"))
    monkeypatch.setattr(
        tensorrt_engine, "_describe", lambda *_: {"builder": "tensorrt-rtx", "compute_capabilities": ["sm00"]}
    )
    with pytest.raises(BackendError):  # there is no such GPU: the engine cannot run
        to_tensorrt.export_tensorrt(variant="cifar-310k", weights="random", builder="tensorrt-rtx", artifacts=tmp_path)
    assert not any(tmp_path.rglob("model.engine"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"precision": "bf16"}, "bf16"),
        ({"builder": "tvm"}, "unknown builder"),
        ({"targets": ["sm87"], "builder": "tensorrt-rtx"}, "cannot build for 'sm87'"),
        ({"batch": 0}, "batch"),
    ],
)
def test_rejects_invalid_options_before_any_work(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    steps: list[str] = []
    options: dict[str, Any] = {"variant": "cifar-310k", "weights": "random", "artifacts": tmp_path} | wrong
    with pytest.raises(UsageError, match=message):
        to_tensorrt.export_tensorrt(**options, progress=steps.append)
    assert steps == []
    assert list(tmp_path.iterdir()) == []


def test_prints_json(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--variant", "cifar-310k", "--weights", "random", "--json"]
    assert to_tensorrt.main([*flags, "--builder", "tensorrt-rtx", "--target", "SM89, sm120"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["manifest"]["target"]["compute_capabilities"] == ["sm89", "sm120"]
    assert (tmp_path / result["folder"] / "model.engine").stat().st_size == result["size_bytes"]


@pytest.mark.usefixtures("without_gpu")
def test_prints_gpus_and_what_was_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--variant", "cifar-310k", "--weights", "random", "--target", "sm86", "--artifacts", str(tmp_path)]
    assert to_tensorrt.main(flags) == 0
    out = capsys.readouterr().out
    for part in (
        "only for sm86 with tensorrt-rtx",
        "built, not run: this engine needs an NVIDIA GPU",
        "Orin (sm87) and Hopper (sm90)",
    ):
        assert part in out


@pytest.mark.parametrize("target", ["", "ampere", "sm8x", "sm86,,sm89"])
def test_unknown_target_lists_the_supported_ones(target: str) -> None:
    with pytest.raises(UsageError, match=r"cannot build for .*, only for sm75, .*sm86"):
        to_tensorrt.main(["--builder", "tensorrt-rtx", "--target", target])
