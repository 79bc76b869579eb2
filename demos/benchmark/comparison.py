"""The comparison: artifacts in, one row for each backend and precision out. No argparse, no printing."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import runtimes
from demos.benchmark import results, statistics
from demos.benchmark.rounds import Timings, run_rounds
from demos.benchmark.statistics import Interval
from demos.benchmark.workers import STAGES, TimedModel, Worker
from runtimes.timing import LatencySummary
from simplenet import metrics
from simplenet.artifacts import Artifact
from simplenet.errors import BackendError, BackendUnavailable, SimpleNetError

Logits = npt.NDArray[np.float32]

_IMAGES_PER_CALL = 64
"""Few enough that a slow device replies before the timeout."""
_TIMED_IMAGES = 32
PROCESS_NOISE = 0.01
"""Two processes with the same model can differ by up to 1 % for all their life, because of their memory layout."""
_NEGLIGIBLE_LOSS_POINTS = 0.5
_NEGLIGIBLE_DISAGREEMENT_PERCENT = 1.0


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
    is_twin: bool = False
    """Whether this is the second measurement of another row's artifact, the A/A control."""
    peer: str | None = None
    """Another network, or 'raw' for the vendor's own call: measured for comparison, and never recommended."""
    python: str | None = None
    """Another interpreter that runs this row, with its own package versions."""

    @property
    def name(self) -> str:
        peer = f" {self.peer}" if self.peer else ""
        return f"{self.backend} {self.precision}{peer}" + " (against)" * bool(self.python) + " (twin)" * self.is_twin

    @property
    def latency(self) -> LatencySummary | None:
        return self.timings.summary("inference") if self.timings else None

    def speed_up_over(self, other: Row | None) -> Interval | None:
        """How many times as long `other` takes; None unless both have timings."""
        if self.timings is None or other is None or other.timings is None:
            return None
        return statistics.ratio(other.timings.rounds_ms, self.timings.rounds_ms)


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
    twin: Row | None = None
    """The fastest row once more, under another name: the A/A control."""
    until_percent: float | None = None
    """Rounds were added until the interval of the fastest two rows was at most this wide, or time was up."""
    machine: dict[str, Any] = field(default_factory=dict)
    busy_percent: float = 0.0

    @property
    def network(self) -> str:
        """The variant and its weights, in words, and whether their preprocessing is assumed."""
        manifest = next(row.artifact.manifest for row in self.rows if row.artifact)
        words = f"{manifest.variant} with {manifest.weights.name} weights"
        return "; ".join(filter(None, (words, manifest.preprocessing_doubt)))

    @property
    def twins(self) -> Interval | None:
        """The latency of the twin over that of its original: 1, but for the noise of this run."""
        original = next((row for row in self.rows if self.twin and self.twin.name == f"{row.name} (twin)"), None)
        return original.speed_up_over(self.twin) if original else None

    @property
    def noise(self) -> float:
        """The relative difference below which no difference counts."""
        return noise_floor(self.twins)

    def fastest(self) -> list[Row]:
        """The rows whose top-1 is within 0.5 points of the best, or else with 99 % agreement; fastest first."""
        return _fastest(self.rows)

    def fastest_two(self) -> Interval | None:
        """The latency of the second of `fastest` over that of the first; None with less than two rows."""
        return _fastest_two(self.rows)

    @property
    def versions(self) -> dict[str, str]:
        """The version of each package of this interpreter that ran a row."""
        described = [row.description for row in self.rows if row.description and row.python is None]
        return {name: version for one in described for name, version in one.versions.items()}

    def to_json(self) -> dict[str, Any]:
        """Return plain values, raw samples included."""
        return {
            "schema_version": results.SCHEMA_VERSION,
            **{key: value for key, value in vars(self).items() if key not in ("rows", "reference", "twin")},
            "reference": self.reference.name if self.reference else None,
            "rows": [_row_json(row, self.reference) for row in self.rows],
            "twin": _row_json(self.twin, self.reference) if self.twin else None,
            "twins": dataclasses.asdict(self.twins) if self.twins else None,
            "noise": self.noise,
        }


