"""The one way into artifacts/: made in a temporary folder, checked against PyTorch, renamed into place."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from export import agreement, calibration
from export.calibration import ImageBatch
from export.request import ExportRequest
from runtimes.base import vendor_import
from simplenet import artifacts, preprocessing
from simplenet.artifacts import Artifact, InputSpec, Manifest
from simplenet.formats import FORMATS

if TYPE_CHECKING:
    from simplenet.weights import LoadedWeights


_OF_EXPORT = ("torch", "safetensors", "onnx", "onnxscript", "onnxslim", "onnxruntime")


@dataclass(frozen=True)
class ExportContext:
    """What a format's builder works from."""

    request: ExportRequest
    loaded: LoadedWeights

    @cached_property
    def input(self) -> InputSpec:
        return self.request.input_spec(self.loaded.card.preprocessing.input_size)

    @cached_property
    def calibration(self) -> ImageBatch:
        """ImageSet to calibrate with; raises DataError where there are none."""
        return calibration.for_calibration(self.loaded, self.request.calibration)

    @cached_property
    def checking(self) -> ImageBatch:
        """ImageSet to check with."""
        return calibration.for_checking(self.loaded, self.request.calibration, self.request.precision)

    def model_inputs(self, samples: ImageBatch) -> npt.NDArray[Any]:
        """`samples` as the exported model takes them."""
        return preprocessing.model_batch(samples.inputs, self.input.dtype, self.loaded.card.preprocessing)


@dataclass(frozen=True)
class BuildResult:
    """A model in memory, or already in the folder it was built in.

    `save(embedded)` writes the model files, with the manifest's JSON inside where the format has a place for it; it is
    called twice, before and after the check. `calibration_method` says how int8 was calibrated.
    """

    save: Callable[[str], None]
    calibration_method: str | None = None
    target: dict[str, Any] | None = None


Build = Callable[[ExportContext, Path], BuildResult]
"""Makes the model for `context`; the path is that of the model file, in an empty folder."""

Check = Callable[[Artifact, ExportContext], dict[str, Any]]
"""Measures a finished artifact, or raises AgreementError; gives the manifest's `measured`."""


def against_pytorch(artifact: Artifact, context: ExportContext) -> dict[str, Any]:
    """The check of every format that can be run on this machine."""
    return agreement.check(artifact, context.loaded, context.checking, context.request.max_drop)


def publish(
    request: ExportRequest, format: str, build: Build, packages: Sequence[str], check: Check = against_pytorch
) -> Artifact:
    """Loads the weights, builds, checks and publishes an artifact; whatever fails, the old one stays as it was.

    Args:
        packages: modules whose versions the manifest names; those of the extra 'export' are imported before the work.

    Raises:
        WeightsError, DataError: the weights or the calibration pictures cannot be had. ExportError: it cannot be made,
        or disagrees with PyTorch. ArtifactError: it cannot be written. BackendUnavailable: a package is missing.
    """
    for package in ("safetensors", *packages):  # it takes seconds: only once the flags are known to be right
        if package in _OF_EXPORT:  # a format's own are its script's to import
            vendor_import(package, "export")
    from simplenet import weights

    context = ExportContext(request, weights.load(request.variant, request.weights))
    folder = _folder(request, context.loaded, format)
    with artifacts.publishing(folder) as fresh:
        model_file = fresh / FORMATS[format].model_file
        built = build(context, model_file)
        manifest = _manifest(context, format, built, packages)
        built.save(manifest.to_json())
        request.progress("checking against PyTorch")
        measured = check(artifacts.write_manifest(fresh, manifest), context)
        manifest = dataclasses.replace(manifest, measured=measured)
        built.save(manifest.to_json())
        manifest = artifacts.write_manifest(fresh, manifest).manifest
    return Artifact(folder / model_file.name, manifest)


def _folder(request: ExportRequest, loaded: LoadedWeights, format: str) -> Path:
    return artifacts.folder_for(
        request.artifacts,
        loaded.card.variant,
        loaded.origin.name,
        format,
        request.precision,
        input_dtype=request.input,
        batch=request.batch,
    )


def _manifest(context: ExportContext, format: str, built: BuildResult, packages: Sequence[str]) -> Manifest:
    card = context.loaded.card
    method = built.calibration_method
    return Manifest(
        variant=card.variant,
        format=format,
        precision=context.request.precision,
        weights=context.loaded.origin,
        num_classes=card.num_classes,
        input=context.input,
        preprocessing=card.preprocessing,
        labels=card.labels,
        class_ids=card.class_ids,
        calibration={"method": method, **calibration.note(context.calibration)} if method else None,
        target=built.target,
        tools={package: str(importlib.import_module(package).__version__) for package in packages},
    )
