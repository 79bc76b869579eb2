"""The few colors and shapes that everything drawn is made of. All draw on RGB uint8 [H, W, 3], in place."""

from __future__ import annotations

from collections.abc import Sequence

from demos.live.sources.opencv import opencv
from demos.live.window import text_rendering
from demos.live.window.text_rendering import CAPITAL, Color, UInt8Array
from runtimes import Prediction

BACKGROUND: Color = (16, 18, 22)
SURFACE: Color = (28, 31, 37)
TRACK: Color = (62, 67, 76)
WHITE: Color = (245, 247, 250)
GRAY: Color = (168, 175, 186)
ACCENT: Color = (64, 200, 160)
ALARM: Color = (214, 48, 49)
_SMALLEST_UNIT = 15
_SMALLEST_TEXT = 11


def unit_of(width: int, height: int, share: float = 1.0) -> int:
    """The height of a line, in pixels, on a picture of that size: everything else is measured in it.

    `share` makes it smaller, but never too small to be read.
    """
    return max(_SMALLEST_UNIT, round(share * min(height // 24, width // 32)))


def text_size(unit: int) -> int:
    return max(_SMALLEST_TEXT, round(0.72 * unit))


def baseline(top: int, height: int, size: int) -> int:
    """Where to write so that capital letters stand in the middle of a row."""
    return top + round((height + CAPITAL * size) / 2)


def fill(image: UInt8Array, left: int, top: int, width: int, height: int, color: Color) -> None:
    if width > 0 and height > 0:
        opencv().rectangle(image, (left, top), (left + width - 1, top + height - 1), color, -1)


def cover(image: UInt8Array, color: Color) -> None:
    fill(image, 0, 0, image.shape[1], image.shape[0], color)  # many times faster than numpy's image[:] = color


def shade(
    image: UInt8Array, left: int, top: int, width: int, height: int, color: Color = BACKGROUND, opacity: float = 0.8
) -> None:
    """Lays a color over a part of the picture that stays visible through it."""
    region = image[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
    if region.size:
        cv2 = opencv()
        cv2.convertScaleAbs(region, region, 1 - opacity, 0)
        cv2.add(region, (*(int(channel * opacity) for channel in color), 0), region)  # twenty times numpy's speed


def dot(image: UInt8Array, x: int, y: int, radius: int, color: Color, filled: bool = True) -> None:
    cv2 = opencv()
    cv2.circle(image, (x, y), radius, color, -1 if filled else max(2, radius // 3), cv2.LINE_AA)


def write_right(
    image: UInt8Array, text: str, right: int, baseline_y: int, size: int, color: Color, *, bold: bool = False
) -> int:
    """Writes so that the text ends at `right`; returns its width."""
    width = text_rendering.width_of(text, size, bold)
    text_rendering.write(image, text, right - width, baseline_y, size, color, bold=bold)
    return width


def answers(
    image: UInt8Array, predictions: Sequence[Prediction], left: int, top: int, width: int, unit: int, row: int
) -> None:
    """One row of `row` pixels for each answer: its label, its probability, and under them a bar as long as that."""
    size, thickness = text_size(unit), max(2, unit // 6)
    for place, prediction in enumerate(predictions):
        first, row_top = place == 0, top + place * row
        line = baseline(row_top, row - 2 * thickness, size)
        color = WHITE if first else GRAY
        percent = f"{100 * prediction.probability:.1f} %"
        taken = write_right(image, percent, left + width, line, size, color, bold=first)
        label = text_rendering.fitted(prediction.label, size, width - taken - unit // 2, first)
        text_rendering.write(image, label, left, line, size, color, bold=first)
        bar = row_top + row - 2 * thickness
        fill(image, left, bar, width, thickness, TRACK)
        fill(image, left, bar, round(width * prediction.probability), thickness, ACCENT)


def milliseconds(value_ms: float | None) -> str:
    """Three digits that mean something: '0.23', '12.3', '456'; '-' where there is no figure."""
    if value_ms is None:
        return "-"
    return f"{value_ms:.2f}" if value_ms < 10 else f"{value_ms:.1f}" if value_ms < 100 else f"{value_ms:.0f}"
