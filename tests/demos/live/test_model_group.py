"""Several models classify the same frame, in rotated order, and are compared with the first."""

from __future__ import annotations

import numpy as np
import pytest

import runtimes
from demos.live.model_config import ModelConfig
from demos.live.model_group import ModelGroup, ModelStats
from demos.live.stage_timer import KEPT_SAMPLES
from simplenet import datasets
from simplenet.errors import BackendError, SimpleNetError, UsageError
from tests.conftest import MakeArtifact
from tests.demos.live.conftest import MakeConfig


def load(config: ModelConfig) -> ModelGroup:
    return config.load(lambda line: None)[1]


def shipped_images(count: int) -> list[np.typing.NDArray[np.uint8]]:
    return list(datasets.shipped("fashion-mnist", "evaluation").images[:count])


def test_every_model_classifies_and_is_compared(make_artifact: MakeArtifact) -> None:
    reference = runtimes.load(make_artifact("onnx", "fp32"), threads=1)
    other = runtimes.load(make_artifact("onnx", "int8"), threads=1)
    images = shipped_images(70)
    with ModelGroup([reference, other], top_k=3) as model_group:
        agreed = 0
        for image in images:
            (first, second), preprocess_ms, post_ms = model_group.classify(image)
            assert list(first.predictions) == reference.classify([image], k=3)[0]
            assert list(second.predictions) == other.classify([image], k=3)[0]
            assert first.agrees is None
            assert second.agrees == (second.predictions[0].index == first.predictions[0].index)
            agreed += bool(second.agrees)
            assert min(first.infer_ms, second.infer_ms, preprocess_ms, post_ms) > 0
        states = model_group.state()
    assert [state["name"] for state in states] == ["onnxruntime fp32", "onnxruntime int8"]
    assert [state["agrees_percent"] for state in states] == [None, pytest.approx(100 * agreed / len(images))]
    assert all(len(state["recent_infer_ms"]) == 60 and state["infer_p90_ms"] for state in states)
    assert {state["threads"] for state in states} == {1}


def test_order_of_models_rotates(make_artifact: MakeArtifact) -> None:
    order: list[str] = []

    def watched(format: str, precision: str) -> runtimes.Runtime:
        model = runtimes.load(make_artifact(format, precision), threads=1)
        infer = model.infer_any
        model.infer_any = lambda batch: (order.append(precision), infer(batch))[1]  # type: ignore[method-assign]
        return model

    with ModelGroup([watched("onnx", "fp32"), watched("onnx", "int8"), watched("onnx", "fp16")]) as model_group:
        for image in shipped_images(3):
            model_group.classify(image)
    assert [order[i : i + 3] for i in (0, 3, 6)] == [
        ["fp32", "int8", "fp16"],
        ["int8", "fp16", "fp32"],
        ["fp16", "fp32", "int8"],
    ]


def test_latency_during_loading_is_not_kept(make_artifact: MakeArtifact) -> None:
    with ModelGroup([runtimes.load(make_artifact("onnx", "fp32"), threads=1)]) as model_group:
        (image,) = shipped_images(1)
        model_group.classify(image, keep=False)
        assert model_group.stats["onnxruntime fp32"].infer.summary() is None
        model_group.classify(image)
        latency = model_group.stats["onnxruntime fp32"].infer.summary()
    assert latency is not None
    assert latency.n == 1


def test_samples_are_bounded_but_all_are_counted() -> None:
    stats = ModelStats("one")
    for _ in range(KEPT_SAMPLES + 50):
        stats.add(1.0, agrees=True)
    stats.add(1.0, agrees=False)
    latency = stats.infer.summary()
    assert latency is not None
    assert latency.n == KEPT_SAMPLES
    assert stats.compared == KEPT_SAMPLES + 51
    assert stats.agrees_percent == pytest.approx(100 * (KEPT_SAMPLES + 50) / (KEPT_SAMPLES + 51))


def test_several_models_share_threads_and_do_not_spin(make_config: MakeConfig) -> None:
    with load(make_config("--backend", "onnxruntime")) as model_group:
        assert [model.options.allow_spinning for model in model_group.models] == [True]
    with load(make_config("--backend", "onnxruntime,openvino")) as model_group:
        assert [model.options.allow_spinning for model in model_group.models] == [False, False]
        assert [model.threads for model in model_group.models] == [1, 1]


def test_backend_that_cannot_run_is_skipped_with_reason(make_config: MakeConfig) -> None:
    bf16 = ("--precision", "bf16", "--backend")
    with load(make_config(*bf16, "onnxruntime,torch")) as model_group:
        assert [model.name for model in model_group.models] == ["torch"]
        assert len(model_group.skipped) == 1
        assert model_group.skipped[0].startswith("without onnxruntime: onnxruntime does not run in bf16")
    with pytest.raises(UsageError, match=r"does not run in bf16; choose --precision .* or --backend"):
        load(make_config(*bf16, "onnxruntime"))
    with pytest.raises(SimpleNetError, match=r"none of these backends can run here.*tensorrt"):
        load(make_config(*bf16, "onnxruntime,tensorrt"))
    mnist_int8 = ("--weights", "mnist", "--precision", "int8", "--backend")  # weights without calibration images
    with pytest.raises(SimpleNetError, match=r"^int8 needs .*--calibration DIR$"):
        load(make_config(*mnist_int8, "onnxruntime,openvino"))
    with pytest.raises(SimpleNetError, match=r"without onnxruntime: .*--calibration DIR; without torch: "):
        load(make_config(*mnist_int8, "onnxruntime,torch"))


def test_notes_of_backends_are_passed_on(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")  # imported before, so that its threads cannot be made to rest
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with load(make_config("--backend", "onnxruntime,torch")) as model_group:
        assert len(model_group.notes) == 1
        assert model_group.notes[0].startswith("torch fp32: idle threads spin")


def test_rejects_nan_logits(make_artifact: MakeArtifact) -> None:
    model = runtimes.load(make_artifact("onnx", "fp32"), threads=1)
    model.infer_any = lambda batch: np.full((1, 10), np.nan, np.float32)  # type: ignore[method-assign]
    with ModelGroup([model]) as model_group, pytest.raises(BackendError, match="NaN"):
        model_group.classify(shipped_images(1)[0])
