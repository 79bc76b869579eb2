"""The summary counts what was finished and gives a percentile only where it means something."""

from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from demos.live.latency_window import KEPT_SAMPLES
from demos.live.stage_timer import StageTimer
from demos.live.summary import ModelSummary, SourceSummary, print_summary
from runtimes.timing import summarize


def run_frames(timer: StageTimer, count: int, *stages: str) -> None:
    for _ in range(count):
        for stage in stages:
            with timer.stage(stage):
                pass
        timer.frame_done()


def test_stages_are_counted_by_finished_frames() -> None:
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


def test_a_stage_measures_its_block_and_an_unfinished_frame_leaves_no_trace() -> None:
    timer = StageTimer()
    for _ in range(2):  # twice in a frame adds up
        with timer.stage("infer"):
            time.sleep(0.01)
    timer.record("post", 5.0)
    timer.frame_done()
    with pytest.raises(KeyboardInterrupt), timer.stage("infer"):
        raise KeyboardInterrupt
    summary = timer.summary("Ctrl-C")
    assert summary.stages["infer"].n == 1
    assert summary.stages["infer"].p50_ms >= 20
    assert summary.stages["post"].p50_ms == 5.0
    assert summary.loop_fps is not None
    assert summary.loop_fps <= 50


def test_frame_age_is_the_time_since_arrival() -> None:
    timer = StageTimer()
    timer.frame_age(time.perf_counter() - 0.5)
    timer.frame_done()
    summary = timer.summary("q")
    assert summary.frame_age is not None
    assert 500 <= summary.frame_age.p50_ms < 5000
    assert "frame age" not in summary.stages


def test_a_loop_of_weeks_keeps_a_bounded_number_of_samples() -> None:
    timer = StageTimer()
    run_frames(timer, KEPT_SAMPLES + 500, "infer")
    summary = timer.summary("q")
    assert summary.frames == KEPT_SAMPLES + 500
    assert summary.stages["infer"].n == KEPT_SAMPLES


def test_no_frame_at_all_is_a_summary_too() -> None:
    summary = StageTimer().summary("an error")
    assert (summary.frames, summary.loop_fps, summary.stages, summary.models) == (0, None, {}, ())
    assert json.loads(json.dumps(summary.to_json()))["frames"] == 0


def test_the_table_names_every_stage_and_explains_a_missing_percentile() -> None:
    timer = StageTimer()
    run_frames(timer, 3, "capture", "infer")
    timer.frame_age(time.perf_counter())
    timer.frame_done()
    output = io.StringIO()
    source = SourceSummary("clip.avi", "file", "ended", 4, 0, 0, None, "clip.avi announces 9 frames")
    latency = summarize([2.0, 4.0])
    models = [ModelSummary("torch fp32", latency, None, 0), ModelSummary("openvino int8", latency, 75.0, 4)]
    print_summary(timer.summary("q", models, [source]), "clip.avi: [model]", Console(file=output, width=100))
    text = output.getvalue()
    for part in ("clip.avi: [model]", "capture", "infer", "frame age", "4 frames in", "ended by q"):
        assert part in text
    assert "clip.avi: 4 frames; announces 9 frames" in text  # its name is said once
    assert "75.0 %" in text
    assert "500.0" in text  # model alone, at a median of 2 ms
    assert "a p90 needs 64 frames" in text


def test_a_pause_is_not_the_loops_time_and_waiting_in_vain_is() -> None:
    timer = StageTimer()
    run_frames(timer, 3, "infer")
    with timer.paused():
        time.sleep(0.3)
    assert timer.seconds < 0.3
    time.sleep(0.05)
    timer.stop()
    assert 0.05 <= timer.summary("q").seconds < 0.35
