"""The summary counts what was finished and gives a percentile only where it means something."""

from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from demos.live import stopwatch
from demos.live.stopwatch import KEPT_SAMPLES, Stopwatch


def run_frames(watch: Stopwatch, count: int, *stages: str) -> None:
    for _ in range(count):
        for stage in stages:
            with watch.stage(stage):
                pass
        watch.frame_done()


def test_stages_are_counted_by_finished_frames() -> None:
    watch = Stopwatch()
    run_frames(watch, 63, "capture", "infer")
    with watch.stage("capture"):
        pass  # the end of the file: no frame came
    summary = watch.summary("end of file", dropped=4, note="a note")
    assert (summary.frames, summary.dropped, summary.ended, summary.note) == (63, 4, "end of file", "a note")
    assert {stage: latency.n for stage, latency in summary.stages.items()} == {"capture": 63, "infer": 63}
    assert summary.stages["infer"].p90_ms is None
    run_frames(watch, 1, "infer")
    assert watch.summary("q").stages["infer"].p90_ms is not None


def test_a_stage_measures_its_block_and_an_unfinished_frame_leaves_no_trace() -> None:
    watch = Stopwatch()
    with watch.stage("infer"):
        time.sleep(0.02)
    assert watch.this_frame_ms("infer") >= 20
    watch.frame_done()
    with pytest.raises(KeyboardInterrupt), watch.stage("infer"):
        raise KeyboardInterrupt
    summary = watch.summary("Ctrl-C")
    assert summary.stages["infer"].n == 1
    assert summary.model_fps == pytest.approx(1e3 / summary.stages["infer"].p50_ms)
    assert summary.loop_fps is not None
    assert summary.model_fps is not None
    assert summary.loop_fps <= summary.model_fps


def test_frame_age_is_the_time_since_arrival() -> None:
    watch = Stopwatch()
    watch.frame_age(time.perf_counter() - 0.5)
    watch.frame_done()
    summary = watch.summary("q")
    assert summary.frame_age is not None
    assert 500 <= summary.frame_age.p50_ms < 5000
    assert "frame age" not in summary.stages


def test_a_loop_of_weeks_keeps_a_bounded_number_of_samples() -> None:
    watch = Stopwatch()
    run_frames(watch, KEPT_SAMPLES + 500, "infer")
    summary = watch.summary("q")
    assert summary.frames == KEPT_SAMPLES + 500
    assert summary.stages["infer"].n == KEPT_SAMPLES


def test_no_frame_at_all_is_a_summary_too() -> None:
    summary = Stopwatch().summary("an error")
    assert (summary.frames, summary.loop_fps, summary.model_fps, summary.stages) == (0, None, None, {})
    assert json.loads(json.dumps(summary.to_json()))["frames"] == 0


def test_the_table_names_every_stage_and_explains_a_missing_percentile() -> None:
    watch = Stopwatch()
    run_frames(watch, 3, "capture", "infer")
    watch.frame_age(time.perf_counter())
    watch.frame_done()
    output = io.StringIO()
    stopwatch.show(watch.summary("q", note="half of it"), "clip.avi: [model]", Console(file=output, width=100))
    text = output.getvalue()
    for part in ("clip.avi: [model]", "capture", "infer", "frame age", "4 frames in", "ended by q", "half of it"):
        assert part in text
    assert "a p90 needs 64 frames" in text
