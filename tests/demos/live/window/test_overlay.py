"""What lies over a picture is there, in proportion, and keeps inside it."""

from __future__ import annotations

import numpy as np
import pytest

from demos.live.window import overlay, paint
from demos.live.window.overlay import Figure
from demos.live.window.paint import ACCENT, ALARM
from runtimes import Prediction
from tests.demos.live.scenes import GRAY, UInt8Array, gray

UNIT = 20


def count(image: UInt8Array, color: tuple[int, int, int]) -> int:
    return int((image == color).all(axis=2).sum())


def test_a_bar_is_as_long_as_its_answer_is_probable() -> None:
    lengths = []
    for probability in (0.0, 0.25, 0.5, 1.0):
        image = gray()
        overlay.draw_answers(image, [Prediction("", 0, probability)], UNIT)
        lengths.append(int((image == ACCENT).all(axis=2).sum(axis=1).max()))
    assert lengths[0] == 0
    np.testing.assert_allclose(lengths, np.array([0, 0.25, 0.5, 1]) * lengths[-1], atol=1)
    assert lengths[-1] > 12 * UNIT


def test_every_answer_has_a_row_with_its_label() -> None:
    heights = []
    for labels in ([], ["Bag"], ["Bag", "Coat", "Shirt"]):
        image = gray()
        overlay.draw_answers(image, [Prediction(label, 0, 0.1) for label in labels], UNIT)
        heights.append(int((image != GRAY).any(axis=(1, 2)).sum()))
    assert heights[0] == 0
    assert heights[2] - heights[1] == pytest.approx(2 * 1.45 * UNIT, abs=1)
    unlabeled, labeled = gray(), gray()
    overlay.draw_answers(unlabeled, [Prediction("", 0, 0.1)], UNIT)
    overlay.draw_answers(labeled, [Prediction("Ankle boot", 0, 0.1)], UNIT)
    left = slice(0, 7 * UNIT)  # where there is no percentage
    assert (labeled[:, left] > 200).sum() > (unlabeled[:, left] > 200).sum() + 100


def test_untrained_goes_across_the_picture_in_red() -> None:
    for width, height in ((640, 480), (320, 240), (288, 640), (3840, 2160)):
        image = gray(width, height)
        overlay.draw_untrained(image, paint.unit_of(width, height))
        red = (image[..., 0] > 180) & (image[..., 1] < 80)
        assert red.any(axis=0).all()
        assert red.sum() > width * height / 16
        assert (image.min(axis=2) > 240).sum() > width * height / 160  # the letters


def test_a_banner_says_its_line_at_the_bottom_and_a_long_one_takes_more_room() -> None:
    short, long = gray(), gray()
    top_of_short = overlay.draw_banner(short, "reconnecting…", UNIT, bottom=480)
    top_of_long = overlay.draw_banner(long, "the camera is gone, plug it in again; " * 20, UNIT, bottom=480)
    assert 480 - 4 * UNIT * 1.5 < top_of_long < top_of_short < 480 - UNIT
    for image, top in ((short, top_of_short), (long, top_of_long)):
        assert (image[:top] == GRAY).all()
        assert (image[top:].min(axis=(1, 2)) < GRAY / 2).all()
        assert (image[top:] > 230).any()
    assert count(short, ACCENT) > 0
    assert count(short, ALARM) == 0
    overlay.draw_banner(short, "gone", UNIT, bottom=480, alarm=True)
    assert count(short, ALARM) > 0


def test_badges_stand_beside_each_other_in_the_upper_right() -> None:
    images = {}
    for paused in (False, True):
        for recorded_s in (None, 72.5):
            image = images[paused, recorded_s] = gray()
            overlay.draw_badges(image, UNIT, paused=paused, recorded_s=recorded_s)
            changed = (image != GRAY).any(axis=2)
            assert changed.any() == (paused or recorded_s is not None)
            assert not changed[:, :300].any()
            assert not changed[60:].any()
    reds = {key: count(image, ALARM) for key, image in images.items()}
    assert reds[False, None] == reds[True, None] == 0
    assert reds[False, 72.5] == reds[True, 72.5] > 50
    changed_columns = [int((image != GRAY).any(axis=(0, 2)).sum()) for image in images.values()]
    assert changed_columns[3] == changed_columns[1] + changed_columns[2]


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "00:00"), (72.9, "01:12"), (3599, "59:59"), (3723, "1:02:03")])
def test_the_clock(seconds: float, text: str) -> None:
    assert overlay.clock(seconds) == text


def test_figures_break_into_rows_and_do_not_jump_as_they_change() -> None:
    def rows(fps: str, width: int) -> list[list[int]]:
        line = [Figure("openvino int8", strong=True), Figure(fps, "0000 FPS"), Figure("3 dropped")]
        return [[x for x, _ in row] for row in overlay.figure_rows([line, [Figure("camera 0")]], width, UNIT)]

    assert [len(row) for row in rows("9 FPS", 640)] == [3, 1]
    assert [len(row) for row in rows("9 FPS", 120)] == [1, 1, 1, 1]
    assert rows("9 FPS", 640) == rows("143 FPS", 640)
