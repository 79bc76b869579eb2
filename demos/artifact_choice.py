"""Which artifact a demo runs: one that is there, or else one that export makes now; and of which weights."""

from __future__ import annotations

import argparse
import functools
import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import runtimes
from runtimes.loader import backend_class
from simplenet import artifacts, cli, datasets, download, files, image_sets, images, variants
from simplenet.artifacts import Artifact
from simplenet.errors import DataError, DownloadError, SimpleNetError, UsageError

DEFAULT_BACKEND = "onnxruntime"
DEFAULT_VARIANT = "1.5m"
SHIPPED_VARIANT, SHIPPED_WEIGHTS = "cifar-310k", "fashion-mnist"
"""The model that belongs to the shipped pictures, and to a scene that is made of them."""
_BEST_SHIPPED = (("cifar-5m", "cifar10"), ("cifar-310k", "cifar10"), (SHIPPED_VARIANT, SHIPPED_WEIGHTS))
"""For pictures from the world, the best first."""

# Each format's one public export function, called with keywords: variant, weights, precision, artifacts, calibration.
_EXPORTS = {
    "torch": ("export.to_torch", "export_torch"),
    "onnx": ("export.to_onnx", "export_onnx"),
    "openvino": ("export.to_openvino", "export_openvino"),
    "tensorrt": ("export.to_tensorrt", "export_tensorrt"),
}

# What is offered and compared: a backend of your own runs in fp32 until you add it here.
_PRECISIONS = {
    "torch": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
}

Log = Callable[[str], None]


def format_of(backend: str) -> str:
    """The artifact format that is made for a backend; raises UsageError for an unknown one."""
    return backend_class(backend).FORMATS[0]


def precisions_of(backend: str) -> tuple[str, ...]:
    """The precisions that a demo offers for a backend, fp32 first."""
    return _PRECISIONS.get(backend, ("fp32",))


