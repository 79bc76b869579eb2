"""What is counted of a source, and what its models see of its images."""

from __future__ import annotations

import json

import pytest

from demos.live.source_stats import SourceStats
from demos.live.sources.base import Frame
from simplenet.preprocessing import CIFAR10_PREPROCESSING, IMAGENET_PREPROCESSING, Preprocessing
from tests.demos.live.scenes import Still, gray, make_state


@pytest.mark.parametrize(
    ("preprocessing", "width", "height", "crop"),
    [
        (CIFAR10_PREPROCESSING, 640, 480, [0.119, 0, 0.881, 1]),
        (CIFAR10_PREPROCESSING, 480, 640, [0, 0.119, 1, 0.881]),
        (CIFAR10_PREPROCESSING, 30, 30, [0, 0, 1, 1]),
        (IMAGENET_PREPROCESSING, 256, 256, [0.0625, 0.0625, 0.9375, 0.9375]),
        (IMAGENET_PREPROCESSING, 640, 480, [0.1701, 0.0625, 0.827, 0.9375]),
        (IMAGENET_PREPROCESSING, 4000, 500, [0.4453, 0.0625, 0.5547, 0.9375]),
    ],
)
def test_crop_is_what_the_model_sees(preprocessing: Preprocessing, width: int, height: int, crop: list[float]) -> None:
    stats = SourceStats(Still())
    assert stats.state(preprocessing)["crop"] is None
    stats.add(Frame(gray(width, height), 1.0), None)
    state = stats.state(preprocessing)
    assert state["crop"] == crop
    shown = make_state(sources=[state])["dashboard"]
    assert json.loads(json.dumps(shown))["sources"][0]["crop"] == crop
