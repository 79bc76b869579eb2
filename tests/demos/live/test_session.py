"""Commands are processed between two frames; models are loaded in the background."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from demos.default_models import Log
from demos.live import stage_timer
from demos.live.model_config import ModelConfig
from demos.live.sources.base import Frame
from simplenet.errors import ArtifactError, UsageError
from tests.demos.conftest import WriteVideo, shades
from tests.demos.live.conftest import MakeSession
from tests.demos.live.scenes import Still


def test_backend_changes_between_frames_without_losing_one(make_session: MakeSession, write_video: WriteVideo) -> None:
    clip = write_video("clip.avi", shades(40))
    session = make_session(str(clip), loop=True)
    session.subscribe(lambda result: session.command("backend", "openvino") if result.number == 5 else None)
    session.run_until(lambda: session.results[-1].model_results[0].backend == "openvino")
    assert [result.number for result in session.results] == list(range(1, len(session.results) + 1))
    shown = [int(result.frame.image[..., 0].mean() / 5 + 0.5) for result in session.results]
    assert all(abs(seen - index % 40) <= 1 for index, seen in enumerate(shown))
    assert {result.model_results[0].backend for result in session.results[:5]} == {"onnxruntime"}
    assert session.state()["selected"] == {"backend": ["openvino"], "precision": "fp32", "variant": "cifar-310k"}
    assert ("models", {"models": ["openvino fp32"], **session.state()["selected"]}) in session.events
    # The summary has both, without what was timed while the second one was loading.
    models = {model.name: model.infer.n for model in session.summary("q").models}
    assert set(models) == {"onnxruntime fp32", "openvino fp32"}
    assert models["onnxruntime fp32"] < len(session.results)


@pytest.mark.slow
def test_untrained_variant_is_marked(make_session: MakeSession) -> None:
    session = make_session("synthetic:160x120@60")
    session.run(max_frames=3)
    for name in ("cifar-5m", "cifar-460k"):  # only the newest request is loaded
        session.command("variant", name)
    session.run_until(lambda: not session.is_loading and len(session.results) > 4)
    state = session.state()
    assert (state["variant"], state["untrained"], state["selected"]["variant"]) == ("cifar-460k", True, "cifar-460k")
    assert any("UNTRAINED" in line for line in session.logged)
    assert [facts["variant"] for name, facts in session.events if name == "models"] == ["cifar-460k"]
    names = [model.name for model in session.summary("q").models]
    assert names == ["cifar-310k fashion-mnist onnxruntime fp32", "cifar-460k random onnxruntime fp32"]


def test_backends_classify_the_same_frames(make_session: MakeSession) -> None:
    session = make_session("synthetic:160x120@100", "--backend", "onnxruntime,openvino")
    assert session.run(max_frames=70) == "--max-frames"
    state = session.state()
    assert [model["name"] for model in state["models"]] == ["onnxruntime fp32", "openvino fp32"]
    assert state["models"][1]["compared"] == 70
    assert state["models"][1]["agrees_percent"] > 95
    assert state["sources"][0]["frame_age_p90_ms"] is not None
    assert (state["sources"][0]["width"], state["sources"][0]["height"]) == (160, 120)
    assert json.loads(json.dumps(state)) == state


def test_state_says_that_preprocessing_is_assumed(make_session: MakeSession) -> None:
    session = make_session("synthetic:160x120@60")
    session.run(max_frames=1)
    assert session.state()["preprocessing_doubt"] == ""
    model = session.model_group.models[0]
    model.manifest = dataclasses.replace(model.manifest, preprocessing_source="assumed for cifar-310k")
    assert session.state()["preprocessing_doubt"] == "preprocessing: assumed for cifar-310k"


def test_predictions_follow_the_scene(make_session: MakeSession) -> None:
    session, labels = make_session("synthetic:320x240@60"), set()

    def has_two_labels() -> bool:
        best = session.results[-1].model_results[0].predictions[0]
        labels.update([best.label] if best.probability > 0.8 else [])
        return len(labels) == 2

    session.run_until(has_two_labels)


def test_backend_that_cannot_run_is_reported(make_session: MakeSession) -> None:
    session = make_session("synthetic:160x120@60", "--backend", "torch")
    session.command("next-backend")
    session.command("backend", "tensorrt")
    session.run_until(lambda: any(name == "notice" for name, _ in session.events))
    notice = next(facts["text"] for name, facts in session.events if name == "notice")
    assert "\n" not in notice
    assert notice in session.logged
    assert not session.is_loading
    assert session.state()["notice"] == notice
    assert session.results[-1].model_results[0].backend in ("torch", "onnxruntime")
    session.command("next-backend")
    count = len(session.results)
    session.run_until(lambda: not session.is_loading and len(session.results) > count + 1)
    assert session.results[-1].model_results[0].backend != "tensorrt"


def test_precision_that_failed_is_skipped_next_time(make_session: MakeSession) -> None:
    session = make_session(
        "synthetic:160x120@60", "--backend", "onnxruntime", "--precision", "fp16", "--calibration", "/nowhere"
    )
    session.command("next-precision")
    session.run_until(lambda: any(name == "notice" for name, _ in session.events))
    assert "/nowhere" in session.logged[-1]
    assert session.state()["selected"]["precision"] == "fp16"
    session.command("next-precision")
    session.run_until(lambda: session.state()["selected"]["precision"] == "fp32")


def test_failed_backends_are_skipped_until_all_have_failed(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session("synthetic:160x120@60", "--backend", "onnxruntime")

    def damaged(config: ModelConfig, log: Log) -> None:
        raise ArtifactError(f"{config.backends[0]} is damaged")

    monkeypatch.setattr(ModelConfig, "load", damaged)
    others = [name for name in session.state()["choices"]["backend"] if name != "onnxruntime"]
    for press in range(len(others) + 2):
        session.command("next-backend")
        session.run_until(lambda count=press + 1: len(session.logged) >= count)
    reported = [line.partition(" ")[0] for line in session.logged]
    assert sorted(reported[: len(others)]) == sorted(others)
    assert session.logged[len(others)] == "no other backend is available here"
    assert reported[-1] == reported[0]


def test_pause_drops_no_frames(make_session: MakeSession) -> None:
    session = make_session("synthetic:160x120@60")
    session.run(max_frames=10)
    session.command("pause")
    threading.Timer(0.6, session.command, args=("pause",)).start()
    dropped = session.scheduler.sources[0].dropped
    before_s = time.perf_counter()
    session.run(max_frames=15)
    assert time.perf_counter() - before_s >= 0.6
    (resumed,) = [index for index, (name, _) in enumerate(session.events) if name == "resumed"]
    assert session.events[resumed - 1][0] == "paused"
    assert session.scheduler.sources[0].dropped < dropped + 20  # the 36 frames of the pause do not count as dropped


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("paus", None, "did you mean 'pause'"),
        ("pause", "please", "takes no value"),
        ("backend", None, "takes a value"),
        ("backend", "openvno", "did you mean 'openvino'"),
        ("precision", "int4", "unknown precision"),
        ("precision", "all", "unknown precision"),
        ("precision", "fp32,int8", "unknown precision"),
        ("variant", "../../etc", "unknown variant"),
        ("variant", "", "unknown variant"),
    ],
)
def test_rejects_unknown_command(make_session: MakeSession, name: str, value: str | None, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        make_session("synthetic:160x120@60").command(name, value)


def test_limits_waiting_commands(make_session: MakeSession) -> None:
    session = make_session("synthetic:160x120@60")
    for _ in range(100):
        session.command("help")
    with pytest.raises(UsageError, match="too many commands"):
        session.command("help")


def test_end_of_file_ends_the_loop(make_session: MakeSession, write_video: WriteVideo) -> None:
    session = make_session(str(write_video("clip.avi", shades(7))))
    assert session.run() == "end of file"
    (source,) = session.summary("end of file").sources
    assert (source.frames, source.dropped, source.frame_age, source.state) == (7, 0, None, "ended")
    assert {result.frame_age_ms for result in session.results} == {None}


def test_image_of_impossible_size_is_skipped(
    make_session: MakeSession, tmp_path: Path, write_video: WriteVideo
) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((2, 900, 3), np.uint8)).save(tmp_path / "a.png")  # 450 times as wide as high
    Image.fromarray(np.zeros((90, 90, 3), np.uint8)).save(tmp_path / "b.png")
    session = make_session(str(tmp_path))
    assert session.run() == "end of file"
    assert [result.frame.image.shape for result in session.results] == [(90, 90, 3)]
    assert "a.png" in str(session.scheduler.sources[0].note)


def test_browser_gets_the_current_model(make_session: MakeSession) -> None:
    session = make_session("synthetic:160x120@60", "--backend", "openvino")
    artifact = session.onnx_artifact()
    assert (artifact.manifest.format, artifact.manifest.precision) == ("onnx", "fp32")
    assert artifact.manifest.weights == session.model_group.models[0].manifest.weights


@pytest.mark.parametrize("shape", [(2, 4000, 3), (4000, 2, 3), (1, 900, 3)])
def test_rejected_frame_adds_no_time_to_the_next(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]
) -> None:
    clock = SimpleNamespace(now_s=0.0)
    clock.perf_counter = lambda: clock.now_s
    images = [np.zeros((48, 64, 3), np.uint8), np.zeros(shape, np.uint8), np.zeros((48, 64, 3), np.uint8)]

    class Slow(Still):
        """Takes 100 s for the frame that is rejected, and 1 s for the others."""

        def poll(self) -> Frame | None:
            if not images:
                self.state = "ended"
                return None
            image = images.pop()
            clock.now_s += 100 if image.shape == shape else 1
            return Frame(image, clock.now_s)

        def ready_at_s(self) -> float:
            return 0.0 if self.state == "running" else math.inf

    session = make_session("synthetic:160x120@60")
    session.scheduler.remove(session.scheduler.sources[0])
    session.scheduler.add(Slow())
    monkeypatch.setattr(stage_timer, "time", clock)
    assert session.run() == "end of file"
    capture = session.summary("").stages["capture"]
    assert (session.timer.frames, capture.n, capture.p50_ms) == (2, 2, pytest.approx(1000))
    assert session.timer._latencies["capture"].latest_ms() == pytest.approx([1000, 1000])
