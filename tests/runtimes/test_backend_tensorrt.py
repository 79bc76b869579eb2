"""The TensorRT backend: without a GPU, on a fake GPU that records the calls, and on an NVIDIA GPU."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
from runtimes import gpu
from simplenet import artifacts, datasets
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError, BackendError, BackendUnavailable, UsageError
from simplenet.manifest import InputSpec, Manifest, WeightsOrigin
from simplenet.preprocessing import Preprocessing
from tests.conftest import MakeArtifact
from tests.runtimes.fake_nvidia import CLASSES, SIDE, FakeNvidia, expected_logits

BUILDERS = pytest.mark.parametrize("builder", gpu.TENSORRTS)
TARGET: dict[str, Any] = {"builder": "tensorrt", "version": "10.98", "os": "Linux", "compute_capabilities": ["sm87"]}


def no_gpu() -> str | None:
    """Why this machine cannot run an engine, or None if it can."""
    try:
        gpu.first_gpu("this test")
    except BackendUnavailable as error:
        return str(error)
    return None


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> FakeNvidia:
    fake = FakeNvidia()
    fake.install(monkeypatch)
    return fake


def engine(folder: Path, batch: int | None = 1, target: dict[str, Any] | None = TARGET) -> Artifact:
    (folder / "model.engine").write_bytes(b"not an engine")
    manifest = Manifest(
        variant="cifar-310k",
        format="tensorrt",
        precision="fp16",
        weights=WeightsOrigin("shipped", "pretend", "0" * 64),
        num_classes=CLASSES,
        input=InputSpec("image", "uint8", "NHWC", SIDE, SIDE, batch),
        preprocessing=Preprocessing(SIDE, SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        target=target,
    )
    return artifacts.write_manifest(folder, manifest)


def images(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


# Without a GPU


@pytest.mark.skipif(no_gpu() is None, reason="there is a GPU here")
@BUILDERS
def test_without_a_gpu_loading_reports_it(tmp_path: Path, builder: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"needs an NVIDIA GPU and driver to run") as caught:
        runtimes.load(engine(tmp_path, target=TARGET | {"builder": builder}))
    assert "\n" not in str(caught.value)


def test_rejects_device_cpu(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cuda"):
        runtimes.load(engine(tmp_path), device="cpu")


@pytest.mark.parametrize("target", [None, {}, {"builder": "tvm"}, {"builder": ["tensorrt"]}])
def test_rejects_manifest_with_unknown_builder(tmp_path: Path, target: dict[str, Any] | None) -> None:
    with pytest.raises(ArtifactError, match="names an unknown builder"):
        runtimes.load(engine(tmp_path, target=target))


# On a fake GPU


@BUILDERS
def test_fixed_batch_runs_as_one_cuda_graph(tmp_path: Path, nvidia: FakeNvidia, builder: str) -> None:
    with runtimes.load(engine(tmp_path, target=TARGET | {"builder": builder})) as model:
        assert model.describe().notes == ("CUDA graph",)
        assert model.describe().device == "Fake GPU (sm86)"
        before = nvidia.count("execute_async_v3")
        results = [model.infer(images(1, seed)) for seed in range(3)]
        assert nvidia.count("cudaGraphLaunch") == 3
        assert nvidia.count("execute_async_v3") == before == 2  # TensorRT's setup run, and the capture
        nvidia.fail["cudaStreamSynchronize"] = 700  # earlier results belong to the caller
    for seed, logits in enumerate(results):
        np.testing.assert_allclose(logits, expected_logits(images(1, seed)), rtol=1e-6)


@pytest.mark.parametrize("how", ["capturable", "execute", "begin", "end", "instantiate"])
def test_runs_without_cuda_graph_if_capture_fails(tmp_path: Path, nvidia: FakeNvidia, how: str) -> None:
    nvidia.capturable = how != "capturable"
    nvidia.refuse_while_recording = how == "execute"
    names = {"begin": "cudaStreamBeginCapture", "end": "cudaStreamEndCapture", "instantiate": "cudaGraphInstantiate"}
    if how in names:
        nvidia.fail[names[how]] = 900
    with runtimes.load(engine(tmp_path)) as model:
        assert model.describe().notes[0].startswith("no CUDA graph: ")
        for seed in range(2):
            np.testing.assert_allclose(model.infer(images(1, seed)), expected_logits(images(1, seed)), rtol=1e-6)
    assert nvidia.count("cudaGraphLaunch") == 0
    assert nvidia.alive == {}


@pytest.mark.parametrize("sizes", [[1], [4], [3, 3, 1], [9], [8, 2]])
def test_dynamic_batch_is_reshaped_on_change_and_split(tmp_path: Path, nvidia: FakeNvidia, sizes: list[int]) -> None:
    nvidia.batch = -1
    with runtimes.load(engine(tmp_path, batch=None)) as model:
        assert model.describe().notes == ("no CUDA graph: the batch is dynamic",)
        for size in sizes:
            np.testing.assert_allclose(model.infer(images(size)), expected_logits(images(size)), rtol=1e-6)
    shapings = {(1,): 1, (4,): 1, (3, 3, 1): 2, (9,): 2, (8, 2): 2}
    assert nvidia.count("set_input_shape") == shapings[tuple(sizes)]


def test_threads_get_their_own_results(tmp_path: Path, nvidia: FakeNvidia) -> None:
    with runtimes.load(engine(tmp_path)) as model, ThreadPoolExecutor(8) as pool:
        for seed, logits in enumerate(pool.map(lambda seed: model.infer(images(1, seed)), range(64))):
            np.testing.assert_allclose(logits, expected_logits(images(1, seed)), rtol=1e-6)


@BUILDERS
def test_close_frees_everything_once(tmp_path: Path, nvidia: FakeNvidia, builder: str) -> None:
    model = runtimes.load(engine(tmp_path, target=TARGET | {"builder": builder}))
    # Stream, two host and two GPU buffers, graph; for TensorRT-RTX also the context's memory.
    assert len(nvidia.alive) == {"tensorrt": 6, "tensorrt-rtx": 7}[builder]
    model.close()
    freed = len(nvidia.calls)
    model.close()
    assert nvidia.alive == {}
    assert len(nvidia.calls) == freed
    with pytest.raises(BackendError, match="closed"):
        model.infer(images(1))


@BUILDERS
def test_any_failing_cuda_call_frees_everything(tmp_path: Path, nvidia: FakeNvidia, builder: str) -> None:
    artifact = engine(tmp_path, target=TARGET | {"builder": builder})
    runtimes.load(artifact).close()
    calls, outcomes = nvidia.calls.index("cudaGraphExecDestroy"), []
    for nvidia.fail_at in range(calls):
        nvidia.calls.clear()
        nvidia.queue.clear()
        try:
            runtimes.load(artifact).close()
            outcomes.append("opened")  # only the graph failed, or this was no CUDA call
        except BackendError as error:
            outcomes.append(str(error))
        assert nvidia.alive == {}, nvidia.calls
    failures = [outcome for outcome in outcomes if outcome != "opened"]
    assert all("something went wrong (error 700)" in failure for failure in failures)
    assert len(failures) >= 9
    assert len(outcomes) - len(failures) >= 3


@pytest.mark.parametrize(
    "refused", ["create_execution_context", "set_tensor_address", "set_input_shape", "execute_async_v3"]
)
def test_any_failing_tensorrt_call_frees_everything(tmp_path: Path, nvidia: FakeNvidia, refused: str) -> None:
    nvidia.refuse.add(refused)
    with pytest.raises(BackendError, match="TensorRT gave no reason"):
        runtimes.load(engine(tmp_path))
    assert nvidia.alive == {}


def test_runs_again_after_a_failed_inference(tmp_path: Path, nvidia: FakeNvidia) -> None:
    nvidia.capturable = False
    with runtimes.load(engine(tmp_path)) as model:
        nvidia.refuse.add("execute_async_v3")
        with pytest.raises(BackendError, match="refused the inference"):
            model.infer(images(1))
        nvidia.refuse.clear()
        np.testing.assert_allclose(model.infer(images(1)), expected_logits(images(1)), rtol=1e-6)


@pytest.mark.parametrize(("built_for", "kind"), [("sm87", BackendUnavailable), ("sm86", BackendError)])
def test_engine_for_another_machine_names_both_machines(
    tmp_path: Path, nvidia: FakeNvidia, built_for: str, kind: type[Exception]
) -> None:
    nvidia.refuse.add("deserialize_cuda_engine")
    with pytest.raises(kind) as caught:
        runtimes.load(engine(tmp_path, target=TARGET | {"compute_capabilities": [built_for]}))
    parts = (
        "tensorrt 10.98",
        f"for {built_for}",
        "tensorrt 10.99",
        "Fake GPU (sm86)",
        "the plan is of another version",
    )
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert nvidia.alive == {}


@pytest.mark.parametrize("wrong", [{"batch": 2}, {"classes": CLASSES + 1}])
def test_rejects_engine_that_differs_from_its_manifest(
    tmp_path: Path, nvidia: FakeNvidia, wrong: dict[str, int]
) -> None:
    vars(nvidia).update(wrong)
    with pytest.raises(ArtifactError, match="as its manifest states"):
        runtimes.load(engine(tmp_path))
    assert nvidia.count("cudaMemcpyAsync") == 0
    assert nvidia.alive == {}


def test_full_gpu_memory_error_gives_advice(tmp_path: Path, nvidia: FakeNvidia) -> None:
    nvidia.fail["cudaMalloc"] = 2
    with pytest.raises(BackendError, match=r"out of memory .*--batch"):
        runtimes.load(engine(tmp_path))
    assert nvidia.alive == {}


@pytest.mark.parametrize(
    ("driver", "message"), [(0, "no NVIDIA driver"), (12040, "supports CUDA 12.4, .* needs 13.0"), (13000, "error 100")]
)
def test_distinguishes_missing_driver_old_driver_and_no_gpu(
    tmp_path: Path, nvidia: FakeNvidia, driver: int, message: str
) -> None:
    nvidia.device_count, nvidia.driver = 0, driver
    with pytest.raises(BackendUnavailable, match=f"needs an NVIDIA GPU and driver to run; .*{message}"):
        runtimes.load(engine(tmp_path))


@pytest.mark.usefixtures("nvidia")
def test_error_log_reports_the_first_error() -> None:
    trt = gpu.tensorrt("tensorrt")
    log = gpu.error_log(trt)
    for number in range(12):
        log.log(trt.ILogger.Severity.ERROR, f"error {number}")
    assert [log.reason(), log.reason()] == ["error 0", "TensorRT gave no reason"]


# On an NVIDIA GPU


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
class TestOnGpu:
    """tests/runtimes/test_contract.py runs there too, over every precision."""

    @pytest.fixture
    def made(self, make_artifact: MakeArtifact) -> Artifact:
        artifact = make_artifact("tensorrt", "fp16")
        if artifact.manifest.measured["engine"].startswith("built, not run"):
            pytest.skip(artifact.manifest.measured["engine"])
        return artifact

    def test_cuda_graph_and_plain_enqueueing_agree(self, made: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
        images = list(datasets.shipped("fashion-mnist", "evaluation").images[:100])
        with runtimes.load(made) as model:
            assert model.describe().notes == ("CUDA graph",)
            replayed = model.infer_any(model.preprocess(images))
            monkeypatch.setattr(model, "_graph", None)
            np.testing.assert_array_equal(model.infer_any(model.preprocess(images)), replayed)

    def test_rejects_truncated_engine(self, made: Artifact, tmp_path: Path) -> None:
        (tmp_path / "model.engine").write_bytes(made.model_file.read_bytes()[:1000])
        broken = artifacts.write_manifest(tmp_path, dataclasses.replace(made.manifest))
        with pytest.raises(BackendError, match="was built by"):
            runtimes.load(broken)
