"""The models that answer a frame: one, or several in turn, in an order that rotates from frame to frame."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from demos import model_flags
from demos.artifact_choice import Log
from demos.live.latency_window import LIVE_SAMPLES, LatencyWindow
from demos.live.result import ModelResult
from runtimes import Prediction, Runtime, disable_spinning
from simplenet.errors import SimpleNetError, WeightsError

UInt8Array = npt.NDArray[np.uint8]

RECENT_SAMPLES = 60
"""What a sparkline shows."""
_WARM_UP_FRAMES = 5


class Record:
    """What one model did: its latencies, and how often its top-1 was the reference's. Safe to read from any thread."""

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


class ModelGroup:
    """One model or several of one variant and weights. The first is the reference that the others are compared with.

    Use it as a context manager, or call `close`. `answer` is for one thread, the rest for any.
    """

    def __init__(self, models: Sequence[Runtime], top: int = 5, skipped: Sequence[str] = ()) -> None:
        """`skipped` says, in one line each, which asked-for models cannot run here."""
        self.models = tuple(models)
        self.skipped = tuple(skipped)
        self.notes = tuple(f"{name_of(model)}: {note}" for model in models for note in model.describe().notes)
        self.records = {name_of(model): Record(name_of(model)) for model in models}
        self._top = top
        self._turn = 0

    def warm_up(self) -> None:
        """The first calls allocate; they are no part of a live loop's speed."""
        image = np.zeros((480, 640, 3), np.uint8)
        for model in self.models:
            for _ in range(_WARM_UP_FRAMES):
                model.classify([image], k=1)

    def answer(self, image: UInt8Array, keep: bool = True) -> tuple[tuple[ModelResult, ...], float, float]:
        """Asks every model about RGB uint8 [H, W, 3]; with `keep`, the latencies go into the records.

        Returns:
            The answers in the order of `models`, and how many milliseconds the preprocessing and the ranking took.

        Raises:
            ImageError: the picture is of an impossible size. BackendError: a model failed.
        """
        start = time.perf_counter()
        batches: dict[tuple[object, str], npt.NDArray[Any]] = {}
        for model in self.models:  # nearly always one batch for all of them
            wanted = (model.manifest.preprocessing, model.manifest.input.dtype)
            if wanted not in batches:
                batches[wanted] = model.preprocess([image])
        preprocess_ms = (time.perf_counter() - start) * 1e3

        ranked: list[list[Prediction]] = [[] for _ in self.models]
        infer_ms = [0.0] * len(self.models)
        post_ms = 0.0
        for offset in range(len(self.models)):
            position = (self._turn + offset) % len(self.models)
            model = self.models[position]
            batch = batches[model.manifest.preprocessing, model.manifest.input.dtype]
            start = time.perf_counter()
            logits = model.infer_any(batch)
            inferred = time.perf_counter()
            (ranked[position],) = model.rank(logits, self._top)
            infer_ms[position] = (inferred - start) * 1e3
            post_ms += (time.perf_counter() - inferred) * 1e3
        self._turn += 1

        answers = []
        for position, (model, record) in enumerate(zip(self.models, self.records.values(), strict=True)):
            best, took_ms = ranked[position], infer_ms[position]
            agrees = None if position == 0 else best[0].index == ranked[0][0].index
            answers.append(ModelResult(record.name, model.name, model.precision, tuple(best), took_ms, agrees))
            if keep:
                record.add(took_ms, agrees)
        return tuple(answers), preprocess_ms, post_ms

    def state(self) -> list[dict[str, Any]]:
        """For pages and tiles: what runs, and how fast of late. JSON-able."""
        return [self._state_of(model) for model in self.models]

    def _state_of(self, model: Runtime) -> dict[str, Any]:
        record, what = self.records[name_of(model)], model.describe()
        recent = record.infer.summary(LIVE_SAMPLES)
        return {
            "name": record.name,
            "backend": model.name,
            "precision": model.precision,
            "device": what.device,
            "threads": what.threads,
            "infer_p50_ms": recent and recent.p50_ms,
            "infer_p90_ms": recent and recent.p90_ms,
            "recent_infer_ms": [round(sample, 3) for sample in record.infer.latest_ms(RECENT_SAMPLES)],
            "agrees_percent": record.agrees_percent,
            "compared": record.compared,
        }

    def close(self) -> None:
        for model in self.models:
            model.close()

    def __enter__(self) -> ModelGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def name_of(model: Runtime) -> str:
    """'openvino int8'."""
    return f"{model.name} {model.precision}"


def load(arguments: argparse.Namespace, backends: Sequence[str | None], log: Log, top: int = 5) -> ModelGroup:
    """Loads, and where need be exports, the model that the flags ask for, once for each backend.

    Several get equal threads, and their idle threads do not spin: a spinning thread slows its neighbor down many times.
    One that cannot run here is left out, and `skipped` says why; None in `backends` is the default backend.

    Raises:
        SimpleNetError: the only model cannot be loaded, or none of several.
    """
    refused: list[tuple[str | None, SimpleNetError]] = []
    if len(backends) > 1:
        disable_spinning()  # before an export imports PyTorch
    with contextlib.ExitStack() as opened:
        models: list[Runtime] = []
        for backend in backends:
            wish = argparse.Namespace(**{**vars(arguments), "backend": backend})
            try:
                model = model_flags.load(wish, log, allow_spinning=len(backends) == 1)
            except WeightsError:  # of all of them
                raise
            except SimpleNetError as error:
                if len(backends) == 1:
                    raise
                refused.append((backend, error))
                continue
            models.append(opened.enter_context(model))
        skipped = [f"without {backend}: {error}" for backend, error in refused]
        if not models:
            if len({str(error) for _, error in refused}) == 1:
                raise refused[0][1]
            raise SimpleNetError(f"none of these backends can run here; {'; '.join(skipped)}")
        model_group = ModelGroup(models, top, skipped)
        model_group.warm_up()
        opened.pop_all()
    return model_group
