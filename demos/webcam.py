"""Classifies cameras, videos and streams, live, in a window, on a page, or without either.

    python demos/webcam.py                                    camera 0; without one, a generated scene
    python demos/webcam.py --backend openvino --source clip.mp4
    python demos/webcam.py --backend all --precision int8     all that have int8 answer the same frames, side by side
    python demos/webcam.py --source 0 --source rtsp://user:password@camera/stream --display browser
    python demos/webcam.py --display browser --source visitor  no camera here: visitors of the page bring their own
    python demos/webcam.py --source synthetic --display none --duration 30 --json > events.jsonl

Keys in the window: q or Esc ends, space pauses, s snapshot, r record, b next backend, p next precision, h help.
The page is at http://127.0.0.1:8000. Of a device without a screen, type `ssh -L 8000:127.0.0.1:8000 DEVICE` on your own
machine and open that address there: browsers give a page the visitor's camera only on localhost or https.
A file loses no frame; of a camera or stream the models always get the newest one. However it ends, a summary follows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from demos import model_flags
from demos.live.dashboard import UNTRAINED
from demos.live.events import EventWriter
from demos.live.model_config import ModelConfig
from demos.live.result import FrameResult
from demos.live.session import Session
from demos.live.sources.base import Source
from demos.live.sources.factory import open_source
from demos.live.sources.scheduler import SourceScheduler
from demos.live.status_line import StatusLine
from demos.live.summary import Summary, print_summary
from demos.live.window import display
from demos.live.window.recorder import CODECS
from demos.live.window.view import Screen
from simplenet import cli
from simplenet.errors import ImageError, SimpleNetError, SourceError, UsageError

DEFAULT_PORT = 8000
SYNTHETIC, VISITOR = "synthetic", "visitor"
_REFRESH_S = 0.1


def run(session: Session, screen: Screen, *, max_frames: int | None = None, duration_s: float | None = None) -> str:
    """Answers frame after frame until something ends it, timing every stage.

    Args:
        max_frames: stop after so many frames. duration_s: or after so long, pauses not counted.

    Returns:
        What ended it: 'end of file', 'end of stream', 'q', 'Esc', 'SIGTERM', '--max-frames' or '--duration'.

    Raises:
        SourceError: every source failed. BackendError: a model failed. KeyboardInterrupt: Ctrl-C.
    """
    timer, scheduler = session.timer, session.scheduler
    timer.start()
    while not session.quit:
        # What keys and the page have asked for since the last frame.
        screen.asked(session.process_commands())
        if max_frames is not None and timer.frames >= max_frames:
            return "--max-frames"
        if duration_s is not None and timer.seconds >= duration_s:
            return "--duration"
        if session.paused:
            with timer.paused():
                screen.refresh()
                time.sleep(_REFRESH_S)
            continue
        # Source: the next frame of a file, the newest one of a camera.
        with timer.stage("capture"):
            received = scheduler.next(_REFRESH_S)
        if received is None:
            if scheduler.all_ended:
                ended = _end(scheduler)
                session.process_commands()  # it tells of the source that failed last
                return ended
            screen.refresh()
            continue
        source, frame = received
        frame_age_ms = timer.frame_age(frame.captured_s) if source.is_live else None
        # Infer: the crop that the models were trained on, every model in turn, its best answers.
        try:
            answers, preprocess_ms, post_ms = session.model_group.answer(frame.image, keep=not session.is_switching)
        except ImageError as error:
            session.refuse(source, error)
            continue
        timer.record("preprocess", preprocess_ms)
        timer.record("infer", sum(answer.infer_ms for answer in answers))
        timer.record("post", post_ms)
        update = FrameResult(source, frame, answers, frame_age_ms, preprocess_ms, timer.frames + 1)
        # Overlay and render: the answers over the picture, to the window or into the recording.
        if screen.draws:
            with timer.stage("draw"):
                screen.show(update)
        timer.frame_done()
        session.publish(update)
    return session.quit


def _end(scheduler: SourceScheduler) -> str:
    failed = [source for source in scheduler.sources if source.state == "failed"]
    if len(failed) == len(scheduler.sources):  # of several, a dead one was told of when it died
        raise SourceError("; ".join(source.note or f"{source.name} failed" for source in failed))
    lived = any(source.is_live and source not in failed for source in scheduler.sources)
    return "end of stream" if lived else "end of file"


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--source",
        action="append",
        type=_source,
        metavar="WHAT",
        help="a camera's number or /dev/video path; a video, picture or folder of pictures; an rtsp, rtmp, http or udp "
        "address; gst:PIPELINE or csi:0 where OpenCV has GStreamer; synthetic or synthetic:640x480@30, a generated "
        "scene; visitor, cameras of the page's visitors only. Several times for several (default: 0, or synthetic "
        "without a camera)",
    )
    parser.add_argument(
        "--display",
        type=cli.choice("display", display.DISPLAYS),
        default="auto",
        metavar="NAME",
        help="window, browser, none, or auto: the first of them that can be had (default: auto)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="NAME",
        help="where the page listens; anything but this machine alone is open to everybody who can reach it "
        "(default: 127.0.0.1)",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=cli.integer_in(1, 65_535), default=DEFAULT_PORT, metavar="N",
        help=f"the page's port (default: {DEFAULT_PORT})",
    )  # fmt: skip
    parser.add_argument(
        "--max-frames", type=cli.integer_in(1, 10**12), metavar="N", help="stop after so many frames (default: never)"
    )
    parser.add_argument(
        "--duration",
        type=cli.positive_number,
        metavar="SECONDS",
        help="stop after so long, pauses not counted (default: never)",
    )
    parser.add_argument(
        "--reconnect-timeout", type=cli.positive_number, default=60.0, metavar="SECONDS",
        help="a camera or stream without a frame for this long fails for good (default: 60)",
    )  # fmt: skip
    parser.add_argument("--loop", action="store_true", help="start a file again when it ends")
    parser.add_argument("--record", type=_film, metavar="FILE", help="record what the window shows: .mp4 or .avi")
    parser.add_argument(
        "--output", type=cli.path, default=Path("recordings"), metavar="DIR",
        help="where the keys s and r put snapshots and recordings (default: ./recordings)",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=cli.integer_in(1, 20), default=5, metavar="N", help="answers to show (default: 5)"
    )
    model_flags.add_model(parser, several_backends=True)
    parser.add_argument("--json", action="store_true", help="print every event as a line of JSON on stdout")
    return parser


def _source(text: str) -> str:
    """argparse type: whether there is such a source, opening it tells."""
    if not text.strip() or re.fullmatch(r"-\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} names no camera, video or stream; cameras are counted from 0")
    return cli.path_or_name(text)


def _film(text: str) -> Path:
    """argparse type: a file that can be recorded to."""
    if Path(text).suffix.lower() not in CODECS:
        raise argparse.ArgumentTypeError(f"{text!r} must be a name that ends in {' or '.join(CODECS)}")
    return cli.path(text)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    selection = ModelConfig.from_arguments(arguments)
    events, stdout = EventWriter() if arguments.json else None, sys.stdout  # which an export redirects while it works
    expects_visitors = VISITOR in (arguments.source or ())
    if expects_visitors and arguments.display in ("window", "none"):
        raise UsageError("visitors show their cameras on the page; leave out --display, or --source visitor")
    if expects_visitors and arguments.record and set(arguments.source) == {VISITOR}:
        raise UsageError("visitors show their cameras to themselves alone; leave out --record")
    kind = display.choose("browser" if expects_visitors else arguments.display, why_no_page, cli.log)
    if kind == "browser":
        _check_port(arguments.host, arguments.port)
    with contextlib.ExitStack() as opened:
        scheduler = opened.enter_context(contextlib.closing(SourceScheduler()))
        for source in _sources(arguments, pace=kind != "none"):
            scheduler.add(source)
        if scheduler.sources and all(source.kind == SYNTHETIC for source in scheduler.sources):
            selection = selection.for_shipped_pictures()
        selection, model_group = selection.load(cli.log)
        session = opened.enter_context(Session(scheduler, selection, model_group, event=events or _nothing))
        shown = opened.enter_context(display.Window() if kind == "window" else display.NoDisplay())
        screen = Screen(session, shown, arguments.output, arguments.record)
        if kind == "browser":
            opened.enter_context(_page(session, arguments.host, arguments.port))
        status = StatusLine(session)
        session.subscribe(status.update)
        if events is not None:
            session.subscribe(events.frame)
        _start(session, events)
        ended = "an error"
        opened.enter_context(_ending_on_signals(session))
        try:
            ended = run(session, screen, max_frames=arguments.max_frames, duration_s=arguments.duration)
        except KeyboardInterrupt:
            ended = "Ctrl-C"
            return 130
        finally:
            # Whatever ended the loop: what was measured until then is true and is told.
            session.timer.stop()
            screen.stop_recording()
            status.clear()
            _report(session, session.summary(ended), events, stdout)
    if screen.lost is not None:
        raise SimpleNetError(f"the recording is not whole: {screen.lost}")
    return 0


@contextlib.contextmanager
def _ending_on_signals(session: Session) -> Iterator[None]:
    """`kill` and a closed terminal end the demo like the key q: recordings are finished and the summary is told."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def end(number: int, frame: object) -> None:
        session.quit = signal.Signals(number).name
        session.scheduler.wake()

    before = {name: signal.signal(getattr(signal, name), end) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _sources(arguments: argparse.Namespace, pace: bool) -> Iterator[Source]:
    """What was asked for. The only source must be there now; of several, a dead one is tried again beside the others.

    Raises:
        SourceError: the only source, or every one of several files, cannot be opened.
    """
    open_one = functools.partial(
        open_source, loop=arguments.loop, pace=pace, reconnect_timeout_s=arguments.reconnect_timeout
    )
    if arguments.source is None:
        try:
            yield open_one("0")
        except SourceError as error:
            cli.log(f"{error}. Showing a generated scene")
            yield open_one(SYNTHETIC)
        return
    names = [name for name in arguments.source if name != VISITOR]
    refused: list[SourceError] = []
    for name in names:
        try:
            yield open_one(name, connect_in_background=len(names) > 1)
        except SourceError as error:
            if len(refused) + 1 == len(names):
                raise
            refused.append(error)
            cli.log(f"without {error}")


def why_no_page() -> str | None:
    """None where the page can be served, else what to install."""
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn", "websockets") if find_spec(name) is None]
    return f"{', '.join(missing)} not installed; type: pip install '.[web]'" if missing else None


def _check_port(host: str, port: int) -> None:
    """Raises SimpleNetError now, and not once all models are loaded, where the page could not be served."""
    from demos.live.page.listener import bind

    bind(host, port).close()


def _page(session: Session, host: str, port: int) -> contextlib.AbstractContextManager[object]:
    from demos.live.page.server import Page

    page = Page(session, host, port)
    page.start()
    cli.log(f"open {page.url}")
    if page.is_public:
        cli.log(
            "everybody who can reach this machine can timer, switch models, pause, and write snapshots and recordings: "
            "there is no password"
        )
    return contextlib.closing(page)


def _start(session: Session, events: EventWriter | None) -> None:
    for line in (*session.model_group.skipped, *session.model_group.notes):
        cli.log(line)
    if events is None:
        cli.log(f"running {', '.join(session.model_group.records)}; Ctrl-C ends it")
        return
    events(
        "start",
        sources=[source.name for source in session.scheduler.sources],
        variant=session.model_group.models[0].manifest.variant,
        weights=dataclasses.asdict(session.model_group.models[0].manifest.weights),
        untrained=session.state()["untrained"],
        models=[dataclasses.asdict(model.describe()) for model in session.model_group.models],
        skipped=session.model_group.skipped,
    )


def _report(session: Session, summary: Summary, events: EventWriter | None, stdout: TextIO) -> None:
    if events is not None:
        events.summary(summary)
        return
    from rich.console import Console

    state = session.state()
    title = state["dashboard"]["title"] + (f"  {UNTRAINED}" if state["untrained"] else "")
    print_summary(summary, title, Console(file=stdout, width=None if cli.is_terminal(stdout) else 120))


def _nothing(event: str, **facts: object) -> None:
    """Nobody listens to the events."""


if __name__ == "__main__":
    cli.run(main)
