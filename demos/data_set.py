"""A data set's own folder, as --data names it: its test pictures, and the shipped weights that know their classes."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from simplenet import datasets, images, variants
from simplenet.errors import DataError
from simplenet.model_card import ModelCard

TEST_SPLITS = ("test", "val")


def evaluation_pictures(folder: Path) -> Path:
    """The folder of classes that training does not see.

    Raises:
        DataError: there is none.
    """
    for name in TEST_SPLITS:
        if (folder / name).is_dir():
            return folder / name
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; name the data set's folder: --data DIR")
    raise DataError(f"{folder} has neither test/<class>/* nor val/<class>/*; name the pictures themselves: --image DIR")


def weights_for(pictures: Path, variant: str) -> str:
    """The weights shipped for this variant that have a class for every folder of `pictures`; else 'auto', the official
    ones, where there are such.

    Raises:
        DataError: there are no pictures, or no weights to choose from.
    """
    images.find_images(pictures)
    for name in datasets.shipped_weights(variant):
        with safe_open(datasets.SHIPPED / name / f"{variant}.safetensors", framework="numpy") as file:
            card = ModelCard.from_json(file.metadata()["simplenet"])
        try:
            labelled = images.labelled_folder(pictures, card.labels, card.class_ids)
        except DataError:  # not one folder is named as one of these classes
            continue
        if all(label is not None for _, label in labelled):
            return name
    if variants.get(variant).official_weights_file:
        return "auto"
    raise DataError(f"no shipped weights of {variant} know the classes in {pictures}; name yours: --weights PATH")
