"""Classify cameras, videos and streams live, in a window, on a page, or without a display.

    python demos/webcam.py                                    camera 0; without one, a generated scene
    python demos/webcam.py --backend openvino --source clip.mp4
    python demos/webcam.py --backend all --precision int8     every backend with int8, side by side on the same frames
    python demos/webcam.py --source 0 --source rtsp://user:password@camera/stream --display browser
    python demos/webcam.py --display browser --source visitor  no local camera: visitors of the page share theirs
    python demos/webcam.py --source synthetic --display none --duration 30 --json > events.jsonl

The page is at http://127.0.0.1:8000. For a device without a screen, run `ssh -L 8000:127.0.0.1:8000 DEVICE` on your own
machine and open that address there: browsers share the visitor's camera only with localhost and https pages.
Every frame of a file is processed; cameras and streams drop stale frames. A summary is printed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from demos import models
from demos.live.dashboard import UNTRAINED, keys_help
from demos.live.events import EventWriter, StatusLine
from demos.live.model_config import ModelConfig
from demos.live.page.hosts import allowed_host
from demos.live.result import FrameResult
from demos.live.session import Session
from demos.live.sources.base import Source
from demos.live.sources.factory import open_source
from demos.live.sources.scheduler import SourceScheduler
from demos.live.summary import Summary, print_summary
from demos.live.window import display
from demos.live.window.recorder import SUFFIX
from demos.live.window.view import Screen
from demos.models import ModelRequest
from simplenet import cli, files, signals
from simplenet.errors import ImageError, SourceError, UsageError

SYNTHETIC, VISITOR = "synthetic", "visitor"
_REFRESH_S = 0.1


def run(session: Session, screen: Screen, *, max_frames: int | None = None, duration_s: float | None = None) -> str:
    """Classify frame after frame and time every stage, until a source, a limit or a command ends the loop.

    Args:
        max_frames: stop after this many frames.
        duration_s: stop after this many seconds, pauses not counted.

    Returns:
        What ended it: 'end of file', 'end of stream', 'q', 'Esc', '--max-frames', '--duration', 'Ctrl-C' or 'SIGTERM'.

    Raises:
        SourceError: every source failed, or none gave a usable frame. BackendError: a model failed.
        KeyboardInterrupt: the third Ctrl-C.
    """
    timer, scheduler = session.timer, session.scheduler
    timer.start()
    while not session.quit:
        # Commands: process those that keys and the page have sent since the last frame.
        screen.handle(session.process_commands())
        if max_frames is not None and timer.frames >= max_frames:
            return "--max-frames"
        if duration_s is not None and timer.seconds >= duration_s:
            return "--duration"
        if session.paused:
            with timer.paused():
                screen.refresh()
                time.sleep(_REFRESH_S)
            continue
        # Capture: take the next frame of a file, or the newest of a camera.
        with timer.stage("capture"):
            received = scheduler.next(_REFRESH_S)
        if received is None:
            if scheduler.all_ended:
                ended = _end(scheduler)
                session.process_commands()  # reports the source that failed last
                if not timer.frames:
                    raise SourceError("no source gave a frame that can be classified; name another --source")
                return ended
            screen.refresh()
            continue
        source, frame = received
        frame_age_ms = timer.frame_age(frame.captured_s) if source.is_live else None
        # Classify: preprocess once, then run every model.
        try:
            results, preprocess_ms, post_ms = session.model_group.classify(frame.image, keep=not session.is_loading)
        except ImageError as error:
            timer.discard_frame()
            session.reject_frame(source, error)
            continue
        timer.record("preprocess", preprocess_ms)
        timer.record("infer", sum(result.infer_ms for result in results))
        timer.record("post", post_ms)
        classified = FrameResult(source, frame, results, frame_age_ms, preprocess_ms, timer.frames + 1)
        # Draw: update the window and the recording.
        if screen.draws:
            with timer.stage("draw"):
                screen.show(classified)
        timer.frame_done()
        session.publish(classified)
    return session.quit


def _end(scheduler: SourceScheduler) -> str:
    failed = [source for source in scheduler.sources if source.state == "failed"]
    if len(failed) == len(scheduler.sources):  # otherwise each failure was reported when it happened
        raise SourceError("; ".join(source.note or f"{source.name} failed" for source in failed))
    was_live = any(source.is_live and source not in failed for source in scheduler.sources)
    return "end of stream" if was_live else "end of file"


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    keys = "".join(f"\n    {names:8}{label}" for names, label in keys_help())
    parser.epilog = f"{parser.epilog}\n\nKeys in the window:\n{keys}"
    parser.add_argument(
        "--source",
        action="append",
        type=_source,
        metavar="SOURCE",
        help="a camera's number or /dev/video path; a video, image or folder of images; an rtsp, rtmp, http or udp "
        "address; gst:PIPELINE or csi:0 if OpenCV has GStreamer; synthetic or synthetic:640x480@30, a generated scene; "
        "visitor, the cameras of the page's visitors. May be repeated (default: 0, or synthetic without a camera)",
    )
    display_help = "window, browser, none, or auto: the first of these that is available (default: auto)"
    kind = cli.choice("display", display.DISPLAYS)
    parser.add_argument("--display", type=kind, default="auto", metavar="NAME", help=display_help)
    host_help = "the page's address; 0.0.0.0 lets other machines use the page (default: 127.0.0.1)"
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help=host_help)
    allow_help = "a name under which the page may be opened, for example that of a reverse proxy. May be repeated"
    parser.add_argument("--allow-host", action="append", default=[], type=allowed_host, metavar="NAME", help=allow_help)
    cli.add_count(parser, "--port", "the page's port", default=8000, highest=65_535)
    cli.add_count(parser, "--max-frames", "stop after N frames (default: never)", highest=10**12)
    seconds, duration_help = cli.positive_number, "stop after this time, pauses not counted (default: never)"
    parser.add_argument("--duration", type=seconds, metavar="SECONDS", help=duration_help)
    timeout_help = "give up a camera or stream after this time without a frame (default: 60)"
    parser.add_argument("--reconnect-timeout", type=seconds, default=60.0, metavar="SECONDS", help=timeout_help)
    parser.add_argument("--loop", action="store_true", help="restart a file when it ends")
    video = cli.file_ending_in(SUFFIX)
    parser.add_argument("--record", type=video, metavar="FILE", help="record what the window shows, as .mp4")
    output_help = "the folder for snapshots and recordings of the keys s and r (default: ./recordings)"
    parser.add_argument("--output", type=cli.path, default=Path("recordings"), metavar="DIR", help=output_help)
    cli.add_count(parser, "--top", "predictions to show", default=5, highest=20)
    models.add_flags(parser, multiple_backends=True)
    parser.add_argument("--json", action="store_true", help="print every event as a line of JSON on stdout")
    return parser


def _source(text: str) -> str:
    """argparse type: a source's name; `open_source` checks that the source exists."""
    if not text.strip() or re.fullmatch(r"-\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} names no camera, video or stream; cameras are counted from 0")
    return files.expand_home(text)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    config = ModelConfig(ModelRequest.from_flags(arguments), arguments.backend or (), arguments.top)
    events, stdout = EventWriter() if arguments.json else None, sys.stdout  # an export redirects sys.stdout
    expects_visitors = VISITOR in (arguments.source or ())
    if expects_visitors and arguments.display in ("window", "none"):
        raise UsageError("visitors share their cameras on the page; leave out --display, or --source visitor")
    if expects_visitors and arguments.record and set(arguments.source) == {VISITOR}:
        raise UsageError("visitors' images are not recorded; leave out --record, or name another --source")
    kind = display.choose("browser" if expects_visitors else arguments.display, why_no_page, cli.log)
    if kind == "browser":
        from demos.live.page.server import bind

        bind(arguments.host, arguments.port).close()  # fails now if the port is taken, not after models are loaded
    with contextlib.ExitStack() as opened:
        scheduler = opened.enter_context(contextlib.closing(SourceScheduler()))
        open_one = functools.partial(
            open_source, loop=arguments.loop, pace=kind != "none", reconnect_timeout_s=arguments.reconnect_timeout
        )
        for source in _sources(arguments.source, open_one):
            scheduler.add(source)
        if scheduler.sources and all(source.kind == SYNTHETIC for source in scheduler.sources):
            config = config.for_generated_scene()
        config, model_group = config.load(cli.log)
        session = opened.enter_context(Session(scheduler, config, model_group, event=events))
        shown = opened.enter_context(display.Window() if kind == "window" else display.Display())
        screen = Screen(session, shown, arguments.output, arguments.record)
        if kind == "browser":
            opened.enter_context(_page(session, arguments.host, arguments.port, arguments.allow_host))
        status = StatusLine(session)
        session.subscribe(status.update)
        if events is not None:
            session.subscribe(events.frame)
        _start(session, events)
        ended = "an error"
        opened.enter_context(signals.handled(functools.partial(setattr, session, "quit")))
        try:
            ended = run(session, screen, max_frames=arguments.max_frames, duration_s=arguments.duration)
        finally:
            summary = session.summary(ended)
            screen.stop_recording()
            status.clear()
            _report(session, summary, events, stdout)
    if screen.recording_error is not None:
        return 1
    return 130 if ended == "Ctrl-C" else 0


