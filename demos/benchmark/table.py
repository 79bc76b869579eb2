"""Print a comparison as a table, with notes on what each column means and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos import console as demo_console
from demos.benchmark.comparison import Comparison, Row
from demos.benchmark.rounds import rounds_won
from runtimes.timing import SAMPLES_FOR_P90, SAMPLES_FOR_P99
from simplenet.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NO_NUMBER = "-"
_HEADINGS = (
    "backend", "precision", "top-1 %", "agrees %", "size MB", "memory MB", "load ms", "first\ninference\nms",
    "model\nlatency\np50 ms", "p90 ms", "p99 ms", "end-to-end\nlatency (frame\nto top-5) ms", "speed-up",
)  # fmt: skip
_NEGLIGIBLE_LOSS_POINTS = 0.5


def show(comparison: Comparison, console: Console) -> None:
    """Print the table, its notes and its conclusion."""
    measured = [row for row in comparison.rows if row.timings]
    console.print(_table(comparison))
    for line in _notes(comparison):
        console.print(one_line(line, limit=2000), markup=False, highlight=False)
    if measured:
        console.print(_conclusion(comparison, measured), markup=False, highlight=False)


def _table(comparison: Comparison) -> Table:
    table = demo_console.table(*_HEADINGS)
    for column in table.columns:
        column.no_wrap = True
    for row in comparison.rows:
        size = f"{row.artifact.size_bytes / 1e6:.2f}" if row.artifact else NO_NUMBER
        if row.timings is None or row.latency is None:
            cells = (row.backend, row.precision, NO_NUMBER, NO_NUMBER, size, *[NO_NUMBER] * 7)
            table.add_row(*cells, "not run, see below", style="dim")
            continue
        latency, end_to_end = row.latency, row.timings.end_to_end
        speed_up = row.speed_up_over(comparison.reference)
        table.add_row(
            row.backend,
            row.precision,
            _number(row.top1_percent, 2),
            _number(row.agreement_percent, 2),
            size,
            _number(row.timings.peak_memory_mb, 0),
            _number(row.timings.load_ms, 0),
            _number(row.timings.first_inference_ms, 1),
            _number(latency.p50_ms, 3),
            _number(latency.p90_ms, 3),
            _number(latency.p99_ms, 3),
            _number(end_to_end.p50_ms if end_to_end else None, 3),
            f"{speed_up.median:.2f}x ({speed_up.lowest:.2f}-{speed_up.highest:.2f})" if speed_up else NO_NUMBER,
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return NO_NUMBER if value is None else f"{value:.{digits}f}"


def _notes(comparison: Comparison) -> list[str]:
    reference = comparison.reference.name if comparison.reference else "the reference"
    labels = "with labels" if comparison.labeled else "without labels, so no top-1"
    notes = [
        f"{comparison.network}.",
        _machine(comparison),
        f"top-1, agrees: on {comparison.image_count:,} images ({comparison.images}) {labels}; "
        f"agrees = same top-1 as {reference}.",
        "memory: peak of the backend's process, with Python and packages, without GPU memory.",
        "load: package import and model load in a fresh process, measured once per row. first inference: right after "
        "the load.",
        f"model latency: inference only, with the exported batch size; one backend runs at a time, in its own process; "
        f"the order changes in each of the {comparison.rounds} rounds.",
        f"end-to-end latency: p50 from a {comparison.frame} frame to its top-5, with preprocessing (resized by "
        f"{comparison.machine.get('resizer', 'an unknown library')}) and softmax.",
        f"speed-up: model latency p50 of {reference} over that of the row, median (lowest-highest) of the rounds.",
    ]
    counts = {row.latency.n for row in comparison.rows if row.latency}
    if counts and min(counts) < SAMPLES_FOR_P99:
        notes.append(
            f"{NO_NUMBER} as p90 or p99: only {min(counts)} samples per row; a p90 needs {SAMPLES_FOR_P90} and a p99 "
            f"{SAMPLES_FOR_P99} (--samples)."
        )
    if comparison.busy_percent > 10:
        notes.append(
            f"warning: other programs used {comparison.busy_percent:.0f} % of the processor; close them and repeat."
        )
    rows_by_remark: dict[str, list[str]] = {}
    for row in comparison.rows:
        for remark in _remarks(row):
            rows_by_remark.setdefault(remark, []).append(row.name)
    return notes + [f"{', '.join(names)}: {remark}" for remark, names in rows_by_remark.items()]


def _remarks(row: Row) -> list[str]:
    """Notes on one row: why it was not run, a device other than the CPU, its calibration, its backend's notes."""
    remarks = [row.reason] if row.reason else []
    if row.description and row.description.threads is None:
        remarks.append(f"ran on {row.description.device}.")
    if row.artifact and (calibration := row.artifact.manifest.calibration):
        remarks.append(f"calibrated with {calibration.get('images')} images ({calibration.get('source')}).")
    return [*remarks, *(row.description.notes if row.description else ())]


def _machine(comparison: Comparison) -> str:
    """The processor, the threads, the system and every package's version."""
    machine = comparison.machine
    versions = {k: v for row in comparison.rows if row.description for k, v in row.description.versions.items()}
    short = ", ".join(f"{package} {version.split('-')[0]}" for package, version in sorted(versions.items()))
    return (
        f"{machine.get('processor', 'unknown processor')}, {comparison.threads} threads; "
        f"{machine.get('system', '')}; Python {machine.get('python', '')}; {short}."
    )


def _conclusion(comparison: Comparison, measured: list[Row]) -> str:
    """Name the fastest row whose top-1 is within 0.5 points of the best; without labels: with 99 % agreement."""
    if comparison.labeled:
        best = max(row.top1_percent or 0.0 for row in measured)
        accurate = [row for row in measured if (row.top1_percent or 0.0) >= best - _NEGLIGIBLE_LOSS_POINTS]
        condition = f"within {_NEGLIGIBLE_LOSS_POINTS} points of the best top-1"
    else:
        accurate = [row for row in measured if (row.agreement_percent or 0.0) >= 99]
        condition = f"with at least 99 % agreement with {comparison.reference.name if comparison.reference else 'fp32'}"
    timed = [(row.latency.p50_ms, row, row.timings) for row in accurate if row.timings and row.latency]
    if not timed:
        return "No backend could be timed."
    p50_ms, fastest, fastest_timings = min(timed, key=lambda entry: entry[0])
    others = [(row.name, *rounds_won(timings, fastest_timings)) for _, row, timings in timed if row is not fastest]
    faster = [f"{name} ({won} of {rounds})" for name, won, rounds in others if won]
    exceptions = f"; faster in some rounds: {', '.join(faster)}" if faster else ""
    return f"Fastest {condition}: {fastest.name}, model latency p50 {p50_ms:.3f} ms{exceptions}."
