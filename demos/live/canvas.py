"""What a person sees: the picture of every source with its answers, a tile for every model, figures and banners."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demos.live import overlay, paint, tiles
from demos.live.opencv import opencv
from demos.live.overlay import Figure
from demos.live.paint import BACKGROUND, UInt8Array
from demos.live.result import Answer, Update
from runtimes import Prediction

SHORTEST_LONG_SIDE, LONGEST_SIDE = 640, 3840
"""A smaller picture is enlarged, so that there is room for letters; a larger one is reduced."""
_LEAST_WIDTH_SHARE, _LEAST_HEIGHT_SHARE = 0.45, 0.3
_WALL = (1920, 1080)
_BEST_SHAPE = 1.6
_GONE = {"reconnecting": "reconnecting…", "failed": "failed", "ended": "ended"}


def compose(update: Update, state: Mapping[str, Any], *, show_help: bool = False) -> UInt8Array:
    """One source's frame with everything there is to say; the frame itself stays as it is.

    Returns:
        A new picture, RGB uint8 [H, W, 3]. Its size follows the frame's, the number of models and the length of their
        names, and is the same from frame to frame.
    """
    return _compose([_Cell(update, _source_state(update, state))], state, show_help)


class Canvas:
    """Keeps the newest update of every source and shows them all, side by side, whichever of them came last.

    Visitors of the page are left out: they see themselves there, and nobody else is shown or recorded by surprise.
    """

    def __init__(self) -> None:
        self._newest: dict[int, Update] = {}

    def take(self, update: Update) -> None:
        self._newest[update.source.id] = update

    def compose(self, state: Mapping[str, Any], *, show_help: bool = False) -> UInt8Array:
        """As the function, for all sources of `state`; one that gave no frame yet has an empty place with its name."""
        shown = [source for source in state["sources"] if source["kind"] != "visitor"]
        self._newest = {source["id"]: update for source in shown if (update := self._newest.get(source["id"]))}
        cells = [_Cell(self._newest.get(source["id"]), source) for source in shown]
        return _compose(cells or [_Cell(None, None)], state, show_help)


@dataclass(frozen=True)
class _Cell:
    update: Update | None
    source: Mapping[str, Any] | None


def _source_state(update: Update, state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((source for source in state["sources"] if source["id"] == update.source.id), None)


def _compose(cells: Sequence[_Cell], state: Mapping[str, Any], show_help: bool) -> UInt8Array:
    models = state["models"]
    size = _cell_size(cells)
    columns = math.ceil(math.sqrt(len(cells)))
    rows = math.ceil(len(cells) / columns)
    wall_width, wall_height = columns * size[0], rows * size[1]
    unit = paint.unit_of(wall_width, wall_height)
    if len(models) > 1:
        unit = max(paint.unit_of(0, 0), round(0.8 * unit))
    layout = _arrange(wall_width, wall_height, len(models) if len(models) > 1 else 0, unit)
    figures = overlay.figure_rows(_figures(cells, state), layout.width, unit)
    canvas = np.empty((layout.height + overlay.band_height(figures, unit), layout.width, 3), np.uint8)
    if layout.width > wall_width or layout.height > wall_height:
        paint.cover(canvas, BACKGROUND)
    overlay.draw_figures(canvas[layout.height :], figures, unit)
    wall = canvas[layout.wall_top : layout.wall_top + wall_height, layout.wall_left : layout.wall_left + wall_width]
    bottoms = [wall_height]
    for place in range(columns * rows):
        left, top = place % columns * size[0], place // columns * size[1]
        area = wall[top : top + size[1], left : left + size[0]]
        if place < len(cells):
            banner_top = _draw_cell(area, cells[place], state, unit, alone=len(cells) == 1)
            if top + size[1] == wall_height:
                bottoms.append(top + banner_top)
        else:
            paint.cover(area, BACKGROUND)
    _draw_tiles(canvas, layout, cells, models, unit)
    if state["notice"]:
        overlay.draw_banner(wall, state["notice"], unit, bottom=min(bottoms))
    overlay.draw_badges(wall, unit, state["paused"], _recording(state["recording"]))
    if show_help:
        overlay.draw_help(wall, unit)
    return canvas


def _draw_cell(area: UInt8Array, cell: _Cell, state: Mapping[str, Any], unit: int, *, alone: bool) -> int:
    """Returns where its banner begins, so that another one can be put above it."""
    height = area.shape[0]
    if cell.update is None:
        paint.cover(area, BACKGROUND)
    else:
        _place(area, cell.update.frame.image)
        if state["untrained"]:
            overlay.draw_untrained(area, unit)
        several = len(state["models"]) > 1
        best = _over_the_picture(cell.update, several, alone)
        overlay.draw_answers(area, best, unit, width_units=20 if several else 14)
    trouble = _trouble(cell)
    if trouble is not None:
        return overlay.draw_banner(area, trouble, unit, bottom=height, alarm=True)
    if cell.source is not None and (not alone or cell.update is None):
        waiting = "" if cell.update else "waiting for "
        return overlay.draw_banner(area, waiting + cell.source["name"], unit, bottom=height)
    return height


def _over_the_picture(update: Update, several_models: bool, alone: bool) -> Sequence[Prediction]:
    """A model's best answers, or every model's best one; nothing where the tiles say it all."""
    if not several_models:
        best = update.answers[0].predictions if update.answers else ()
        return best if alone else best[: tiles.ANSWERS]
    if alone:
        return ()
    tops = [(answer.name, answer.predictions[0]) for answer in update.answers if answer.predictions]
    return [Prediction(f"{top.label}  {name}", top.index, top.probability) for name, top in tops]


def _trouble(cell: _Cell) -> str | None:
    """What is wrong with a source whose picture is not what it sees now."""
    if cell.source is None or cell.source["state"] not in _GONE:
        return None
    parts = (cell.source["name"], _GONE[cell.source["state"]])
    note = cell.source["note"]
    return " ".join(parts) + (f"  {note}" if note else "")


def _place(area: UInt8Array, image: UInt8Array) -> None:
    """Copies the image into the area, as large as it goes, in its own proportions."""
    cv2 = opencv()
    height, width = area.shape[:2]
    if image.shape[:2] == (height, width):
        area[:] = image
        return
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = max(1, min(width, round(image.shape[1] * scale))), max(1, min(height, round(image.shape[0] * scale)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    if inner != (width, height):
        paint.cover(area, BACKGROUND)
    # Tiny pictures show their pixels; everything else is made smooth.
    how = cv2.INTER_NEAREST if scale >= 4 else cv2.INTER_LINEAR if scale > 0.5 else cv2.INTER_AREA
    area[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=how)


def _cell_size(cells: Sequence[_Cell]) -> tuple[int, int]:
    """Width and height of every source's place: the first picture's, within bounds."""
    image = next((cell.update.frame.image for cell in cells if cell.update), None)
    width, height = (640, 480) if image is None else (image.shape[1], image.shape[0])
    scale = min(max(1.0, SHORTEST_LONG_SIDE / max(width, height)), LONGEST_SIDE / max(width, height))
    if len(cells) > 1:
        columns = math.ceil(math.sqrt(len(cells)))
        scale = min(scale, _WALL[0] / columns / width, _WALL[1] / math.ceil(len(cells) / columns) / height)
    width, height = round(width * scale), round(height * scale)
    return max(width, round(_LEAST_WIDTH_SHARE * height)), max(height, round(_LEAST_HEIGHT_SHARE * width))


@dataclass(frozen=True)
class _Layout:
    """Where the wall of pictures and the tiles go; `tiles` are left, top, width, height."""

    width: int
    height: int
    wall_left: int
    wall_top: int
    tiles: tuple[tuple[int, int, int, int], ...]


def _arrange(wall_width: int, wall_height: int, count: int, unit: int) -> _Layout:
    """Tiles beside or below the pictures, in as many columns as give the shape that wastes the least of a screen."""
    if not count:
        return _Layout(wall_width, wall_height, 0, 0, ())
    least_width, least_height = tiles.WIDTH_UNITS * unit, tiles.HEIGHT_UNITS * unit
    best: tuple[float, _Layout] | None = None
    for columns in range(1, count + 1):
        rows = math.ceil(count / columns)
        beside = (wall_width + columns * least_width, max(wall_height, rows * least_height))
        below = (max(wall_width, columns * least_width), wall_height + rows * least_height)
        for is_beside, (width, height) in ((True, beside), (False, below)):
            if is_beside:
                area, corner = (wall_width, 0, width - wall_width, height), (0, (height - wall_height) // 2)
            else:
                area, corner = (0, wall_height, width, height - wall_height), ((width - wall_width) // 2, 0)
            used = wall_width * wall_height + area[2] * area[3] * count / (columns * rows)
            stretched = area[3] / rows / least_height
            cost = abs(math.log(width / height / _BEST_SHAPE))
            cost += 2 * math.log(width * height / used) + 0.5 * math.log(stretched)
            if best is None or cost < best[0]:
                best = cost, _Layout(width, height, *corner, _grid(area, count, columns, rows))
    assert best is not None
    return best[1]


def _grid(area: tuple[int, int, int, int], count: int, columns: int, rows: int) -> tuple[tuple[int, int, int, int], ...]:
    left, top, width, height = area
    places = []
    for place in range(count):
        x, y = width * (place % columns) // columns, height * (place // columns) // rows
        right, bottom = width * (place % columns + 1) // columns, height * (place // columns + 1) // rows
        places.append((left + x, top + y, right - x, bottom - y))
    return tuple(places)


def _draw_tiles(
    canvas: UInt8Array, layout: _Layout, cells: Sequence[_Cell], models: Sequence[Mapping[str, Any]], unit: int
) -> None:
    if not layout.tiles:
        return
    newest = max((cell.update for cell in cells if cell.update), key=lambda update: update.number, default=None)
    answers: dict[str, Answer] = {answer.name: answer for answer in newest.answers} if newest else {}
    scale_ms = tiles.common_scale_ms(models)
    for place, model in enumerate(models):
        left, top, width, height = layout.tiles[place]
        tiles.draw(
            canvas[top : top + height, left : left + width], model, answers.get(model["name"]),
            reference=place == 0, scale_ms=scale_ms, unit=unit, shows_answers=len(cells) == 1,
        )  # fmt: skip


def _figures(cells: Sequence[_Cell], state: Mapping[str, Any]) -> list[list[Figure]]:
    """The lines under the pictures."""
    models, sources = state["models"], [cell.source for cell in cells if cell.source]
    speed = []
    if len(models) == 1:
        p50, p90 = paint.milliseconds(models[0]["infer_p50_ms"]), paint.milliseconds(models[0]["infer_p90_ms"])
        speed = [Figure(models[0]["name"], strong=True), Figure(f"p50 {p50}  p90 {p90} ms")]
    speed.append(Figure(f"{state['loop_fps'] or 0:.0f} FPS", "000 FPS"))
    ages = [source["frame_age_p50_ms"] for source in sources if source["frame_age_p50_ms"] is not None]
    if ages:
        speed.append(Figure(f"frame age {paint.milliseconds(max(ages))} ms"))
    speed.append(Figure(f"{sum(source['dropped'] for source in sources)} dropped", "0000 dropped"))
    names = [Figure(f"{state['variant']} · {state['weights']}", strong=len(models) > 1)]
    names += [Figure(source["name"]) for source in sources[:1] if len(cells) == 1]
    return [[*names, *speed]] if len(models) > 1 else [speed, names]


def _recording(recording: Any) -> str | None:
    """'REC 1:02:03' from {'seconds': ...}."""
    if not recording:
        return None
    seconds = int(recording.get("seconds") or 0) if isinstance(recording, Mapping) else 0
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"REC {hours}:{minutes:02}:{seconds % 60:02}" if hours else f"REC {minutes:02}:{seconds % 60:02}"
