"""What is drawn is there, in proportion, and fits pictures of every size."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.live import overlay
from runtimes import Prediction


def picture(width: int = 640, height: int = 480) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((height, width, 3), 128, np.uint8)


def green_pixels(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    return int(((image[..., 1] > 120) & (image[..., 0] < 60)).sum())


def test_a_bar_is_as_long_as_its_answer_is_probable() -> None:
    lengths = []
    for probability in (0.0, 0.25, 0.5, 1.0):
        image = picture()
        overlay.draw(image, [Prediction("", 0, probability)])
        rows = np.flatnonzero((image[:, 300] != 128).any(axis=1))
        lengths.append(green_pixels(image[rows]) / len(rows))
    np.testing.assert_allclose(lengths, [0, 80, 160, 320], atol=30)  # some green lies under the letters


def test_labels_and_figures_are_written() -> None:
    plain, labelled, figured = picture(), picture(), picture()
    overlay.draw(plain, [Prediction("", 0, 0.0)])
    overlay.draw(labelled, [Prediction("Ankle boot", 0, 0.0)])
    overlay.draw(figured, [Prediction("", 0, 0.0)], figures="12 FPS")
    assert (labelled > 250).sum() > (plain > 250).sum()
    assert (figured[-40:] > 250).sum() > 0
    assert (plain[-40:] == 128).all()


def test_untrained_goes_across_the_picture_in_red() -> None:
    image = picture()
    overlay.draw(image, [], untrained=True)
    red = (image[..., 0] > 180) & (image[..., 1] < 60)
    assert red.any(axis=0).all()
    assert red.sum() > image[..., 0].size / 10


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    labels=st.lists(st.text(max_size=60), max_size=20),
    probability=st.floats(0, 1),
)
def test_every_size_of_picture_and_every_label_can_be_drawn(
    width: int, height: int, labels: list[str], probability: float
) -> None:
    image = picture(width, height)
    answers = [Prediction(label, index, probability) for index, label in enumerate(labels)]
    overlay.draw(image, answers, "figures", untrained=True)
    assert image.shape == (height, width, 3)
    assert (image != 128).any()
