"""Draws the window: images at the left, a panel for every model at the right, title and figures below."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np

from demos.live.dashboard import UNTRAINED, Dashboard, Figure, ModelTexts, SourceTexts, keys_help, percent
from demos.live.result import FrameResult, ModelResult
from demos.live.sources.opencv import opencv
from demos.live.window.text_rendering import CAPITAL_HEIGHT, Color, fitted, width_of, write
from simplenet.preprocessing import UInt8Array

BACKGROUND: Color = (16, 18, 22)
SURFACE: Color = (28, 31, 37)
TRACK: Color = (62, 67, 76)
WHITE: Color = (245, 247, 250)
GRAY: Color = (168, 175, 186)
ACCENT: Color = (64, 200, 160)
ACCENT_DIM: Color = (34, 84, 74)
ALARM: Color = (214, 48, 49)

MIN_LONG_SIDE, LONGEST_SIDE = 640, 3840  # pixels; small images are enlarged to leave room for text
_LARGEST_GRID = 1920, 1080
_SMALLEST_UNIT = 15  # pixels; everything below is measured in units
_PANEL_WIDTH, _PANEL_LEAST_HEIGHT, _FOOTER_HEIGHT = 18, 7, 3.2
_ROW, _PREDICTION, _SPARKLINE_MIN, _SPARKLINE_MAX = 1.4, 1.5, 2, 7  # heights

Row = tuple[str, float, Color]  # a prediction as drawn: label, probability, color of its bar


class Renderer:
    """Draws the newest result of every source in a grid. Visitors' cameras are never drawn."""

    def __init__(self) -> None:
        self._newest: dict[int, FrameResult] = {}
        self._canvas = np.empty((0, 0, 3), np.uint8)
        self._texts: object = None  # the texts on the canvas, which stay there until they change

    def add(self, result: FrameResult) -> None:
        """Keep the result until the next one of its source."""
        self._newest[result.source.id] = result

    def draw(self, dashboard: Dashboard, *, show_help: bool = False) -> UInt8Array:
        """The whole window, RGB uint8 [H, W, 3]; the next call draws on the same array."""
        sources = [source for source in dashboard["sources"] if not source["is_visitor"]]
        self._newest = {source["id"]: self._newest[source["id"]] for source in sources if source["id"] in self._newest}
        results = list(self._newest.values())
        models, is_single = dashboard["models"], len(sources) <= 1
        columns = math.ceil(math.sqrt(max(1, len(sources))))
        rows = math.ceil(max(1, len(sources)) / columns)
        width, height = _grid_size(results[0].frame.image.shape[1::-1] if results else (640, 480), columns, rows)
        unit = max(_SMALLEST_UNIT, min(height // 26, width // 32))
        height = max(height, _PANEL_LEAST_HEIGHT * unit * len(models))
        shape = height + round(_FOOTER_HEIGHT * unit), width + _PANEL_WIDTH * unit, 3
        latest = {result.name: result for result in results[-1].model_results} if results and is_single else {}
        panels = [(model, _rows(latest[model["name"]]) if model["name"] in latest else []) for model in models]
        texts = dashboard, shape, [len(predictions) for _, predictions in panels]
        if is_new := texts != self._texts:
            self._texts = texts
            self._canvas = self._canvas if self._canvas.shape == shape else np.empty(shape, np.uint8)
        grid, column, footer = self._canvas[:height, :width], self._canvas[:height, width:], self._canvas[height:]
        if is_new:
            _fill(column, SURFACE)
            _draw_footer(footer, dashboard, sources[0] if len(sources) == 1 else None, unit)
        for place, (model, predictions) in enumerate(panels):
            _draw_panel(_cell(column, place, 1, len(models)), model, predictions, dashboard["scale"], unit, is_new)
        if not (is_single and results):
            _fill(grid, BACKGROUND)
        for place, source in enumerate(sources):
            cell = _cell(grid, place, columns, rows)
            _draw_source(cell, source, self._newest.get(source["id"]), dashboard["untrained"], unit, is_single)
        if dashboard["notice"]:
            _draw_notice(grid, dashboard["notice"], unit)
        if show_help:
            _draw_help(grid, unit)
        return self._canvas


def _grid_size(size: tuple[int, int], columns: int, rows: int) -> tuple[int, int]:
    """Width and height of the grid for images of `size` (width, height)."""
    width, height = columns * size[0], rows * size[1]
    scale = min(max(1.0, MIN_LONG_SIDE / max(size)), LONGEST_SIDE / max(size))
    if columns > 1:
        scale = min(scale, _LARGEST_GRID[0] / width, _LARGEST_GRID[1] / height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    return max(width, height // 2), max(height, width // 3)  # room for text beside extreme shapes


def _cell(area: UInt8Array, place: int, columns: int, rows: int) -> UInt8Array:
    """The part of the area for item number `place` of a grid."""
    height, width = area.shape[0] // rows, area.shape[1] // columns
    y, x = place // columns * height, place % columns * width
    return area[y : y + height, x : x + width]


def _draw_source(
    cell: UInt8Array, source: SourceTexts, result: FrameResult | None, untrained: str, unit: int, is_single: bool
) -> None:
    """Draw the newest image of a source. If there are more sources, also draw its name, figures and predictions."""
    width, row, name = cell.shape[1], round(_ROW * unit), source["name"]
    caption = source["banner"] or (f"waiting for {name}" if result is None else "" if is_single else name)
    if result is not None:
        draw_image(cell, result.frame.image)
        if untrained:
            _draw_untrained(cell, untrained, unit)
        if not is_single:
            firsts = ((model.name, *_rows(model)[0]) for model in result.model_results if model.predictions)
            rows = [(f"{name}: {label}", probability, color) for name, label, probability, color in firsts]
            _shade(cell[2 * unit : 2 * unit + round((len(rows) * _PREDICTION + 0.4) * unit), unit // 2 : 16 * unit])
            _draw_predictions(cell, rows, unit, 2 * unit, min(width, 16 * unit) - round(1.5 * unit), unit)
    if caption:
        _shade(cell[:row])
        _fill(cell[:row, : max(3, unit // 5)], ALARM if source["is_failing"] else ACCENT)
        x = _write(cell, caption, unit, 0, unit, WHITE, room=width - 2 * unit)
        if not is_single and not source["banner"]:
            _draw_figures(cell, source["figures"], x + unit, 0, unit)


def _rows(model: ModelResult) -> list[Row]:
    """The predictions of a model. If the first differs from the reference model's, it gets '≠' and all bars are red."""
    differs, color = (True, ALARM) if model.agrees is False else (False, ACCENT)
    labels = [f"≠ {one.label}" if differs and not place else one.label for place, one in enumerate(model.predictions)]
    return [(label, one.probability, color) for label, one in zip(labels, model.predictions, strict=True)]


def draw_image(area: UInt8Array, image: UInt8Array) -> None:
    """Fit the image into the area; tiny images keep sharp pixels, everything else is interpolated."""
    cv2 = opencv()
    (height, width), (tall, wide) = area.shape[:2], image.shape[:2]
    scale = min(width / wide, height / tall)
    wide, tall = max(1, min(width, round(wide * scale))), max(1, min(height, round(tall * scale)))
    if (tall, wide) != (height, width):
        _fill(area, BACKGROUND)
    if image.shape[:2] != (tall, wide):
        method = cv2.INTER_NEAREST if scale >= 4 else cv2.INTER_LINEAR if scale > 0.5 else cv2.INTER_AREA
        image = cv2.resize(image, (wide, tall), interpolation=method)
    top, left = (height - tall) // 2, (width - wide) // 2
    area[top : top + tall, left : left + wide] = image


def _draw_panel(
    panel: UInt8Array, model: ModelTexts, predictions: Sequence[Row], scale: str, unit: int, is_new: bool
) -> None:
    """Draw one model: name, latency, agreement, as many predictions as fit, sparkline.

    Without `is_new`, only the predictions are drawn again; the rest is already on the panel.
    """
    height, left, right = panel.shape[0], unit, panel.shape[1] - unit
    top = round(3.3 * unit)
    fitting = max(1, int((height - top - (_SPARKLINE_MIN + 1) * unit) / (_PREDICTION * unit)))
    predictions = predictions[:fitting]
    y = top + round((len(predictions) * _PREDICTION + 0.3) * unit)
    if is_new:
        _fill(panel[:, :1], TRACK)
        _fill(panel[:1], TRACK)
        start = _write(panel, f"p50 {model['p50']}", right, unit // 2, unit, WHITE, bold=True, right=True)
        _write(panel, model["name"], left, unit // 2, unit, WHITE, bold=True, room=start - unit // 2 - left)
        _write(panel, f"p90 {model['p90']}", right, round(1.8 * unit), unit, GRAY, right=True)
        _write(panel, model["agreement"], left, round(1.8 * unit), unit, GRAY)
        sparkline = panel[y : min(height - unit // 2, y + _SPARKLINE_MAX * unit), left:right]
        _draw_sparkline(sparkline, model["sparkline"], scale, unit)
    else:
        _fill(panel[top : top + round(len(predictions) * _PREDICTION * unit), 1:], SURFACE)
    _draw_predictions(panel, predictions, left, top, right - left, unit)


def _draw_predictions(image: UInt8Array, rows: Sequence[Row], x: int, y: int, width: int, unit: int) -> None:
    """A row for each prediction: label, probability, and below them a bar as long as the probability."""
    for place, (label, probability, color) in enumerate(rows):
        top, ink = y + round(place * _PREDICTION * unit), WHITE if place == 0 else GRAY
        start = _write(image, percent(probability), x + width, top, unit, ink, right=True)
        _write(image, label, x, top, unit, ink, room=start - unit // 2 - x, bold=place == 0)
        bar = image[top + round(1.2 * unit) : top + round(1.37 * unit), x : x + width]
        _fill(bar, TRACK)
        _fill(bar[:, : round(width * probability)], color)


def _draw_sparkline(area: UInt8Array, shares: Sequence[float], scale: str, unit: int) -> None:
    """Recent latencies, from 0 at the bottom to the common scale at the top; the scale is written beside it."""
    cv2 = opencv()
    height, width = area.shape[:2]
    across, bottom = width - round(3.2 * unit), height - 1
    if height < unit or across < unit or len(shares) < 2:
        return
    _fill(area[:1, :across], TRACK)
    _write(area, scale, width, -(unit // 3), unit, GRAY, right=True)
    # Coordinates are in sixteenths of a pixel: in whole pixels, slow changes would look like stairs.
    x, y = np.linspace(0, across - 1, len(shares)), bottom * (1 - np.array(shares))
    curve = np.round(16 * np.stack([x, y], 1)).astype(np.int32)
    corners = np.array([[16 * (across - 1), 16 * bottom], [0, 16 * bottom]], np.int32)
    cv2.fillPoly(area, [np.concatenate([curve, corners])], ACCENT_DIM, cv2.LINE_AA, 4)
    cv2.polylines(area, [curve], False, ACCENT, max(1, unit // 12), cv2.LINE_AA, 4)


def _draw_footer(area: UInt8Array, dashboard: Dashboard, source: SourceTexts | None, unit: int) -> None:
    """Title, source and badges in the first row, figures in the second."""
    right, top = area.shape[1] - unit, unit // 4
    _fill(area, SURFACE)
    _fill(area[:1], TRACK)
    for badge in dashboard["badges"]:
        right = _write(area, badge, right, top, unit, WHITE, bold=True, right=True) - unit
        if badge.startswith("REC"):
            opencv().circle(area, (right, top + round(_ROW * unit / 2)), unit // 3, ALARM, -1, 16)
            right -= unit
    x = _write(area, dashboard["title"], unit, top, unit, WHITE, bold=True, room=right - unit)
    if source is not None:
        name = ", ".join(filter(None, (source["name"], source["facts"])))
        _write(area, name, x + unit, top, unit, GRAY, room=right - x - unit)
    figures = [*dashboard["figures"], *(source["figures"] if source else [])]
    _draw_figures(area, figures, unit, round(1.5 * unit), unit)


def _draw_figures(area: UInt8Array, figures: Sequence[Figure], x: int, y: int, unit: int) -> None:
    """Figures in one row, as many as fit."""
    for figure in figures:
        if x + width_of(f"{figure['name']} {figure['value']}", _text_size(unit)) > area.shape[1] - unit:
            return
        x = _write(area, figure["name"], x, y, unit, GRAY) + unit // 3
        x = max(_write(area, figure["value"], x, y, unit, WHITE), x + round(1.5 * unit))
        x = _write(area, figure["note"], x + unit // 3, y, unit, GRAY) + unit


def _draw_untrained(area: UInt8Array, note: str, unit: int) -> None:
    """A band across the whole image: these predictions must not be taken for real ones."""
    height, width = area.shape[:2]
    top, size = max(0, height // 2 - 2 * unit), min(2 * unit, width // 7)
    _shade(area[top : top + 4 * unit], ALARM, 0.85)
    write(area, UNTRAINED, (width - width_of(UNTRAINED, size, True)) // 2, top + 2 * unit, size, WHITE, bold=True)
    note = fitted(note, _text_size(unit), width)
    _write(area, note, (width - width_of(note, _text_size(unit))) // 2, top + round(2.4 * unit), unit, WHITE)


def _draw_notice(area: UInt8Array, text: str, unit: int) -> None:
    """One to three lines across the bottom."""
    height, width = area.shape[:2]
    letters = (width - 2 * unit) // round(0.6 * _text_size(unit))
    lines = textwrap.wrap(text, max(8, letters), max_lines=3, placeholder="…")
    top = max(0, height - round((len(lines) * _ROW + 0.4) * unit))
    _shade(area[top:])
    _fill(area[top:, : max(3, unit // 5)], ACCENT)
    for place, line in enumerate(lines):
        _write(area, line, unit, top + round((place * _ROW + 0.2) * unit), unit, WHITE, room=width - 2 * unit)


def _draw_help(area: UInt8Array, unit: int) -> None:
    """The keys, in the middle of the images."""
    keys, size = keys_help(), _text_size(unit)
    first = max(width_of(names, size, True) for names, _ in keys)
    width = first + max(width_of(label, size) for _, label in keys) + 3 * unit
    height = round(len(keys) * _ROW * unit) + unit
    left, top = max(0, area.shape[1] - width) // 2, max(0, area.shape[0] - height) // 2
    _shade(area[top : top + height, left : left + width], opacity=0.97)
    for place, (names, label) in enumerate(keys):
        y = top + unit // 2 + round(place * _ROW * unit)
        _write(area, names, left + unit, y, unit, ACCENT, bold=True)
        _write(area, label, left + 2 * unit + first, y, unit, WHITE)


def _text_size(unit: int) -> int:
    return max(11, round(0.75 * unit))


def _write(
    image: UInt8Array, text: str, x: int, top: int, unit: int, color: Color,
    *, bold: bool = False, room: int = 10_000, right: bool = False,
) -> int:  # fmt: skip
    """Write in the middle of a row, from `x` on, or with `right` up to `x`; returns the x of the text's other end."""
    size = _text_size(unit)
    text = fitted(text, size, room, bold)
    width = width_of(text, size, bold)
    left = x - width if right else x
    write(image, text, left, top + round((_ROW * unit + CAPITAL_HEIGHT * size) / 2), size, color, bold=bold)
    return left if right else x + width


def _fill(image: UInt8Array, color: Color) -> None:
    if image.size:  # many times faster than numpy's image[:] = color
        opencv().rectangle(image, (0, 0), image.shape[1::-1], color, -1)


def _shade(image: UInt8Array, color: Color = BACKGROUND, opacity: float = 0.82) -> None:
    """Blend the image with a color."""
    if image.size:
        cv2 = opencv()
        cv2.convertScaleAbs(image, image, 1 - opacity, 0)
        cv2.add(image, (*(int(channel * opacity) for channel in color), 0), image)  # twenty times numpy's speed
