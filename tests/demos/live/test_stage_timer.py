"""The stage timer counts finished frames, and excludes pauses."""

from __future__ import annotations

import pytest

from demos.live import stage_timer
from demos.live.latency_window import KEPT_SAMPLES
from demos.live.stage_timer import StageTimer


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
    timer.stop()
    assert timer.summary("q").seconds == pytest.approx(3)
