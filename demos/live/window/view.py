"""What a person sees and presses: the window, the recording, snapshots. The page has its own room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from demos.live.dashboard import KEYS
from demos.live.result import FrameResult
from demos.live.session import Session
from demos.live.window.display import Display
from demos.live.window.draw import Renderer
from demos.live.window.recorder import Recorder, UInt8Array, save_snapshot
from simplenet.errors import SimpleNetError

_QUIT = {"q": "q", "escape": "Esc"}
_COMMANDS = {key.key: key.command for key in KEYS}
_UNKNOWN_FRAME_RATE = 30.0


class Screen:
    """Draws an update once, for whoever wants it, and turns keys into commands. For the loop's thread."""

    def __init__(self, session: Session, display: Display, folder: Path, record_to: Path | None = None) -> None:
        """`folder` takes snapshots and the recordings that a key starts; `record_to` records from the first frame.

        Raises:
            SimpleNetError: `record_to` cannot be written.
        """
        self._session, self._display, self._folder = session, display, folder
        self._renderer = Renderer()
        self._recorder: Recorder | None = None
        self._records_time = False
        """Whether its pictures have times of their own; a file's come as fast as they are answered."""
        self._record_to = record_to
        self._was_asked_for = record_to is not None
        self.lost: SimpleNetError | None = None
        """Why the recording that was asked for at the start is not whole."""
        if record_to is not None:
            Recorder(record_to, _UNKNOWN_FRAME_RATE).close()  # a place that cannot be written to is told of now
        self._wants_snapshot = False
        self._shows_help = False

    @property
    def draws(self) -> bool:
        """Whether the next update must be drawn: without a window, a recording or a snapshot nobody looks."""
        return (
            self._display.shows_pictures
            or self._recorder is not None
            or self._record_to is not None
            or self._wants_snapshot
        )

    def asked(self, commands: Sequence[str]) -> None:
        """The commands that `Session.process_commands` leaves to the screen."""
        for command in commands:
            if command == "help":
                self._shows_help = not self._shows_help
            elif all(source.kind == "visitor" for source in self._session.scheduler.sources):
                self._session.notify("there is no picture to keep: visitors' cameras are theirs alone")
            elif command == "snapshot":
                self._wants_snapshot = True
                if self._session.paused:
                    self.refresh()
            elif self._recorder is not None or self._record_to is not None:
                self.stop_recording()
            else:
                self._record_to = self._folder / time.strftime("simplenet-%Y%m%d-%H%M%S.mp4")

    def show(self, update: FrameResult) -> None:
        """A visitor's picture is not shown: it is theirs alone."""
        if update.source.kind == "visitor":
            return
        self._renderer.add(update)
        self._deliver(update)

    def refresh(self) -> None:
        """No new frame came, or the demo is paused: the last picture with the banners of now; keys are heard.

        A recording of live pictures goes on with it, as time does; one of a file waits for the next frame.
        """
        if self._display.shows_pictures or self._wants_snapshot or (self._recorder is not None and self._records_time):
            self._deliver(None)

    def stop_recording(self) -> None:
        """Ends a recording, if there is one, and says where it is."""
        recorder, self._recorder, self._record_to = self._recorder, None, None
        self._session.recorder = None
        if recorder is not None:
            try:
                recorder.close()
            except SimpleNetError as error:
                self._lose(error)
                return
            finally:
                self._was_asked_for = False
            self._session.notify(f"recorded {recorder.path}")

    def _deliver(self, update: FrameResult | None) -> None:
        image = self._renderer.draw(self._session.state()["dashboard"], show_help=self._shows_help)
        if update is not None and self._record_to is not None:
            self._start_recording(update)
        if self._recorder is not None and (update is not None or self._records_time):
            seen_s = time.perf_counter() if update is None else update.frame.captured_s
            try:
                self._recorder.write(image, seen_s if self._records_time else None)
            except SimpleNetError as error:  # which says what was kept
                self._lose(error)
                self._recorder = self._session.recorder = None
                self._was_asked_for = False
        if self._wants_snapshot:
            self._wants_snapshot = False
            self._save(image)
        if self._display.shows_pictures:
            self._pressed(self._display.show(image))

    def _start_recording(self, update: FrameResult) -> None:
        assert self._record_to is not None
        path, self._record_to = self._record_to, None
        rate = update.source.frame_rate or self._session.timer.recent_fps() or _UNKNOWN_FRAME_RATE
        try:
            self._recorder = Recorder(path, rate)
        except SimpleNetError as error:
            self._lose(error)
            return
        seen = [source for source in self._session.scheduler.sources if source.kind != "visitor"]
        self._records_time = any(source.is_live for source in seen)
        self._session.recorder = self._recorder
        self._session.event("recording", path=str(self._recorder.path))

    def _lose(self, error: SimpleNetError) -> None:
        """The demo goes on; a recording that was asked for at the start is an error in the end."""
        self._session.notify(str(error))
        if self._was_asked_for:
            self.lost = error

    def _save(self, image: UInt8Array) -> None:
        try:
            path = save_snapshot(self._folder, image)
        except SimpleNetError as error:
            self._session.notify(str(error))
            return
        self._session.notify(f"saved {path}")
        self._session.event("snapshot", path=str(path))

    def _pressed(self, key: str) -> None:
        if key in _QUIT:
            self._session.quit = _QUIT[key]
        elif key in _COMMANDS:
            self._session.command(_COMMANDS[key])
