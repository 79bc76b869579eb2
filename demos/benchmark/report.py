"""Write a comparison as one HTML file that needs no network: charts, all numbers, environment, raw samples."""

from __future__ import annotations

import html
import io
import json
import math
import re
import shlex
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demos.benchmark import plot, table
from demos.benchmark.comparison import Comparison, Row
from simplenet import files, vendors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATE = Path(__file__).with_name("report.html")
_TEXT_COLOR = "#010203"
"""Replaced by the page's text color, which is another one in dark mode."""
_PARTS = ("preprocess", "inference", "postprocess")


def write(comparison: Comparison, path: Path, command: Sequence[str]) -> None:
    """Write the report, completely or not at all.

    Args:
        command: the command line that measured the comparison.
    """
    measured = [row for row in comparison.rows if row.latency]
    figures = [_figure(comparison, measured, draw) for draw in (_accuracy, _rounds, _distributions, _stages, _memory)]
    raw = json.dumps(comparison.to_json()).replace("<", "\\u003c")  # "</script>" would end the element
    text = string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(f"SimpleNet: {comparison.network}"),
        conclusion=html.escape(table.conclusion(comparison)),
        conditions=html.escape(table.machine_line(comparison)),
        figures="\n".join(figures),
        table=_table(comparison),
        notes="\n".join(f"<li>{html.escape(note)}</li>" for note in table.notes(comparison)),
        command=html.escape(shlex.join(command)),
        environment="\n".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>"
            for name, value in {**comparison.machine, "threads": comparison.threads, **comparison.versions}.items()
        ),
        results=raw,
    )
    with files.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _figure(comparison: Comparison, rows: list[Row], draw: Callable[[Figure, Comparison, list[Row]], str]) -> str:
    """Return an HTML figure with the chart that `draw` makes, and with the caption that it returns."""
    with vendors.matplotlib_cache():
        import matplotlib
        from matplotlib.figure import Figure

    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    settings: Any = {**dict.fromkeys(names, _TEXT_COLOR), "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8.4, max(2.2, 0.36 * len(rows) + 1.1)), layout="constrained")
        caption = draw(figure, comparison, rows)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", transparent=True)
    drawing = svg.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    drawing = drawing.replace(_TEXT_COLOR, "currentColor")
    return f'<figure><div class="wide">{drawing}</div><figcaption>{html.escape(caption)}</figcaption></figure>'


def _accuracy(figure: Figure, comparison: Comparison, rows: list[Row]) -> str:
    figure.set_size_inches(8.4, 4.8)
    plot.draw_accuracy(figure, comparison)
    return (
        "Accuracy against latency. The line joins the rows that no other row beats in both. The band around the "
        f"fastest row is the noise floor of this run, {100 * comparison.noise:.1f} %."
    )


def _rounds(figure: Figure, comparison: Comparison, rows: list[Row]) -> str:
    axes = _horizontal(figure, rows)
    fastest = min(rows, key=lambda row: row.latency.p50_ms if row.latency else math.inf)
    colors = plot.colors(comparison)
    base = _round_medians(fastest)
    for place, row in enumerate(rows):
        medians = _round_medians(row)
        common = min(len(base), len(medians))
        shifts = np.linspace(-0.25, 0.25, common)  # the rounds in their order, from above to below
        axes.plot(medians[:common] / base[:common], place + shifts, ".", color=colors[row.backend], alpha=0.7)
    axes.axvspan(1 / (1 + comparison.noise), 1 + comparison.noise, color="0.5", alpha=0.25, linewidth=0)
    axes.set_xscale("log")
    plot.plain_ticks(axes)
    axes.set_xlabel(f"model latency over that of {fastest.name} in the same round (log scale)")
    return "Each point is the median of one round. The band is the noise floor."


def _distributions(figure: Figure, comparison: Comparison, rows: list[Row]) -> str:
    axes = _horizontal(figure, rows)
    colors = plot.colors(comparison)
    for place, row in enumerate(rows):
        assert row.timings is not None
        samples = np.sort([sample for samples in row.timings.rounds_ms for sample in samples])
        low, high = np.percentile(samples, [5, 95])
        axes.plot([samples[0], samples[-1]], [place, place], color=colors[row.backend], linewidth=1, alpha=0.5)
        axes.plot([low, high], [place, place], color=colors[row.backend], linewidth=7, alpha=0.5, solid_capstyle="butt")
        axes.plot(np.percentile(samples, [50, 90, 99]), [place] * 3, "|", color=_TEXT_COLOR, markersize=11)
    axes.set_xscale("log")
    plot.plain_ticks(axes)
    axes.set_xlabel("model latency (ms, log scale)")
    return "All samples: from the lowest to the highest; thick: from 5 to 95 %; marks: p50, p90, p99."


def _stages(figure: Figure, comparison: Comparison, rows: list[Row]) -> str:
    axes = _horizontal(figure, rows)
    start = np.zeros(len(rows))
    for number, stage in enumerate(_PARTS):
        summaries = [row.timings.summary(stage) for row in rows if row.timings]
        lengths = np.array([summary.p50_ms if summary else 0 for summary in summaries])
        axes.barh(range(len(rows)), lengths, 0.6, start, label=stage, color=f"C{(4, 0, 2)[number]}", alpha=0.8)
        start += lengths
    axes.legend(frameon=False, fontsize="small", labelcolor=_TEXT_COLOR)
    axes.set_xlabel("p50 of each stage, ms")
    return (
        f"From a {comparison.frame} frame to its top-5. Copies to and from a GPU are part of the inference, because a "
        "CUDA graph runs them as one; a CPU backend reads the input in place."
    )


def _memory(figure: Figure, comparison: Comparison, rows: list[Row]) -> str:
    axes = _horizontal(figure, rows)
    colors = plot.colors(comparison)
    for place, row in enumerate(rows):
        memory_mb = (row.timings.peak_memory_mb if row.timings else None) or 0
        axes.barh(place, memory_mb, 0.6, color=colors[row.backend], alpha=0.8)
        size = f"{row.artifact.size_bytes / 1e6:.2f} MB file" if row.artifact else ""
        axes.annotate(size, (memory_mb, place), (4, 0), textcoords="offset points", va="center", fontsize="small")
    axes.margins(x=0.15)
    axes.set_xlabel("peak memory of the process, MB")
    return "Peak memory, with Python and packages, without GPU memory; and the size of the artifact's files."


def _horizontal(figure: Figure, rows: list[Row]) -> Any:
    """Axes with one row of the comparison below another."""
    axes = figure.subplots()
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _round_medians(row: Row) -> np.typing.NDArray[np.float64]:
    assert row.timings is not None
    return np.array([np.median(samples) for samples in row.timings.rounds_ms])


def _table(comparison: Comparison) -> str:
    """Every row with every number."""
    rows = [table.full_row(row, comparison) for row in comparison.rows]
    headings = "".join(f"<th>{html.escape(heading)}</th>" for heading in table.FULL_HEADINGS)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return "<table><tr>" + headings + "</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
