"""Compare new results with those of an earlier run on the same machine, and decide whether a row became slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demos import console as demo_console
from demos.benchmark import results, statistics
from demos.benchmark.statistics import Interval
from simplenet.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console

EXIT_SLOWER, EXIT_NOT_COMPARABLE = 3, 4


@dataclass(frozen=True)
class Change:
    """The latency of one row over its latency in the baseline."""

    name: str
    before_ms: float
    after_ms: float
    ratio: Interval
    noise: float

    def is_slower_than(self, percent: float) -> bool:
        """Whether it is slower by more than `percent`, and not only within the noise."""
        return self.ratio.value > 1 + percent / 100 and self.ratio.differs(self.noise)

    @property
    def verdict(self) -> str:
        if not self.ratio.differs(self.noise):
            return "no difference"
        return "slower" if self.ratio.value > 1 else "faster"


def not_comparable(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return why two results cannot be compared, one line for each difference; empty if they can."""
    old, new = results.conditions(before), results.conditions(after)
    reasons = [
        f"{name} was {one_line(str(old[name]), 100)}, and is {one_line(str(new[name]), 100)}"
        for name in old.keys() & new.keys()
        if old[name] != new[name]
    ]
    for row in after["rows"]:
        name = f"{row['backend']} {row['precision']}"
        if name in results.latencies_ms(before) and name not in results.latencies_ms(after):
            reasons.append(f"{name} is not measured now ({one_line(str(row['reason']), 100)})")
    if not results.latencies_ms(before).keys() & results.latencies_ms(after).keys():
        reasons.append("no row was measured in both")
    return sorted(reasons)


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Compare the rows that both results have. The noise floor is the larger of the two runs'."""
    old, new = results.latencies_ms(before), results.latencies_ms(after)
    noise = max(before["noise"], after["noise"])
    found = []
    for name in (name for name in new if name in old):
        ratio = statistics.unpaired_ratio(new[name], old[name])
        found.append(Change(name, _median_ms(old[name]), _median_ms(new[name]), ratio, noise))
    return found


def show(before: dict[str, Any], after: dict[str, Any], console: Console) -> None:
    """Print a table of the changes, and which package versions differ."""
    table = demo_console.table("row", "", "baseline\nmedian ms", "now\nmedian ms", "now / baseline", "")
    for change in changes(before, after):
        row = (f"{change.before_ms:.3f}", f"{change.after_ms:.3f}", str(change.ratio), change.verdict)
        table.add_row(change.name, "", *row)
    console.print(table)
    old, new = results.versions(before), results.versions(after)
    updated = [f"{name} {old[name]} -> {new[name]}" for name in sorted(old) if name in new and old[name] != new[name]]
    if updated:
        console.print(f"versions: {', '.join(updated)}.", markup=False, highlight=False)


def show_side_by_side(first: dict[str, Any], second: dict[str, Any], console: Console) -> None:
    """Print two results. There are ratios only if they are comparable: those of two machines mean nothing."""
    if not (reasons := not_comparable(first, second)):
        return show(first, second, console)
    columns = [results.latencies_ms(one) for one in (first, second)]
    table = demo_console.table("row", "", "first\nmedian ms", "second\nmedian ms")
    for name in dict.fromkeys([*columns[0], *columns[1]]):
        cells = [f"{_median_ms(column[name]):.3f}" if name in column else "-" for column in columns]
        table.add_row(name, "", *cells)
    console.print(table)
    for reason in reasons:
        console.print(f"no ratio: {reason}", markup=False, highlight=False)
    return None


def _median_ms(rounds_ms: list[list[float]]) -> float:
    """The median of the rounds' medians, as in the ratio."""
    return float(np.median([np.median(samples) for samples in rounds_ms]))
