"""Which models a live demo runs: what the flags said, with what a key or the page has changed since."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import runtimes
from demos import artifact_choice
from demos.artifact_choice import precisions_of, several
from demos.live import model_group as model_groups
from demos.live.model_group import ModelGroup
from runtimes.loader import backend_class
from simplenet import cli, variants
from simplenet.errors import SimpleNetError, UsageError
from simplenet.manifest import Manifest


@dataclass(frozen=True)
class ModelConfig:
    """A variant with its weights in one precision on one or several backends; immutable, `load` makes it real."""

    arguments: argparse.Namespace
    backends: tuple[str | None, ...]
    """None is the default backend, until `known` says which one that was."""
    precision: str | None
    top: int = 5
    manifest: Manifest | None = None
    """Of the models that were loaded from it."""

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> ModelConfig:
        """From the flags of `model_flags.add_model`, where --backend may name several, and --top.

        Raises:
            UsageError: an unknown backend.
        """
        named = several("backend", arguments.backend, runtimes.names()) if arguments.backend else [None]
        return cls(arguments, tuple(named), arguments.precision, arguments.top)

    def for_shipped_pictures(self) -> ModelConfig:
        """Where no model was named: the one that was trained on what a generated scene shows."""
        flags = self.arguments
        if flags.artifact is not None or flags.variant is not None or flags.weights != "auto":
            return self
        known = {"variant": artifact_choice.SHIPPED_VARIANT, "weights": artifact_choice.SHIPPED_WEIGHTS}
        return replace(self, arguments=argparse.Namespace(**{**vars(flags), **known}))

    def load(self, log: artifact_choice.Log) -> tuple[ModelConfig, ModelGroup]:
        """The models, warmed up, and this selection with everything that was left open filled in.

        Raises:
            SimpleNetError: the only model cannot be loaded, or none of several.
        """
        flags = argparse.Namespace(**{**vars(self.arguments), "precision": self.precision})
        model_group = model_groups.load(flags, self.backends, log, self.top)
        first = model_group.models[0]
        known: dict[str, Any] = {"variant": flags.variant, "weights": flags.weights}
        if flags.artifact is None and flags.weights == "auto":
            known = {"variant": first.manifest.variant, "weights": first.manifest.weights.name}
        return (
            replace(
                self,
                arguments=argparse.Namespace(**{**vars(flags), **known}),
                backends=tuple(model.name for model in model_group.models),
                precision=first.precision,
                manifest=first.manifest,
            ),
            model_group,
        )

    def choices(self) -> dict[str, list[str]]:
        """What can be asked for; whether it can also run here, loading tells."""
        if self.arguments.artifact is not None and self.manifest is not None:
            form, own = self.manifest.format, self.manifest.precision
            backends = [name for name in runtimes.names() if form in backend_class(name).FORMATS]
            more = {other for name in self.backends if name for other in backend_class(name).PRECISIONS.get(own, ())}
            return {"backend": backends, "precision": [own, *sorted(more)], "variant": [self.manifest.variant]}
        named = [name for name in self.backends if name]
        offered = dict.fromkeys(precision for name in named for precision in precisions_of(name))
        return {"backend": several("backend", "all", runtimes.names()), "precision": list(offered),
                "variant": list(variants.VARIANTS)}  # fmt: skip

    def selected(self) -> dict[str, Any]:
        variant = self.manifest.variant if self.manifest else self.arguments.variant
        return {"backend": [name for name in self.backends if name], "precision": self.precision, "variant": variant}

    def with_backends(self, text: str) -> ModelConfig:
        """'openvino', 'openvino,torch' or 'all'; raises UsageError for an unknown one, or another's artifact."""
        backends = tuple(several("backend", text, self.choices()["backend"]))
        if any(self.precision not in precisions_of(name) for name in backends) and len(backends) == 1:
            return replace(self, backends=backends, precision=precisions_of(backends[0])[0])
        return replace(self, backends=backends)

    def with_precision(self, text: str) -> ModelConfig:
        """Raises UsageError for one that is not offered, and for several."""
        try:
            return replace(self, precision=cli.choice("precision", self.choices()["precision"])(text))
        except argparse.ArgumentTypeError as error:
            raise UsageError(str(error)) from error

    def with_variant(self, text: str) -> ModelConfig:
        """Its best weights; raises UsageError for an unknown one, or another than the artifact's."""
        name = variants.get(text).name
        if name not in self.choices()["variant"]:
            raise UsageError(f"this artifact is {self.choices()['variant'][0]}; leave out --artifact to choose {name}")
        flags = argparse.Namespace(**{**vars(self.arguments), "variant": name, "weights": "auto"})
        return self if self.arguments.artifact is not None else replace(self, arguments=flags, manifest=None)

    def next_backend(self, is_refused: IsRefused = lambda other: False) -> ModelConfig:
        """The one after the first of today's, or the next that is not refused; raises SimpleNetError: there is none."""
        return self._next("backend", self.backends[0], self.with_backends, is_refused)

    def next_precision(self, is_refused: IsRefused = lambda other: False) -> ModelConfig:
        """The same of precisions."""
        return self._next("precision", self.precision, self.with_precision, is_refused)

    def _next(
        self, kind: str, now: str | None, change: Callable[[str], ModelConfig], is_refused: IsRefused
    ) -> ModelConfig:
        names = self.choices()[kind]
        after = names.index(now) + 1 if now in names else 0
        for name in [*names[after:], *names[:after]]:
            if name != now and not is_refused(other := change(name)):
                return other
        raise SimpleNetError(f"no other {kind} can be had here")


IsRefused = Callable[[ModelConfig], bool]
"""Whether a selection is known not to load."""


class ModelLoader:
    """Loads another selection in a thread of its own while the present models go on."""

    def __init__(self, wanted: ModelConfig, log: artifact_choice.Log) -> None:
        self.wanted = wanted
        self._log = log
        self._result: tuple[ModelConfig, ModelGroup] | None = None
        self._error: Exception | None = None
        self._abandoned = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._load, name="switch", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Waits until it is done, `timeout_s` at most."""
        self._thread.join(timeout_s)

    def result(self) -> tuple[ModelConfig, ModelGroup]:
        """Once `done`. Raises SimpleNetError where it could not be loaded; then the present models stay."""
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def abandon(self) -> None:
        """Nobody wants it any more: what is still loading is closed as soon as it is there."""
        with self._lock:
            self._abandoned = True
            if self._result is not None:
                self._result[1].close()

    def _load(self) -> None:
        try:
            result = self.wanted.load(self._log)
        except Exception as error:  # noqa: BLE001 - raised again by result(), in the loop's thread
            self._error = error
            return
        with self._lock:
            self._result = result
            if self._abandoned:
                result[1].close()
