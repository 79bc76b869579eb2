"""Recommend one row of a comparison for this machine, within limits of accuracy, latency, memory and size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from demos.benchmark.comparison import Comparison, Row
from demos.benchmark.statistics import Interval


@dataclass(frozen=True)
class Limits:
    """What a row must meet; None: no limit. The names are those of the command line's flags."""

    max_drop: float = 0.5
    """Points of top-1 below the best row; without labels, points of agreement below 100 %."""
    max_p99_ms: float | None = None
    max_memory_mb: float | None = None
    max_size_mb: float | None = None


def recommend(comparison: Comparison, limits: Limits) -> str:
    """Return lines with the fastest row within the limits, how to load it, its runners-up, and why others are out."""
    measured = [row for row in comparison.rows if row.latency and row.peer is None and row.python is None]
    best = max((row.top1_percent for row in measured if row.top1_percent is not None), default=None)
    reasons = {row.name: _reasons(row, best, limits) for row in measured}
    fitting = sorted((row for row in measured if not reasons[row.name]), key=lambda row: _p50_ms(row))
    lines = [f"not within the limits: {name}: {', '.join(found)}" for name, found in reasons.items() if found]
    if not fitting:
        return "\n".join(["No row is within the limits; raise one, or export another variant.", *lines])
    first, *others = fitting
    ratios = {row.name: ratio for row in others if (ratio := first.speed_up_over(row))}
    equals = [name for name, ratio in ratios.items() if not ratio.differs(comparison.noise)]
    if equals:
        needed = max(_rounds_needed(ratios[name], comparison) for name in equals)
        more = (
            f"{needed - comparison.rounds:,} more rounds would decide: --rounds {needed}"
            if math.isfinite(needed)
            else "their difference is within the noise floor, so take the smaller or the more accurate one"
        )
        head = f"Undecided between {first.name} and {', '.join(equals)}: {more}."
    else:
        head = f"Recommended for this machine: {first.name}."
    runners_up = [f"runner-up: {_facts(row)}; takes {ratios[row.name]} times as long" for row in others[:3]]
    assert first.artifact is not None
    load = f'runtimes.load("{first.artifact.folder}", backend="{first.backend}", precision="{first.precision}")'
    return "\n".join([head, _facts(first), f"to load it: {load}", *runners_up, *lines])


def _p50_ms(row: Row) -> float:
    return row.latency.p50_ms if row.latency else math.inf


def _reasons(row: Row, best_top1_percent: float | None, limits: Limits) -> list[str]:
    """Why a row is not within the limits."""
    assert row.latency is not None
    assert row.timings is not None
    assert row.artifact is not None
    drop = 100 - (row.agreement_percent or 0)
    if best_top1_percent is not None:
        drop = best_top1_percent - (row.top1_percent or 0)
    values = {
        "drop": (drop, limits.max_drop, "points"),
        "p99": (row.latency.p99_ms, limits.max_p99_ms, "ms"),
        "memory": (row.timings.peak_memory_mb, limits.max_memory_mb, "MB"),
        "size": (row.artifact.size_bytes / 1e6, limits.max_size_mb, "MB"),
    }
    reasons = []
    for name, (value, limit, unit) in values.items():
        if limit is not None and (value is None or value > limit):
            found = f"unknown {name}" if value is None else f"{name} {value:.3g} {unit}"
            reasons.append(f"{found}, limit {limit:g}")
    return reasons


def _facts(row: Row) -> str:
    assert row.latency is not None
    assert row.timings is not None
    assert row.artifact is not None
    accuracy, name = (row.agreement_percent, "agrees") if row.top1_percent is None else (row.top1_percent, "top-1")
    values = [
        f"{name} {accuracy:.2f} %",
        f"p50 {row.latency.p50_ms:.3f} ms",
        f"p99 {row.latency.p99_ms:.3f} ms" if row.latency.p99_ms else "p99 unknown (too few samples)",
        f"memory {row.timings.peak_memory_mb:.0f} MB" if row.timings.peak_memory_mb else "memory unknown",
        f"size {row.artifact.size_bytes / 1e6:.2f} MB",
    ]
    return f"{row.name}: {', '.join(values)}"


def _rounds_needed(ratio: Interval, comparison: Comparison) -> float:
    """About how many rounds would tell the two apart: an interval's width falls with the square root of the rounds."""
    distance = abs(math.log(ratio.value)) - math.log1p(comparison.noise)
    if distance <= 0 or ratio.low is None or ratio.high is None:
        return math.inf
    half_width = max(math.log(ratio.high / ratio.value), math.log(ratio.value / ratio.low))
    return math.ceil(1.2 * comparison.rounds * (half_width / distance) ** 2)
