"""The summary as JSON and as tables."""

from __future__ import annotations

import io
import json
import time

from rich.console import Console

from demos.live.stage_timer import StageTimer
from demos.live.summary import ModelSummary, SourceSummary, print_summary
from runtimes.timing import summarize


def test_summary_without_frames_is_valid() -> None:
    summary = StageTimer().summary("an error")
    assert (summary.frames, summary.loop_fps, summary.stages, summary.models) == (0, None, {}, ())
    assert json.loads(json.dumps(summary.to_json()))["frames"] == 0


def test_prints_every_stage_and_explains_a_missing_percentile() -> None:
    timer = StageTimer()
    for _ in range(4):
        for stage in ("capture", "infer"):
            with timer.stage(stage):
                pass
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
    assert "clip.avi: 4 frames; announces 9 frames" in text  # the name is not repeated
    assert "75.0 %" in text
    assert "500.0" in text  # model FPS at a median of 2 ms
    assert "a p90 needs 64 frames" in text
