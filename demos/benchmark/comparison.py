"""The comparison itself: artifacts in, one row a backend and precision out. No argparse, no printing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import runtimes
from demos.benchmark.workers import BackendSpec, Timings, Worker, run_rounds
from runtimes.timing import LatencySummary, summarize
from simplenet.artifacts import Artifact
from simplenet.errors import BackendError, BackendUnavailable, SimpleNetError

Logits = npt.NDArray[np.float32]

_PICTURES_AT_A_TIME = 64
"""In one question to a worker: a slow device answers it in time, and a large set is not sent as a whole."""


@dataclass
class Row:
    """One backend in one precision. `reason` says why a row has no timings, or fewer than asked."""

    backend: str
    precision: str
    artifact: Artifact | None = None
    reason: str | None = None
    description: runtimes.Description | None = None
    timings: Timings | None = None
    top1_percent: float | None = None
    top5_percent: float | None = None
    agreement_percent: float | None = None
    """Pictures with the same top-1 as the reference row."""
    lowest_cosine: float | None = None
    """Of the logits of any picture with the reference row's."""

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}"

    @property
    def latency(self) -> LatencySummary | None:
        return summarize(self.timings.samples_ms) if self.timings and self.timings.samples_ms else None

    @property
    def end_to_end(self) -> LatencySummary | None:
        return summarize(self.timings.end_to_end_ms) if self.timings and self.timings.end_to_end_ms else None

    def rounds_faster_than(self, other: Row) -> tuple[int, int]:
        """In how many rounds this row's p50 was the lower one, and of how many that both had."""
        ratios = self._ratios(other)
        return sum(ratio > 1 for ratio in ratios), len(ratios)

    def speed_up_over(self, other: Row) -> tuple[float, float, float] | None:
        """(median, lowest, highest) over the rounds of the ratio of p50s, `other`'s over this row's."""
        ratios = self._ratios(other)
        return (float(np.median(ratios)), min(ratios), max(ratios)) if ratios else None

    def _ratios(self, other: Row) -> list[float]:
        if not (self.timings and other.timings):
            return []
        pairs = zip(other.timings.rounds_ms, self.timings.rounds_ms, strict=False)
        return [float(np.median(theirs) / np.median(ours)) for theirs, ours in pairs]


@dataclass(frozen=True)
class Comparison:
    """Everything a table or a JSON file says."""

    rows: list[Row]
    reference: Row | None
    """PyTorch fp32, or else the first fp32 row: what agreement and speed-up are relative to."""
    pictures: str
    picture_count: int
    labeled: bool
    threads: int
    rounds: int
    frame: str
    machine: dict[str, Any] = field(default_factory=dict)
    busy_percent: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, raw samples included."""
        return {
            "schema_version": 1,
            **{key: value for key, value in vars(self).items() if key not in ("rows", "reference")},
            "reference": self.reference.name if self.reference else None,
            "rows": [_row_json(row, self.reference) for row in self.rows],
        }


def compare(
    rows: list[Row],
    pictures: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64] | None,
    *,
    pictures_name: str,
    frame: npt.NDArray[np.uint8],
    threads: int,
    samples: int,
    rounds: int,
    device: str | None = None,
    on_progress: Callable[[str, int], None] = lambda what, steps: None,
    log: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Measures every row that has an artifact, in place, and says which row the others are relative to.

    Args:
        rows: what to compare; one without an artifact stays as it is, with its reason.
        pictures: model-sized uint8 [N, S, S, 3]; answers are compared on all, latency is measured on the first ones.
        labels: int64 [N], or None where nobody knows them.
        frame: RGB uint8 [H, W, 3], for the time from a camera's frame to its top-5.
        samples: timed inferences a row, spread over `rounds` turns.
        device: that of all rows; one whose backend does not have it says so. None is each backend's first.
        on_progress: called with what is being done and how many of `steps(rows, rounds)` steps are finished.
        log: told in one line of every row that has answered, and of the timing's start.
    """
    with ExitStack() as stack:
        workers: list[Worker] = []
        logits: dict[str, Logits] = {}
        for row in rows:
            on_progress(f"opening {row.name}", 0)
            if row.artifact is not None:
                spec = BackendSpec(row.backend, row.precision, str(row.artifact.folder), threads, device)
                worker = stack.enter_context(Worker(spec))
                try:
                    logits[row.name] = _open(worker, row, pictures)
                    workers.append(worker)
                except BackendUnavailable as error:
                    row.reason = str(error)
                    worker.close()
                except SimpleNetError as error:
                    row.reason = f"failed: {error}"
                    worker.close()
                log(f"{row.name}: {row.reason or f'answered {len(pictures):,} pictures'}")
            on_progress(f"opened {row.name}", 1)
        timings = {row.name: row.timings for row in rows if row.timings is not None}
        if workers:
            log(f"timing {len(workers)} rows, {samples:,} samples each, in {rounds} rounds")
        failures = run_rounds(
            workers,
            timings,
            frame,
            samples=samples,
            rounds=rounds,
            on_turn=lambda: on_progress("measuring in turns", 1),
        )
        for worker in workers:
            name = worker.spec.name
            if name not in failures:
                with suppress(BackendError):  # it died after its last turn: what it measured counts
                    timings[name].peak_memory_mb = worker.ask("peak_memory_mb")
    for row in rows:
        if row.name in failures:
            row.reason = f"failed: {failures[row.name]}"
    reference = _reference(rows)
    for row in rows:
        if reference and row.name in logits:
            _judge(row, logits[row.name], logits[reference.name], labels)
    return Comparison(
        rows=rows,
        reference=reference,
        pictures=pictures_name,
        picture_count=len(pictures),
        labeled=labels is not None,
        threads=threads,
        rounds=rounds,
        frame=f"{frame.shape[1]}x{frame.shape[0]} RGB",
    )


