"""Shows results in the window, records them, saves snapshots, and turns keys into commands."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from demos.live.dashboard import KEYS
from demos.live.result import FrameResult
from demos.live.session import Session
from demos.live.window.display import Display
from demos.live.window.draw import Renderer
from demos.live.window.recorder import Recorder
from demos.live.window.saving import save_snapshot
from simplenet.errors import SimpleNetError
from simplenet.preprocessing import UInt8Array

_QUIT = {"q": "q", "escape": "Esc"}
_COMMANDS = {key.key: key.command for key in KEYS}
_LONGEST_GAP_S = 1.0  # in a recording of live sources: a suspended laptop leaves no still of hours
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
    ) -> None:
        """`record_to` records from the first frame.

        Args:
            folder: for snapshots and for recordings that a key starts.

        Raises:
            SimpleNetError: `record_to` cannot be written.
        """
        self._session, self._display, self._folder = session, display, folder
        self._renderer = Renderer()
        self._dashboard, self._texts_until_s = session.state()["dashboard"], 0.0
        self._recorder: Recorder | None = None
        self._pending_recording = record_to
        self._is_live = False  # recordings of live sources are timed by the clock, those of files by the files
        self._media_s, self._offsets_s = 0.0, dict[int, float]()
        self._was_requested_at_start = record_to is not None
        self.recording_error: SimpleNetError | None = None
        """Why the recording that was requested at the start is incomplete."""
        if record_to is not None:
            Recorder(record_to).close()  # fails now if the folder cannot be written to
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
            self._start_recording(self._pending_recording)
        image = self._draw()
        frame, rate = result.frame, result.source.frame_rate or 30
        self._record(image, self._time_of(result), frame.duration_s or 1 / rate)
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

    def _start_recording(self, path: Path) -> None:
        self._pending_recording = None
        sources = self._session.scheduler.sources
        self._is_live = any(source.is_live for source in sources if source.kind != "visitor")
        try:
            self._recorder = Recorder(path, longest_gap_s=_LONGEST_GAP_S if self._is_live else math.inf)
        except SimpleNetError as error:
            self._report_failure(error)
            return
        self._session.recorder = self._recorder
        self._session.event("recording", path=str(self._recorder.path))

    def _time_of(self, result: FrameResult) -> float:
        """Return the frame's time in the recording. A file that is behind others is moved to their time."""
        frame, source = result.frame, result.source.id
        if self._is_live or frame.media_s is None:
            return frame.captured_s
        self._media_s = max(self._media_s, frame.media_s + self._offsets_s.get(source, 0.0))
        self._offsets_s[source] = self._media_s - frame.media_s
        return self._media_s

    def _record(self, image: UInt8Array, time_s: float, duration_s: float = 1 / 30) -> None:
        if self._recorder is not None:
            try:
                self._recorder.write(image, time_s, duration_s)
            except SimpleNetError as error:  # the message says what was kept
                self._recorder = self._session.recorder = None
                self._report_failure(error)

    def _report_failure(self, error: SimpleNetError) -> None:
        """The demo continues; if the recording was requested at the start, webcam.py fails at the end."""
        text = str(error)
        if self._was_requested_at_start:
            self.recording_error, text = error, f"error: the recording is incomplete: {error}"
        self._session.notify(text)
        self._was_requested_at_start = False

    def _save(self, image: UInt8Array) -> None:
        try:
            path = save_snapshot(self._folder, image)
        except SimpleNetError as error:
            self._session.notify(str(error))
            return
        self._session.notify(f"saved {path}")
        self._session.event("snapshot", path=str(path))
