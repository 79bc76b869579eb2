"""The state of one live demo: its sources, its models and the commands it receives."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from demos.default_models import Log
from demos.live import dashboard
from demos.live.dashboard import COMMANDS, SELECTIONS
from demos.live.model_config import ModelConfig, ModelLoader
from demos.live.model_group import ModelGroup, ModelStats
from demos.live.result import FrameResult
from demos.live.source_stats import SourceStats
from demos.live.sources.base import Source
from demos.live.sources.scheduler import SourceScheduler
from demos.live.stage_timer import StageTimer
from demos.live.summary import ModelSummary, Summary
from demos.live.window.recorder import Recorder
from simplenet import cli
from simplenet.artifacts import Artifact
from simplenet.errors import BackendUnavailable, ImageError, SimpleNetError, UsageError, check_choice
from simplenet.formats import FORMATS

SCREEN_COMMANDS = ("snapshot", "record", "help")
NOTICE_S = 6.0
_MOST_COMMANDS = 100
_MOST_SOURCES = 50


class Session(contextlib.AbstractContextManager["Session"]):
    """One live demo.

    `command`, `state`, `subscribe` and `onnx_artifact` may be called from any thread, the rest from the loop's thread.
    Models are loaded one at a time, in a background thread; the loop switches to them between two frames.
    """

    def __init__(
        self,
        scheduler: SourceScheduler,
        config: ModelConfig,
        model_group: ModelGroup,
        *,
        log: Log = cli.log,
        event: Callable[..., None] | None = None,
    ) -> None:
        """Start with loaded models. `event` is called for each event, with its name and JSON-serializable values."""
        self.scheduler, self.config, self.model_group = scheduler, config, model_group
        self.timer = StageTimer()
        self.paused = False
        self.quit = ""
        """The key, signal or command that ends the demo; empty while it runs."""
        self.recorder: Recorder | None = None
        """The recording in progress."""
        self.log, self.event = log, event or (lambda name, **values: None)
        self._commands: queue.Queue[tuple[str, str | None]] = queue.Queue(_MOST_COMMANDS)
        self._subscribers: list[Callable[[FrameResult], None]] = []
        self._loader: ModelLoader | None = None
        self._pending: ModelConfig | None = None
        """The newest requested config, until it is loaded. Meanwhile an older one may still be loading."""
        self._failed: list[dict[str, Any]] = []
        """What failed to load, as `ModelConfig.selected` or only its backends; the next-... commands skip it."""
        self._notice, self._notice_until_s = "", 0.0
        self._rejections: set[tuple[int, str]] = set()
        self._source_stats: dict[int, SourceStats] = {}
        self._model_stats: dict[tuple[str, str], ModelStats] = {}
        self._lock = threading.Lock()
        self._keep_model_stats()

    # For any thread.

    def command(self, name: str, value: str | None = None) -> None:
        """Request a command; the loop processes it between two frames.

        Args:
            name: one of `COMMANDS`, or one of `SELECTIONS` with a value: 'backend', 'openvino,torch'.

        Raises:
            UsageError: unknown command or value, or too many commands are waiting.
        """
        if name in SELECTIONS and isinstance(value, str):
            self._changed_config(name, value)  # raises UsageError for an unknown value
        else:
            check_choice("command", name, (*COMMANDS, *SELECTIONS))
            if name in SELECTIONS or value is not None:
                raise UsageError(f"the command {name!r} takes {'a' if name in SELECTIONS else 'no'} value")
        try:
            self._commands.put_nowait((name, value))
        except queue.Full:
            raise UsageError("too many commands at once; wait a second") from None
        self.scheduler.wake()

    def state(self) -> dict[str, Any]:
        """Return what the window and the page show, except images; JSON-serializable. `dashboard` has all texts."""
        manifest, pending, recorder = self.model_group.models[0].manifest, self._pending, self.recorder
        notice = self._notice if time.perf_counter() < self._notice_until_s else None
        if pending is not None:
            loading = pending.selected()
            notice = f"loading {loading['variant']} {loading['precision'] or ''} for {', '.join(loading['backend'])}…"
        weights = manifest.weights
        state = {
            "schema_version": 1,
            "variant": manifest.variant,
            "weights": weights.name,
            "untrained": weights.source == "random",
            "preprocessing_doubt": manifest.preprocessing_doubt,
            "paused": self.paused,
            "switching": pending is not None,
            "recording": recorder and {"path": str(recorder.path), "seconds": recorder.seconds},
            "notice": notice,
            "loop_fps": self.timer.recent_fps(),
            "frames": self.timer.frames,
            "ended": self.quit or None,
            "sources": [self._stats_of(source).state(manifest.preprocessing) for source in self.scheduler.sources],
            "models": self.model_group.state(),
            "choices": self.config.choices(),
            "selected": self.config.selected(),
        }
        return {**state, "dashboard": dashboard.build(state)}

    def subscribe(self, callback: Callable[[FrameResult], None]) -> None:
        """Call `callback` after each frame, in the loop's thread."""
        self._subscribers.append(callback)

    def onnx_artifact(self) -> Artifact:
        """Return the current model's ONNX fp32 artifact; a missing one is exported, which may take seconds.

        Raises:
            SimpleNetError: it cannot be exported.
        """
        request, first = self.config.request, self.model_group.models[0]
        if request.artifact is None:
            onnx = replace(request, backend=FORMATS["onnx"].default_backend, precision="fp32")
            return replace(onnx, variant=first.manifest.variant).resolve(self.log)
        if first.manifest.format != "onnx":
            raise UsageError(f"browsers run ONNX, and --artifact is {first.manifest.format}; name an ONNX artifact")
        return first.artifact

    # For the loop.

    @property
    def is_loading(self) -> bool:
        """Whether other models are being loaded, which slows the current ones down."""
        return self._loader is not None

    def process_commands(self) -> list[str]:
        """Process the commands received since the last frame; return those for the screen: `SCREEN_COMMANDS`."""
        self._finish_loading()
        screen_commands = []
        while not self._commands.empty():  # only this thread takes commands
            name, value = self._commands.get_nowait()
            if name in SCREEN_COMMANDS:
                screen_commands.append(name)
            else:
                self._process(name, value)
        self._report_source_states()
        return screen_commands

    def reject_frame(self, source: Source, error: ImageError) -> None:
        """Disconnect a visitor whose frame has an unusable size; for other sources, show each error once."""
        rejection = source.id, str(error)
        if source.kind == "visitor":
            self.scheduler.remove(source)
        elif rejection not in self._rejections:
            self._rejections.add(rejection)
            self.notify(f"{source.name}: {error}")

    def publish(self, result: FrameResult) -> None:
        """Count a classified frame and notify the subscribers."""
        self._stats_of(result.source).add(result.frame, result.frame_age_ms)
        for callback in self._subscribers:
            callback(result)

    def notify(self, text: str) -> None:
        """Show one line in the window and on the page for `NOTICE_S`; log it and write it as an event."""
        self._notice, self._notice_until_s = text, time.perf_counter() + NOTICE_S
        self.log(text)
        self.event("notice", text=text)

    def set_paused(self, paused: bool) -> None:
        self.paused = paused
        for source in self.scheduler.sources:
            stats = self._stats_of(source)
            stats.pause() if paused else stats.resume()
        self.event("paused" if paused else "resumed")

    def summary(self, ended: str) -> Summary:
        """Summarize everything that was measured; `ended` is the reason for the end."""
        has_several = len({network for network, _ in self._model_stats}) > 1
        models = [
            ModelSummary(f"{network} {name}" if has_several else name, infer, stats.agrees_percent, stats.compared)
            for (network, name), stats in self._model_stats.items()
            if (infer := stats.infer.summary()) is not None
        ]
        with self._lock:
            sources = list(self._source_stats.values())
        return self.timer.summary(ended, models, [stats.summary() for stats in sources])

    def close(self) -> None:
        """Close the sources and the models."""
        if self._loader is not None:
            self._loader.abandon()
        self.scheduler.close()
        self.model_group.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _process(self, name: str, value: str | None) -> None:
        if name == "pause":
            self.set_paused(not self.paused)
        elif name == "quit":
            self.quit = "quit"
        else:
            try:
                self._request(self._changed_config(name, value or ""))
            except SimpleNetError as error:
                if name.startswith("next-"):
                    self._failed.clear()  # every choice has failed: the next key press tries them again
                self.notify(str(error))

    def _changed_config(self, name: str, value: str) -> ModelConfig:
        current = self._pending or self.config
        if name.startswith("next-"):
            return current.next_value(name.removeprefix("next-"), self._has_failed)
        return current.with_value(name, value)

    def _has_failed(self, config: ModelConfig) -> bool:
        selected = config.selected()
        return any(all(selected[kind] == value for kind, value in failed.items()) for failed in self._failed)

    def _request(self, config: ModelConfig) -> None:
        """Load a config as soon as no other is being loaded; it replaces a config that waits."""
        is_new = config.selected() != self.config.selected()
        self._pending = config if is_new else None
        if is_new and self._loader is None:
            self._loader = ModelLoader(config, self.log)

    def _finish_loading(self) -> None:
        loader = self._loader
        if loader is None or not loader.future.done():
            return
        self._loader = None
        if loader.config is not self._pending:  # replaced by a newer request
            loader.abandon()
            if self._pending is not None:
                self._loader = ModelLoader(self._pending, self.log)
            return
        self._pending = None
        try:
            config, model_group = loader.future.result()
        except SimpleNetError as error:
            failed = loader.config.selected()
            is_unavailable = isinstance(error, BackendUnavailable) and loader.config.backends != self.config.backends
            self._failed.append({"backend": failed["backend"]} if is_unavailable else failed)
            self.notify(str(error))
            return
        old, self.config, self.model_group = self.model_group, config, model_group
        old.close()
        self._keep_model_stats()
        for line in model_group.notes:
            self.log(line)
        for line in model_group.skipped:
            self.notify(line)
        self.event("models", models=list(model_group.stats), **config.selected())

    def _keep_model_stats(self) -> None:
        """Continue the statistics of a model that ran before in this session."""
        manifest = self.model_group.models[0].manifest
        for name, stats in self.model_group.stats.items():
            known = self._model_stats.setdefault((f"{manifest.variant} {manifest.weights.name}", name), stats)
            self.model_group.stats[name] = known

    def _stats_of(self, source: Source) -> SourceStats:
        with self._lock:
            if source.id not in self._source_stats and len(self._source_stats) >= _MOST_SOURCES:
                gone = (id for id, stats in self._source_stats.items() if stats.is_former_visitor)
                self._source_stats.pop(next(gone, -1), None)  # bounds the memory
            return self._source_stats.setdefault(source.id, SourceStats(source))

    def _report_source_states(self) -> None:
        for source in self.scheduler.sources:
            stats = self._stats_of(source)
            if source.state != stats.reported_state:
                if stats.reported_state or source.state != "running":
                    self.event("source", source=source.name, state=source.state, note=source.note)
                if source.state in ("reconnecting", "failed"):
                    self.log(dashboard.source_text(source.name, source.state, source.note))
                stats.reported_state = source.state
