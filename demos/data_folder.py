"""A data set's own folder, as --data names it: the shipped weights that know its classes, and its pictures."""

from __future__ import annotations

from pathlib import Path

from simplenet import datasets, images, variants
from simplenet.errors import DataError


def evaluation_pictures(folder: Path) -> Path:
    """The folder of classes that training does not see; raises DataError where there is none."""
    return images.evaluation_folder(folder, ("test", "val"))


def calibration_pictures(folder: Path) -> Path | None:
    """The folder of classes that training sees, where there is one."""
    train = folder / "train"
    return train if train.is_dir() else None


def weights_for(pictures: Path, variant: str) -> str:
    """The weights shipped for this variant that have a class for every folder of `pictures`; else 'auto', the official
    ones, where there are such.

    Raises:
        DataError: there are no pictures, or no weights to choose from.
        BackendUnavailable: shipped weights cannot be looked at without safetensors.
    """
    images.find_images(pictures)
    for name in datasets.shipped_weights(variant):
        card = datasets.shipped_card(name, variant)
        try:
            labeled = images.labeled_folder(pictures, card.labels, card.class_ids)
        except DataError:  # not one folder is named as one of these classes
            continue
        if all(label is not None for _, label in labeled):
            return name
    if variants.get(variant).official_weights_file:
        return "auto"
    raise DataError(f"no shipped weights of {variant} know the classes in {pictures}; name yours: --weights PATH")
