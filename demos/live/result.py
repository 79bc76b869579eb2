"""The result of the live loop for one frame: predictions and latency of every model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from demos.live.sources.base import Frame, Source
from runtimes import Prediction


@dataclass(frozen=True)
class ModelResult:
    """Predictions of one model. `agrees`: top-1 equals the first model's; None for the first model itself."""

    name: str
    backend: str
    precision: str
    predictions: tuple[Prediction, ...]
    infer_ms: float
    agrees: bool | None


@dataclass(frozen=True)
class FrameResult:
    """One frame, classified by every model.

    `frame_age_ms`, from capture to preprocessing, is None for files. `number` counts the frames of all sources from 1.
    """

    source: Source
    frame: Frame
    model_results: tuple[ModelResult, ...]
    frame_age_ms: float | None
    preprocess_ms: float
    number: int

    def to_json(self) -> dict[str, Any]:
        """The fields for the page and --json: all except source and image."""
        return {
            "number": self.number,
            "frame_age_ms": self.frame_age_ms,
            "preprocess_ms": self.preprocess_ms,
            "model_results": [dataclasses.asdict(result) for result in self.model_results],
        }
