"""Where things go on the canvas: a wall of pictures, the tiles of the models beside or below it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from demos.live.window import tiles

Box = tuple[int, int, int, int]
"""Left, top, width, height, in pixels."""

SHORTEST_LONG_SIDE, LONGEST_SIDE = 640, 3840
"""A smaller picture is enlarged, so that there is room for letters; a larger one is reduced."""
_LEAST_WIDTH_SHARE, _LEAST_HEIGHT_SHARE = 0.45, 0.3
_LARGEST_WALL_OF_SEVERAL = 1920, 1080
_BEST_SHAPE = 1.6
"""Width over height of a screen, about."""


def wall_of(size: tuple[int, int], count: int) -> tuple[tuple[int, int], list[Box]]:
    """The size of a wall for `count` pictures, the first of which has this size, and the place of each on it."""
    width, height = size
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = min(max(1.0, SHORTEST_LONG_SIDE / max(width, height)), LONGEST_SIDE / max(width, height))
    if count > 1:
        most_width, most_height = _LARGEST_WALL_OF_SEVERAL
        scale = min(scale, most_width / columns / width, most_height / rows / height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    width = max(width, round(_LEAST_WIDTH_SHARE * height))
    height = max(height, round(_LEAST_HEIGHT_SHARE * width))
    places = [(place % columns * width, place // columns * height, width, height) for place in range(count)]
    return (columns * width, rows * height), places


@dataclass(frozen=True)
class Layout:
    """The size of the canvas without the figures under it, and where the wall and the tiles go on it."""

    width: int
    height: int
    wall: Box
    tiles: tuple[Box, ...]


def arrange(wall_width: int, wall_height: int, count: int, unit: int) -> Layout:
    """Of all ways to put `count` tiles beside or below the wall, the one that suits a screen best and wastes least."""
    if not count:
        return Layout(wall_width, wall_height, (0, 0, wall_width, wall_height), ())
    tile_width, tile_height = tiles.WIDTH_UNITS * unit, tiles.HEIGHT_UNITS * unit
    candidates = []
    for columns in range(1, count + 1):
        rows = math.ceil(count / columns)
        width, height = wall_width + columns * tile_width, max(wall_height, rows * tile_height)
        wall = (0, (height - wall_height) // 2, wall_width, wall_height)
        candidates.append((width, height, wall, (wall_width, 0, width - wall_width, height), columns, rows))
        width, height = max(wall_width, columns * tile_width), wall_height + rows * tile_height
        wall = ((width - wall_width) // 2, 0, wall_width, wall_height)
        candidates.append((width, height, wall, (0, wall_height, width, height - wall_height), columns, rows))

    def cost(candidate: tuple[int, int, Box, Box, int, int]) -> float:
        width, height, _, (_, _, area_width, area_height), columns, rows = candidate
        used = wall_width * wall_height + area_width * area_height * count / (columns * rows)
        bad_shape = abs(math.log(width / height / _BEST_SHAPE))
        stretched = math.log(area_height / rows / tile_height) + math.log(area_width / columns / tile_width)
        return bad_shape + 3 * math.log(width * height / used) + 0.5 * stretched

    width, height, wall, area, columns, rows = min(candidates, key=cost)
    return Layout(width, height, wall, _grid(area, count, columns, rows))


def _grid(area: Box, count: int, columns: int, rows: int) -> tuple[Box, ...]:
    left, top, width, height = area
    places = []
    for place in range(count):
        x, y = width * (place % columns) // columns, height * (place // columns) // rows
        right, bottom = width * (place % columns + 1) // columns, height * (place // columns + 1) // rows
        places.append((left + x, top + y, right - x, bottom - y))
    return tuple(places)