def steps(rows: Sequence[Row], rounds: int) -> int:
    """How many steps `compare` reports at the most."""
    return len(rows) + rounds * sum(row.artifact is not None for row in rows)


def _open(worker: Worker, row: Row, pictures: npt.NDArray[np.uint8]) -> Logits:
    """Loads, times the first call, collects every picture's logits (correctness before speed), warms up."""
    load_ms, row.description = worker.ask("opened")
    worker.ask("use", pictures[:32])
    first_ms = worker.ask("first_inference")
    logits = np.concatenate(
        [worker.ask("logits", pictures[start : start + _PICTURES_AT_A_TIME])
         for start in range(0, len(pictures), _PICTURES_AT_A_TIME)]
    )  # fmt: skip
    row.timings = Timings(load_ms, first_ms, warm_up_calls=worker.ask("warm_up"))
    return logits


def _reference(rows: Sequence[Row]) -> Row | None:
    measured = [row for row in rows if row.timings is not None]
    in_fp32 = [row for row in measured if row.precision == "fp32"]
    from_torch = [row for row in in_fp32 if row.backend == "torch"]
    return next(iter([*from_torch, *in_fp32, *measured]), None)


def _judge(row: Row, logits: Logits, reference: Logits, labels: npt.NDArray[np.int64] | None) -> None:
    """Agreement with the reference's answers, and accuracy where the true ones are known; all in percent."""
    row.agreement_percent = float((logits.argmax(1) == reference.argmax(1)).mean() * 100)
    products = (logits * reference).sum(1)
    row.lowest_cosine = float((products / (np.linalg.norm(logits, axis=1) * np.linalg.norm(reference, axis=1))).min())
    if labels is not None:
        best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        row.top1_percent = float((best[:, 0] == labels).mean() * 100)
        row.top5_percent = float((best == labels[:, None]).any(1).mean() * 100) if logits.shape[1] > 5 else None


def _row_json(row: Row, reference: Row | None) -> dict[str, Any]:
    values = {key: value for key, value in vars(row).items() if key not in ("artifact", "timings", "description")}
    if row.artifact:
        values |= {"artifact": str(row.artifact.folder), "size_bytes": row.artifact.size_bytes}
        values["manifest"] = dataclasses.asdict(row.artifact.manifest)
    for name, part in (("description", row.description), ("latency", row.latency), ("end_to_end", row.end_to_end)):
        values[name] = dataclasses.asdict(part) if part else None
    values["timings"] = dataclasses.asdict(row.timings) if row.timings else None
    speed_up = row.speed_up_over(reference) if reference else None
    values["speed_up"] = dict(zip(("median", "lowest", "highest"), speed_up, strict=True)) if speed_up else None
    return values
