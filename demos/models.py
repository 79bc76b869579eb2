"""Model requests: from command-line flags to an artifact to a loaded runtime.

`ModelRequest.from_flags` reads the flags, `resolve` finds or exports the artifact, `open` loads it with its backend.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import runtimes
from demos import default_models
from demos.default_models import Log
from runtimes.loader import backend_class, read_artifact
from simplenet import artifacts, cli, datasets, files, image_folders, image_sets, variants
from simplenet.artifacts import Artifact
from simplenet.errors import DataError, SimpleNetError, UntrainedWarning, UsageError, check_choice
from simplenet.formats import FORMATS, PRECISIONS, Format
from simplenet.image_sets import ImageSet
from simplenet.manifest import Manifest
from simplenet.model_card import NO_OVERRIDES, CardOverrides

DEFAULT_BACKEND = "onnxruntime"


@dataclass(frozen=True)
class ModelRequest:
    """A model and how to run it. Immutable: change it with `dataclasses.replace`.

    `artifact` names an existing artifact; otherwise `variant` and `weights` name the model, and an artifact of it is
    found or exported under `artifacts_root`, with the preprocessing and labels of `overrides`, if any. None stands for
    a default: the default model, ONNX Runtime (or the artifact's own backend), fp32 (or the artifact's precision), the
    backend's first device, all physical cores.

    >>> request = ModelRequest(variant="cifar-310k", backend="openvino", precision="int8")
    >>> with request.open() as model:
    ...     predictions = model.classify([frame], k=5)
    """

    variant: str | None = None
    weights: str = "auto"
    artifact: Path | None = None
    backend: str | None = None
    precision: str | None = None
    device: str | None = None
    threads: int | None = None
    calibration: str = "auto"
    artifacts_root: Path = cli.DEFAULT_ARTIFACTS
    weights_key: str | None = None
    overrides: CardOverrides = NO_OVERRIDES

    @classmethod
    def from_flags(cls, flags: argparse.Namespace) -> ModelRequest:
        """Read the flags of `add_flags`; a missing flag, or a tuple of backends, gives the default.

        Raises:
            UsageError: --artifact together with flags that describe another model; or flags of preprocessing or labels
                without --weights.
        """
        given = {**vars(flags), "artifacts_root": flags.artifacts}
        names = [field.name for field in dataclasses.fields(cls) if not isinstance(given.get(field.name), tuple)]
        request = cls(**{name: given[name] for name in names if name in given})
        model = (request.variant, request.weights, request.weights_key, request.calibration, request.overrides)
        if request.artifact is None:
            request.overrides.check_weights(request.weights)
        elif model != (None, "auto", None, "auto", NO_OVERRIDES):
            also = f", {request.overrides.flags}" if request.overrides.flags else ""
            raise UsageError(
                f"--artifact has model, preprocessing and labels already; leave out --variant, --weights, "
                f"--weights-key, --calibration{also}"
            )
        return request

    @property
    def names_model(self) -> bool:
        """Whether an artifact, a variant or weights are named; otherwise the default model is used."""
        return self.artifact is not None or self.variant is not None or self.weights != "auto"

    @property
    def artifact_type(self) -> tuple[str, str]:
        """Format and precision of the artifact; raises UsageError if the backend lacks the precision."""
        backend = self.backend or DEFAULT_BACKEND
        return format_of(backend).name, artifact_precision(backend, self.precision or "fp32")

    def resolve(self, log: Log = cli.log) -> Artifact:
        """Find the artifact, or export it, which needs PyTorch and takes seconds to minutes.

        An int8 artifact that was calibrated with other images than `calibration` is exported again. If that fails
        for another reason than the images, the existing artifact is used.

        Args:
            log: called with one line before an export, and with the reason when official weights are not used.

        Raises:
            ArtifactError: the artifact is damaged. UsageError: unknown name, or the backend cannot run so.
            DataError, ExportError, WeightsError, BackendUnavailable: the artifact cannot be exported.
        """
        if self.artifact is not None:
            return read_artifact(self.artifact, self.backend)
        (request,) = with_named_model([self], log)
        found = request.find()
        if found is not None and not _has_other_calibration(found, self.calibration):
            return found
        import export

        format, precision = self.artifact_type
        duration = "; calibration takes a while" if precision == "int8" else ""
        log(
            f"exporting the {format} {precision} artifact of {request.variant} (weights: {request.weights}) "
            f"to {self.artifacts_root}{duration}"
        )
        try:
            return export.make(
                format,
                variant=request.variant,
                weights=request.weights,
                weights_key=self.weights_key,
                overrides=self.overrides,
                precision=precision,
                artifacts=self.artifacts_root,
                calibration=self.calibration,
            )
        except SimpleNetError as error:
            if found is None or isinstance(error, DataError):
                raise
            log(f"using the artifact that was calibrated with other images: {error}")
            return found

    def find(self) -> Artifact | None:
        """Find the artifact of a named variant and weights, or return None. Needs no PyTorch.

        Artifacts of older versions of the shipped weights, or of the checkpoint, and those that were exported with
        another `weights_key` or other `overrides`, are ignored.

        Raises:
            ArtifactError: the artifact is damaged. UsageError: `overrides` do not fit its number of classes.
        """
        assert self.variant is not None
        format, precision = self.artifact_type
        shipped = datasets.SHIPPED / self.weights / f"{self.variant}.safetensors"
        is_shipped = Path(self.weights).name == self.weights and files.is_file(shipped)
        if is_shipped or self.weights in ("pretrained", "random"):
            folder = artifacts.folder_for(self.artifacts_root, self.variant, self.weights, format, precision)
            found = artifacts.read(folder) if files.is_folder(folder) else None
            is_old = found and is_shipped and found.manifest.weights.sha256 != files.sha256(shipped)
            return found if found and not is_old and self._has_flags(found.manifest) else None
        checkpoint = Path(files.expand_home(self.weights))
        if not files.is_file(checkpoint):
            return None
        sha256 = files.sha256(checkpoint)
        for folder in sorted(self.artifacts_root.glob(f"{self.variant}-*/{format}-{precision}")):
            manifest = artifacts.read_manifest(folder)
            is_same = manifest.variant == self.variant and manifest.weights.sha256 == sha256
            if is_same and self._has_flags(manifest):
                return artifacts.read(folder)
        return None

    def _has_flags(self, manifest: Manifest) -> bool:
        return manifest.weights.key == self.weights_key and self.overrides.match(manifest)

    def open(self, log: Log = cli.log, *, allow_spinning: bool = True) -> runtimes.Runtime:
        """Resolve the artifact and load it; log random weights and assumed preprocessing.

        Args:
            allow_spinning: as in `runtimes.load`; turn it off if several models share the processor.

        Raises:
            SimpleNetError: as `resolve` and `runtimes.load`.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UntrainedWarning)  # logged below in one line
            model = runtimes.load(
                self.resolve(log),
                self.backend,
                device=self.device,
                threads=self.threads,
                precision=self.precision,
                allow_spinning=allow_spinning,
            )
        if is_untrained(model):
            log(f"UNTRAINED: {model.artifact.folder} has random weights; latencies are real, predictions are not")
        if doubt := model.manifest.preprocessing_doubt:
            advice = "if it is wrong, type --dataset NAME, or a flag for each value (see --help), with --weights PATH"
            log(f"{model.artifact.folder}: {doubt}; {advice}")
        return model


