"""What lies over a picture, and the figures under it. All of it is drawn in place; sizes follow the picture's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demos.live.dashboard import UNTRAINED, keys_help
from demos.live.window import paint, text_rendering
from demos.live.window.paint import ACCENT, ALARM, GRAY, SURFACE, WHITE
from demos.live.window.text_rendering import UInt8Array
from runtimes import Prediction

_UNTRAINED_MEANS = "random weights: the times are true, the answers mean nothing"
_BANNER_LINES = 3


def draw_answers(image: UInt8Array, predictions: Sequence[Prediction], unit: int, width_units: int = 14) -> None:
    """The best answers as bars, on a dark panel in the upper left; nothing without answers."""
    if not predictions:
        return
    margin, row = unit // 2, round(1.45 * unit)
    width = min(image.shape[1] - 2 * margin, width_units * unit)
    predictions = predictions[: max(1, (image.shape[0] - 3 * margin) // row)]
    paint.shade(image, margin, margin, width, len(predictions) * row + margin)
    paint.answers(image, predictions, 2 * margin, margin + margin // 2, width - 2 * margin, unit, row)


def draw_untrained(image: UInt8Array, unit: int) -> None:
    """Across the whole picture: nobody may take these answers for real ones."""
    height, width = image.shape[:2]
    band = max(min(height // 5, width // 5), min(height, 2 * unit))
    top = (height - band) // 2
    paint.shade(image, 0, top, width, band, ALARM, 0.85)
    size = max(1, min(round(0.55 * band), width // 7))
    _write_centerd(image, UNTRAINED, top, round(0.7 * band), size, bold=True)
    small = min(round(0.18 * band), paint.text_size(unit))
    if small >= 8:
        _write_centerd(
            image, text_rendering.fitted(_UNTRAINED_MEANS, small, width), top + round(0.66 * band), band // 4, small
        )


def draw_help(image: UInt8Array, unit: int) -> None:
    """The keys of the window, in the middle of the picture."""
    size, row = paint.text_size(unit), round(1.35 * unit)
    keys = max(text_rendering.width_of(key, size, True) for key, _ in keys_help())
    width = keys + max(text_rendering.width_of(what, size) for _, what in keys_help()) + 3 * unit
    height = len(keys_help()) * row + unit
    left, top = (image.shape[1] - width) // 2, (image.shape[0] - height) // 2
    paint.shade(image, left, top, width, height, opacity=0.88)
    for place, (key, what) in enumerate(keys_help()):
        line = paint.baseline(top + unit // 2 + place * row, row, size)
        text_rendering.write(image, key, left + unit, line, size, ACCENT, bold=True)
        text_rendering.write(image, what, left + 2 * unit + keys, line, size, WHITE)


def draw_badges(image: UInt8Array, unit: int, *, paused: bool, recorded_s: float | None) -> None:
    """In the upper right: a red dot with the recording's time, and that it is paused."""
    size, height, right, top = paint.text_size(unit), round(1.5 * unit), image.shape[1] - unit // 2, unit // 2
    badges = ["REC " + clock(recorded_s)] if recorded_s is not None else []
    badges += ["paused"] if paused else []
    for text in badges:
        left = right - text_rendering.width_of(text, size, True) - 2 * unit
        middle = top + height // 2
        paint.shade(image, left, top, right - left, height, opacity=0.8)
        if text == "paused":
            for bar in (0, 1):
                x = left + unit // 2 + bar * unit // 3
                paint.fill(image, x, middle - unit // 3, unit // 6, 2 * unit // 3, WHITE)
        else:
            paint.dot(image, left + 3 * unit // 4, middle, max(3, unit // 4), ALARM)
        line = paint.baseline(top, height, size)
        text_rendering.write(image, text, left + round(1.25 * unit), line, size, WHITE, bold=True)
        right = left - unit // 2


def clock(seconds: float) -> str:
    """'01:12', or '1:02:03' from an hour on."""
    hours, minutes, seconds = int(seconds) // 3600, int(seconds) // 60 % 60, int(seconds) % 60
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def draw_banner(image: UInt8Array, text: str, unit: int, *, bottom: int, alarm: bool = False) -> int:
    """A line across the picture, or up to three, that ends at `bottom`; returns where the next one above it may end."""
    size, row, left = paint.text_size(unit), round(1.3 * unit), unit
    lines = text_rendering.wrapped(text, size, image.shape[1] - left - unit // 2, _BANNER_LINES)
    height = len(lines) * row + unit // 2
    top = max(0, bottom - height)
    paint.shade(image, 0, top, image.shape[1], height, opacity=0.82)
    paint.fill(image, 0, top, max(3, unit // 5), height, ALARM if alarm else ACCENT)
    for place, line in enumerate(lines):
        text_rendering.write(image, line, left, paint.baseline(top + unit // 4 + place * row, row, size), size, WHITE)
    return top


@dataclass(frozen=True)
class Figure:
    """A piece of the line under the picture. `widest` is what room is kept for, so that nothing jumps as it changes."""

    text: str
    widest: str = ""
    strong: bool = False


def figure_rows(lines: Sequence[Sequence[Figure]], width: int, unit: int) -> list[list[tuple[int, Figure]]]:
    """Each line broken into as many rows as its figures need, with the x of each figure."""
    size = paint.text_size(unit)
    rows: list[list[tuple[int, Figure]]] = []
    for line in lines:
        x = unit // 2
        row: list[tuple[int, Figure]] = []
        for figure in line:
            taken = max(text_rendering.width_of(text, size, figure.strong) for text in (figure.text, figure.widest))
            if row and x + taken > width - unit // 2:
                rows.append(row)
                x, row = unit // 2, []
            row.append((x, figure))
            x += taken + round(0.9 * unit)
        rows.append(row)
    return rows


def band_height(rows: Sequence[object], unit: int) -> int:
    return len(rows) * round(1.25 * unit) + unit // 2


def draw_figures(band: UInt8Array, rows: Sequence[Sequence[tuple[int, Figure]]], unit: int) -> None:
    """Fills `band`, RGB uint8 [band_height, W, 3], with the figures."""
    paint.cover(band, SURFACE)
    size, height = paint.text_size(unit), round(1.25 * unit)
    for place, row in enumerate(rows):
        line = paint.baseline(unit // 4 + place * height, height, size)
        for x, figure in row:
            text = text_rendering.fitted(figure.text, size, band.shape[1] - x, figure.strong)
            text_rendering.write(band, text, x, line, size, WHITE if figure.strong else GRAY, bold=figure.strong)


def _write_centerd(image: UInt8Array, text: str, top: int, height: int, size: int, bold: bool = False) -> None:
    left = (image.shape[1] - text_rendering.width_of(text, size, bold)) // 2
    text_rendering.write(image, text, left, paint.baseline(top, height, size), size, WHITE, bold=bold)
