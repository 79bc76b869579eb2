"""Plot a comparison: accuracy against model latency, one labeled marker for each backend and precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from demos.benchmark.comparison import Comparison
from simplenet import files, vendors
from simplenet.errors import one_line
from simplenet.formats import PRECISIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
_MARKERS = dict(zip(PRECISIONS, "osD^", strict=True))
_SIZE_INCHES, _DPI = (8.4, 4.8), 150
_LABEL_OFFSETS = [
    (side * dx, dy) for dy in (0, 11, -11, 22, -22, 33, -33, 44, -44) for dx in (9, 24) for side in (1, -1)
]
"""Tried in this order, in points, until a label overlaps neither markers nor other labels."""


def draw(comparison: Comparison, path: Path) -> None:
    """Write the plot as a .png or .svg file.

    The vertical axis is top-1 accuracy, or agreement with the reference row if there are no labels.
    """
    with vendors.matplotlib_cache():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.supxlabel(_conditions(comparison), fontsize="x-small", color="0.4")
    draw_accuracy(figure, comparison)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


def draw_accuracy(figure: Figure, comparison: Comparison) -> None:
    """Draw accuracy against latency, the Pareto front, and the noise floor around the fastest row."""
    axes = figure.subplots()
    labels = _draw_markers(axes, comparison)
    axes.set_xscale("log")
    plain_ticks(axes)
    axes.margins(x=0.16)
    percents = [percent for _, percent, _, _ in labels] or [100.0]
    margin = max(0.5, 0.2 * (max(percents) - min(percents)))
    axes.set_ylim(min(percents) - margin, max(percents) + margin)
    axes.set_xlabel("model latency p50 (ms, batch 1, log scale)")
    reference = comparison.reference.name if comparison.reference else "the reference"
    axes.set_ylabel("top-1 accuracy (%)" if comparison.labeled else f"agreement with {reference} (%)")
    axes.set_title(f"{comparison.network}; {comparison.image_count:,} images", fontsize="medium")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _place_labels(figure, axes, labels)


def colors(comparison: Comparison) -> dict[str, str]:
    """A color for each backend."""
    return {backend: f"C{n}" for n, backend in enumerate(dict.fromkeys(row.backend for row in comparison.rows))}


def plain_ticks(axes: Axes) -> None:
    """Label a logarithmic axis with 0.1, 0.2, 0.5, 1, ..."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_markers(axes: Axes, comparison: Comparison) -> list[tuple[float, float, str, str]]:
    """Draw every measured row; return the position, text and color of its label."""
    labels = []
    by_backend = colors(comparison)
    for row in comparison.rows:
        percent = row.top1_percent if comparison.labeled else row.agreement_percent
        if row.latency is not None and percent is not None:
            color = by_backend[row.backend]
            axes.plot(row.latency.p50_ms, percent, _MARKERS[row.precision], color=color, markersize=7)
            labels.append((row.latency.p50_ms, percent, row.name, color))
    if labels:
        fastest_ms = min(labels)[0]
        band = 1 + comparison.noise
        axes.axvspan(fastest_ms / band, fastest_ms * band, color="0.5", alpha=0.25, linewidth=0)
        front = [(x, y) for x, y, _, _ in sorted(labels) if all(y > other for o, other, _, _ in labels if o < x)]
        axes.step(*zip(*front, strict=True), where="post", color="0.5", linewidth=1, zorder=0)
    return labels


def _place_labels(figure: Figure, axes: Axes, labels: list[tuple[float, float, str, str]]) -> None:
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # fixes the positions of the axes
    figure.set_layout_engine("none")
    points = [axes.transData.transform((x, y)) for x, y, _, _ in labels]
    half = 5 * figure.dpi / 72
    occupied = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in points]
    for x, y, text, color in sorted(labels, reverse=True):
        for offset in _LABEL_OFFSETS:
            side = "left" if offset[0] > 0 else "right"
            place: dict[str, Any] = {"xy": (x, y), "xytext": offset, "textcoords": "offset points", "color": color}
            label = axes.annotate(text, **place, fontsize="small", ha=side, va="center")
            box = label.get_window_extent()
            is_inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            if (is_inside and not any(map(box.overlaps, occupied))) or offset == _LABEL_OFFSETS[-1]:
                break
            label.remove()
        occupied.append(box)
        if offset[1]:  # a leader line from the label to its marker
            axes.annotate("", **place, arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.5, "shrinkB": 4})


def _conditions(comparison: Comparison) -> str:
    counts = [row.latency.n for row in comparison.rows if row.latency]
    processor = comparison.machine.get("processor", "unknown processor")
    return one_line(
        f"{processor}, {comparison.threads} threads; {min(counts, default=0):,} inferences per marker "
        f"in {comparison.rounds} rounds; {comparison.images}"
    )
