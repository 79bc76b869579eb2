"""A tile for each model: its best answers, its latency, and whether it agrees with the first one, the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from demos.live.result import ModelResult
from demos.live.sources.opencv import opencv
from demos.live.window import paint, text_rendering
from demos.live.window.paint import ACCENT, ALARM, GRAY, SURFACE, TRACK, WHITE
from demos.live.window.text_rendering import UInt8Array

ANSWERS = 3
WIDTH_UNITS, HEIGHT_UNITS = 16, 10
"""The least that a tile needs."""
_POINTS = 120
_ACCENT_DIM = (34, 84, 74)


def draw(
    tile: UInt8Array,
    model: Mapping[str, Any],
    answer: ModelResult | None,
    *,
    reference: bool,
    scale_ms: float,
    unit: int,
    shows_answers: bool = True,
) -> None:
    """Fills `tile`, RGB uint8 [H, W, 3].

    Args:
        model: its entry of the session's state.
        answer: what it said of the frame at hand; None leaves the room for it empty.
        shows_answers: False where the pictures of several sources carry them.
        scale_ms: the top of the sparkline; the same for every tile, so that they can be compared by eye.
    """
    height, width = tile.shape[:2]
    gap, pad, size = max(2, unit // 6), round(0.6 * unit), paint.text_size(unit)
    paint.cover(tile, SURFACE)
    for x, y, wide, tall in (
        (0, 0, width, gap), (0, height - gap, width, gap), (0, 0, gap, height), (width - gap, 0, gap, height)
    ):  # fmt: skip
        paint.fill(tile, x, y, wide, tall, paint.BACKGROUND)
    left, right, top, row = gap + pad, width - gap - pad, gap + pad // 2, round(1.3 * unit)
    line = paint.baseline(top, row, size)
    verdict = _draw_verdict(tile, answer, reference, right, line, size)
    name = text_rendering.fitted(model["name"], size, right - verdict - unit // 2 - left, True)
    text_rendering.write(tile, name, left, line, size, WHITE, bold=True)
    top += row
    line = paint.baseline(top, row, size)
    p50, p90 = paint.milliseconds(model["infer_p50_ms"]), paint.milliseconds(model["infer_p90_ms"])
    times = f"p50 {p50}  p90 {p90} ms"
    text_rendering.write(tile, times, left, line, size, GRAY)
    if model["agrees_percent"] is not None:
        room = right - left - text_rendering.width_of(times, size) - unit // 2
        percent = f"{model['agrees_percent']:.1f} %"
        said = f"agreed {percent}"
        paint.write_right(
            tile, said if text_rendering.width_of(said, size) <= room else percent, right, line, size, GRAY
        )
    top += row
    if shows_answers:
        row = round(1.4 * unit)
        paint.answers(tile, answer.predictions[:ANSWERS] if answer else (), left, top, right - left, unit, row)
        top += ANSWERS * row
    top += pad // 2
    sparkline(tile[top : height - gap - pad, left:right], model["recent_infer_ms"], scale_ms, unit)


def _draw_verdict(
    tile: UInt8Array, answer: ModelResult | None, reference: bool, right: int, line: int, size: int
) -> int:
    """In words and by a dot, since not everybody tells red from green; returns the width it took."""
    if reference:
        return paint.write_right(tile, "reference", right, line, size, GRAY)
    if answer is None or answer.agrees is None:
        return 0
    radius = max(3, size // 3)
    word = paint.write_right(tile, "agrees" if answer.agrees else "differs", right, line, size, WHITE)
    x = right - word - 2 * radius
    paint.dot(tile, x, line - size // 3, radius, ACCENT if answer.agrees else ALARM, filled=answer.agrees)
    return right - x + radius


def common_scale_ms(models: Sequence[Mapping[str, Any]]) -> float:
    """The top of every sparkline: a round number above nearly all recent latencies of all models, so that it rests."""
    highest = [float(np.percentile(model["recent_infer_ms"], 95)) for model in models if model["recent_infer_ms"]]
    wanted = 1.15 * max(highest, default=1.0)
    if not (math.isfinite(wanted) and wanted > 0):
        return 1.0
    decade = 10.0 ** math.floor(math.log10(wanted))
    return next(step * decade for step in (1, 1.5, 2, 3, 5, 7, 10) if step * decade >= wanted * 0.999)


def sparkline(area: UInt8Array, latencies_ms: Sequence[float], scale_ms: float, unit: int) -> None:
    """The latest latencies from 0, at the bottom, to `scale_ms`, at the top, which is written there; peaks are cut."""
    cv2 = opencv()
    height, width = area.shape[:2]
    size = max(9, round(0.6 * unit))
    if height < size or width < 4 * unit:
        return
    label = f"{scale_ms:g} ms"
    plot = area[:, : width - max(3 * unit, text_rendering.width_of(label, size) + unit // 3)]
    across, bottom = plot.shape[1], height - 1
    for y in (0, bottom):
        paint.fill(area, 0, y, across, 1, TRACK)
    paint.write_right(area, label, width, round(text_rendering.CAPITAL * size) + 1, size, GRAY)
    if height > 2.2 * size:
        paint.write_right(area, "0", width, bottom, size, GRAY)
    values = np.nan_to_num(np.asarray(latencies_ms[-_POINTS:], np.float64), posinf=scale_ms, neginf=0)
    if not len(values):
        return
    # Sixteenths of a pixel, or slow changes look like stairs.
    x = np.linspace(0, across - 1, len(values)) if len(values) > 1 else np.array([0.0])
    y = bottom * (1 - np.clip(values / scale_ms, 0, 1))
    curve = np.round(16 * np.stack([x, y], 1)).astype(np.int32)
    corners = np.array([[curve[-1, 0], 16 * bottom], [0, 16 * bottom]], np.int32)
    cv2.fillPoly(plot, [np.concatenate([curve, corners])], _ACCENT_DIM, cv2.LINE_AA, 4)
    cv2.polylines(plot, [curve], False, ACCENT, max(1, unit // 12), cv2.LINE_AA, 4)