def several(kind: str, text: str, choices: Sequence[str]) -> list[str]:
    """'A,B' -> those of `choices`, each once, as typed; 'all' -> all of them, PyTorch, the reference, first.

    Raises:
        UsageError: one of them is unknown; the message lists the choices and the nearest one.
    """
    if text == "all":
        known = [name for name in _PRECISIONS if name in choices]
        return [*known, *(name for name in choices if name not in known)]
    check = cli.choice(kind, choices)
    try:
        return list(dict.fromkeys(check(name.strip()) for name in text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise UsageError(str(error)) from error


def artifact_precision(backend: str, precision: str) -> str:
    """The precision of the artifact that `backend` needs to run in `precision`: bf16 is a way of running fp32.

    Raises:
        UsageError: this backend cannot run so.
    """
    if precision != "bf16":
        if precision not in precisions_of(backend):
            choices = " or ".join(precisions_of(backend))
            raise UsageError(f"{backend} does not run in {precision} here; choose --precision {choices}")
        return precision
    if "bf16" not in backend_class(backend).PRECISIONS.get("fp32", ()):
        able = [name for name in runtimes.names() if "bf16" in backend_class(name).PRECISIONS.get("fp32", ())]
        raise UsageError(
            f"{backend} does not compute in bf16; choose --backend {' or '.join(able)}, or another precision"
        )
    return "fp32"


def find_artifact(variant: str, weights: str, format: str, precision: str, root: str | Path) -> Artifact | None:
    """The artifact that is already there for these weights (any but 'auto'), or None. Needs no PyTorch.

    One that was made from an older version of the shipped weights, or of the checkpoint, does not count.

    Raises:
        ArtifactError: there is one, and it is damaged.
    """
    shipped = datasets.SHIPPED / weights / f"{variant}.safetensors"
    if weights in ("pretrained", "random") or (Path(weights).name == weights and files.is_file(shipped)):
        folder = artifacts.folder_for(root, variant, weights, format, precision)
        found = artifacts.read(folder) if files.is_folder(folder) else None
        is_old = found and files.is_file(shipped) and found.manifest.weights.sha256 != files.sha256(shipped)
        return None if is_old else found
    checkpoint = Path(files.expand_home(weights))
    if not files.is_file(checkpoint):
        return None
    wanted = files.sha256(checkpoint)
    for folder in sorted(Path(root).glob(f"{variant}-*/{format}-{precision}")):
        manifest = artifacts.read_manifest(folder)
        if manifest.variant == variant and manifest.weights.sha256 == wanted:
            return artifacts.read(folder)
    return None


def ensure_artifact(
    variant: str,
    weights: str,
    format: str,
    precision: str,
    root: str | Path = cli.DEFAULT_ARTIFACTS,
    log: Log = cli.log,
    calibration: str | Path = "auto",
) -> Artifact:
    """The artifact that is there, or else the one that export makes now, which needs PyTorch and takes seconds.

    An int8 artifact from other pictures than `calibration` is made anew; where that fails, it is used, as is said, but
    for wrong pictures.

    Args:
        weights: as --weights says; 'auto' is official ones, else shipped ones, else random ones.
        precision: the artifact's: fp32, fp16 or int8; see `artifact_precision`.
        log: is told in one line before something is made, and why weights are not the official ones.
        calibration: pictures for int8, as --calibration says.

    Raises:
        ArtifactError: it is there and damaged. DataError, ExportError, WeightsError: it cannot be made. UsageError:
            unknown name.
    """
    variant = variants.get(variant).name
    weights = choose_weights(variant, weights, [(format, precision)], root, log)
    found = find_artifact(variant, weights, format, precision, root)
    if found is not None and not _is_calibrated_otherwise(found, calibration):
        return found
    patience = "; calibrating takes a while" if precision == "int8" else ""
    log(f"making the {format} {precision} artifact of {variant} (weights: {weights}) in {root}{patience}")
    module, function = _EXPORTS[format]
    export = getattr(importlib.import_module(module), function)
    try:
        made: Artifact = export(
            variant=variant, weights=weights, precision=precision, artifacts=Path(root), calibration=calibration
        )
    except SimpleNetError as error:
        if found is None or isinstance(error, DataError):
            raise
        log(f"using the one from other pictures: {error}")
        return found
    return made


def _is_calibrated_otherwise(found: Artifact, calibration: str | Path) -> bool:
    """Whether it is int8 from other pictures than those that were asked for; 'auto' asks for none.

    Raises:
        DataError: what was asked for is no folder of pictures.
    """
    made_with = found.manifest.calibration
    if made_with is None or str(calibration) == "auto":
        return False
    if str(calibration) in (image_sets.SYNTHETIC, *datasets.names()):
        return "fingerprint" in made_with or not str(made_with.get("source")).startswith(str(calibration))
    return made_with.get("fingerprint") != images.fingerprint(calibration)


def choose_weights(
    variant: str,
    weights: str,
    wanted: Iterable[tuple[str, str]],
    root: str | Path = cli.DEFAULT_ARTIFACTS,
    log: Log = cli.log,
) -> str:
    """What 'auto' means for all `wanted` artifacts, (format, precision), together: they shall be of one network.

    The official weights if one of these artifacts is there already or the weights can be had, else shipped ones, else
    'random'. Other `weights` are returned as they are.
    """
    if weights != "auto":
        return weights
    variant = variants.get(variant).name
    if any(artifacts.folder_for(root, variant, "pretrained", *each).is_dir() for each in wanted):
        return "pretrained"
    if (reason := _why_not_official(variant)) is None:
        return "pretrained"
    shipped = datasets.shipped_weights(variant)
    if variants.get(variant).official_weights_file:
        log(f"{reason}; using {shipped[0] if shipped else 'RANDOM'} weights")
    return shipped[0] if shipped else "random"


def default_artifact(
    format: str, precision: str, root: str | Path, log: Log = cli.log, calibration: str | Path = "auto"
) -> Artifact:
    """Of the default variant with its official weights; where those cannot be had, of the best shipped model."""
    wanted = (format, precision, root, log, calibration)
    is_there = find_artifact(DEFAULT_VARIANT, "pretrained", format, precision, root) is not None
    reason = None if is_there else _why_not_official(DEFAULT_VARIANT)
    if reason is None:
        return ensure_artifact(DEFAULT_VARIANT, "pretrained", *wanted)
    variant, weights = best_shipped(precision if str(calibration) == "auto" else "fp32")
    log(f"{reason}; using {variant} trained on {weights}, which comes with the project")
    return ensure_artifact(variant, weights, *wanted)


def best_shipped(precision: str = "fp32") -> tuple[str, str]:
    """Variant and weights of the best model that comes with the project; for int8, of those with pictures for it."""
    return next(
        (variant, weights)
        for variant, weights in _BEST_SHIPPED
        if weights in datasets.shipped_weights(variant) and (precision != "int8" or weights in datasets.names())
    )


def shipped_variant(weights: str) -> str | None:
    """The best variant that weights of this name are shipped for."""
    best = [variant for variant, name in _BEST_SHIPPED if name == weights]
    return next(
        (variant for variant in [*best, *variants.VARIANTS] if weights in datasets.shipped_weights(variant)), None
    )


@functools.lru_cache
def _why_not_official(variant: str) -> str | None:
    """None once the official weights are in the cache, else the reason; asked once, so that one wait is enough."""
    if not variants.get(variant).official_weights_file:
        return f"{variant} has no official weights"
    try:
        download.fetch_official(variant)
    except DownloadError as error:
        return str(error)
    return None
