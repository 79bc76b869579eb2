"""The summary counts what was finished and gives a percentile only where it means something."""

from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from demos.live import stopwatch
from demos.live.samples import KEPT_SAMPLES
from demos.live.stopwatch import ModelSummary, SourceSummary, Stopwatch
from runtimes.timing import summarise


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
    summary = watch.summary("end of file")
    assert (summary.frames, summary.ended) == (63, "end of file")
    assert {stage: latency.n for stage, latency in summary.stages.items()} == {"capture": 63, "infer": 63}
    assert summary.stages["infer"].p90_ms is None
    run_frames(watch, 1, "infer")
    assert watch.summary("q").stages["infer"].p90_ms is not None


def test_a_stage_measures_its_block_and_an_unfinished_frame_leaves_no_trace() -> None:
    watch = Stopwatch()
    for _ in range(2):  # twice in a frame adds up
        with watch.stage("infer"):
            time.sleep(0.01)
    watch.note("post", 5.0)
    watch.frame_done()
    with pytest.raises(KeyboardInterrupt), watch.stage("infer"):
        raise KeyboardInterrupt
    summary = watch.summary("Ctrl-C")
    assert summary.stages["infer"].n == 1
    assert summary.stages["infer"].p50_ms >= 20
    assert summary.stages["post"].p50_ms == 5.0
    assert summary.loop_fps is not None
    assert summary.loop_fps <= 50


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
    assert (summary.frames, summary.loop_fps, summary.stages, summary.models) == (0, None, {}, ())
    assert json.loads(json.dumps(summary.to_json()))["frames"] == 0


def test_the_table_names_every_stage_and_explains_a_missing_percentile() -> None:
    watch = Stopwatch()
    run_frames(watch, 3, "capture", "infer")
    watch.frame_age(time.perf_counter())
    watch.frame_done()
    output = io.StringIO()
    source = SourceSummary("clip.avi", "file", "ended", 4, 0, 0, None, "clip.avi announces 9 frames")
    latency = summarise([2.0, 4.0])
    models = [ModelSummary("torch fp32", latency, None, 0), ModelSummary("openvino int8", latency, 75.0, 4)]
    stopwatch.show(watch.summary("q", models, [source]), "clip.avi: [model]", Console(file=output, width=100))
    text = output.getvalue()
    for part in ("clip.avi: [model]", "capture", "infer", "frame age", "4 frames in", "ended by q"):
        assert part in text
    assert "clip.avi: 4 frames; announces 9 frames" in text  # its name is said once
    assert "75.0 %" in text
    assert "500.0" in text  # model alone, at a median of 2 ms
    assert "a p90 needs 64 frames" in text


def test_a_pause_is_not_the_loops_time_and_waiting_in_vain_is() -> None:
    watch = Stopwatch()
    run_frames(watch, 3, "infer")
    with watch.paused():
        time.sleep(0.3)
    assert watch.seconds < 0.3
    time.sleep(0.05)
    watch.stop()
    assert 0.05 <= watch.summary("q").seconds < 0.35