def add_flags(parser: argparse.ArgumentParser, *, multiple_backends: bool = False) -> None:
    """Add the flags that `ModelRequest.from_flags` reads.

    Args:
        multiple_backends: --backend takes 'A,B' or 'all' and gives a tuple, which `from_flags` does not read.
    """
    artifact_help = "an artifact's folder, or a model file with an embedded manifest"
    parser.add_argument("--artifact", type=cli.path, metavar="PATH", help=artifact_help)
    parser.add_argument(
        "--variant",
        type=cli.variant_name,
        metavar="NAME",
        help=f"{', '.join(variants.VARIANTS)} (default: {default_models.DEFAULT_VARIANT} if its official weights are "
        "available, else the best shipped model; with --weights NAME the variant of these weights)",
    )
    cli.add_weights(parser)
    cli.add_overrides(parser)
    if multiple_backends:
        add_names(parser, "backend", backends(), f"the artifact's, else {DEFAULT_BACKEND}")
    else:
        backend_help = f"{', '.join(backends())} (default: the artifact's, else {DEFAULT_BACKEND})"
        parser.add_argument("--backend", type=cli.choice("backend", backends()), metavar="NAME", help=backend_help)
    precision_help = f"{', '.join(PRECISIONS)} (default: the artifact's, else fp32)"
    parser.add_argument("--precision", type=cli.choice("precision", PRECISIONS), metavar="NAME", help=precision_help)
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, gpu or npu, if the backend supports it")
    cli.add_calibration(parser)
    cli.add_artifacts(parser)
    cli.add_threads(parser)


