"""What a key or the page may ask for, and what it becomes."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

import runtimes
from demos.live.model_config import ModelConfig, ModelLoader
from runtimes.loader import backend_class
from simplenet import variants
from simplenet.errors import BackendUnavailable, SimpleNetError, UsageError
from tests.conftest import MakeArtifact
from tests.demos.live.conftest import ParseFlags


def test_what_the_flags_left_open_is_known_once_it_is_loaded(parse_flags: ParseFlags) -> None:
    selection = ModelConfig.from_arguments(parse_flags())
    assert selection.selected() == {"backend": [], "precision": None, "variant": "cifar-310k"}
    loaded, model_group = selection.load(lambda line: None)
    with model_group:
        assert loaded.selected() == {"backend": ["onnxruntime"], "precision": "fp32", "variant": "cifar-310k"}
        assert loaded.choices()["backend"][0] == "torch"
        assert loaded.choices()["precision"] == ["fp32", "fp16", "int8"]
        assert loaded.choices()["variant"] == list(variants.VARIANTS)


def test_keys_go_round_and_pass_over_what_cannot_run_here(parse_flags: ParseFlags) -> None:
    selection, model_group = ModelConfig.from_arguments(parse_flags("--backend", "onnxruntime")).load(lambda line: None)
    model_group.close()
    names = selection.choices()["backend"]
    assert sorted(names) == list(runtimes.names())
    cannot = names[(names.index("onnxruntime") + 1) % len(names)]
    for unavailable in ([], [cannot]):

        def is_refused(other: ModelConfig, unavailable: list[str] = unavailable) -> bool:
            return other.backends[0] in unavailable

        seen, at = [], selection
        for _ in range(len(names) - len(unavailable)):
            at = at.next_backend(is_refused)
            seen += at.selected()["backend"]
        assert seen[-1] == "onnxruntime"
        assert sorted(seen) == sorted(set(names) - set(unavailable))
    precisions = [selection.next_precision(), selection.next_precision().next_precision().next_precision()]
    assert [other.precision for other in precisions] == ["fp16", "fp32"]
    in_fp16 = selection.with_precision("fp16")
    assert in_fp16.next_precision(lambda other: other.precision == "int8").precision == "fp32"
    with pytest.raises(SimpleNetError, match="no other precision can be had here"):
        in_fp16.next_precision(lambda other: True)


def test_a_backend_without_the_precision_at_hand_starts_with_its_first(parse_flags: ParseFlags) -> None:
    selection = ModelConfig.from_arguments(parse_flags("--backend", "onnxruntime", "--precision", "int8"))
    assert selection.with_backends("torch").precision == "fp32"
    assert selection.with_backends("openvino").precision == "int8"
    assert selection.with_backends("openvino,torch").precision == "int8"  # torch is left out, and that is said


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda selection: selection.with_backends("openvno"), "did you mean 'openvino'"),
        (lambda selection: selection.with_backends("torch,,x"), "unknown backend"),
        (lambda selection: selection.with_precision("int4"), "unknown precision 'int4'"),
        (lambda selection: selection.with_variant("2m"), "unknown variant '2m'"),
    ],
)
def test_the_unknown_is_refused_before_anything_is_loaded(
    parse_flags: ParseFlags, change: Callable[[ModelConfig], ModelConfig], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        change(ModelConfig.from_arguments(parse_flags("--backend", "onnxruntime")))


def test_an_artifact_can_change_its_backend_but_not_its_model(
    make_artifact: MakeArtifact, parse_flags: ParseFlags
) -> None:
    folder = str(make_artifact("onnx", "fp32").folder)
    flags = argparse.Namespace(**{**vars(parse_flags()), "artifact": folder, "variant": None, "weights": "auto"})
    selection, model_group = ModelConfig.from_arguments(flags).load(lambda line: None)
    model_group.close()
    opening_onnx = [name for name in runtimes.names() if "onnx" in backend_class(name).FORMATS]
    assert {"onnxruntime", "openvino"} <= set(opening_onnx)
    assert selection.choices() == {"backend": opening_onnx, "precision": ["fp32"], "variant": ["cifar-310k"]}
    other, model_group = selection.with_backends("openvino").load(lambda line: None)
    with model_group:
        assert other.selected()["backend"] == ["openvino"]
        assert other.choices()["precision"] == ["fp32", "bf16"]
    with pytest.raises(UsageError, match="leave out --artifact"):
        selection.with_variant("1.5m")


def test_a_switch_loads_beside_the_loop_and_closes_what_nobody_wants_any_more(parse_flags: ParseFlags) -> None:
    selection = ModelConfig.from_arguments(parse_flags("--backend", "onnxruntime"))
    switch = ModelLoader(selection, lambda line: None)
    switch.join(60)
    loaded, model_group = switch.result()
    assert loaded.selected()["backend"] == ["onnxruntime"]
    switch.abandon()
    with pytest.raises(runtimes.base.BackendError, match="closed"):
        model_group.warm_up()

    failed = ModelLoader(selection.with_backends("tensorrt"), lambda line: None)
    failed.join(60)
    with pytest.raises(BackendUnavailable):
        failed.result()
    failed.abandon()
