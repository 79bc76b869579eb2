"""The comparison: artifacts in, one row for each backend and precision out. No argparse, no printing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import runtimes
from demos.benchmark.rounds import SpeedUp, Timings, run_rounds, speed_up
from demos.benchmark.workers import Worker
from runtimes.timing import LatencySummary
from simplenet import metrics
from simplenet.artifacts import Artifact
from simplenet.errors import BackendError, BackendUnavailable, SimpleNetError

Logits = npt.NDArray[np.float32]

_IMAGES_PER_CALL = 64
"""Few enough that a slow device replies before the timeout."""
_TIMED_IMAGES = 32


@dataclass
class Row:
    """One backend in one precision. `reason` is why it has no timings, or fewer than requested."""

    backend: str
    precision: str
    artifact: Artifact | None = None
    reason: str | None = None
    description: runtimes.Description | None = None
    timings: Timings | None = None
    top1_percent: float | None = None
    top5_percent: float | None = None
    agreement_percent: float | None = None
    """Images with the same top-1 as the reference row."""
    lowest_cosine: float | None = None
    """The lowest cosine similarity of an image's logits to the reference row's."""

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}"

    @property
    def latency(self) -> LatencySummary | None:
        return self.timings.latency if self.timings else None

    def speed_up_over(self, other: Row | None) -> SpeedUp | None:
        return speed_up(self.timings, other.timings) if self.timings and other and other.timings else None


@dataclass(frozen=True)
class Comparison:
    """Everything that the table, the plot and the JSON file show."""

    rows: list[Row]
    reference: Row | None
    """The row that agreement and speed-up refer to: PyTorch fp32, or else the first fp32 row."""
    images: str
    image_count: int
    labeled: bool
    threads: int
    rounds: int
    frame: str
    machine: dict[str, Any] = field(default_factory=dict)
    busy_percent: float = 0.0

    @property
    def network(self) -> str:
        """The variant and its weights, in words, and whether their preprocessing is assumed."""
        manifest = next(row.artifact.manifest for row in self.rows if row.artifact)
        words = f"{manifest.variant} with {manifest.weights.name} weights"
        return "; ".join(filter(None, (words, manifest.preprocessing_doubt)))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, raw samples included."""
        return {
            "schema_version": 1,
            **{key: value for key, value in vars(self).items() if key not in ("rows", "reference")},
            "reference": self.reference.name if self.reference else None,
            "rows": [_row_json(row, self.reference) for row in self.rows],
        }


def compare(
    rows: list[Row],
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64] | None,
    *,
    images_name: str,
    frame: npt.NDArray[np.uint8],
    threads: int,
    samples: int,
    rounds: int,
    device: str | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Comparison:
    """Measure every row that has an artifact, in place, and choose the reference row.

    Args:
        rows: what to compare; a row without an artifact keeps its reason.
        images: model-sized uint8 [N, S, S, 3]; all are used for correctness, the first ones for latency.
        labels: int64 [N], or None if unknown.
        frame: RGB uint8 [H, W, 3], for the end-to-end latency.
        samples: timed inferences for each row, spread over `rounds`.
        device: of all rows; None is each backend's first.
        on_step: called with the name of each step as it starts: one for each artifact, then one for each round.
    """
    logits: dict[str, Logits] = {}
    with ExitStack() as stack:
        workers: list[Worker] = []
        for row in rows:
            if row.artifact is not None:
                on_step(f"loading {row.name}")
                options = {"backend": row.backend, "precision": row.precision, "threads": threads, "device": device}
                worker = stack.enter_context(Worker(row.name, row.artifact.folder, **options))
                try:
                    logits[row.name] = _load(worker, row, images)
                    workers.append(worker)
                except SimpleNetError as error:
                    row.reason = str(error) if isinstance(error, BackendUnavailable) else f"failed: {error}"
                    worker.close()
        timings = {row.name: row.timings for row in rows if row.timings is not None}
        timing = f"timing {len(workers)} rows, {samples:,} samples each, in {rounds} rounds"
        failures = run_rounds(workers, timings, frame, samples=samples, rounds=rounds, on_round=lambda: on_step(timing))
        for worker in workers:
            if worker.name not in failures:
                with suppress(BackendError):  # it died after its last round, so its samples are complete
                    timings[worker.name].peak_memory_mb = worker.call("peak_memory_mb")
    reference = _reference(rows)
    for row in rows:
        if row.name in failures:
            row.reason = f"failed: {failures[row.name]}"
        if reference and row.name in logits:
            measure_correctness(row, logits[row.name], logits[reference.name], labels)
    return Comparison(
        rows=rows,
        reference=reference,
        images=images_name,
        image_count=len(images),
        labeled=labels is not None,
        threads=threads,
        rounds=rounds,
        frame=f"{frame.shape[1]}x{frame.shape[0]} RGB",
    )


def measure_correctness(row: Row, logits: Logits, reference: Logits, labels: npt.NDArray[np.int64] | None) -> None:
    """Set a row's agreement with the reference's logits, float32 [N, classes], and its accuracy if there are labels."""
    row.agreement_percent = 100 * metrics.top1_agreement(logits, reference)
    row.lowest_cosine = float(metrics.cosine_similarities(logits, reference).min())
    if labels is not None:
        row.top1_percent = 100 * metrics.top_k_correct(logits, labels, 1) / len(labels)
        if logits.shape[1] >= metrics.FEWEST_CLASSES_FOR_TOP5:
            row.top5_percent = 100 * metrics.top_k_correct(logits, labels, 5) / len(labels)


def _load(worker: Worker, row: Row, images: npt.NDArray[np.uint8]) -> Logits:
    """Load the model, time the first inference, collect the logits of all images, then warm up."""
    load_ms, row.description = worker.call("load")
    worker.call("set_images", images[:_TIMED_IMAGES])
    first_ms = worker.call("first_inference")
    starts = range(0, len(images), _IMAGES_PER_CALL)
    logits = np.concatenate([worker.call("logits", images[start : start + _IMAGES_PER_CALL]) for start in starts])
    row.timings = Timings(load_ms, first_ms, warm_up_calls=worker.call("warm_up"))
    return logits


def _reference(rows: Sequence[Row]) -> Row | None:
    measured = [row for row in rows if row.timings is not None]
    in_fp32 = [row for row in measured if row.precision == "fp32"]
    from_torch = [row for row in in_fp32 if row.backend == "torch"]
    return next(iter([*from_torch, *in_fp32, *measured]), None)


def _row_json(row: Row, reference: Row | None) -> dict[str, Any]:
    values = {key: value for key, value in vars(row).items() if key not in ("artifact", "timings", "description")}
    if row.artifact:
        values |= {"artifact": str(row.artifact.folder), "size_bytes": row.artifact.size_bytes}
        values["manifest"] = dataclasses.asdict(row.artifact.manifest)
    parts = {
        "description": row.description,
        "latency": row.latency,
        "end_to_end": row.timings and row.timings.end_to_end,
        "timings": row.timings,
        "speed_up": row.speed_up_over(reference),
    }
    return values | {key: dataclasses.asdict(part) if part else None for key, part in parts.items()}
