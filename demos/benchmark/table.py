"""A comparison as a table for people, with what each number means, and what could not be given, said below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos.benchmark.comparison import Comparison, Row
from runtimes.timing import SAMPLES_FOR_P90, SAMPLES_FOR_P99
from simplenet.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NO_NUMBER = "-"
_HEADINGS = (
    "backend", "precision", "top-1 %", "agrees %", "size MB", "memory MB", "load ms", "first ms", "p50 ms", "p90 ms",
    "p99 ms", "frame to top-5 ms", "speed-up",
)  # fmt: skip
_NEGLIGIBLE_LOSS_POINTS = 0.5


def show(comparison: Comparison, console: Console) -> None:
    """Prints the table, its footnotes and its conclusion."""
    measured = [row for row in comparison.rows if row.timings]
    console.print(_table(comparison))
    for line in _notes(comparison):
        console.print(one_line(line, limit=2000), markup=False, highlight=False)
    if measured:
        console.print(_conclusion(comparison, measured), markup=False, highlight=False)


def _table(comparison: Comparison) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if position < 2 else "right", no_wrap=True)
    for row in comparison.rows:
        size = f"{row.artifact.size_bytes / 1e6:.2f}" if row.artifact else NO_NUMBER
        if row.timings is None or row.latency is None:
            cells = (row.backend, row.precision, NO_NUMBER, NO_NUMBER, size, *[NO_NUMBER] * 7)
            table.add_row(*cells, "not run, see below", style="dim")
            continue
        latency, end_to_end = row.latency, row.end_to_end
        speed_up = row.speed_up_over(comparison.reference) if comparison.reference else None
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
            f"{speed_up[0]:.2f}x ({speed_up[1]:.2f}-{speed_up[2]:.2f})" if speed_up else NO_NUMBER,
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return NO_NUMBER if value is None else f"{value:.{digits}f}"


def _notes(comparison: Comparison) -> list[str]:
    reference = comparison.reference.name if comparison.reference else "the reference"
    known = "their true labels" if comparison.labeled else "no labels, so no top-1"
    notes = [
        _model(comparison),
        _machine(comparison),
        f"top-1, agrees: {comparison.picture_count:,} pictures ({comparison.pictures}; {known}); "
        f"agrees = same top-1 as {reference}.",
        "memory: the most that the backend's process held, Python and its packages included, a GPU's memory not.",
        "load: package import and model load in a fresh process, once, in the rows' order. first: the first inference "
        "after it.",
        f"p50, p90, p99: the model alone, batch as exported, each backend alone in its own process, in "
        f"{comparison.rounds} rounds, their order rotated and reversed.",
        f"frame to top-5: p50 from a {comparison.frame} frame, preprocessing (resized by "
        f"{comparison.machine.get('resizer', 'an unknown library')}) and softmax included.",
        f"speed-up: p50 of {reference} over p50 of the row, median (lowest-highest) of the rounds.",
    ]
    counts = {row.latency.n for row in comparison.rows if row.latency}
    if counts and min(counts) < SAMPLES_FOR_P99:
        notes.append(
            f"{NO_NUMBER}: {min(counts)} samples a row; a p90 needs {SAMPLES_FOR_P90} and a p99 {SAMPLES_FOR_P99} "
            "to mean anything (--samples)."
        )
    if comparison.busy_percent > 10:
        notes.append(
            f"warning: other programs used {comparison.busy_percent:.0f} % of the processor; close them and run again."
        )
    rows_by_remark: dict[str, list[str]] = {}
    for row in comparison.rows:
        for remark in _remarks(row):
            rows_by_remark.setdefault(remark, []).append(row.name)
    return notes + [f"{', '.join(names)}: {remark}" for remark, names in rows_by_remark.items()]


def _remarks(row: Row) -> list[str]:
    """Why it was not run, on which device if not the processor, how it was calibrated, what its backend says."""
    remarks = [row.reason] if row.reason else []
    if row.description and row.description.threads is None:
        remarks.append(f"ran on {row.description.device}.")
    if row.artifact and (calibration := row.artifact.manifest.calibration):
        remarks.append(f"calibrated with {calibration.get('images')} pictures ({calibration.get('source')}).")
    return [*remarks, *(row.description.notes if row.description else ())]


def _model(comparison: Comparison) -> str:
    manifest = next(row.artifact.manifest for row in comparison.rows if row.artifact)
    return f"{manifest.variant} with {manifest.weights.name} weights."


def _machine(comparison: Comparison) -> str:
    """The processor, the threads, the system and every version: a number without them is no number."""
    machine = comparison.machine
    versions = {k: v for row in comparison.rows if row.description for k, v in row.description.versions.items()}
    short = ", ".join(f"{package} {version.split('-')[0]}" for package, version in sorted(versions.items()))
    return (
        f"{machine.get('processor', 'unknown processor')}, {comparison.threads} threads; "
        f"{machine.get('system', '')}; Python {machine.get('python', '')}; {short}."
    )


def _conclusion(comparison: Comparison, measured: list[Row]) -> str:
    """The fastest row whose answers can still be had: within half a point of the best, or 99 % agreement."""
    if comparison.labeled:
        best = max(row.top1_percent or 0.0 for row in measured)
        faithful = [row for row in measured if (row.top1_percent or 0.0) >= best - _NEGLIGIBLE_LOSS_POINTS]
        condition = f"within {_NEGLIGIBLE_LOSS_POINTS} points of the best top-1"
    else:
        faithful = [row for row in measured if (row.agreement_percent or 0.0) >= 99]
        condition = (
            f"with at least 99 % of the answers of {comparison.reference.name if comparison.reference else 'fp32'}"
        )
    timed = [(row.latency.p50_ms, row) for row in faithful if row.latency]
    if not timed:
        return "No backend could be timed."
    p50_ms, fastest = min(timed, key=lambda pair: pair[0])
    rivals = [(row.name, *row.rounds_faster_than(fastest)) for _, row in timed if row is not fastest]
    doubts = [f"{name} ({won} of {rounds})" for name, won, rounds in rivals if won]
    doubt = f"; faster than it in some rounds: {', '.join(doubts)}" if doubts else ""
    return f"Fastest {condition}: {fastest.name}, p50 {p50_ms:.3f} ms{doubt}."
