"""What a person sees: the picture of every source with its answers, a tile for every model, figures and banners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demos.live.result import FrameResult
from demos.live.sources.opencv import opencv
from demos.live.window import layout, overlay, paint, tiles
from demos.live.window.layout import Box
from demos.live.window.overlay import Figure
from demos.live.window.paint import BACKGROUND
from demos.live.window.text_rendering import UInt8Array
from runtimes import Prediction

_EMPTY = (640, 480)
_STATES = {"reconnecting": "reconnecting…", "failed": "failed", "ended": "ended"}
_WALL_SHARE = 1.3
"""How much larger letters may be on a wall of pictures than they would be on one of them."""
_ANSWERS_WIDTH, _MODELS_WIDTH = 14, 20
"""Of the panel over a picture, in units: one model's answers, or each model's best with the model's name."""


def compose(update: FrameResult, state: Mapping[str, Any], *, show_help: bool = False) -> UInt8Array:
    """One source's frame with everything there is to say; the frame itself stays as it is.

    Args:
        state: as `Session.state` gives it.

    Returns:
        A new picture, RGB uint8 [H, W, 3]. Its size follows from the frame's, the number of models and the length of
        names, and so stays the same from frame to frame.
    """
    source = next((source for source in state["sources"] if source["id"] == update.source.id), None)
    return _compose([_Cell(update, source)], state, show_help)


class Renderer:
    """Keeps the newest update of every source and shows them all, side by side, whichever of them came last.

    Visitors of the page are left out: they see themselves there, and nobody else is shown or recorded by surprise.
    """

    def __init__(self) -> None:
        self._newest: dict[int, FrameResult] = {}

    def take(self, update: FrameResult) -> None:
        self._newest[update.source.id] = update

    def compose(self, state: Mapping[str, Any], *, show_help: bool = False) -> UInt8Array:
        """As the function, for all sources of `state`; one that gave no frame yet has an empty place with its name."""
        shown = [source for source in state["sources"] if source["kind"] != "visitor"]
        cells = [_Cell(self._newest.get(source["id"]), source) for source in shown]
        self._newest = {cell.update.source.id: cell.update for cell in cells if cell.update}  # forgets who is gone
        return _compose(cells or [_Cell(None, None)], state, show_help)


@dataclass(frozen=True)
class _Cell:
    """A source's place: its newest update, if there is one, and its entry of the state, if it is still there."""

    update: FrameResult | None
    source: Mapping[str, Any] | None


def _compose(cells: Sequence[_Cell], state: Mapping[str, Any], show_help: bool) -> UInt8Array:
    models, alone = state["models"], len(cells) == 1
    first = next((cell.update.frame.image for cell in cells if cell.update), None)
    size = _EMPTY if first is None else (first.shape[1], first.shape[0])
    (wall_width, wall_height), places = layout.wall_of(size, len(cells))
    share = 0.8 if len(models) > 1 else 1.0
    unit = min(paint.unit_of(wall_width, wall_height, share), paint.unit_of(*places[0][2:], _WALL_SHARE * share))
    plan = layout.arrange(wall_width, wall_height, len(models) if len(models) > 1 else 0, unit)
    figures = overlay.figure_rows(_figures(cells, state), plan.width, unit)
    canvas = np.empty((plan.height + overlay.band_height(figures, unit), plan.width, 3), np.uint8)
    overlay.draw_figures(canvas[plan.height :], figures, unit)
    covered = sum(width * height for *_, width, height in (*plan.tiles, *places))
    if covered < plan.width * plan.height:
        paint.cover(canvas[: plan.height], BACKGROUND)
    wall = _part(canvas, plan.wall)
    banners_end = wall_height
    for cell, place in zip(cells, places, strict=True):
        banner_top = _draw_cell(_part(wall, place), cell, state, unit, alone=alone)
        if place[1] + place[3] == wall_height:
            banners_end = min(banners_end, place[1] + banner_top)
    newest = max((cell.update for cell in cells if cell.update), key=lambda update: update.number, default=None)
    answers = {answer.name: answer for answer in newest.model_results} if newest else {}
    scale_ms = tiles.common_scale_ms(models)
    for number, box in enumerate(plan.tiles):
        tiles.draw(
            _part(canvas, box), models[number], answers.get(models[number]["name"]),
            reference=number == 0, shows_answers=alone, scale_ms=scale_ms, unit=unit,
        )  # fmt: skip
    if state["notice"]:
        overlay.draw_banner(wall, state["notice"], unit, bottom=banners_end)
    recording = state["recording"]
    overlay.draw_badges(wall, unit, paused=state["paused"], recorded_s=recording and recording["seconds"])
    if show_help:
        overlay.draw_help(wall, unit)
    return canvas


