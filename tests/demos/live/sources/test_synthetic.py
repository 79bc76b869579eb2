"""The generated scene: the same every time, moving, at its own rate, and pictures that a model knows stand in it."""

from __future__ import annotations

import time

import numpy as np
import pytest

import runtimes
from demos.live.sources.factory import open_source
from demos.live.sources.synthetic import Scene, SyntheticCapture
from simplenet.artifacts import Artifact


def test_a_frame_depends_on_its_number_alone() -> None:
    one, other = Scene(320, 240, 30), Scene(320, 240, 30)
    backwards = {number: other.picture(number) for number in reversed(range(0, 300, 7))}
    for number, picture in backwards.items():
        np.testing.assert_array_equal(one.picture(number), picture)
    assert one.picture(0).shape == (240, 320, 3)
    assert one.picture(0).dtype == np.uint8


@pytest.mark.parametrize("pictures", ["fashion-mnist", "no such data set"])
def test_everything_moves(pictures: str) -> None:
    scene = Scene(320, 240, 30, pictures)
    assert (len(scene.images) > 0) == (pictures == "fashion-mnist")
    for number in range(0, 90, 3):
        assert (scene.picture(number) != scene.picture(number + 1)).any()


@pytest.mark.parametrize("size", [(16, 16), (17, 480), (480, 17), (1920, 1080)])
def test_any_shape_will_do(size: tuple[int, int]) -> None:
    scene = Scene(*size, 25)
    for number in range(0, 150, 10):
        assert scene.picture(number).shape == (size[1], size[0], 3)


def test_a_model_sees_the_pictures_one_after_another_and_is_mostly_right(onnx_artifact: Artifact) -> None:
    scene = Scene(640, 480, 30)
    answers, expected = [], []
    with runtimes.load(onnx_artifact, threads=1) as model:
        for turn in range(20):
            number = int((turn * 2.5 + 1.5) * 30)
            shown = scene.shown(number)
            assert shown == turn
            (best,) = model.classify([np.ascontiguousarray(scene.picture(number)[..., ::-1])], k=1)
            answers.append(best[0].label)
            expected.append(scene.classes[shown])
    assert set(expected[:10]) == set(scene.classes)
    assert len(set(answers)) >= 8
    assert sum(answer == truth for answer, truth in zip(answers, expected, strict=True)) >= 16


def test_frames_that_it_is_too_late_for_are_skipped_as_a_camera_skips_them() -> None:
    scene = Scene(32, 24, 100)
    capture = SyntheticCapture(scene)
    np.testing.assert_array_equal(capture.read()[1], scene.picture(0))
    time.sleep(0.1)
    late = capture.read()[1]
    assert not any(np.array_equal(late, scene.picture(number)) for number in range(1, 9))
    assert any(np.array_equal(late, scene.picture(number)) for number in range(9, 3000))


def test_it_is_a_live_source_at_its_own_rate() -> None:
    start_s = time.perf_counter()
    with open_source("synthetic:160x120@50") as source:
        assert (source.kind, source.is_live, source.frame_rate) == ("synthetic", True, 50)
        frames = [source.next(timeout_s=10) for _ in range(11)]
        assert time.perf_counter() - start_s >= 10 / 50  # it may be slower, never faster
        assert all(frame is not None and frame.image.shape == (120, 160, 3) for frame in frames)
        source.next()
        time.sleep(0.1)
        assert source.poll() is not None
        assert source.dropped > 0
    assert source.state == "ended"
    with open_source("synthetic") as source:
        frame = source.next()
        assert frame is not None
        assert frame.image.shape == (480, 640, 3)
