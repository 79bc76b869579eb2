"""The models that classify every frame: one, or several of the same network on different backends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from demos.default_models import Log
from demos.live.result import ModelResult
from demos.live.stage_timer import LIVE_SAMPLES, LatencyWindow
from demos.models import ModelRequest
from runtimes import Prediction, Runtime, disable_spinning
from simplenet.errors import SimpleNetError, WeightsError
from simplenet.preprocessing import UInt8Array

RECENT_SAMPLES = 60
"""Latencies in a sparkline."""
_WARM_UP_FRAMES = 5


class ModelStats:
    """One model's latencies, and how often its top-1 equals the reference model's. Any thread may read it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.infer = LatencyWindow()
        self.compared = self.agreed = 0

    def add(self, infer_ms: float, agrees: bool | None) -> None:
        self.infer.add(infer_ms)
        if agrees is not None:
            self.compared += 1
            self.agreed += agrees

    @property
    def agrees_percent(self) -> float | None:
        return 100 * self.agreed / self.compared if self.compared else None


class ModelGroup(contextlib.AbstractContextManager["ModelGroup"]):
    """One or several loaded models. The first is the reference; the others are compared with it.

    Use it as a context manager, or call `close`. Only one thread may call `classify`; other methods are thread-safe.
    """

    def __init__(self, models: Sequence[Runtime], top_k: int = 5, skipped: Sequence[str] = ()) -> None:
        """`skipped` has one line for each requested backend that cannot run here: its name and the reason."""
        self.models = tuple(models)
        self.skipped = tuple(skipped)
        self.notes = tuple(f"{name_of(model)}: {note}" for model in models for note in model.describe().notes)
        self.stats = {name_of(model): ModelStats(name_of(model)) for model in models}
        self._top_k = top_k
        self._frames = 0

    def warm_up(self) -> None:
        """Run the first, slower inferences, which allocate memory."""
        image = np.zeros((480, 640, 3), np.uint8)
        for model in self.models:
            for _ in range(_WARM_UP_FRAMES):
                model.classify([image], k=1)

    def classify(self, image: UInt8Array, keep: bool = True) -> tuple[tuple[ModelResult, ...], float, float]:
        """Run every model on RGB uint8 [H, W, 3], in an order that rotates from frame to frame.

        Args:
            keep: add the latencies and agreements to `stats`.

        Returns:
            The results in the order of `models`; the milliseconds of preprocessing; those of softmax and top-k.

        Raises:
            ImageError: the image is too narrow or too flat. BackendError: a model failed.
        """
        start = time.perf_counter()
        batches: dict[tuple[object, str], npt.NDArray[Any]] = {}  # usually one batch for all models
        for model in self.models:
            if (key := _input_key(model)) not in batches:
                batches[key] = model.preprocess([image])
        preprocess_ms = (time.perf_counter() - start) * 1e3

        first = self._frames % len(self.models)
        self._frames += 1
        timed: dict[str, tuple[list[Prediction], float]] = {}
        post_ms = 0.0
        for model in (*self.models[first:], *self.models[:first]):
            batch = batches[_input_key(model)]
            start = time.perf_counter()
            logits = model.infer_any(batch)
            inferred = time.perf_counter()
            (predictions,) = model.rank(logits, self._top_k)
            timed[name_of(model)] = predictions, (inferred - start) * 1e3
            post_ms += (time.perf_counter() - inferred) * 1e3

        results: list[ModelResult] = []
        for model, stats in zip(self.models, self.stats.values(), strict=True):
            predictions, infer_ms = timed[stats.name]
            agrees = predictions[0].index == results[0].predictions[0].index if results else None
            results.append(ModelResult(stats.name, model.name, model.precision, tuple(predictions), infer_ms, agrees))
            if keep:
                stats.add(infer_ms, agrees)
        return tuple(results), preprocess_ms, post_ms

    def state(self) -> list[dict[str, Any]]:
        """Each model's settings and recent latencies, for the window and the page; JSON-serializable."""
        return [
            {
                "name": stats.name,
                "backend": model.name,
                "precision": model.precision,
                "device": model.describe().device,
                "threads": model.describe().threads,
                "infer_p50_ms": recent and recent.p50_ms,
                "infer_p90_ms": recent and recent.p90_ms,
                "recent_infer_ms": [round(sample, 3) for sample in stats.infer.latest_ms(RECENT_SAMPLES)],
                "agrees_percent": stats.agrees_percent,
                "compared": stats.compared,
            }
            for model, stats in zip(self.models, self.stats.values(), strict=True)
            for recent in [stats.infer.summary(LIVE_SAMPLES)]
        ]

    def close(self) -> None:
        for model in self.models:
            model.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def name_of(model: Runtime) -> str:
    """'openvino int8'."""
    return f"{model.name} {model.precision}"


def _input_key(model: Runtime) -> tuple[object, str]:
    """Return a key; models with equal keys share one preprocessed batch."""
    return model.manifest.preprocessing, model.manifest.input.dtype


def load_group(requests: Sequence[ModelRequest], log: Log, top_k: int = 5) -> ModelGroup:
    """Open every request, exporting artifacts that are missing, and warm the models up.

    With more than one request, models that cannot run here are skipped (`ModelGroup.skipped` has the reasons), and
    spinning is disabled, because idle threads that spin make the other models many times slower.

    Raises:
        WeightsError: the weights cannot be loaded. SimpleNetError: no request can be opened.
    """
    is_single = len(requests) == 1
    if not is_single:
        disable_spinning()  # before an export imports PyTorch
    errors: list[SimpleNetError] = []
    skipped: list[str] = []
    with contextlib.ExitStack() as opened:
        models: list[Runtime] = []
        for request in requests:
            try:
                models.append(opened.enter_context(request.open(log, allow_spinning=is_single)))
            except SimpleNetError as error:
                if is_single or isinstance(error, WeightsError):  # all requests use the same weights
                    raise
                errors.append(error)
                skipped.append(f"without {request.backend}: {error}")
        if not models:
            if len({str(error) for error in errors}) == 1:
                raise errors[0]
            raise SimpleNetError(f"none of these backends can run here; {'; '.join(skipped)}")
        group = ModelGroup(models, top_k, skipped)
        group.warm_up()
        opened.pop_all()
    return group
