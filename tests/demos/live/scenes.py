"""Results and states as a session produces them, without running models."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from demos.live import dashboard
from demos.live.dashboard import Dashboard
from demos.live.result import FrameResult, ModelResult
from demos.live.sources.base import Frame, Source, SourceKind
from runtimes import Prediction

UInt8Array = npt.NDArray[np.uint8]

GRAY = 128
MODELS = ("torch fp32", "onnxruntime int8", "openvino int8", "openvino bf16", "onnxruntime fp32", "torch bf16")
LABELS = ("Ankle boot", "Sneaker", "Sandal", "Bag", "Coat")


class Still(Source):
    """A source that is never read."""

    def __init__(self, number: int = 0, kind: SourceKind = "camera") -> None:
        super().__init__(f"camera {number}", kind)
        self.id = number

    def poll(self) -> Frame | None:
        raise NotImplementedError

    def ready_at_s(self) -> float:
        raise NotImplementedError

    def close(self) -> None:
        pass


def gray(width: int = 640, height: int = 480, shade: int = GRAY) -> UInt8Array:
    return np.full((height, width, 3), shade, np.uint8)


def make_update(
    image: UInt8Array | None = None,
    models: int = 1,
    *,
    source: int = 0,
    kind: SourceKind = "camera",
    number: int = 1,
    labels: tuple[str, ...] = LABELS,
    best: float = 0.9,
    agrees: bool = True,
) -> FrameResult:
    """Every model predicts `labels`, the first one with the probability `best`."""
    rest = (1 - best) / max(1, len(labels) - 1)
    predictions = tuple(Prediction(label, place, rest if place else best) for place, label in enumerate(labels))
    results = [ModelResult(name, *name.split(), predictions, 0.2, agrees if place else None)
               for place, name in enumerate(MODELS[:models])]  # fmt: skip
    frame = Frame(gray() if image is None else image, 1.0)
    return FrameResult(Still(source, kind), frame, tuple(results), 0.2, 0.3, number)


def make_state(
    models: int | list[dict[str, Any]] = 1, sources: int | list[dict[str, Any]] = 1, **changes: Any
) -> dict[str, Any]:
    if isinstance(sources, int):
        sources = [source_state(number) for number in range(sources)]
    if isinstance(models, int):
        models = [model_state(name, reference=not place) for place, name in enumerate(MODELS[:models])]
    state: dict[str, Any] = {
        "schema_version": 1, "variant": "cifar-310k", "weights": "fashion-mnist", "untrained": False,
        "preprocessing_doubt": "",
        "paused": False, "recording": None, "notice": None,
        "loop_fps": 29.9, "frames": 99, "ended": None, "choices": {}, "selected": {},
        "sources": sources,
        "models": models,
    }  # fmt: skip
    state |= changes
    return {**state, "dashboard": dashboard.build(state)}


def source_state(number: int = 0, **changes: Any) -> dict[str, Any]:
    state = {
        "id": number, "name": f"camera {number}", "kind": "camera", "is_live": True, "state": "running", "note": None,
        "width": 640, "height": 480, "frames": 10, "dropped": 3, "reconnects": 0, "frame_age_p50_ms": 0.2,
        "frame_age_p90_ms": None, "crop": [0.125, 0.0, 0.875, 1.0],
    }  # fmt: skip
    return {**state, **changes}


def model_state(name: str = MODELS[0], *, reference: bool = True, **changes: Any) -> dict[str, Any]:
    backend, precision = name.split()
    state = {
        "name": name, "backend": backend, "precision": precision, "device": "cpu", "threads": 2,
        "infer_p50_ms": 0.21, "infer_p90_ms": None, "recent_infer_ms": [0.2, 0.25, 0.2],
        "agrees_percent": None if reference else 99.5, "compared": 0 if reference else 200,
    }  # fmt: skip
    return {**state, **changes}


def make_full_dashboard_state(source: int = 0) -> dict[str, Any]:
    """A state in which every text of the dashboard says something."""
    models = [model_state(name, reference=not place, infer_p90_ms=0.31) for place, name in enumerate(MODELS[:2])]
    sources = [source_state(source, state="reconnecting", note="no frame for 5 s", frame_age_p90_ms=0.4)]
    return make_state(
        models, sources, untrained=True, weights="random", notice="loading openvino int8",
        recording={"path": "a.mp4", "seconds": 72.5}, choices={"backend": [], "precision": [], "variant": []},
        selected={"backend": [], "precision": None, "variant": None}, switching=True,
    )  # fmt: skip


def texts_of(shown: Dashboard) -> set[str]:
    """What both the window and the page must show."""
    figures = [*shown["figures"], *shown["sources"][0]["figures"]]
    models = [model[part] for model in shown["models"] for part in ("name", "p50", "p90", "agreement")]
    return {
        dashboard.UNTRAINED, shown["title"], shown["untrained"], shown["notice"], shown["scale"], *shown["badges"],
        *models, *(text for figure in figures for text in figure.values() if text),
        shown["sources"][0]["name"], shown["sources"][0]["banner"], *(key["label"] for key in shown["keys"]),
    }  # fmt: skip