def noise_floor(twins: Interval | None) -> float:
    """Return the relative difference between the twins, 0.02 for 2 %, but at least `PROCESS_NOISE`."""
    return max(PROCESS_NOISE, max(twins.value, 1 / twins.value) - 1) if twins else PROCESS_NOISE


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
    with_twin: bool = True,
    until_percent: float | None = None,
    time_limit_s: float = math.inf,
    model_class_of: Callable[[Row], type[TimedModel]] = lambda row: TimedModel,
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
        with_twin: measure the fastest row twice.
        until_percent: add rounds until the interval of the fastest two rows is at most this wide, for `time_limit_s`.
        model_class_of: what a row's process times.
        on_step: called with the name of each step as it starts: one for each artifact, then one for each round.
    """

    def is_decided() -> bool:
        between = _fastest_two(rows) if until_percent is not None else None
        return between is None or until_percent is None or 100 * between.width <= until_percent

    latest_ms: dict[str, float] = {}
    logits: dict[str, Logits] = {}
    workers: list[Worker] = []
    twin = None
    with ExitStack() as stack:

        def start(row: Row, images: npt.NDArray[np.uint8]) -> None:
            assert row.artifact is not None
            on_step(f"loading {row.name}")
            described = {"backend": row.backend, "precision": row.precision, "threads": threads, "device": device}
            worker = stack.enter_context(
                Worker(row.name, row.artifact.folder, described, model_class_of(row), python=row.python)
            )
            try:
                logits[row.name], latest_ms[row.name] = _load(worker, row, images, frame)
                workers.append(worker)
            except SimpleNetError as error:
                row.reason = str(error) if isinstance(error, BackendUnavailable) else f"failed: {error}"
                worker.close()

        for row in rows:
            if row.artifact is not None:
                start(row, images)
        reference = _reference(rows)
        for row in rows:
            if reference and row.name in logits and row.peer in (None, "raw"):
                measure_correctness(row, logits[row.name], logits[reference.name], labels)
        if with_twin and latest_ms:
            fastest = min((row for row in rows if row.name in latest_ms), key=lambda row: latest_ms[row.name])
            twin = dataclasses.replace(fastest, is_twin=True, timings=None)
            start(twin, images[:_TIMED_IMAGES])
        measured = [*rows, twin] if twin else rows
        timings = {row.name: row.timings for row in measured if row.timings is not None}
        counts = map(str, itertools.count(1))
        failures = run_rounds(
            workers,
            timings,
            samples=samples,
            rounds=rounds,
            is_enough=is_decided,
            time_limit_s=time_limit_s,
            on_round=lambda: on_step(f"timing {len(workers)} rows, round {next(counts)} of {rounds}"),
        )
        for worker in workers:
            if worker.name not in failures:
                with suppress(BackendError):  # it died after its last round, so its samples are complete
                    timings[worker.name].peak_memory_mb = worker.call("peak_memory_mb")
    for row in measured:
        if row.name in failures:
            row.reason = f"failed: {failures[row.name]}"
    return Comparison(
        rows=rows,
        reference=reference,
        images=images_name,
        image_count=len(images),
        labeled=labels is not None,
        threads=threads,
        rounds=max((len(one.rounds_ms) for one in timings.values()), default=0),
        frame=f"{frame.shape[1]}x{frame.shape[0]} RGB",
        twin=twin,
        until_percent=until_percent,
    )


def _fastest(rows: Sequence[Row]) -> list[Row]:
    """As `Comparison.fastest`."""
    timed = [(row.latency.p50_ms, row) for row in rows if row.latency and row.peer is None]
    best = max((row.top1_percent for _, row in timed if row.top1_percent is not None), default=None)
    return [row for _, row in sorted(timed, key=lambda pair: pair[0]) if _is_accurate(row, best)]


def _is_accurate(row: Row, best_top1_percent: float | None) -> bool:
    if best_top1_percent is None:
        return (row.agreement_percent or 0) >= 100 - _NEGLIGIBLE_DISAGREEMENT_PERCENT
    return (row.top1_percent or 0) >= best_top1_percent - _NEGLIGIBLE_LOSS_POINTS


def _fastest_two(rows: Sequence[Row]) -> Interval | None:
    fastest = _fastest(rows)
    return fastest[0].speed_up_over(fastest[1]) if len(fastest) > 1 else None


def measure_correctness(row: Row, logits: Logits, reference: Logits, labels: npt.NDArray[np.int64] | None) -> None:
    """Set a row's agreement with the reference's logits, float32 [N, classes], and its accuracy if there are labels."""
    row.agreement_percent = 100 * metrics.top1_agreement(logits, reference)
    row.lowest_cosine = float(metrics.cosine_similarities(logits, reference).min())
    if labels is not None:
        row.top1_percent = 100 * metrics.top_k_correct(logits, labels, 1) / len(labels)
        if logits.shape[1] >= metrics.FEWEST_CLASSES_FOR_TOP5:
            row.top5_percent = 100 * metrics.top_k_correct(logits, labels, 5) / len(labels)


def _load(
    worker: Worker, row: Row, images: npt.NDArray[np.uint8], frame: npt.NDArray[np.uint8]
) -> tuple[Logits, float]:
    """Load the model, time the first inference, warm up; return all images' logits and the latest median latency."""
    load_ms, row.description = worker.call("load")
    worker.call("set_inputs", images[:_TIMED_IMAGES], frame)
    first_ms = worker.call("first_inference")
    starts = range(0, len(images), _IMAGES_PER_CALL)
    logits = np.concatenate([worker.call("logits", images[start : start + _IMAGES_PER_CALL]) for start in starts])
    warm_up_ms = worker.call("warm_up")
    row.timings = Timings(load_ms, first_ms, warm_up_calls=len(warm_up_ms))
    return logits, float(np.median(warm_up_ms[-_TIMED_IMAGES:]))


def _reference(rows: Sequence[Row]) -> Row | None:
    measured = [row for row in rows if row.timings is not None and row.peer is None]
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
        "timings": row.timings,
        "speed_up": row.speed_up_over(reference),
    }
    values |= {key: dataclasses.asdict(part) if part else None for key, part in parts.items()}
    stages = {stage: _stage_json(row.timings, stage) for stage in STAGES} if row.timings and row.latency else None
    return values | {"stages": stages}


def _stage_json(timings: Timings, stage: str) -> dict[str, Any]:
    """The latency of a stage, and the interval of each percentile."""
    summary = timings.summary(stage)
    assert summary is not None
    values = dataclasses.asdict(summary)
    percents = [percent for percent in (50, 90, 99) if values[f"p{percent}_ms"] is not None]
    intervals = statistics.percentiles(timings.stages_ms[stage], percents)
    named = {f"p{percent}_ms": dataclasses.asdict(one) for percent, one in zip(percents, intervals, strict=True)}
    return values | {"intervals": named}
