"""Text in every script with OpenCV 5, in ASCII with OpenCV 4; no label makes it fail."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.live.window import text_rendering
from tests.demos.live.scenes import UInt8Array, gray

WHITE = (255, 255, 255)


@pytest.fixture(params=["OpenCV 5", "OpenCV 4"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """OpenCV 4 has no FontFace."""
    if request.param == "OpenCV 4":
        monkeypatch.setattr(text_rendering, "_face", lambda: None)
    elif text_rendering._face() is None:
        pytest.skip("this OpenCV has no fonts of its own")
    for cached in (text_rendering.width_of, text_rendering.fitted):
        cached.cache_clear()
    yield request.param
    for cached in (text_rendering.width_of, text_rendering.fitted):
        cached.cache_clear()


def written(text: str, size: int = 30, *, bold: bool = False, x: int = 20, width: int = 600) -> UInt8Array:
    image = gray(width, 60, 0)
    text_rendering.write(image, text, x, 40, size, WHITE, bold=bold)
    return image


@pytest.mark.usefixtures("engine")
def test_letters_stand_on_the_baseline_with_the_reported_width() -> None:
    for text in ("HEH", "Ankle boot", "Shirt"):
        lit = written(text).any(axis=2)
        rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
        assert 20 <= columns[0] <= 25
        assert columns[-1] + 1 - 20 == pytest.approx(text_rendering.width_of(text, 30), abs=6)
        assert rows[0] > 5
    rows = np.flatnonzero(written("HEH").any(axis=(1, 2)))
    assert rows[-1] == pytest.approx(39, abs=1)
    assert len(rows) == pytest.approx(30 * text_rendering.CAPITAL_HEIGHT, abs=3)


@pytest.mark.usefixtures("engine")
def test_bold_and_color() -> None:
    assert written("Sneaker", bold=True).sum() > 1.1 * written("Sneaker").sum()
    image = gray(200, 60, 0)
    text_rendering.write(image, "HHH", 10, 40, 30, (200, 40, 90))
    assert (200, 40, 90) in {tuple(color) for color in image.reshape(-1, 3).tolist()}


def test_other_scripts_differ_or_become_question_marks(engine: str) -> None:
    images = [written(text)[:, 20:40].tobytes() for text in ("Ж", "Ф", "Ω")]
    if engine == "OpenCV 5":
        assert len(set(images)) == len(images)
    else:
        assert set(images) == {written("?")[:, 20:40].tobytes()}
        assert np.array_equal(written("é≠…"), written("e!=..."))


@pytest.mark.usefixtures("engine")
def test_long_text_is_cut_with_an_ellipsis() -> None:
    text = "great white shark, white shark, man-eater"
    assert text_rendering.fitted(text, 20, 10_000) == text
    for width in (50, 100, 200, 300):
        cut = text_rendering.fitted(text, 20, width)
        assert cut.endswith("…")
        assert text.startswith(cut[:-1].rstrip())
        assert 0.6 * width < text_rendering.width_of(cut, 20) <= width
    assert text_rendering.fitted(text, 20, 3) == ""


@settings(max_examples=150)
@given(
    text=st.text(alphabet=st.characters(), max_size=80),  # control characters and lone surrogates too
    x=st.integers(-5000, 5000),
    baseline=st.integers(-5000, 5000),
    size=st.integers(1, 120),
    width=st.integers(0, 300),
    is_old=st.booleans(),
)
def test_writes_any_text(text: str, x: int, baseline: int, size: int, width: int, is_old: bool) -> None:
    image = gray(70, 50, 0)
    with pytest.MonkeyPatch.context() as patch:
        if is_old:
            patch.setattr(text_rendering, "_face", lambda: None)
        text_rendering.width_of.cache_clear()
        for place in ((x, baseline), (5, 40)):
            text_rendering.write(image, text, *place, size, WHITE)
        text_rendering.fitted.cache_clear()
        assert text_rendering.width_of(text_rendering.fitted(text, size, width), size) <= width
    text_rendering.width_of.cache_clear()