def _part(image: UInt8Array, box: Box) -> UInt8Array:
    left, top, width, height = box
    return image[top : top + height, left : left + width]


def _draw_cell(area: UInt8Array, cell: _Cell, state: Mapping[str, Any], unit: int, *, alone: bool) -> int:
    """Returns where its banner begins, so that another one can be put above it."""
    if cell.update is None:
        paint.cover(area, BACKGROUND)
    else:
        _draw_picture(area, cell.update.frame.image)
        if state["untrained"]:
            overlay.draw_untrained(area, unit)
        several = len(state["models"]) > 1
        best = _over_the_picture(cell.update, several, alone)
        overlay.draw_answers(area, best, unit, width_units=_MODELS_WIDTH if several else _ANSWERS_WIDTH)
    trouble, bottom = _trouble(cell), len(area)
    if trouble is not None:
        return overlay.draw_banner(area, trouble, unit, bottom=bottom, alarm=True)
    if cell.source is not None and (not alone or cell.update is None):
        name: str = cell.source["name"]
        return overlay.draw_banner(area, name if cell.update else f"waiting for {name}", unit, bottom=bottom)
    return bottom


def _draw_picture(area: UInt8Array, image: UInt8Array) -> None:
    """Copies the image into the area, as large as it goes, in its own proportions."""
    cv2 = opencv()
    height, width = area.shape[:2]
    if image.shape[:2] == (height, width):
        area[:] = image
        return
    scale = min(width / image.shape[1], height / image.shape[0])
    wide, tall = max(1, min(width, round(image.shape[1] * scale))), max(1, min(height, round(image.shape[0] * scale)))
    if (wide, tall) != (width, height):
        paint.cover(area, BACKGROUND)
    # Tiny pictures show their pixels; everything else is made smooth.
    how = cv2.INTER_NEAREST if scale >= 4 else cv2.INTER_LINEAR if scale > 0.5 else cv2.INTER_AREA
    resized = cv2.resize(image, (wide, tall), interpolation=how)
    _part(area, ((width - wide) // 2, (height - tall) // 2, wide, tall))[:] = resized


def _over_the_picture(update: FrameResult, several_models: bool, alone: bool) -> Sequence[Prediction]:
    """A model's best answers, or every model's best one; nothing where the tiles say it all."""
    if not several_models:
        best = update.model_results[0].predictions if update.model_results else ()
        return best if alone else best[: tiles.ANSWERS]
    if alone:
        return ()
    tops = [(answer.name, answer.predictions[0]) for answer in update.model_results if answer.predictions]
    return [Prediction(f"{top.label}  ({name})", top.index, top.probability) for name, top in tops]


def _trouble(cell: _Cell) -> str | None:
    """What is wrong with a source whose picture is not what it sees now."""
    source = cell.source
    if source is None or source["state"] not in _STATES:
        return None
    name, what, note = source["name"], _STATES[source["state"]], source["note"]
    if not note:
        return f"{name} {what}"
    if source["state"] == "failed":
        return str(note)  # says of what and why
    return f"{what}  {note}" if name in note else f"{name} {what}  {note}"


def _figures(cells: Sequence[_Cell], state: Mapping[str, Any]) -> list[list[Figure]]:
    """The lines under the pictures."""
    models, sources = state["models"], [cell.source for cell in cells if cell.source]
    names = [Figure(f"{state['variant']} · {state['weights']}", strong=len(models) > 1)]
    names += [Figure(source["name"]) for source in sources if len(cells) == 1]
    speed = []
    if len(models) == 1:
        p50, p90 = (paint.milliseconds(models[0][name]) for name in ("infer_p50_ms", "infer_p90_ms"))
        speed += [Figure(models[0]["name"], strong=True), Figure(f"p50 {p50}  p90 {p90} ms", "p50 0.00  p90 0.00 ms")]
    speed.append(Figure(f"{state['loop_fps'] or 0:.0f} FPS", "000 FPS"))
    ages_ms = [source["frame_age_p50_ms"] for source in sources if source["frame_age_p50_ms"] is not None]
    if ages_ms:
        speed.append(Figure(f"frame age {paint.milliseconds(max(ages_ms))} ms", "frame age 0.00 ms"))
    if any(source["is_live"] for source in sources):  # of a file nothing is dropped
        dropped = Figure(f"{sum(source['dropped'] for source in sources)} dropped", "00000 dropped")
        (speed if len(models) > 1 else names).append(dropped)
    return [[*names, *speed]] if len(models) > 1 else [speed, names]
