"""The stage timer counts finished frames, and excludes pauses; a latency window keeps the latest samples in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos.live import stage_timer
from demos.live.stage_timer import KEPT_SAMPLES, LatencyWindow, StageTimer
from runtimes.timing import summarize


class Clock:
    now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replaces the time module of the stage timer."""
    clock = Clock()
    monkeypatch.setattr(stage_timer, "time", clock)
    return clock


def run_frames(timer: StageTimer, count: int, *stages: str) -> None:
    for _ in range(count):
        for stage in stages:
            with timer.stage(stage):
                pass
        timer.frame_done()


def test_counts_the_stages_of_finished_frames() -> None:
    timer = StageTimer()
    run_frames(timer, 63, "capture", "infer")
    with timer.stage("capture"):
        pass  # the end of the file: no frame came
    summary = timer.summary("end of file")
    assert (summary.frames, summary.ended) == (63, "end of file")
    assert {stage: latency.n for stage, latency in summary.stages.items()} == {"capture": 63, "infer": 63}
    assert summary.stages["infer"].p90_ms is None
    run_frames(timer, 1, "infer")
    assert timer.summary("q").stages["infer"].p90_ms is not None


def test_sums_a_stage_per_frame_and_ignores_unfinished_frames(clock: Clock) -> None:
    timer = StageTimer()
    for _ in range(2):
        with timer.stage("infer"):
            clock.now_s += 0.01
    timer.record("post", 5.0)
    timer.frame_done()
    with pytest.raises(KeyboardInterrupt), timer.stage("infer"):
        raise KeyboardInterrupt
    summary = timer.summary("Ctrl-C")
    assert summary.stages["infer"].n == 1
    assert summary.stages["infer"].p50_ms == pytest.approx(20)
    assert summary.stages["post"].p50_ms == 5.0
    assert summary.loop_fps == pytest.approx(50)


def test_frame_age_is_the_time_since_capture(clock: Clock) -> None:
    timer = StageTimer()
    timer.frame_age(clock.now_s - 0.5)
    timer.frame_done()
    summary = timer.summary("q")
    assert summary.frame_age is not None
    assert summary.frame_age.p50_ms == pytest.approx(500)
    assert "frame age" not in summary.stages


def test_number_of_samples_is_bounded() -> None:
    timer = StageTimer()
    run_frames(timer, KEPT_SAMPLES + 500, "infer")
    summary = timer.summary("q")
    assert summary.frames == KEPT_SAMPLES + 500
    assert summary.stages["infer"].n == KEPT_SAMPLES


def test_excludes_pauses_and_includes_waiting_at_the_end(clock: Clock) -> None:
    timer = StageTimer()
    clock.now_s += 1
    run_frames(timer, 3, "infer")
    with timer.paused():
        clock.now_s += 60
    assert timer.seconds == pytest.approx(1)
    clock.now_s += 2  # no more frames
    assert timer.summary("q").seconds == pytest.approx(3)


@given(st.lists(st.floats(0, 1e6), max_size=50), st.integers(1, 60))
def test_returns_and_summarizes_the_latest_samples(milliseconds: list[float], count: int) -> None:
    window = LatencyWindow()
    for sample in milliseconds:
        window.add(sample)
    latest = milliseconds[-count:]
    assert window.latest_ms(count) == latest
    assert window.summary(count) == (summarize(latest) if latest else None)


def test_latency_window_is_bounded() -> None:
    window = LatencyWindow()
    for number in range(KEPT_SAMPLES + 10):
        window.add(float(number))
    assert len(window.latest_ms()) == KEPT_SAMPLES
    summary = window.summary()
    assert summary is not None
    assert (summary.n, summary.min_ms) == (KEPT_SAMPLES, 10)
    assert window.latest_ms(2) == pytest.approx([KEPT_SAMPLES + 8, KEPT_SAMPLES + 9])
