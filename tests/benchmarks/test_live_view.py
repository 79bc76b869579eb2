"""The cost of drawing and recording a live frame: `make bench`. No time is asserted; read the table."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from demos.live.sources.synthetic import Scene
from demos.live.window.draw import Renderer
from demos.live.window.recorder import Recorder
from tests.demos.live.scenes import MODELS, make_state, make_update, model_state

ROUNDS = 200


@pytest.mark.parametrize("models", [1, 3, 6])
@pytest.mark.parametrize("size", [(640, 480), (1920, 1080)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_drawing_the_window(benchmark: BenchmarkFixture, size: tuple[int, int], models: int) -> None:
    renderer, scene, random = Renderer(), Scene(*size, 30), np.random.default_rng(0)
    # As in a session: every frame has new probabilities, every third one new texts.
    recent_ms = random.uniform(0.2, 0.4, (10, models, 60)).tolist()
    shown = [
        make_state([model_state(name, recent_infer_ms=one) for name, one in zip(MODELS, recent, strict=False)])
        for recent in recent_ms
    ]
    results = [make_update(scene.frame(0), models, best=0.9 - number / 1000) for number in range(30)]
    numbers = itertools.cycle(range(30))

    def draw() -> None:
        number = next(numbers)
        renderer.add(results[number])
        renderer.draw(shown[number // 3]["dashboard"])

    benchmark.group = "drawing the window"
    benchmark.pedantic(draw, rounds=ROUNDS, warmup_rounds=20)


def test_recording_a_640x480_image(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    frames = ((scene.frame(number), number / 30) for scene in [Scene(640, 480, 30)] for number in itertools.count())
    benchmark.group = "recording a 640x480 image"
    with Recorder(tmp_path / "clip.mp4") as recorder:
        benchmark.pedantic(recorder.write, setup=lambda: (next(frames), {}), rounds=ROUNDS, warmup_rounds=20)
