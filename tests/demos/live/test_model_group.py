"""Several models answer the same frame, in turn, and each is held against the first."""

from __future__ import annotations

import numpy as np
import pytest

import runtimes
from demos.live import model_group as model_groups
from demos.live.latency_window import KEPT_SAMPLES
from demos.live.model_group import ModelGroup, Record
from simplenet import datasets
from simplenet.errors import BackendError, SimpleNetError, UsageError
from tests.conftest import MakeArtifact
from tests.demos.live.conftest import ParseFlags


def pictures(count: int) -> list[np.typing.NDArray[np.uint8]]:
    return list(datasets.shipped("fashion-mnist", "evaluation").images[:count])


def test_every_model_gives_its_own_answer_and_says_whether_it_agrees(make_artifact: MakeArtifact) -> None:
    reference = runtimes.load(make_artifact("onnx", "fp32"), threads=1)
    other = runtimes.load(make_artifact("onnx", "int8"), threads=1)
    images = pictures(70)
    with ModelGroup([reference, other], top=3) as model_group:
        agreed = 0
        for image in images:
            (first, second), preprocess_ms, post_ms = model_group.answer(image)
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


def test_the_order_rotates_so_that_nobody_always_pays_for_the_one_before(make_artifact: MakeArtifact) -> None:
    turns: list[str] = []

    def watched(format: str, precision: str) -> runtimes.Runtime:
        model = runtimes.load(make_artifact(format, precision), threads=1)
        infer = model.infer_any
        model.infer_any = lambda batch: (turns.append(precision), infer(batch))[1]  # type: ignore[method-assign]
        return model

    with ModelGroup([watched("onnx", "fp32"), watched("onnx", "int8"), watched("onnx", "fp16")]) as model_group:
        for image in pictures(3):
            model_group.answer(image)
    assert [turns[i : i + 3] for i in (0, 3, 6)] == [
        ["fp32", "int8", "fp16"],
        ["int8", "fp16", "fp32"],
        ["fp16", "fp32", "int8"],
    ]


def test_what_is_timed_while_others_load_is_not_kept(make_artifact: MakeArtifact) -> None:
    with ModelGroup([runtimes.load(make_artifact("onnx", "fp32"), threads=1)]) as model_group:
        (image,) = pictures(1)
        model_group.answer(image, keep=False)
        assert model_group.records["onnxruntime fp32"].infer.summary() is None
        model_group.answer(image)
        latency = model_group.records["onnxruntime fp32"].infer.summary()
    assert latency is not None
    assert latency.n == 1


def test_a_loop_of_weeks_keeps_a_bounded_number_of_samples_but_counts_all() -> None:
    record = Record("one")
    for _ in range(KEPT_SAMPLES + 50):
        record.add(1.0, agrees=True)
    record.add(1.0, agrees=False)
    latency = record.infer.summary()
    assert latency is not None
    assert latency.n == KEPT_SAMPLES
    assert record.compared == KEPT_SAMPLES + 51
    assert record.agrees_percent == pytest.approx(100 * (KEPT_SAMPLES + 50) / (KEPT_SAMPLES + 51))


def test_one_backend_may_spin_several_may_not_and_get_equal_threads(parse_flags: ParseFlags) -> None:
    with model_groups.load(parse_flags(), ["onnxruntime"], lambda line: None) as model_group:
        assert [model.options.allow_spinning for model in model_group.models] == [True]
    with model_groups.load(parse_flags(), ["onnxruntime", "openvino"], lambda line: None) as model_group:
        assert [model.options.allow_spinning for model in model_group.models] == [False, False]
        assert [model.threads for model in model_group.models] == [1, 1]


def test_who_cannot_run_is_left_out_with_its_reason_unless_it_is_the_only_one(
    parse_flags: ParseFlags,
) -> None:
    with model_groups.load(
        parse_flags("--precision", "bf16"), ["onnxruntime", "torch"], lambda line: None
    ) as model_group:
        assert [model.name for model in model_group.models] == ["torch"]
        assert len(model_group.skipped) == 1
        assert model_group.skipped[0].startswith("without onnxruntime: onnxruntime does not compute in bf16")
    with pytest.raises(UsageError, match="does not compute in bf16; choose --backend"):
        model_groups.load(parse_flags("--precision", "bf16"), ["onnxruntime"], lambda line: None)
    with pytest.raises(SimpleNetError, match=r"none of these backends can run here.*tensorrt"):
        model_groups.load(parse_flags("--precision", "bf16"), ["onnxruntime", "tensorrt"], lambda line: None)
    of_mnist = parse_flags("--weights", "mnist", "--precision", "int8")  # which brings no pictures to calibrate with
    with pytest.raises(SimpleNetError, match=r"^int8 needs images .*--calibration DIR$"):
        model_groups.load(of_mnist, ["onnxruntime", "openvino"], lambda line: None)
    with pytest.raises(SimpleNetError, match=r"without onnxruntime: .*--calibration DIR; without torch: "):
        model_groups.load(of_mnist, ["onnxruntime", "torch"], lambda line: None)


def test_what_should_be_known_of_a_model_is_noted(parse_flags: ParseFlags, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")  # imported before, so that its threads cannot be made to rest
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with model_groups.load(parse_flags(), ["onnxruntime", "torch"], lambda line: None) as model_group:
        assert len(model_group.notes) == 1
        assert model_group.notes[0].startswith("torch fp32: idle threads spin")


def test_a_model_that_answers_nonsense_is_an_error(make_artifact: MakeArtifact) -> None:
    model = runtimes.load(make_artifact("onnx", "fp32"), threads=1)
    model.infer_any = lambda batch: np.full((1, 10), np.nan, np.float32)  # type: ignore[method-assign]
    with ModelGroup([model]) as model_group, pytest.raises(BackendError, match="NaN"):
        model_group.answer(pictures(1)[0])
