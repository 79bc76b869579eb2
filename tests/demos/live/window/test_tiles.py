"""A tile says whose it is, what that model answers, how fast, and whether it agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.live.window import tiles
from demos.live.window.paint import ACCENT, ALARM, BACKGROUND
from tests.demos.live.scenes import UInt8Array, gray, make_update, model_state

UNIT = 20
SIZE = (tiles.WIDTH_UNITS * UNIT, tiles.HEIGHT_UNITS * UNIT)
TOP = slice(0, int(1.8 * UNIT))
"""The line of the name and of the verdict."""


def draw(agrees: bool = True, *, reference: bool = False, scale_ms: float = 0.5, **changes: Any) -> UInt8Array:
    tile = gray(*SIZE)
    answer = make_update(models=2, agrees=agrees).model_results[1]
    model = model_state("onnxruntime int8", reference=reference, **changes)
    tiles.draw(tile, model, answer, reference=reference, scale_ms=scale_ms, unit=UNIT)
    return tile


def count(image: UInt8Array, color: tuple[int, int, int]) -> int:
    return int((image == color).all(axis=2).sum())


def test_agreement_and_disagreement_differ_in_color_and_in_words() -> None:
    agrees, differs, reference = draw(True)[TOP], draw(False)[TOP], draw(reference=True)[TOP]
    assert count(agrees, ACCENT) > 20
    assert count(agrees, ALARM) == count(reference, ALARM) == count(reference, ACCENT) == 0
    assert count(differs, ALARM) > 10
    assert count(differs, ACCENT) == 0
    words = slice(SIZE[0] - 4 * UNIT, None)
    assert not np.array_equal(agrees[:, words], differs[:, words])


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"infer_p50_ms": 9.9}, slice(0, 6 * UNIT)),
        ({"infer_p90_ms": 0.25}, slice(3 * UNIT, 9 * UNIT)),
        ({"agrees_percent": 12.3}, slice(10 * UNIT, None)),
    ],
)
def test_a_figure_that_changes_is_seen_in_its_place(changed: dict[str, Any], at: slice) -> None:
    before, after = draw(), draw(**changed)
    columns = np.flatnonzero((before != after).any(axis=(0, 2)))
    rows = np.flatnonzero((before != after).any(axis=(1, 2)))
    assert len(columns)
    assert set(columns) <= set(range(SIZE[0])[at])
    assert 1.5 * UNIT < rows[0] <= rows[-1] < 3.2 * UNIT


def test_everything_is_drawn_anew_and_a_gap_is_left_around() -> None:
    tile = draw()
    assert not (tile == 128).all(axis=2).any()
    for edge in (tile[0], tile[-1], tile[:, 0], tile[:, -1]):
        assert (edge == BACKGROUND).all()


def heights(latencies_ms: list[float], scale_ms: float) -> list[int]:
    """How high the curve is above its base, column by column."""
    area = gray(400, 61, 0)
    tiles.sparkline(area, latencies_ms, scale_ms, UNIT)
    curve = (area[..., 1] > area[..., 0] + 20)[:, :300]  # greenish; the frame and the letters are gray
    return [60 - int(np.flatnonzero(column)[0]) if column.any() else 0 for column in curve.T]


def test_a_sparkline_is_true_to_the_scale() -> None:
    for latency_ms, height in ((0.25, 15), (0.5, 30), (1.0, 60), (7.0, 60)):
        assert np.median(heights([latency_ms] * 20, 1.0)) == pytest.approx(height, abs=2)
    assert np.median(heights([0.5] * 20, 2.0)) == pytest.approx(15, abs=2)
    rising = heights(list(np.linspace(0.1, 0.9, 50)), 1.0)
    assert rising[10] < rising[150] < rising[290]
    assert max(heights([], 1.0)) == 0
    for broken in ([float("nan")] * 3, [float("inf"), -1.0], [0.5]):
        heights(broken, 1.0)


@settings(max_examples=200)
@given(st.lists(st.lists(st.floats(1e-4, 1e4), max_size=30), max_size=4))
def test_the_common_scale_is_round_and_holds_nearly_all(latencies: list[list[float]]) -> None:
    scale_ms = tiles.common_scale_ms([model_state(recent_infer_ms=one) for one in latencies])
    highest = max((float(np.percentile(one, 95)) for one in latencies if one), default=None)
    digits = f"{scale_ms:.0e}" if f"{scale_ms:.1e}"[2] == "0" else f"{scale_ms:.1e}"
    assert float(digits) == pytest.approx(scale_ms)
    assert digits[:3] in ("1e+", "1e-", "2e+", "2e-", "3e+", "3e-", "5e+", "5e-", "7e+", "7e-", "1.5")
    if highest is None:
        assert scale_ms == 1.0 or scale_ms == 1.5
    else:
        assert highest <= scale_ms <= 2.5 * highest


def test_one_slow_frame_does_not_flatten_the_rest() -> None:
    assert tiles.common_scale_ms([model_state(recent_infer_ms=[0.2] * 59 + [80.0])]) < 0.5
