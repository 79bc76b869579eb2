"""What the loop says of one frame: every model's answer, and how long each part took."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from demos.live.sources.base import Frame, Source
from runtimes import Prediction


@dataclass(frozen=True)
class ModelResult:
    """One model's answer. `agrees`: the same top-1 as the first model's; None for the first model itself."""

    name: str
    backend: str
    precision: str
    predictions: tuple[Prediction, ...]
    infer_ms: float
    agrees: bool | None


@dataclass(frozen=True)
class FrameResult:
    """One frame, classified by every model. `frame_age_ms`, capture to hand-over, is None for files.

    `number` counts the frames of all sources together, from 1.
    """

    source: Source
    frame: Frame
    model_results: tuple[ModelResult, ...]
    frame_age_ms: float | None
    preprocess_ms: float
    number: int

    def to_json(self) -> dict[str, Any]:
        """What the models said, JSON-able, for the page and for --json."""
        return {
            "number": self.number,
            "frame_age_ms": self.frame_age_ms,
            "preprocess_ms": self.preprocess_ms,
            "model_results": [dataclasses.asdict(answer) for answer in self.model_results],
        }
