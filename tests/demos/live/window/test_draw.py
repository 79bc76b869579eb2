"""The window shows every text of the dashboard and every image, whatever their size and number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.live.dashboard import Dashboard
from demos.live.window import draw
from demos.live.window.draw import ACCENT, ALARM, Renderer
from tests.demos.live.scenes import (
    GRAY,
    MODELS,
    UInt8Array,
    gray,
    make_full_dashboard_state,
    make_state,
    make_update,
    model_state,
    source_state,
    texts_of,
)


def render(models: int = 1, *, show_help: bool = False, agrees: bool = True, **changes: Any) -> UInt8Array:
    """One source's gray frame."""
    renderer = Renderer()
    renderer.add(make_update(models=models, agrees=agrees))
    return renderer.draw(make_state(models, **changes)["dashboard"], show_help=show_help)


def share(image: UInt8Array, color: tuple[int, int, int] | int) -> float:
    return float((image == color).all(axis=2).mean())


def written(monkeypatch: pytest.MonkeyPatch, renderer: Renderer, shown: Dashboard, **how: Any) -> list[str]:
    """All texts of one drawing."""
    found: list[str] = []
    write = draw.write
    monkeypatch.setattr(
        draw, "write", lambda image, text, *rest, **more: (found.append(text), write(image, text, *rest, **more))
    )
    renderer.draw(shown, **how)
    monkeypatch.undo()
    return found


def test_frame_is_copied_unchanged_and_not_drawn_on() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    before, renderer = frame.copy(), Renderer()
    renderer.add(make_update(frame))
    image = renderer.draw(make_state()["dashboard"])
    assert image.dtype == np.uint8
    assert np.array_equal(image[:480, :640], frame)
    renderer.draw(make_state(paused=True, untrained=True, notice="…")["dashboard"], show_help=True)
    assert np.array_equal(frame, before)


def test_window_shows_every_text_of_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: Dashboard = make_full_dashboard_state()["dashboard"]
    renderer = Renderer()
    renderer.add(make_update(models=2))
    found = "\n".join(written(monkeypatch, renderer, shown, show_help=True))
    assert [text for text in texts_of(shown) if text not in found] == []
    assert all(text in found for text in ("Ankle boot", "90.0 %"))


def test_several_sources_have_name_and_first_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer()
    for number, label in enumerate(("Bag", "Coat")):
        renderer.add(make_update(models=2, source=number, labels=(label, "Sandal"), number=number + 1))
    found = written(monkeypatch, renderer, make_state(2, sources=3)["dashboard"])
    assert {"camera 0", "camera 1", "waiting for camera 2"} <= set(found)
    assert {f"{model}: {label}" for model in MODELS[:2] for label in ("Bag", "Coat")} <= set(found)


