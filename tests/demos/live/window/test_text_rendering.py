"""Text in every script, on OpenCV 5 and, by Pillow, on OpenCV 4; whatever the label, nothing fails."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.live.window import text_rendering
from tests.demos.live.scenes import UInt8Array, gray

WHITE = (255, 255, 255)


@pytest.fixture(params=["OpenCV", "Pillow"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """OpenCV 4 has no FontFace; without it, Pillow writes."""
    if request.param == "Pillow":
        monkeypatch.setattr(text_rendering, "_face", lambda: None)
    elif text_rendering._face() is None:
        pytest.skip("this OpenCV has no fonts of its own")
    for cached in (text_rendering.width_of, text_rendering.fitted, text_rendering.wrapped):
        cached.cache_clear()
    yield request.param
    for cached in (text_rendering.width_of, text_rendering.fitted, text_rendering.wrapped):
        cached.cache_clear()


def written(text: str, size: int = 30, *, bold: bool = False, x: int = 20, width: int = 600) -> UInt8Array:
    image = gray(width, 60, 0)
    text_rendering.write(image, text, x, 40, size, WHITE, bold=bold)
    return image


@pytest.mark.usefixtures("engine")
def test_letters_stand_on_the_baseline_from_x_on_and_are_as_wide_as_was_said() -> None:
    for text in ("HEH", "Ankle boot", "Käse", "приве", "ελλην"):
        lit = written(text).any(axis=2)
        rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
        assert 20 <= columns[0] <= 25
        assert columns[-1] + 1 - 20 == pytest.approx(text_rendering.width_of(text, 30), abs=4)
        assert rows[0] > 5
    rows = np.flatnonzero(written("HEH").any(axis=(1, 2)))
    assert rows[-1] == pytest.approx(39, abs=1)
    assert len(rows) == pytest.approx(30 * text_rendering.CAPITAL, abs=3)


@pytest.mark.usefixtures("engine")
def test_bold_is_bolder_and_the_color_is_the_one_given() -> None:
    assert written("Sneaker", bold=True).sum() > 1.1 * written("Sneaker").sum()
    image = gray(200, 60, 0)
    text_rendering.write(image, "HHH", 10, 40, 30, (200, 40, 90))
    assert (200, 40, 90) in {tuple(color) for color in image.reshape(-1, 3).tolist()}


@pytest.mark.usefixtures("engine")
def test_letters_of_other_scripts_are_not_all_the_same_sign() -> None:
    pictures = [written(text)[:, 20:40].tobytes() for text in ("Ж", "Ф", "Ω", "é", "ß", "ő")]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.usefixtures("engine")
def test_what_is_too_long_ends_in_an_ellipsis_that_fits() -> None:
    text = "great white shark, white shark, man-eater"
    assert text_rendering.fitted(text, 20, 10_000) == text
    for width in (50, 100, 200, 300):
        cut = text_rendering.fitted(text, 20, width)
        assert cut.endswith("…")
        assert text.startswith(cut[:-1].rstrip())
        assert 0.6 * width < text_rendering.width_of(cut, 20) <= width
    assert text_rendering.fitted(text, 20, 3) == ""
    lines = text_rendering.wrapped(text, 20, 200, 3)
    assert len(lines) == 3
    assert " ".join(lines) == text
    assert text_rendering.wrapped(text, 20, 200, 2)[-1].endswith("…")
    assert text_rendering.wrapped("short", 20, 200, 3) == ("short",)


@settings(max_examples=150)
@given(
    text=st.text(alphabet=st.characters(), max_size=80),  # control characters and lone surrogates too
    x=st.integers(-5000, 5000),
    baseline=st.integers(-5000, 5000),
    size=st.integers(1, 120),
    width=st.integers(0, 300),
    pillow=st.booleans(),
)
def test_nothing_that_is_written_fails(text: str, x: int, baseline: int, size: int, width: int, pillow: bool) -> None:
    image = gray(70, 50, 0)
    with pytest.MonkeyPatch.context() as patch:
        if pillow:
            patch.setattr(text_rendering, "_face", lambda: None)
        text_rendering.width_of.cache_clear()
        for place in ((x, baseline), (5, 40)):
            text_rendering.write(image, text, *place, size, WHITE)
        text_rendering.fitted.cache_clear()
        assert text_rendering.width_of(text_rendering.fitted(text, size, width), size) <= width
    text_rendering.width_of.cache_clear()