def add_names(parser: argparse.ArgumentParser, kind: str, choices: Sequence[str], default: str | None = None) -> None:
    """Add a flag --`kind` that takes 'A,B' or 'all' and gives a tuple of names.

    Args:
        default: the help's description of the default; a missing flag then gives None, otherwise all of `choices`.
    """
    parser.add_argument(
        f"--{kind}",
        type=lambda text: parse_names(kind, text, choices),
        default=None if default else tuple(choices),
        metavar="A,B|all",
        help=f"{', '.join(choices)} (default: {default or 'all'})",
    )


def parse_names(kind: str, text: str, choices: Sequence[str]) -> tuple[str, ...]:
    """Split 'A,B' into names, each once, in order; 'all' stands for all of `choices`.

    Raises:
        UsageError: as `check_choice`.
    """
    names = choices if text == "all" else dict.fromkeys(name.strip() for name in text.split(","))
    return tuple(check_choice(kind, name, choices) for name in names)


def backends() -> tuple[str, ...]:
    """Return all backends: those in FORMATS in its order (PyTorch, the reference, first), then the others."""
    known = [format.default_backend for format in FORMATS.values()]
    return tuple(sorted(runtimes.names(), key=lambda name: known.index(name) if name in known else len(known)))


def format_of(backend: str) -> Format:
    """Return the format that is exported for a backend; raise UsageError for an unknown one."""
    return FORMATS[backend_class(backend).FORMATS[0]]


def precisions_of(backend: str) -> tuple[str, ...]:
    """Return the precisions that a backend runs in: those of its artifacts, and run modes such as bf16."""
    return tuple(precision for precision in PRECISIONS if _stored_precision(backend, precision) is not None)


def artifact_precision(backend: str, precision: str) -> str:
    """Return the precision of the artifact that a backend runs in `precision`: fp32 for bf16.

    Raises:
        UsageError: the backend does not run in this precision.
    """
    stored = _stored_precision(backend, precision)
    if stored is not None:
        return stored
    others = [name for name in backends() if precision in precisions_of(name)]
    hint = f", or --backend {' or '.join(others)}" if others else ""
    raise UsageError(
        f"{backend} does not run in {precision}; choose --precision {' or '.join(precisions_of(backend))}{hint}"
    )


def _stored_precision(backend: str, precision: str) -> str | None:
    exported, run_modes = format_of(backend).precisions, backend_class(backend).PRECISIONS
    if precision in exported:
        return precision
    return next((own for own, modes in run_modes.items() if precision in modes and own in exported), None)


def with_named_model(requests: Sequence[ModelRequest], log: Log = cli.log) -> list[ModelRequest]:
    """Return the requests with one named variant and weights.

    Args:
        requests: they differ only in backend and precision.
    """
    first = requests[0]
    artifact_types = [request.artifact_type for request in requests]
    needs_images = first.calibration == "auto" and any(precision == "int8" for _, precision in artifact_types)
    variant, weights = default_models.choose(
        first.variant, first.weights, artifact_types, first.artifacts_root, log, needs_shipped_images=needs_images
    )
    return [replace(request, variant=variant, weights=weights) for request in requests]


def evaluation_images(manifest: Manifest, source: str, limit: int | None) -> ImageSet:
    """Load at most `limit` images of a folder or shipped set, preprocessed and labeled for a model.

    Raises:
        DataError: no such folder or set, or no image in it, or none of a class that can be read.
    """
    classes = {"labels": manifest.labels, "class_ids": manifest.class_ids}
    found = image_sets.load(source, "evaluation", manifest.preprocessing, **classes, limit=limit)
    found.check_classes()
    return found


def is_untrained(model: runtimes.Runtime) -> bool:
    """Whether a model's weights are random, so that its predictions must be marked UNTRAINED."""
    return model.manifest.weights.source == "random"


def to_json(model: runtimes.Runtime) -> dict[str, Any]:
    """Return the fields of a loaded model that every script prints with --json."""
    return {
        "schema_version": 1,
        "variant": model.manifest.variant,
        "weights": dataclasses.asdict(model.manifest.weights),
        "untrained": is_untrained(model),
        "preprocessing_source": model.manifest.preprocessing_source,
        "runtime": dataclasses.asdict(model.describe()),
    }


def _has_other_calibration(found: Artifact, calibration: str) -> bool:
    """Whether an int8 artifact was calibrated with other images than `calibration`; 'auto' matches any.

    Raises:
        DataError: `calibration` is not a folder of images.
    """
    used = found.manifest.calibration
    if used is None or calibration == "auto":
        return False
    if calibration in (image_sets.SYNTHETIC, *datasets.names()):
        return "fingerprint" in used or not str(used.get("source")).startswith(calibration)
    return used.get("fingerprint") != image_folders.fingerprint(calibration)