def test_differing_prediction_is_marked_in_word_and_color(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer()
    renderer.add(make_update(models=2, agrees=False))
    assert "≠ Ankle boot" in written(monkeypatch, renderer, make_state(2)["dashboard"])
    assert share(render(2, agrees=False), ALARM) > 0
    assert share(render(2), ALARM) == 0


def test_bar_is_as_long_as_the_prediction_is_probable() -> None:
    lengths = []
    for best in (0.0, 0.25, 0.5, 1.0):
        renderer = Renderer()
        renderer.add(make_update(labels=("Bag",), best=best))
        image = renderer.draw(make_state([model_state(recent_infer_ms=[])])["dashboard"])
        lengths.append(int((image == ACCENT).all(axis=2).sum(axis=1).max()))
    np.testing.assert_allclose(lengths, np.array([0, 0.25, 0.5, 1]) * lengths[-1], atol=1)
    assert lengths[-1] > 100


def test_sparklines_share_one_scale() -> None:
    models = [model_state(name, recent_infer_ms=[ms] * 60) for name, ms in zip(MODELS, (8.0, 1.0, 4.0), strict=False)]
    image = Renderer().draw(make_state(models)["dashboard"])
    panels = np.array_split(image[:480], 3)
    slow, fast, middle = ((panel == draw.ACCENT_DIM).all(axis=2).sum() for panel in panels)
    assert slow > 1.5 * middle > 2 * fast > 0


def test_every_source_is_shown_with_its_newest_image() -> None:
    renderer, shades = Renderer(), (60, 120, 180, 240)
    for number, shade in enumerate(shades):
        renderer.add(make_update(gray(shade=shade), source=number, number=number + 1))
    image = renderer.draw(make_state(sources=4)["dashboard"])
    assert all(share(image, shade) > 0.05 for shade in shades)
    renderer.add(make_update(gray(shade=30), source=2, number=9))
    image = renderer.draw(make_state(sources=4)["dashboard"])
    assert share(image, 30) > 0.05
    assert share(image, 180) == 0
    assert renderer.draw(make_state()["dashboard"]).shape == render().shape  # three sources are gone
    assert share(renderer.draw(make_state(sources=4)["dashboard"]), 240) == 0  # and their images are released


def test_visitors_are_never_drawn() -> None:
    renderer = Renderer()
    renderer.add(make_update(gray(shade=30), source=1, kind="visitor"))
    shown = make_state(sources=[source_state(), source_state(1, kind="visitor")])["dashboard"]
    assert share(renderer.draw(shown), 30) == 0
    assert np.array_equal(renderer.draw(shown), Renderer().draw(make_state()["dashboard"]))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((28, 28), (640, 640)), ((320, 240), (640, 480)), ((640, 480), (640, 480)), ((8000, 6000), (3840, 2880))],
)
def test_small_images_are_enlarged_and_huge_ones_reduced(size: tuple[int, int], shown: tuple[int, int]) -> None:
    renderer = Renderer()
    renderer.add(make_update(gray(*size)))
    image = renderer.draw(make_state()["dashboard"])
    assert share(image[: shown[1], : shown[0]], GRAY) == 1
    assert image.shape[1] > shown[0]


def test_tiny_images_keep_sharp_pixels_and_wide_ones_their_proportions() -> None:
    renderer, pixels = Renderer(), np.array([[[0] * 3, [255] * 3]] * 2, np.uint8)
    renderer.add(make_update(np.kron(pixels, np.ones((10, 10, 1), np.uint8))))
    assert set(np.unique(renderer.draw(make_state()["dashboard"])[:600, :600])) == {0, 255}
    renderer.add(make_update(gray(2000, 50)))
    image = renderer.draw(make_state()["dashboard"])[:, :2000]
    assert (image == GRAY).all(axis=2).sum() == pytest.approx(2000 * 50, rel=0.02)


@settings(max_examples=40)
@given(
    width=st.integers(1, 1500),
    height=st.integers(1, 1500),
    models=st.integers(1, 6),
    sources=st.integers(1, 5),
    labels=st.lists(st.text(alphabet=st.characters(), max_size=60), max_size=6),
    best=st.floats(0, 1),
    name=st.text(alphabet=st.characters(), max_size=200),
    state=st.sampled_from(["running", "reconnecting", "failed"]),
    is_on=st.booleans(),
)
def test_every_frame_label_and_state_can_be_drawn(
    width: int, height: int, models: int, sources: int, labels: list[str], best: float, name: str, state: str,
    is_on: bool,
) -> None:  # fmt: skip
    entries = [source_state(number, name=name, state=state, note=name) for number in range(sources)]
    shown = make_state(models, entries, untrained=is_on, paused=is_on, notice=name if is_on else None)["dashboard"]
    image, renderer = np.full((height, width, 3), 77, np.uint8), Renderer()
    for number in range(sources):
        renderer.add(make_update(image, models, source=number, labels=tuple(labels), best=best))
    drawn = renderer.draw(shown, show_help=is_on)
    assert (drawn.ndim, drawn.dtype) == (3, np.uint8)
    assert min(drawn.shape[:2]) >= 180
    assert (image == 77).all()
