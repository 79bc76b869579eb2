"""The rows of a comparison: which backends and precisions to measure, with their artifacts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

from demos import models
from demos.benchmark.comparison import Row
from demos.models import ModelRequest
from runtimes.loader import backend_class
from simplenet.artifacts import Artifact
from simplenet.errors import BackendUnavailable, SimpleNetError, UntrainedWarning, UsageError


def choose(backends: Sequence[str], precisions: Sequence[str], device: str | None) -> list[Row]:
    """One row for each backend and precision; raises UsageError if there is none."""
    if device is not None:
        backends = [backend for backend in backends if device in backend_class(backend).DEVICES]
        if not backends:
            raise UsageError(f"none of these backends runs on {device!r}; choose among cpu, cuda, gpu and npu")
    rows = [Row(backend, precision) for backend in backends for precision in models.precisions_of(backend)
            if precision in precisions]  # fmt: skip
    if not rows:
        possible = "; ".join(f"{backend}: {', '.join(models.precisions_of(backend))}" for backend in backends)
        raise UsageError(f"none of these backends has one of these precisions; they have: {possible}")
    return rows


def export_missing(rows: Sequence[Row], request: ModelRequest, update: Callable[..., None]) -> list[Artifact]:
    """Set each row's artifact, exported if it is missing, or the reason why it has none.

    Args:
        request: the model; its backend and precision are not used.
        update: reports progress, as `console.progress_bar` yields it.

    Returns:
        The artifacts.

    Raises:
        SimpleNetError: there is none, or they were made from different weights.
    """
    requests = models.with_named_model([replace(request, backend=row.backend, precision=row.precision) for row in rows])
    for row, row_request in zip(rows, requests, strict=True):
        update(description=f"preparing {row.name}")
        try:
            row.artifact = row_request.resolve()
        except BackendUnavailable as error:
            row.reason = str(error)
        except SimpleNetError as error:
            row.reason = f"cannot be exported: {error}"
        update(advance=1)
    made = [row.artifact for row in rows if row.artifact]
    if not made:
        raise SimpleNetError(f"no artifact could be exported; the first reason: {rows[0].reason}")
    if len({artifact.manifest.weights.sha256 for artifact in made}) > 1:
        raise SimpleNetError(
            f"artifacts of {request.variant} in {request.artifacts_root} were made from different weights; "
            "remove the old ones"
        )
    if made[0].manifest.weights.source == "random":
        message = f"{request.variant} is UNTRAINED: its latencies are real, its predictions are meaningless"
        warnings.warn(message, UntrainedWarning, stacklevel=2)
    return made
