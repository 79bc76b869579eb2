"""The latest samples are kept in order, and summarized."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos.live.latency_window import KEPT_SAMPLES, LatencyWindow
from runtimes.timing import summarize


@given(st.lists(st.floats(0, 1e6), max_size=50), st.integers(1, 60))
def test_returns_and_summarizes_the_latest_samples(milliseconds: list[float], count: int) -> None:
    window = LatencyWindow()
    for sample in milliseconds:
        window.add(sample)
    latest = milliseconds[-count:]
    assert window.latest_ms(count) == latest
    assert window.summary(count) == (summarize(latest) if latest else None)


def test_number_of_samples_is_bounded() -> None:
    window = LatencyWindow()
    for number in range(KEPT_SAMPLES + 10):
        window.add(float(number))
    assert len(window.latest_ms()) == KEPT_SAMPLES
    summary = window.summary()
    assert summary is not None
    assert (summary.n, summary.min_ms) == (KEPT_SAMPLES, 10)
    assert window.latest_ms(2) == pytest.approx([KEPT_SAMPLES + 8, KEPT_SAMPLES + 9])
