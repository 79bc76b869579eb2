"""Small videos of any codec and container, encoded with PyAV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from demos.live.sources.opencv import pyav

av = pyav()
MILLISECOND = Fraction(1, 1000)


def encode(
    path: Path,
    times_s: Sequence[float],
    codec: str = "libx264",
    *,
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    container: str | None = None,
    options: dict[str, str] | None = None,
    prepare: Callable[[Any], None] = lambda stream: None,
    convert: Callable[[Any], Any] = lambda frame: frame,
    noise: bool = False,
    image: npt.NDArray[np.uint8] | None = None,
    metadata: dict[str, str] | None = None,
    rate: int = 25,
    time_base: Fraction | None = MILLISECOND,
) -> Path:
    """Write a video whose frame i, of brightness 5 * i (or `image`), is presented at `times_s[i]`.

    `prepare` gets the stream before the first frame, `convert` each frame before it is encoded. `noise` makes every
    frame large. Without a `time_base`, only the number of a frame is written.
    """
    with av.open(str(path), "w", format=container) as output:
        output.metadata.update(metadata or {})
        stream: Any = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size if image is None else image.shape[1::-1]
        stream.pix_fmt = pixel_format
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = time_base
        prepare(stream)
        for index, time_s in enumerate(times_s):
            shown = np.full((size[1], size[0], 3), 5 * index % 256, np.uint8) if image is None else image
            if noise:
                shown = np.random.default_rng(index).integers(0, 255, shown.shape).astype(np.uint8)
            frame = convert(av.VideoFrame.from_ndarray(shown, format="rgb24"))
            frame.time_base = time_base or Fraction(1, rate)
            frame.pts = round(time_s / frame.time_base)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def regular(count: int, rate: float = 25) -> list[float]:
    return [index / rate for index in range(count)]


def packets(path: Path) -> list[tuple[int, int]]:
    """Position and size of each packet in the file."""
    with av.open(str(path)) as video:
        return [(packet.pos, packet.size) for packet in video.demux(video=0) if packet.size]


def damage(path: Path, first: int, count: int) -> None:
    """Overwrite packets with zeros."""
    content = bytearray(path.read_bytes())
    for position, size in packets(path)[first : first + count]:
        content[position : position + size] = bytes(size)
    path.write_bytes(content)
