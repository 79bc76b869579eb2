"""Comparisons with given latencies, for the tests of what is made from them."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

import runtimes
from demos.benchmark import table
from demos.benchmark.comparison import Comparison, Row
from demos.benchmark.rounds import Timings
from demos.benchmark.workers import STAGES
from simplenet.artifacts import Artifact


def rows_with(artifact: Artifact, **latencies_ms: list[float]) -> list[Row]:
    """One row for each name, with the median latency of each round."""
    rows = [Row(name, "fp32", artifact, top1_percent=90.0, agreement_percent=100.0) for name in latencies_ms]
    for row, medians in zip(rows, latencies_ms.values(), strict=True):
        row.timings = Timings(0, 0, 0, {stage: [[median] * 3 for median in medians] for stage in STAGES})
        row.description = runtimes.Description(row.backend, "CPU", "fp32", 1, {})
    return rows


def shown(result: Comparison) -> str:
    console = Console(width=400, file=io.StringIO())
    table.show(result, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def compared(rows: list[Row], **fields: Any) -> Comparison:
    assert rows[0].timings is not None
    rounds = len(rows[0].timings.rounds_ms)
    return Comparison(rows, rows[0], "some", 10, True, threads=1, rounds=rounds, frame="1x1 RGB", **fields)
