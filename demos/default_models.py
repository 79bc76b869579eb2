"""The variant and weights of a model request that does not name them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from simplenet import artifacts, datasets, download, image_folders, variants
from simplenet.errors import DataError, DownloadError

Log = Callable[[str], None]

DEFAULT_VARIANT = "1.5m"
SHIPPED_VARIANT, SHIPPED_WEIGHTS = "cifar-310k", "fashion-mnist"
"""The model that was trained on the dataset of the shipped images. The generated scene shows these images."""
_SHIPPED_MODELS = (("cifar-5m", "cifar10"), ("cifar-310k", "cifar10"), (SHIPPED_VARIANT, SHIPPED_WEIGHTS))
"""Variants and weights shipped with the project, the best on real images first."""


def choose(
    variant: str | None,
    weights: str,
    artifact_types: Iterable[tuple[str, str]],
    root: Path,
    log: Log,
    *,
    needs_shipped_images: bool = False,
) -> tuple[str, str]:
    """Replace None and 'auto' by names: official weights, else shipped ones, else random ones.

    Args:
        artifact_types: format and precision of every artifact that will be used; all get the same weights.
        root: the folder of artifacts; an artifact with official weights there makes a download unnecessary.
        log: called with the reason when official weights are not used.
        needs_shipped_images: choose a default model that comes with images for int8 calibration.
    """
    if variant is not None:
        variant = variants.get(variant).name
    if weights != "auto":
        return variant or _shipped_variant(weights) or DEFAULT_VARIANT, weights
    official = variant or DEFAULT_VARIANT
    if any(artifacts.folder_for(root, official, "pretrained", *each).is_dir() for each in artifact_types):
        return official, "pretrained"
    if (reason := _why_not_official(official)) is None:
        return official, "pretrained"
    if variant is None:
        variant, weights = best_shipped(needs_shipped_images)
        log(f"{reason}; using {variant} trained on {weights}, which comes with the project")
        return variant, weights
    shipped = datasets.shipped_weights(variant)
    if variants.get(variant).official_weights_file:
        log(f"{reason}; using {shipped[0] if shipped else 'RANDOM'} weights")
    return variant, shipped[0] if shipped else "random"


def best_shipped(needs_shipped_images: bool = False) -> tuple[str, str]:
    """Return variant and weights of the best shipped model (that comes with images for int8 calibration)."""
    return next(
        (variant, weights)
        for variant, weights in _SHIPPED_MODELS
        if weights in datasets.shipped_weights(variant) and (not needs_shipped_images or weights in datasets.names())
    )


def weights_for_classes(folder: Path, variant: str) -> str:
    """Name the shipped weights of `variant` that have every class of a folder of classes, else 'auto'.

    Raises:
        DataError: no images, or no weights match and the variant has no official ones.
        BackendUnavailable: safetensors is not installed.
    """
    image_folders.find_images(folder)
    for name in datasets.shipped_weights(variant):
        card = datasets.shipped_card(name, variant)
        try:
            labeled = image_folders.labeled_folder(folder, card.labels, card.class_ids)
        except DataError:  # no folder has the name of one of these classes
            continue
        if all(label is not None for _, label in labeled):
            return name
    if variants.get(variant).official_weights_file:
        return "auto"
    raise DataError(
        f"no shipped weights of {variant} have the classes in {folder}; to use your own weights, type --weights PATH"
    )


def _shipped_variant(weights: str) -> str | None:
    best = [variant for variant, name in _SHIPPED_MODELS if name == weights]
    names = [*best, *variants.VARIANTS]
    return next((variant for variant in names if weights in datasets.shipped_weights(variant)), None)


@functools.lru_cache
def _why_not_official(variant: str) -> str | None:
    """Download official weights unless cached, once per process; return None, or why that failed."""
    if not variants.get(variant).official_weights_file:
        return f"{variant} has no official weights"
    try:
        download.fetch_official(variant)
    except DownloadError as error:
        return str(error)
    return None
