"""The whole picture: whole for one model, with tiles for several, with every source, of any size, never failing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.live.window.canvas import Renderer, compose
from demos.live.window.layout import arrange, wall_of
from demos.live.window.paint import ALARM, BACKGROUND, SURFACE
from tests.demos.live.scenes import GRAY, UInt8Array, gray, make_state, make_update, source_state


def share(image: UInt8Array, color: tuple[int, int, int] | int) -> float:
    return float((image == color).all(axis=2).mean())


def changed(one: UInt8Array, other: UInt8Array) -> Any:
    """Rows and columns of the first and the last change; None where nothing changed."""
    assert one.shape == other.shape
    rows, columns = np.nonzero((one != other).any(axis=2))
    return (rows.min(), rows.max(), columns.min(), columns.max()) if len(rows) else None


def test_with_one_model_the_frame_is_the_picture_and_is_not_drawn_on() -> None:
    random = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    update, before = make_update(random), random.copy()
    image = compose(update, make_state(paused=True, untrained=True, notice="…"), show_help=True)
    assert np.array_equal(random, before)
    assert not np.shares_memory(image, random)
    image = compose(update, make_state())
    assert image.dtype == np.uint8
    assert np.array_equal(image[200:480], random[200:])  # below the answers nothing lies over it
    assert np.array_equal(image[:200, 320:], random[:200, 320:])
    assert not np.array_equal(image[:200, :280], random[:200, :280])
    assert share(image[480:], SURFACE) > 0.7  # the figures


@pytest.mark.parametrize(
    "change",
    [
        {"loop_fps": 7.0},
        {"variant": "cifar-5m"},
        {"weights": "cifar10"},
        {"models": {"infer_p50_ms": 1.23}},
        {"models": {"infer_p90_ms": 1.23}},
        {"models": {"name": "openvino int8"}},
        {"sources": {"frame_age_p50_ms": 0.7}},
        {"sources": {"dropped": 4}},
        {"sources": {"name": "rtsp://camera/stream"}},
    ],
)
def test_every_figure_is_in_the_line_below_the_picture(change: dict[str, Any]) -> None:
    update, state = make_update(), make_state()
    for name, value in change.items():
        if name in ("models", "sources"):
            state[name][0].update(value)
        else:
            state[name] = value
    where = changed(compose(update, make_state()), compose(update, state))
    assert where is not None
    assert where[0] >= 480


def test_banners_lie_over_the_picture_where_they_are_due() -> None:
    plain = compose(make_update(), make_state())
    top, bottom, left, right = changed(plain, compose(make_update(), make_state(paused=True)))
    assert (top < 40, left > 500) == (True, True)
    top, bottom, left, right = changed(plain, compose(make_update(), make_state(recording={"path": "", "seconds": 3})))
    assert (top < 40, left > 450) == (True, True)
    top, bottom, left, right = changed(plain, compose(make_update(), make_state(notice="loading openvino int8…")))
    assert (top > 430, bottom, left, right) == (True, 479, 0, 639)
    top, bottom, left, right = changed(plain, compose(make_update(), make_state(untrained=True)))
    assert (top > 180, bottom < 300, left, right) == (True, True, 0, 639)
    assert changed(plain, compose(make_update(), make_state(), show_help=True)) is not None
    assert changed(plain, compose(make_update(), make_state())) is None


@pytest.mark.parametrize("state", ["reconnecting", "failed", "ended"])
def test_of_a_source_that_is_gone_the_last_good_picture_stays_under_a_banner(state: str) -> None:
    canvas, sources = Renderer(), [source_state(state=state, note="no frame for 5 s")]
    canvas.take(make_update())
    gone = canvas.compose(make_state(sources=sources))
    top, bottom, left, right = changed(gone, canvas.compose(make_state()))
    assert (top > 430, bottom, left, right) == (True, 479, 0, 639)
    assert share(gone[:430], GRAY) > 0.7
    assert share(gone[440:480], ALARM) > 0
    both = canvas.compose(make_state(sources=sources, notice="loading torch fp32…"))
    assert changed(both, gone)[1] < top  # a notice stands above it


def test_with_several_models_each_has_a_tile_and_the_picture_stays_whole() -> None:
    sizes = []
    for models in range(1, 7):
        update = make_update(models=models, agrees=False)
        image = compose(update, make_state(models))
        assert share(image, GRAY) * image[..., 0].size > (0.85 if models == 1 else 0.999) * 640 * 480
        sizes.append(image[..., 0].size)
        if models > 1:
            rings = (image[..., 0] == ALARM[0]) & (image[..., 1] == ALARM[1])
            assert bool(rings.any())
        for tile in range(models if models > 1 else 0):
            state = make_state(models)
            state["models"][tile]["recent_infer_ms"] = [0.1]
            assert changed(image, compose(update, state)) is not None
    assert sizes == sorted(sizes)


def test_tiles_have_one_scale_so_that_the_eye_can_compare() -> None:
    def greens(latencies_ms: list[float]) -> list[int]:
        state = make_state(len(latencies_ms))
        for model, latency_ms in zip(state["models"], latencies_ms, strict=True):
            model["recent_infer_ms"] = [latency_ms] * 60
        image = compose(make_update(models=len(latencies_ms)), state)
        plan = arrange(640, 480, len(latencies_ms), 16)
        parts = [image[top : top + height, left : left + width] for left, top, width, height in plan.tiles]
        return [int((part == (34, 84, 74)).all(axis=2).sum()) for part in parts]

    slow, fast, middle = greens([8.0, 1.0, 4.0])
    assert slow > 1.5 * middle > 4 * fast
    assert greens([1.0, 1.0, 1.0])[0] > 4 * fast  # alone it would fill its own scale


def test_every_source_is_shown_beside_the_others_whichever_came_last() -> None:
    canvas = Renderer()
    shades = (60, 120, 180, 240)
    for number, shade in enumerate(shades):
        canvas.take(make_update(gray(shade=shade), source=number, number=number + 1))
    image = canvas.compose(make_state(sources=4))
    assert all(share(image, shade) > 0.1 for shade in shades)
    canvas.take(make_update(gray(shade=30), source=2, number=9))
    image = canvas.compose(make_state(sources=4))
    assert share(image, 30) > 0.1
    assert share(image, 180) == 0
    gone = make_state(sources=4)
    del gone["sources"][1:]
    assert canvas.compose(gone).shape == compose(make_update(), make_state()).shape
    assert share(canvas.compose(make_state(sources=4)), 240) == 0  # who is gone is forgotten


def test_a_source_without_a_frame_has_an_empty_place_with_its_name() -> None:
    canvas = Renderer()
    nobody = canvas.compose(make_state(sources=0))
    waiting = canvas.compose(make_state())
    assert share(nobody[:480], BACKGROUND) == 1
    assert (waiting[440:480] > 200).any()
    canvas.take(make_update())
    both = canvas.compose(make_state(sources=2))
    assert share(both, GRAY) > 0.3
    assert share(both, BACKGROUND) > 0.3


def test_visitors_of_the_page_are_never_shown() -> None:
    canvas = Renderer()
    canvas.take(make_update(gray(shade=30), source=1, kind="visitor"))
    state = make_state(sources=2)
    state["sources"][1]["kind"] = "visitor"
    assert share(canvas.compose(state), 30) == 0
    assert np.array_equal(canvas.compose(state), Renderer().compose(make_state()))


def test_several_models_and_sources_name_each_models_best_answer_over_the_picture() -> None:
    canvas = Renderer()
    for number in (0, 1):
        canvas.take(make_update(models=3, source=number, labels=("Bag", "Coat"), number=number + 1))
    before = canvas.compose(make_state(3, sources=2))
    canvas.take(make_update(models=3, source=0, labels=("Coat", "Bag"), number=1))
    _, bottom, _, right = changed(before, canvas.compose(make_state(3, sources=2)))
    assert (bottom < 200, right < 640) == (True, True)


def test_small_pictures_are_enlarged_and_huge_ones_reduced() -> None:
    for (width, height), expected in (
        ((28, 28), (640, 640)),
        ((320, 240), (640, 480)),
        ((640, 480), (640, 480)),
        ((3840, 2160), (3840, 2160)),
        ((8000, 6000), (3840, 2880)),
        ((1, 900), (405, 900)),
        ((3000, 2), (3000, 900)),
    ):
        assert wall_of((width, height), 1)[0] == expected
    checkers = np.kron(np.array([[[0] * 3, [255] * 3]] * 2, np.uint8), np.ones((10, 10, 1), np.uint8))
    image = compose(make_update(checkers, labels=()), make_state())
    assert set(np.unique(image[400:600])) == {0, 255}  # its pixels are shown as they are
    wide = compose(make_update(gray(2000, 50)), make_state())
    assert share(wide[:600], GRAY) == pytest.approx(50 / 600, abs=0.001)


@settings(max_examples=60)
@given(
    width=st.integers(1, 1500),
    height=st.integers(1, 1500),
    models=st.integers(1, 6),
    sources=st.integers(1, 5),
    labels=st.lists(st.text(alphabet=st.characters(), max_size=60), max_size=6),
    best=st.floats(0, 1),
    name=st.text(alphabet=st.characters(), max_size=200),
    flags=st.tuples(
        st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["running", "reconnecting", "failed"])
    ),
)
def test_every_frame_label_and_state_can_be_drawn(
    width: int,
    height: int,
    models: int,
    sources: int,
    labels: list[str],
    best: float,
    name: str,
    flags: tuple[bool, bool, bool, str],
) -> None:
    state = make_state(models, sources, untrained=flags[0], paused=flags[1], notice=name if flags[2] else None)
    for source in state["sources"]:
        source.update(name=name, state=flags[3], note=name)
    image = np.full((height, width, 3), 77, np.uint8)
    canvas = Renderer()
    for number in range(sources):
        canvas.take(make_update(image, models, source=number, labels=tuple(labels), best=best))
    for picture in (canvas.compose(state, show_help=True), compose(make_update(image, models), state)):
        assert picture.ndim == 3
        assert picture.dtype == np.uint8
        assert min(picture.shape[:2]) >= 180
    assert (image == 77).all()


@settings(max_examples=200)
@given(st.integers(100, 4000), st.integers(100, 4000), st.integers(1, 12), st.integers(15, 90))
def test_tiles_and_pictures_never_overlap_and_stay_inside(width: int, height: int, count: int, unit: int) -> None:
    plan = arrange(width, height, count, unit)
    boxes = [plan.wall, *plan.tiles]
    assert len(boxes) == count + 1
    for place, (left, top, wide, tall) in enumerate(boxes):
        assert 0 <= left < left + wide <= plan.width
        assert 0 <= top < top + tall <= plan.height
        for other_left, other_top, other_wide, other_tall in boxes[:place]:
            apart = left >= other_left + other_wide or other_left >= left + wide
            assert apart or top >= other_top + other_tall or other_top >= top + tall
