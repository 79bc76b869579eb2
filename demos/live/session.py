"""Where the loop, the window and the page meet: what runs, what was asked for, what came of it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from demos import artifact_choice
from demos.artifact_choice import Log
from demos.live import dashboard
from demos.live.dashboard import COMMANDS, SELECTIONS
from demos.live.model_config import ModelConfig, ModelLoader
from demos.live.model_group import ModelGroup, Record
from demos.live.result import FrameResult
from demos.live.source_stats import SourceStats
from demos.live.sources.base import Source
from demos.live.sources.scheduler import SourceScheduler
from demos.live.stage_timer import StageTimer
from demos.live.summary import ModelSummary, Summary
from demos.live.window.recorder import Recorder
from simplenet import cli, variants
from simplenet.artifacts import Artifact
from simplenet.errors import BackendUnavailable, ImageError, SimpleNetError, UsageError

NOTICE_S = 6.0
_MOST_COMMANDS = 100
_MOST_RECORDS = 50


class Session:
    """One live demo. `command`, `state`, `listen` and `onnx_artifact` are for any thread, the rest for the loop's."""

    def __init__(
        self,
        scheduler: SourceScheduler,
        selection: ModelConfig,
        model_group: ModelGroup,
        *,
        log: Log = cli.log,
        event: Callable[..., None] = lambda name, **facts: None,
    ) -> None:
        """`event` is told whatever happens, as a name and facts that JSON can hold."""
        self.scheduler, self.selection, self.model_group = scheduler, selection, model_group
        self.timer = StageTimer()
        self.paused = False
        self.quit = ""
        """Why the person wants it to end, once they do."""
        self.recorder: Recorder | None = None
        """Of the recording, while there is one."""
        self.log, self.event = log, event
        self._commands: queue.Queue[tuple[str, str | None]] = queue.Queue(_MOST_COMMANDS)
        self._asked_of_screen: list[str] = []
        self._listeners: tuple[Callable[[FrameResult], None], ...] = ()
        self._switch: ModelLoader | None = None
        self._wish: ModelConfig | None = None
        """What is wanted in the end, while something else may still be loading: one load at a time."""
        self._refused: list[dict[str, Any]] = []
        """What could not be loaded, as `ModelConfig.selected` or a part of it: the keys b and p pass it over."""
        self._notice, self._notice_until_s = "", 0.0
        self._seen: dict[int, SourceStats] = {}
        self._records: dict[tuple[str, str], Record] = {}
        self._lock = threading.Lock()
        self._remember_models()

    # For any thread.

    def command(self, name: str, value: str | None = None) -> None:
        """Asks for something; the loop does it between two frames, and slow work beside the loop.

        Args:
            name: one of `COMMANDS`, without a value, or of `SELECTIONS`, with one: 'backend' 'openvino,torch'.

        Raises:
            UsageError: there is no such command or value; the message lists the choices.
        """
        if name in SELECTIONS and isinstance(value, str):
            self._selected(name, value)  # only checked here
        elif name not in COMMANDS or value is not None:
            choices = (*COMMANDS, *SELECTIONS)
            raise UsageError(f"unknown command {name!r}{variants.nearest(name, choices)}; one of: {', '.join(choices)}")
        try:
            self._commands.put_nowait((name, value))
        except queue.Full:
            raise UsageError("too many commands at once; wait a second") from None
        self.scheduler.wake()

    def state(self) -> dict[str, Any]:
        """All that the window and the page show beside the image, JSON-able; `dashboard` has it formatted."""
        manifest, wish, recorder = self.model_group.models[0].manifest, self._wish, self.recorder
        notice = self._notice if time.perf_counter() < self._notice_until_s else None
        if wish is not None:
            wanted = wish.selected()
            notice = f"loading {wanted['variant']} {wanted['precision'] or ''} for {', '.join(wanted['backend'])}…"
        weights = manifest.weights
        state = {
            "schema_version": 1,
            "variant": manifest.variant,
            "weights": weights.name,
            "untrained": weights.source == "random",
            "paused": self.paused,
            "switching": wish is not None,
            "recording": recorder and {"path": str(recorder.path), "seconds": recorder.seconds},
            "notice": notice,
            "loop_fps": self.timer.recent_fps(),
            "frames": self.timer.frames,
            "ended": self.quit or None,
            "sources": [self._record_of(source).state() for source in self.scheduler.sources],
            "models": self.model_group.state(),
            "choices": self.selection.choices(),
            "selected": self.selection.selected(),
        }
        return {**state, "dashboard": dashboard.build(state)}

    def subscribe(self, callback: Callable[[FrameResult], None]) -> Callable[[], None]:
        """`callback` is called in the loop's thread after each frame and must be quick; call the result to end it."""
        with self._lock:
            self._listeners = (*self._listeners, callback)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not callback)

        return stop

    def onnx_artifact(self) -> Artifact:
        """The ONNX fp32 artifact of the model at hand, made now where it is missing, which may take seconds.

        Raises:
            SimpleNetError: it cannot be made.
        """
        flags, manifest = self.selection.arguments, self.model_group.models[0].manifest
        if flags.artifact is not None:
            if manifest.format != "onnx":
                raise UsageError(f"a browser runs ONNX, --artifact is in {manifest.format} format; name an ONNX one")
            return self.model_group.models[0].artifact
        wanted = (manifest.variant, flags.weights, "onnx", "fp32")
        return artifact_choice.ensure_artifact(*wanted, flags.artifacts, self.log)

    # For the loop.

    @property
    def is_switching(self) -> bool:
        """Whether other models are being loaded: what is timed meanwhile says nothing about the present ones."""
        return self._switch is not None

    def process_commands(self) -> list[str]:
        """Does what was asked for since the last frame; returns what only the screen can do: snapshot, record, help."""
        self._finish_switch()
        while True:
            try:
                name, value = self._commands.get_nowait()
            except queue.Empty:
                break
            self._obey(name, value)
        self._tell_of_sources()
        asked, self._asked_of_screen = self._asked_of_screen, []
        return asked

    def refuse(self, source: Source, error: ImageError) -> None:
        """A frame that no model can take: a visitor who sends one is shown out, a source of ours is told of."""
        if source.kind == "visitor":
            self.scheduler.remove(source)
        else:
            self.notify(f"{source.name}: {error}")

    def publish(self, update: FrameResult) -> None:
        """Counts an answered frame and tells the listeners."""
        self._record_of(update.source).add(update.frame, update.frame_age_ms)
        for callback in self._listeners:
            callback(update)

    def notify(self, text: str) -> None:
        """A line for whoever looks: in the window, on the page, on stderr and among the events."""
        self._notice, self._notice_until_s = text, time.perf_counter() + NOTICE_S
        self.log(text)
        self.event("notice", text=text)

    def set_paused(self, paused: bool) -> None:
        self.paused = paused
        for source in self.scheduler.sources:
            record = self._record_of(source)
            if paused:
                record.pause()
            else:
                record.resume()
        self.event("paused" if paused else "resumed")

    def summary(self, ended: str) -> Summary:
        """What was measured until now."""
        several = len({model for model, _ in self._records}) > 1  # variants or weights, one after another
        models = [
            ModelSummary(f"{model} {name}" if several else name, infer, record.agrees_percent, record.compared)
            for (model, name), record in self._records.items()
            if (infer := record.infer.summary()) is not None
        ]
        with self._lock:
            seen = list(self._seen.values())
        return self.timer.summary(ended, models, [record.summary() for record in seen])

    def close(self) -> None:
        """Lets go of sources and models."""
        if self._switch is not None:
            self._switch.abandon()
        self.scheduler.close()
        self.model_group.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _obey(self, name: str, value: str | None) -> None:
        if name == "pause":
            self.set_paused(not self.paused)
        elif name == "quit":
            self.quit = "quit"
        elif name in ("snapshot", "record", "help"):
            self._asked_of_screen.append(name)
        else:
            try:
                self._start_switch(self._selected(name, value))
            except SimpleNetError as error:
                if name.startswith("next-"):
                    self._refused.clear()  # all have been tried: the next press tries them again
                self.notify(str(error))

    def _selected(self, name: str, value: str | None) -> ModelConfig:
        current = self._wish or self.selection
        if name == "next-backend":
            return current.next_backend(self._is_refused)
        if name == "next-precision":
            return current.next_precision(self._is_refused)
        change = {
            "backend": current.with_backends,
            "precision": current.with_precision,
            "variant": current.with_variant,
        }
        return change[name](value or "")

    def _is_refused(self, other: ModelConfig) -> bool:
        wanted = other.selected()
        return any(all(wanted[kind] == value for kind, value in part.items()) for part in self._refused)

    def _start_switch(self, wanted: ModelConfig) -> None:
        """Where something is loading already, the newest wish waits for its turn, and those before it are forgotten."""
        is_new = wanted.selected() != self.selection.selected()
        self._wish = wanted if is_new else None
        if is_new and self._switch is None:
            self._switch = ModelLoader(wanted, self.log)

    def _finish_switch(self) -> None:
        switch = self._switch
        if switch is None or not switch.done:
            return
        self._switch = None
        if switch.wanted is not self._wish:
            switch.abandon()
            if self._wish is not None:
                self._switch = ModelLoader(self._wish, self.log)
            return
        self._wish = None
        try:
            self.selection, model_group = switch.result()
        except SimpleNetError as error:
            wanted = switch.wanted.selected()
            is_backends_fault = (
                isinstance(error, BackendUnavailable) and switch.wanted.backends != self.selection.backends
            )
            self._refused.append({"backend": wanted["backend"]} if is_backends_fault else wanted)
            self.notify(str(error))
            return
        old, self.model_group = self.model_group, model_group
        old.close()
        self._remember_models()
        for line in model_group.notes:
            self.log(line)
        for line in model_group.skipped:
            self.notify(line)
        self.event(
            "models", models=[record.name for record in model_group.records.values()], **self.selection.selected()
        )

    def _remember_models(self) -> None:
        """One record a model for the whole session: switching away and back goes on where it was."""
        manifest = self.model_group.models[0].manifest
        for name, record in self.model_group.records.items():
            known = self._records.setdefault((f"{manifest.variant} {manifest.weights.name}", name), record)
            self.model_group.records[name] = known

    def _record_of(self, source: Source) -> SourceStats:
        with self._lock:
            if source.id not in self._seen and len(self._seen) >= _MOST_RECORDS:
                self._forget_a_visitor()
            return self._seen.setdefault(source.id, SourceStats(source))

    def _forget_a_visitor(self) -> None:
        """Visitors come and go for weeks: the one who left first is no longer listed in the summary."""
        gone = [number for number, record in self._seen.items() if record.source.has_ended]
        visitors = [number for number in gone if self._seen[number].source.kind == "visitor"]
        if visitors:
            del self._seen[visitors[0]]

    def _tell_of_sources(self) -> None:
        for source in self.scheduler.sources:
            record = self._record_of(source)
            if source.state != record.reported_state:
                if record.reported_state or source.state != "running":
                    self.event("source", source=source.name, state=source.state, note=source.note)
                if source.state in ("reconnecting", "failed"):
                    self.log(dashboard.source_text(source.name, source.state, source.note))
                record.reported_state = source.state
