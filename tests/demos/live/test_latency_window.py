"""The latest samples are kept, in order, and their percentiles are those of what was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos.live.latency_window import KEPT_SAMPLES, LatencyWindow
from runtimes.timing import summarize


@given(st.lists(st.floats(0, 1e6), max_size=50), st.integers(1, 60))
def test_the_latest_come_back_in_their_order(milliseconds: list[float], count: int) -> None:
    samples = LatencyWindow()
    for sample in milliseconds:
        samples.add(sample)
    latest = milliseconds[-count:]
    assert samples.latest_ms(count) == latest
    assert samples.summary(count) == (summarize(latest) if latest else None)


def test_only_so_many_are_kept() -> None:
    samples = LatencyWindow()
    for number in range(KEPT_SAMPLES + 10):
        samples.add(float(number))
    assert len(samples.latest_ms()) == KEPT_SAMPLES
    summary = samples.summary()
    assert summary is not None
    assert (summary.n, summary.min_ms) == (KEPT_SAMPLES, 10)
    assert samples.latest_ms(2) == pytest.approx([KEPT_SAMPLES + 8, KEPT_SAMPLES + 9])
