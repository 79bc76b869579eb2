"""Print a comparison as a table, with notes on what each column means and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos import console as demo_console
from demos.benchmark import peers, statistics
from demos.benchmark.comparison import Comparison, Row
from demos.benchmark.statistics import FEWEST_ROUNDS
from demos.benchmark.workers import STAGES
from runtimes.timing import SAMPLES_FOR_P99
from simplenet.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NO_NUMBER = "-"
_HEADINGS = (
    "backend", "precision", "top-1\n%", "agrees\n%", "p50\nms", "p99\nms", "end to\nend ms", "speed-up [95 %]",
    "memory\nMB",
)  # fmt: skip
FULL_HEADINGS = (
    "backend", "precision", "top-1\n%", "top-5\n%", "agrees\n%", "lowest\ncosine", "size\nMB", "memory\nMB",
    "load\nms", "first\ninference\nms", "p50 [95 %]\nms", "p90 [95 %]\nms", "p99 [95 %]\nms", "end to end\np50 ms",
    "speed-up [95 %]",
)  # fmt: skip
"""Of the report's table."""


def show(comparison: Comparison, console: Console) -> None:
    """Print the table, its notes and its conclusion."""
    console.print(_table(comparison))
    for line in notes(comparison):
        console.print(one_line(line, limit=2000), markup=False, highlight=False)
    if any(row.latency for row in comparison.rows):
        console.print(conclusion(comparison), markup=False, highlight=False)


def _table(comparison: Comparison) -> Table:
    table = demo_console.table(*_HEADINGS)
    for column in table.columns:
        column.no_wrap = True
    for row in comparison.rows:
        if row.timings is None or row.latency is None:
            cells = (row.backend, row.name.partition(" ")[2], *[NO_NUMBER] * 5, "not run, see below", NO_NUMBER)
            table.add_row(*cells, style="dim")
            continue
        end_to_end = row.timings.summary("end_to_end")
        table.add_row(
            row.backend,
            row.name.partition(" ")[2],
            _number(row.top1_percent, 2),
            _number(row.agreement_percent, 2),
            _number(row.latency.p50_ms, 3),
            _number(row.latency.p99_ms, 3),
            _number(end_to_end.p50_ms if end_to_end else None, 3),
            _speed_up(row, comparison),
            _number(row.timings.peak_memory_mb, 0),
        )
    return table


def full_row(row: Row, comparison: Comparison) -> list[str]:
    """The cells of a row below `FULL_HEADINGS`."""
    size = f"{row.artifact.size_bytes / 1e6:.2f}" if row.artifact else NO_NUMBER
    if row.timings is None or row.latency is None:
        return [row.backend, row.name.partition(" ")[2], *[NO_NUMBER] * 4, size, *[NO_NUMBER] * 7, "not run, see below"]
    percents = [percent for percent in (50, 90, 99) if getattr(row.latency, f"p{percent}_ms") is not None]
    intervals = statistics.percentiles(row.timings.rounds_ms, percents)
    latencies = [f"{interval:.3f}" for interval in intervals] + [NO_NUMBER] * (3 - len(intervals))
    end_to_end = row.timings.summary("end_to_end")
    return [
        row.backend,
        row.name.partition(" ")[2],
        _number(row.top1_percent, 2),
        _number(row.top5_percent, 2),
        _number(row.agreement_percent, 2),
        _number(row.lowest_cosine, 6),
        size,
        _number(row.timings.peak_memory_mb, 0),
        _number(row.timings.load_ms, 0),
        _number(row.timings.first_inference_ms, 1),
        *latencies,
        _number(end_to_end.p50_ms if end_to_end else None, 3),
        _speed_up(row, comparison),
    ]


def _number(value: float | None, digits: int) -> str:
    return NO_NUMBER if value is None else f"{value:.{digits}f}"


def notes(comparison: Comparison) -> list[str]:
    """What the columns mean, how it was measured, and remarks on rows."""
    reference = comparison.reference.name if comparison.reference else "the reference"
    labels = "with labels" if comparison.labeled else "without labels, so no top-1"
    lines = [
        f"{comparison.network}.",
        machine_line(comparison),
        f"top-1, agrees: on {comparison.image_count:,} images ({comparison.images}) {labels}; "
        f"agrees = same top-1 as {reference}.",
        "memory: peak of the backend's process, with Python and packages, without GPU memory.",
        "p50, p99: model latency, inference only, with the exported batch size; one backend runs at a time, in its own "
        f"process; the order changes in each of the {comparison.rounds} rounds.",
        f"end to end: p50 from a {comparison.frame} frame to its top-5, with preprocessing (resized by "
        f"{comparison.machine.get('resizer', 'an unknown library')}) and softmax. {_stages(comparison)}",
        f"speed-up: model latency of {reference} over that of the row, with a 95 % interval over the rounds.",
        _noise(comparison),
    ]
    counts = {row.latency.n for row in comparison.rows if row.latency}
    if counts and min(counts) < SAMPLES_FOR_P99:
        lines.append(
            f"{NO_NUMBER} as p99: only {min(counts)} samples per row; a p99 needs {SAMPLES_FOR_P99} (--samples)."
        )
    if comparison.busy_percent > 10:
        lines.append(
            f"warning: other programs used {comparison.busy_percent:.0f} % of the processor; close them and repeat."
        )
    if comparison.until_percent is not None:
        lines.append(_until(comparison, comparison.until_percent))
    for row in comparison.rows:
        same = next((other for other in comparison.rows if row.name == f"{other.name} (against)"), None)
        if same and row.description and (ratio := same.speed_up_over(row)):
            versions = ", ".join(f"{package} {version}" for package, version in row.description.versions.items())
            verdict = "" if ratio.differs(comparison.noise) else "; no difference"
            lines.append(f"{row.name}: {versions} takes {ratio} times as long as {same.name}{verdict}.")
    rows_by_remark: dict[str, list[str]] = {}
    for row in comparison.rows:
        for remark in _remarks(row):
            rows_by_remark.setdefault(remark, []).append(row.name)
    return lines + [f"{', '.join(names)}: {remark}" for remark, names in rows_by_remark.items()]


