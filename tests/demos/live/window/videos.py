"""Reads recordings back."""

from __future__ import annotations

from pathlib import Path

from demos.live.sources.opencv import pyav
from tests.demos.live.scenes import UInt8Array


def read(path: Path) -> tuple[list[UInt8Array], list[float], float]:
    """The frames of a video, RGB, their times and the duration in seconds."""
    with pyav().open(str(path)) as container:
        frames = list(container.decode(video=0))
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        duration_s = float(stream.duration * stream.time_base)
        return [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames], duration_s
