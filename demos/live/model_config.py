"""The model configuration of a live demo, and a loader that loads another one in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import runtimes
from demos import models
from demos.default_models import SHIPPED_VARIANT, SHIPPED_WEIGHTS, Log
from demos.live.model_group import ModelGroup, load_group
from demos.models import ModelRequest
from runtimes.loader import backend_class
from simplenet import variants
from simplenet.errors import SimpleNetError, UsageError, check_choice
from simplenet.manifest import Manifest
from simplenet.model_card import NO_OVERRIDES


@dataclass(frozen=True)
class ModelConfig:
    """One model request on one or several backends. Immutable; `with_value` returns a changed copy."""

    request: ModelRequest
    """Its `backend` is ignored; `backends` replaces it."""
    backends: tuple[str, ...] = ()
    """Empty: the default backend. `load` returns a config that names it."""
    top_k: int = 5
    manifest: Manifest | None = None
    """The first loaded model's; None before `load`."""

    def for_generated_scene(self) -> ModelConfig:
        """Choose the model that was trained on the generated scene's images, unless a model is named."""
        if self.request.names_model:
            return self
        return replace(self, request=replace(self.request, variant=SHIPPED_VARIANT, weights=SHIPPED_WEIGHTS))

    def load(self, log: Log) -> tuple[ModelConfig, ModelGroup]:
        """Load and warm up the models.

        Returns:
            This config with every default replaced by what was loaded, and the models.

        Raises:
            SimpleNetError: the only backend cannot run the model, or none of several can.
        """
        requests = [replace(self.request, backend=name) for name in self.backends or (None,)]
        group = load_group(requests, log, self.top_k)
        first = group.models[0]
        request = replace(self.request, precision=first.precision)
        if request.artifact is None and request.weights == "auto":
            request = replace(request, variant=first.manifest.variant, weights=first.manifest.weights.name)
        loaded = tuple(model.name for model in group.models)
        return replace(self, request=request, backends=loaded, manifest=first.manifest), group

    def choices(self) -> dict[str, list[str]]:
        """The values that `with_value` accepts, by kind. Some may still fail to load on this machine."""
        if self.request.artifact is not None and self.manifest is not None:
            format, stored = self.manifest.format, self.manifest.precision
            run_modes = {mode for name in self.backends for mode in backend_class(name).PRECISIONS.get(stored, ())}
            return {
                "backend": [name for name in runtimes.names() if format in backend_class(name).FORMATS],
                "precision": [stored, *sorted(run_modes)],
                "variant": [self.manifest.variant],
            }
        precisions = dict.fromkeys(precision for name in self.backends for precision in models.precisions_of(name))
        return {
            "backend": list(models.backends()),
            "precision": list(precisions),
            "variant": list(variants.VARIANTS),
        }

    def selected(self) -> dict[str, Any]:
        """The current values of what `choices` lists."""
        variant = self.manifest.variant if self.manifest else self.request.variant
        return {"backend": list(self.backends), "precision": self.request.precision, "variant": variant}

    def with_value(self, kind: str, text: str) -> ModelConfig:
        """Change 'backend' ('openvino', 'openvino,torch' or 'all'), 'precision' or 'variant' (with its best weights).

        If a single backend lacks the current precision, its first precision is chosen.

        Raises:
            UsageError: the value is unknown; or it is a variant, and the request names an artifact of another one.
        """
        request, choices = self.request, self.choices()[kind]
        if kind == "backend":
            backends = models.parse_names(kind, text, choices)
            if len(backends) == 1 and request.precision not in (possible := models.precisions_of(backends[0])):
                request = replace(request, precision=possible[0])
            return replace(self, backends=backends, request=request)
        if kind == "precision":
            return replace(self, request=replace(request, precision=check_choice(kind, text, choices)))
        name = variants.get(text).name
        if request.artifact is None:
            request = replace(request, variant=name, weights="auto", weights_key=None, overrides=NO_OVERRIDES)
            return replace(self, request=request, manifest=None)
        if name not in choices:
            raise UsageError(f"this artifact is {choices[0]}; leave out --artifact to choose {name}")
        return self

    def next_value(self, kind: str, is_excluded: Callable[[ModelConfig], bool] = lambda config: False) -> ModelConfig:
        """Change 'backend' or 'precision' to the next choice, in a cycle, that is not excluded.

        Raises:
            SimpleNetError: there is no other choice.
        """
        names = self.choices()[kind]
        current = self.backends[0] if kind == "backend" else self.request.precision
        after = names.index(current) + 1 if current in names else 0
        for name in [*names[after:], *names[:after]]:
            if name != current and not is_excluded(other := self.with_value(kind, name)):
                return other
        raise SimpleNetError(f"no other {kind} is available here")


class ModelLoader:
    """Loads a config in a background thread, while the current models keep running."""

    def __init__(self, config: ModelConfig, log: Log) -> None:
        self.config = config
        self.future: Future[tuple[ModelConfig, ModelGroup]] = Future()
        """What `ModelConfig.load` returns or raises."""
        threading.Thread(target=self._load, args=(log,), name="model loader", daemon=True).start()

    def abandon(self) -> None:
        """Close the models as soon as they are loaded."""
        self.future.add_done_callback(lambda done: None if done.exception() else done.result()[1].close())

    def _load(self, log: Log) -> None:
        try:
            self.future.set_result(self.config.load(log))
        except Exception as error:  # noqa: BLE001 - raised again by the future's result()
            self.future.set_exception(error)