def _sources(names: Sequence[str] | None, open_one: Callable[..., Source]) -> Iterator[Source]:
    """Open the sources. With several, live ones connect in the background, and those that cannot open are skipped.

    Raises:
        SourceError: no source can be opened.
    """
    if names is None:
        try:
            yield open_one("0")
        except SourceError as error:
            cli.log(f"{error}. Showing a generated scene")
            yield open_one(SYNTHETIC)
        return
    names = [name for name in names if name != VISITOR]
    failures = 0
    for name in names:
        try:
            yield open_one(name, connect_in_background=len(names) > 1)
        except SourceError as error:
            failures += 1
            if failures == len(names):
                raise
            cli.log(f"skipping a source: {error}")


def why_no_page() -> str | None:
    """Return None if the page can be served, else what to install."""
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn", "websockets") if find_spec(name) is None]
    return f"{', '.join(missing)} not installed; type: pip install '.[web]'" if missing else None


def _page(
    session: Session, host: str, port: int, allowed_hosts: Sequence[str]
) -> contextlib.AbstractContextManager[object]:
    from demos.live.page.server import Page

    page = Page(session, host, port, allowed_hosts)
    cli.log(f"open {' or '.join(page.urls)}")
    if page.is_public:
        cli.log("no password: everyone who can reach this machine can watch, switch models, pause and write recordings")
    return page


def _start(session: Session, events: EventWriter | None) -> None:
    group = session.model_group
    for line in (*group.skipped, *group.notes):
        cli.log(line)
    if events is None:
        cli.log(f"running {', '.join(group.stats)}; Ctrl-C quits")
        return
    events(
        "start",
        sources=[source.name for source in session.scheduler.sources],
        variant=group.models[0].manifest.variant,
        weights=dataclasses.asdict(group.models[0].manifest.weights),
        untrained=models.is_untrained(group.models[0]),
        preprocessing_source=group.models[0].manifest.preprocessing_source,
        models=[dataclasses.asdict(model.describe()) for model in group.models],
        skipped=group.skipped,
    )


def _report(session: Session, summary: Summary, events: EventWriter | None, stdout: TextIO) -> None:
    if events is not None:
        events("summary", schema_version=1, **summary.to_json())
        return
    from rich.console import Console

    state = session.state()
    title = state["dashboard"]["title"] + (f"  {UNTRAINED}" if state["untrained"] else "")
    print_summary(summary, title, Console(file=stdout, width=None if stdout.isatty() else 120))


if __name__ == "__main__":
    cli.run(main)
