"""Classifies a camera, a video or a stream, live.

    python demos/webcam.py                                    camera 0, in a window where there is a screen
    python demos/webcam.py --backend openvino --source clip.mp4 --display none --max-frames 500
    python demos/webcam.py --source rtsp://user:password@camera/stream --variant 3m --precision bf16 --backend openvino
    python demos/webcam.py --artifact artifacts/1.5m/onnx-int8 --source /dev/video2 --json > summary.json

q or Esc ends it, and so do Ctrl-C, the end of the file and --max-frames; a summary of the times follows in any case.
A video file loses no frame; of a camera or stream the model always gets the newest one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from demos import artifact_choice
from demos.artifact_choice import is_untrained, say_on_stderr
from demos.live import overlay, stopwatch
from demos.live.display import DISPLAYS, Display, open_display
from demos.live.source_choice import open_source
from demos.live.sources import Source
from demos.live.stopwatch import Stopwatch
from runtimes import Prediction, Runtime, top_k
from simplenet import cli
from simplenet.errors import one_line

WARM_UP_FRAMES = 5
_STATUS_EVERY_S = 0.25


def run(
    source: Source,
    model: Runtime,
    display: Display,
    watch: Stopwatch,
    *,
    top: int = 5,
    max_frames: int | None = None,
    on_frame: Callable[[list[Prediction]], None] = lambda predictions: None,
) -> str:
    """Classifies frame after frame until something ends it, timing every stage with `watch`.

    Args:
        top: how many answers to show.
        max_frames: stop after so many frames.
        on_frame: is told each frame's best answers.

    Returns:
        What ended it: 'end of file', 'end of stream', 'q', 'Esc' or '--max-frames'.

    Raises:
        SourceError: the camera or stream failed. BackendError: the model failed. KeyboardInterrupt: Ctrl-C.
    """
    untrained = is_untrained(model)
    image = np.zeros((480, 640, 3), np.uint8)
    for _ in range(WARM_UP_FRAMES):  # the first calls allocate; they are no part of a live loop's speed
        model.classify([image], k=top)
    watch.start()
    while max_frames is None or watch.frames < max_frames:
        # Source: the next frame of a file, the newest one of a camera.
        with watch.stage("capture"):
            frame = source.next()
        if frame is None:
            return "end of stream" if source.is_live else "end of file"
        if source.is_live:
            watch.frame_age(frame.captured_s)
        # Infer: the crop that the model was trained on, the model, and its best answers.
        with watch.stage("preprocess"):
            batch = model.preprocess([frame.image])
        with watch.stage("infer"):
            logits = model.infer_any(batch)
        with watch.stage("post"):
            (predictions,) = top_k(logits, top, model.manifest.labels)
        key = ""
        if display.shows_pictures:
            with watch.stage("draw"):
                # Overlay: the answers over the picture. Render: the picture to the person.
                overlay.draw(frame.image, predictions, _figures(model, watch), untrained)
                key = display.show(frame.image)
        watch.frame_done()
        on_frame(predictions)
        if key in ("q", "escape"):
            return "q" if key == "q" else "Esc"
    return "--max-frames"


def _figures(model: Runtime, watch: Stopwatch) -> str:
    return f"{model.name} {model.precision}  infer {watch.this_frame_ms('infer'):.1f} ms  {watch.recent_fps():.0f} FPS"


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--source",
        default="0",
        metavar="WHAT",
        help="a camera's number or /dev/video path, a video file, or an rtsp, rtmp, http or udp address (default: 0)",
    )
    parser.add_argument(
        "--display",
        type=cli.choice("display", DISPLAYS),
        default="auto",
        metavar="NAME",
        help="window, none, or auto: a window where one can be opened (default: auto)",
    )
    parser.add_argument(
        "--max-frames", type=cli.integer_in(1, 10**12), metavar="N", help="stop after so many frames (default: never)"
    )
    parser.add_argument(
        "--top", type=cli.integer_in(1, 20), default=5, metavar="N", help="answers to show (default: 5)"
    )
    artifact_choice.add_model(parser)
    cli.add_json(parser)
    return parser  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    watch, ended = Stopwatch(), "an error"
    with (
        open_source(arguments.source) as source,
        artifact_choice.load(arguments) as model,
        open_display(arguments.display, say_on_stderr) as display,
    ):
        try:
            with _Status(source.name, watch) as status:
                ended = run(
                    source, model, display, watch,
                    top=arguments.top, max_frames=arguments.max_frames, on_frame=status.update,
                )  # fmt: skip
        except KeyboardInterrupt:
            ended = "Ctrl-C"
            raise
        finally:
            # Whatever ended the loop: what was measured until then is true and is told.
            summary = watch.summary(ended, source.dropped, source.note)
            _report(summary, source, model, as_json=arguments.json)
    return 0


def _report(summary: stopwatch.Summary, source: Source, model: Runtime, as_json: bool) -> None:
    what = model.describe()
    if as_json:
        facts = {
            "schema_version": 1,
            "source": source.name,
            "variant": model.manifest.variant,
            "weights": dataclasses.asdict(model.manifest.weights),
            "untrained": is_untrained(model),
            "runtime": dataclasses.asdict(what),
        }
        print(json.dumps({**facts, **summary.to_json()}))
        return
    from rich.console import Console

    untrained = f"  {overlay.UNTRAINED}" if is_untrained(model) else ""
    title = f"{source.name}: {model.manifest.variant} with {what.backend} {what.precision} on {what.device}{untrained}"
    stopwatch.show(summary, title, Console(width=None if cli.is_terminal(sys.stdout) else 120))


class _Status:
    """One line on stderr that says what is seen, a few times a second; nothing where stderr is not a terminal."""

    def __init__(self, name: str, watch: Stopwatch) -> None:
        self._console = cli.console()
        self._name, self._watch = name, watch
        self._next_s = 0.0

    def update(self, predictions: list[Prediction]) -> None:
        now_s = time.perf_counter()
        if not self._console.is_terminal or now_s < self._next_s:
            return
        self._next_s = now_s + _STATUS_EVERY_S
        best = predictions[0]
        line = f"{self._name}: frame {self._watch.frames}, {self._watch.recent_fps():.0f} FPS, "
        line += f"{best.label} {100 * best.probability:.1f} %"
        self._write(one_line(line, self._console.width - 1))

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def __enter__(self) -> _Status:
        return self

    def __exit__(self, *_: object) -> None:
        if self._next_s:
            self._write("")


if __name__ == "__main__":
    cli.run(main)
