"""Shows results in the window, records them, saves snapshots, and turns keys into commands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from demos.live.dashboard import KEYS
from demos.live.result import FrameResult
from demos.live.session import Session
from demos.live.window.display import Display
from demos.live.window.draw import Renderer
from demos.live.window.recorder import Recorder, save_snapshot
from simplenet.errors import SimpleNetError
from simplenet.preprocessing import UInt8Array

_QUIT = {"q": "q", "escape": "Esc"}
_COMMANDS = {key.key: key.command for key in KEYS}
_DEFAULT_FRAME_RATE = 30.0
_TEXTS_EVERY_S = 0.1  # people cannot read faster changes, and a state's percentiles take 0.15 ms


class Screen:
    """Draws each result once, for the window, the recording and snapshots. Use it in the loop's thread only.

    Visitors' images are neither shown nor recorded.
    """

    def __init__(
        self,
        session: Session,
        display: Display,
        folder: Path,
        record_to: Path | None = None,
        record_fps: float | None = None,
    ) -> None:
        """`record_to` records from the first frame.

        Args:
            folder: for snapshots and for recordings that a key starts.
            record_fps: frames per second of recordings; None takes the source's.

        Raises:
            SimpleNetError: `record_to` cannot be written.
        """
        self._session, self._display, self._folder = session, display, folder
        self._renderer = Renderer()
        self._dashboard, self._texts_until_s = session.state()["dashboard"], 0.0
        self._recorder: Recorder | None = None
        self._pending_recording, self._record_fps = record_to, record_fps
        self._is_live = False  # recordings of live sources are timed by the clock, those of files by frame number
        self._file_frames, self._file_rate = 0, _DEFAULT_FRAME_RATE
        self._was_requested_at_start = record_to is not None
        self.recording_error: SimpleNetError | None = None
        """Why the recording that was requested at the start is incomplete."""
        if record_to is not None:
            Recorder(record_to, _DEFAULT_FRAME_RATE).close()  # fails now if the folder cannot be written to
        self._pending_snapshot = self._shows_help = False

    @property
    def draws(self) -> bool:
        """Whether the next result must be drawn."""
        recording = self._recorder or self._pending_recording
        return self._display.shows_images or recording is not None or self._pending_snapshot

    def handle(self, commands: Sequence[str]) -> None:
        """Handle the commands that `Session.process_commands` leaves to the screen."""
        for command in commands:
            if command == "help":
                self._shows_help = not self._shows_help
            elif all(source.kind == "visitor" for source in self._session.scheduler.sources):
                self._session.notify("nothing to save: visitors' images are neither saved nor recorded")
            elif command == "snapshot":
                self._pending_snapshot = True
                if self._session.paused:
                    self.refresh()
            elif self._recorder is not None or self._pending_recording is not None:
                self.stop_recording()
            else:
                self._pending_recording = self._folder / time.strftime("simplenet-%Y%m%d-%H%M%S.mp4")

    def show(self, result: FrameResult) -> None:
        """Draw a result, and record it if a recording is running."""
        if result.source.kind == "visitor":
            return
        self._renderer.add(result)
        if self._pending_recording is not None:
            self._start_recording(self._pending_recording, result)
        image = self._draw()
        self._file_frames += 1
        self._record(image, result.frame.captured_s if self._is_live else self._file_frames / self._file_rate)
        self._deliver(image)

    def refresh(self) -> None:
        """Draw the last images with the current state: no new frame came, or the demo is paused.

        A recording of live sources continues; one of files waits for the next frame.
        """
        is_recording = self._recorder is not None and self._is_live
        if self._display.shows_images or self._pending_snapshot or is_recording:
            self._texts_until_s = 0.0
            image = self._draw()
            if is_recording:
                self._record(image, time.perf_counter())
            self._deliver(image)

    def stop_recording(self) -> None:
        """Finish the recording, if there is one, and report its path."""
        recorder, self._recorder, self._pending_recording = self._recorder, None, None
        self._session.recorder = None
        if recorder is not None:
            try:
                recorder.close()
            except SimpleNetError as error:
                self._report_failure(error)
                return
            self._was_requested_at_start = False
            self._session.notify(f"recorded {recorder.path}")

    def _draw(self) -> UInt8Array:
        if (now_s := time.perf_counter()) >= self._texts_until_s:
            self._dashboard, self._texts_until_s = self._session.state()["dashboard"], now_s + _TEXTS_EVERY_S
        return self._renderer.draw(self._dashboard, show_help=self._shows_help)

    def _deliver(self, image: UInt8Array) -> None:
        if self._pending_snapshot:
            self._pending_snapshot = False
            self._save(image)
        if self._display.shows_images:
            key = self._display.show(image)
            if key in _QUIT:
                self._session.quit = _QUIT[key]
            elif key in _COMMANDS:
                self._session.command(_COMMANDS[key])

    def _start_recording(self, path: Path, result: FrameResult) -> None:
        self._pending_recording = None
        rate = result.source.frame_rate or self._session.timer.recent_fps() or _DEFAULT_FRAME_RATE
        self._file_frames, self._file_rate = 0, rate
        try:
            self._recorder = Recorder(path, self._record_fps or rate)
        except SimpleNetError as error:
            self._report_failure(error)
            return
        sources = self._session.scheduler.sources
        self._is_live = any(source.is_live for source in sources if source.kind != "visitor")
        self._session.recorder = self._recorder
        self._session.event("recording", path=str(self._recorder.path))

    def _record(self, image: UInt8Array, time_s: float) -> None:
        if self._recorder is not None:
            try:
                self._recorder.write(image, time_s)
            except SimpleNetError as error:  # the message says what was kept
                self._recorder = self._session.recorder = None
                self._report_failure(error)

    def _report_failure(self, error: SimpleNetError) -> None:
        """The demo continues; if the recording was requested at the start, webcam.py fails at the end."""
        self._session.notify(str(error))
        if self._was_requested_at_start:
            self.recording_error = error
        self._was_requested_at_start = False

    def _save(self, image: UInt8Array) -> None:
        try:
            path = save_snapshot(self._folder, image)
        except SimpleNetError as error:
            self._session.notify(str(error))
            return
        self._session.notify(f"saved {path}")
        self._session.event("snapshot", path=str(path))
