"""Model configs: what commands may change, and loading in the background."""

from __future__ import annotations

from dataclasses import replace

import pytest

import runtimes
from demos.live.model_config import ModelConfig, ModelLoader
from runtimes.loader import backend_class
from simplenet import variants
from simplenet.errors import BackendUnavailable, SimpleNetError, UsageError
from tests.conftest import MakeArtifact
from tests.demos.live.conftest import MakeConfig


def quiet(line: str) -> None:
    """Log nothing."""


def test_defaults_are_named_once_loaded(make_config: MakeConfig) -> None:
    config = make_config()
    assert config.selected() == {"backend": [], "precision": None, "variant": "cifar-310k"}
    loaded, model_group = config.load(quiet)
    with model_group:
        assert loaded.selected() == {"backend": ["onnxruntime"], "precision": "fp32", "variant": "cifar-310k"}
        assert loaded.choices()["backend"][0] == "torch"
        assert loaded.choices()["precision"] == ["fp32", "fp16", "int8"]
        assert loaded.choices()["variant"] == list(variants.VARIANTS)


def test_generated_scene_has_its_own_default_model(make_config: MakeConfig) -> None:
    named = make_config("--variant", "cifar-5m", "--weights", "auto")
    assert named.for_generated_scene() == named
    unnamed = replace(named, request=replace(named.request, variant=None))
    assert unnamed.for_generated_scene().request.weights == "fashion-mnist"


def test_next_value_cycles_and_skips_excluded_ones(make_config: MakeConfig) -> None:
    config, model_group = make_config("--backend", "onnxruntime").load(quiet)
    model_group.close()
    names = config.choices()["backend"]
    assert sorted(names) == list(runtimes.names())
    excluded = names[(names.index("onnxruntime") + 1) % len(names)]
    for unavailable in ([], [excluded]):

        def is_excluded(other: ModelConfig, unavailable: list[str] = unavailable) -> bool:
            return other.backends[0] in unavailable

        seen, current = [], config
        for _ in range(len(names) - len(unavailable)):
            current = current.next_value("backend", is_excluded)
            seen += current.selected()["backend"]
        assert seen[-1] == "onnxruntime"
        assert sorted(seen) == sorted(set(names) - set(unavailable))
    in_fp16 = config.next_value("precision")
    assert in_fp16.request.precision == "fp16"
    assert in_fp16.next_value("precision").next_value("precision").request.precision == "fp32"
    skipping_int8 = in_fp16.next_value("precision", lambda other: other.request.precision == "int8")
    assert skipping_int8.request.precision == "fp32"
    with pytest.raises(SimpleNetError, match="no other precision is available here"):
        in_fp16.next_value("precision", lambda other: True)


def test_backend_without_current_precision_uses_its_first(make_config: MakeConfig) -> None:
    config = make_config("--backend", "onnxruntime", "--precision", "int8")
    assert config.with_value("backend", "torch").request.precision == "fp32"
    assert config.with_value("backend", "openvino").request.precision == "int8"
    assert config.with_value("backend", "openvino,torch").request.precision == "int8"  # torch is skipped and reported


@pytest.mark.parametrize(
    ("kind", "value", "complaint"),
    [
        ("backend", "openvno", "did you mean 'openvino'"),
        ("backend", "torch,,x", "unknown backend"),
        ("precision", "int4", "unknown precision 'int4'"),
        ("variant", "2m", "unknown variant '2m'"),
    ],
)
def test_unknown_value_is_rejected_before_loading(
    make_config: MakeConfig, kind: str, value: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        make_config("--backend", "onnxruntime").with_value(kind, value)


def test_other_variant_leaves_out_preprocessing_flags(make_config: MakeConfig) -> None:
    config = make_config("--weights", "cifar10", "--size", "48")
    assert config.with_value("backend", "torch").request.overrides.size == 48
    other = config.with_value("variant", "cifar-5m").request
    assert (other.variant, other.weights, other.overrides.flags) == ("cifar-5m", "auto", "")


def test_artifact_can_change_backend_but_not_model(make_artifact: MakeArtifact, make_config: MakeConfig) -> None:
    unnamed = make_config()
    request = replace(unnamed.request, artifact=make_artifact("onnx", "fp32").folder, variant=None, weights="auto")
    config, model_group = replace(unnamed, request=request).load(quiet)
    model_group.close()
    opening_onnx = [name for name in runtimes.names() if "onnx" in backend_class(name).FORMATS]
    assert {"onnxruntime", "openvino"} <= set(opening_onnx)
    assert config.choices() == {"backend": opening_onnx, "precision": ["fp32"], "variant": ["cifar-310k"]}
    other, model_group = config.with_value("backend", "openvino").load(quiet)
    with model_group:
        assert other.selected()["backend"] == ["openvino"]
        assert other.choices()["precision"] == ["fp32", "bf16"]
    with pytest.raises(UsageError, match="leave out --artifact"):
        config.with_value("variant", "1.5m")


def test_abandoned_load_closes_its_models(make_config: MakeConfig) -> None:
    config = make_config("--backend", "onnxruntime")
    loader = ModelLoader(config, quiet)
    loaded, model_group = loader.future.result(60)
    assert loaded.selected()["backend"] == ["onnxruntime"]
    loader.abandon()
    with pytest.raises(runtimes.base.BackendError, match="closed"):
        model_group.warm_up()

    failed = ModelLoader(config.with_value("backend", "tensorrt"), quiet)
    with pytest.raises(BackendUnavailable):
        failed.future.result(60)
    failed.abandon()