def _remarks(row: Row) -> list[str]:
    """Notes on one row: why it was not run, a device other than the CPU, its calibration, its backend's notes."""
    remarks = [row.reason] if row.reason else []
    if row.peer in peers.ARCHITECTURES:
        remarks.append(peers.published(row.peer))
    if row.description and row.description.threads is None:
        remarks.append(f"ran on {row.description.device}.")
    if row.artifact and (calibration := row.artifact.manifest.calibration):
        remarks.append(f"calibrated with {calibration.get('images')} images ({calibration.get('source')}).")
    return [*remarks, *(row.description.notes if row.description else ())]


def machine_line(comparison: Comparison) -> str:
    """The processor, the threads, the system and every package's version."""
    machine = comparison.machine
    short = ", ".join(f"{package} {version.split('-')[0]}" for package, version in sorted(comparison.versions.items()))
    return (
        f"{machine.get('processor', 'unknown processor')}, {comparison.threads} threads; "
        f"{machine.get('system', '')}; Python {machine.get('python', '')}; {short}."
    )


def _stages(comparison: Comparison) -> str:
    """Where the time of the fastest row goes."""
    if not (fastest := comparison.fastest()) or (timings := fastest[0].timings) is None:
        return ""
    found = {stage: summary.p50_ms for stage in STAGES if (summary := timings.summary(stage))}
    parts = (f"{stage} {found[stage]:.3f}" for stage in ("preprocess", "inference", "postprocess"))
    return f"Of {fastest[0].name}: {', '.join(parts)} ms."


def _noise(comparison: Comparison) -> str:
    """What the A/A control showed."""
    if comparison.twin is None or comparison.twins is None:
        reason = f" ({comparison.twin.reason})" if comparison.twin and comparison.twin.reason else ""
        return f"noise floor: unknown, because no row was measured twice{reason}."
    return (
        f"noise floor: {100 * comparison.noise:.1f} %. {comparison.twin.backend} {comparison.twin.precision} was "
        f"measured twice, in two processes; the ratio is {comparison.twins}. A difference counts if its "
        "whole interval is outside the noise floor."
    )


def _until(comparison: Comparison, percent: float) -> str:
    """Whether the interval of the fastest two rows became as narrow as requested."""
    if (between := comparison.fastest_two()) is None:
        return "until: there are no two rows to compare."
    width = 100 * between.width
    if width <= percent:
        return f"until: after {comparison.rounds} rounds the interval of the fastest two is {width:.1f} % wide."
    return (
        f"until: after {comparison.rounds} rounds the interval of the fastest two is still {width:.1f} % wide, "
        f"not {percent:g} %; raise --time-limit, or stop other programs."
    )


def conclusion(comparison: Comparison) -> str:
    """Name the fastest row with a negligible loss, and those that cannot be told apart from it."""
    if not (fastest := comparison.fastest()):
        return "No row has a top-1 or an agreement close to the best."
    first, *others = fastest
    assert first.latency is not None
    ratios = [(row, ratio) for row in others if (ratio := first.speed_up_over(row))]
    equals = [f"{row.name} ({ratio})" for row, ratio in ratios if not ratio.differs(comparison.noise)]
    loss = "within 0.5 points of the best top-1" if comparison.labeled else "with at least 99 % agreement"
    text = f"Fastest {loss}: {first.name}, model latency p50 {first.latency.p50_ms:.3f} ms"
    if comparison.rounds < FEWEST_ROUNDS:
        return f"{text}. Too few rounds to tell whether others differ from it; type --rounds {FEWEST_ROUNDS} or more."
    if equals:
        return f"{text}. No difference measured to {', '.join(equals)}."
    if ratios:
        return f"{text}. The next, {ratios[0][0].name}, takes {ratios[0][1]} times as long."
    return f"{text}."


def _speed_up(row: Row, comparison: Comparison) -> str:
    if row is comparison.reference:
        return "1 (reference)"
    if (speed_up := row.speed_up_over(comparison.reference)) is None:
        return NO_NUMBER
    return str(speed_up) if speed_up.low is None or speed_up.differs(comparison.noise) else "no difference"
