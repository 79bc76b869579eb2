"""The synthetic scene: deterministic, always moving, at its frame rate, with images that a model classifies."""

from __future__ import annotations

import time

import numpy as np
import pytest

import runtimes
from demos.live.sources.factory import open_source
from demos.live.sources.synthetic import HOLD_S, SLIDE_S, Scene, SyntheticCapture
from simplenet import datasets
from simplenet.artifacts import Artifact
from tests.demos.live.sources.scripted_camera import next_frame


def test_frame_depends_only_on_its_number() -> None:
    one, other = Scene(320, 240, 30), Scene(320, 240, 30)
    backwards = {number: other.frame(number) for number in reversed(range(0, 300, 7))}
    for number, frame in backwards.items():
        np.testing.assert_array_equal(one.frame(number), frame)
    assert one.frame(0).shape == (240, 320, 3)
    assert one.frame(0).dtype == np.uint8


def test_every_frame_differs_from_the_one_before() -> None:
    scene = Scene(320, 240, 30)
    for number in range(0, 90, 3):
        assert (scene.frame(number) != scene.frame(number + 1)).any()


@pytest.mark.parametrize("size", [(16, 16), (17, 480), (480, 17), (1920, 1080)])
def test_draws_frames_of_any_shape(size: tuple[int, int]) -> None:
    scene = Scene(*size, 25)
    for number in range(0, 150, 10):
        assert scene.frame(number).shape == (size[1], size[0], 3)


def test_model_classifies_most_images_correctly(onnx_artifact: Artifact) -> None:
    scene, shipped = Scene(640, 480, 30), datasets.shipped("fashion-mnist", "evaluation")
    labels = {
        image.tobytes(): shipped.classes[label] for image, label in zip(shipped.images, shipped.labels, strict=True)
    }
    predicted, expected = [], []
    with runtimes.load(onnx_artifact, threads=1) as model:
        for turn in range(20):
            number = int((turn * (HOLD_S + SLIDE_S) + 1.5) * 30)
            (top,) = model.classify([np.ascontiguousarray(scene.frame(number)[..., ::-1])], k=1)
            predicted.append(top[0].label)
            expected.append(labels[scene.images[turn].tobytes()])
    assert set(expected[:10]) == set(shipped.classes)
    assert len(set(predicted)) >= 8
    assert sum(found == truth for found, truth in zip(predicted, expected, strict=True)) >= 16


def test_skips_overdue_frames() -> None:
    scene = Scene(32, 24, 100)
    capture = SyntheticCapture(scene)
    np.testing.assert_array_equal(capture.read()[1], scene.frame(0))
    time.sleep(0.1)
    late = capture.read()[1]
    assert not any(np.array_equal(late, scene.frame(number)) for number in range(1, 9))
    assert any(np.array_equal(late, scene.frame(number)) for number in range(9, 3000))


def test_is_a_live_source_at_its_frame_rate() -> None:
    start_s = time.perf_counter()
    with open_source("synthetic:160x120@100") as source:
        assert (source.kind, source.is_live, source.frame_rate) == ("synthetic", True, 100)
        frames = [next_frame(source, 10) for _ in range(11)]
        assert time.perf_counter() - start_s >= 10 / 100  # it may be slower, never faster
        assert all(frame is not None and frame.image.shape == (120, 160, 3) for frame in frames)
        next_frame(source)
        time.sleep(0.05)
        assert source.poll() is not None
        assert source.dropped > 0
    assert source.state == "ended"
    with open_source("synthetic") as source:
        frame = next_frame(source)
        assert frame is not None
        assert frame.image.shape == (480, 640, 3)
