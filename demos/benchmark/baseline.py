"""Compare new results with those of an earlier run on the same machine, and decide whether a row became slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    if not results.latencies_ms(before).keys() & results.latencies_ms(after).keys():
        reasons.append("no row was measured in both")
    return sorted(reasons)


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Compare the rows that both results have. The noise floor is the larger of the two runs'."""
    old, new = results.latencies_ms(before), results.latencies_ms(after)
    noise = max(before["noise"], after["noise"])
    found = []
    for name in (name for name in new if name in old):
        p50s = [statistics.percentiles(rounds_ms, [50])[0].value for rounds_ms in (old[name], new[name])]
        found.append(Change(name, p50s[0], p50s[1], statistics.unpaired_ratio(new[name], old[name]), noise))
    return found


def show(before: dict[str, Any], after: dict[str, Any], console: Console) -> None:
    """Print a table of the changes, and which package versions differ."""
    table = demo_console.table("row", "", "baseline\np50 ms", "now\np50 ms", "now / baseline", "")
    for change in changes(before, after):
        row = (f"{change.before_ms:.3f}", f"{change.after_ms:.3f}", str(change.ratio), change.verdict)
        table.add_row(change.name, "", *row)
    console.print(table)
    old, new = results.versions(before), results.versions(after)
    updated = [
        f"{name} {old[name]} -> {new[name]}" for name in sorted(old.keys() & new.keys()) if old[name] != new[name]
    ]
    if updated:
        console.print(f"versions: {', '.join(updated)}.", markup=False, highlight=False)
