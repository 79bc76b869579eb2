"""The model card of weights: variant, classes, preprocessing; and the flags that replace its values."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from simplenet import strict_json
from simplenet.errors import UsageError, WeightsError, check_integer, one_line
from simplenet.labels import known_dataset
from simplenet.manifest import Manifest
from simplenet.preprocessing import Preprocessing

CARD_SCHEMA_VERSION = 1
CARD_KEY = "simplenet"
"""Key of the card's JSON in the metadata of a .safetensors file."""
MAX_SIZE = 1024
"""Largest value of --size, in pixels."""


@dataclass(frozen=True)
class ModelCard:
    """What is needed to use a set of weights.

    `labels` are readable names, `class_ids` folder names such as WordNet ids, both in class order. `training` is an
    object of any content, such as dataset, command and accuracy; only train/average.py reads it.
    """

    variant: str
    num_classes: int
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, str]:
        """Return short texts for messages. The keys are the flags that can replace a value, without `--`."""
        values, names = self.preprocessing, self.labels or ("class 0", f"class {self.num_classes - 1}")
        return {
            "mean": _numbers(values.mean),
            "std": _numbers(values.std),
            "size": str(values.input_size),
            "resize": str(values.resize_shorter_side),
            "padding": str(values.padding),
            "labels": one_line(f"{names[0]!r} to {names[-1]!r}", limit=100),
        }

    def to_json(self) -> str:
        return json.dumps({"schema_version": CARD_SCHEMA_VERSION, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Parse a card of this schema version; raise WeightsError for anything else."""
        try:
            values = strict_json.loads(text)
            version = values.pop("schema_version")
            if type(version) is not int or version != CARD_SCHEMA_VERSION:
                raise WeightsError(
                    f"the checkpoint's card has schema version {version!r}, this program reads {CARD_SCHEMA_VERSION}; "
                    "update this program"
                )
            values["preprocessing"] = Preprocessing.from_json(values["preprocessing"])
            for name in ("labels", "class_ids"):
                values[name] = strict_json.plain_strings(values.get(name, []))
            card = cls(**values)
            card._check()
            return card
        except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else one_line(error)
            raise WeightsError(f"the checkpoint's card cannot be read ({what}); train or save it again") from error

    def _check(self) -> None:
        """Raise ValueError for values that no training writes."""
        if not isinstance(self.variant, str) or not isinstance(self.training, dict):
            raise ValueError(f"variant {self.variant!r}, training {type(self.training).__name__}")
        if type(self.num_classes) is not int or self.num_classes < 1:
            raise ValueError(f"num_classes {self.num_classes!r}")
        if any(names and len(names) != self.num_classes for names in (self.labels, self.class_ids)):
            raise ValueError("the number of labels is not the number of classes")


@dataclass(frozen=True)
class CardOverrides:
    """The flags --dataset, --mean, --std, --size, --resize, --padding and --labels: they replace values of a card.

    A flag that is not given is None. `dataset`, one of `labels.KNOWN_DATASETS`, gives all values that the other flags
    do not. `mean` and `std` are of RGB pixels scaled to 0..1. Sizes are in pixels: `size` is the side of the network's
    input, `resize` the shorter side of the image before the crop, `padding` black pixels on each side, within `size`.

    Raises:
        UsageError: a value is impossible, or mean or std is for pixels of 0 to 255.
    """

    dataset: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None
    resize: int | None = None
    padding: int | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        given = {f"--{name}": getattr(self, name) for name in ("mean", "std") if getattr(self, name) is not None}
        for flag, numbers in given.items():
            try:
                given[flag] = tuple(map(float, numbers))
            except (TypeError, ValueError) as error:
                raise UsageError(f"{flag} must be three numbers, not {one_line(repr(numbers), 80)}") from error
            object.__setattr__(self, flag.removeprefix("--"), given[flag])
        for flag, values in given.items():
            if len(values) != 3 or not all(map(math.isfinite, values)) or (flag == "--std" and min(values) < 1e-6):
                above = " above 0" if flag == "--std" else ""
                raise UsageError(f"{flag} {_numbers(values)} must be three finite numbers{above}: red, green and blue")
            if max(map(abs, values)) > 1:
                scaled = (f"{name} {_numbers([each / 255 for each in numbers])}" for name, numbers in given.items())
                raise UsageError(
                    f"{flag} {_numbers(values)} is for pixels of 0 to 255, but pixels are scaled to 0 to 1 first; "
                    f"divide mean and std by 255: {' '.join(scaled)}"
                )
        for name, lowest in (("size", 1), ("resize", 1), ("padding", 0)):
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_integer(f"--{name}", number, lowest, MAX_SIZE))
        if self.labels is not None:
            if isinstance(self.labels, str) or not all(isinstance(name, str) and name for name in self.labels):
                raise UsageError(f"labels must be a list of names, not {one_line(repr(self.labels), 80)}")
            object.__setattr__(self, "labels", tuple(self.labels))
        if self.dataset is not None:
            known_dataset(self.dataset)

    @property
    def flags(self) -> str:
        """The given flags, such as '--dataset svhn, --size'; '' if there are none."""
        given = (name for name, value in vars(self).items() if value is not None)
        return ", ".join(f"--dataset {self.dataset}" if name == "dataset" else f"--{name}" for name in given)

    @property
    def source(self) -> str:
        """The flags as a manifest's `preprocessing_source`; '' if there are none."""
        return f"flags {self.flags}" if self.flags else ""

    @property
    def replaced(self) -> tuple[str, ...]:
        """The keys of `ModelCard.facts` whose values these flags give."""
        facts = (name for name in vars(self) if name != "dataset")
        return tuple(name for name in facts if self.dataset is not None or getattr(self, name) is not None)

    def check_weights(self, weights: str) -> None:
        """Raise UsageError if flags are given without the weights that they describe."""
        if self.flags and weights == "auto":
            raise UsageError(f"{self.flags}: name the weights that this describes, --weights PATH or NAME")

    def preprocessing(self, values: Preprocessing) -> Preprocessing:
        """Return `values`, where each value that a flag gives is replaced by the flag's.

        Raises:
            UsageError: the resized image would be smaller than the crop, or the padding leaves no crop.
        """
        if self.dataset is not None:
            values = known_dataset(self.dataset).preprocessing
        values = replace(values, mean=self.mean or values.mean, std=self.std or values.std)
        if self.size is not None or self.padding is not None:
            values = values.with_size(self.size or values.input_size, self.padding)
        values = replace(values, resize_shorter_side=self.resize or values.resize_shorter_side)
        crop, resize = values.crop_size, values.resize_shorter_side
        if crop < 1:
            raise UsageError(
                f"a padding of {values.padding} leaves nothing of {values.input_size} pixels; reduce --padding"
            )
        if crop > resize:
            raise UsageError(f"cannot crop {crop} pixels of an image resized to {resize}; raise --resize or --padding")
        return values

    def apply(self, card: ModelCard) -> ModelCard:
        """Return `card` with the values that the flags give in place of its own.

        Raises:
            UsageError: the number of labels is not the number of classes, or as `preprocessing`.
        """
        names, ids, flag = card.labels, card.class_ids, "--labels"
        if self.labels is not None:
            names, ids = self.labels, ()
        elif self.dataset is not None:
            known = known_dataset(self.dataset)
            names, ids, flag = known.labels, known.class_ids, f"--dataset {self.dataset}"
        if names and len(names) != card.num_classes:
            advice = (
                "name a file of that many labels" if self.labels is not None else "name another, or add --labels FILE"
            )
            raise UsageError(f"{flag} has {len(names)} labels, the weights have {card.num_classes} classes; {advice}")
        return replace(card, preprocessing=self.preprocessing(card.preprocessing), labels=names, class_ids=ids)

    def match(self, manifest: Manifest) -> bool:
        """Whether an artifact was exported with exactly these flags and values; raises UsageError as `apply`."""
        flags = manifest.preprocessing_source.partition(";")[0]
        if not self.flags:
            return not flags.startswith("flags ")
        names = ("variant", "num_classes", "preprocessing", "labels", "class_ids")
        card = ModelCard(**{name: getattr(manifest, name) for name in names})
        return flags == self.source and self.apply(card) == card


NO_OVERRIDES = CardOverrides()


def _numbers(values: Sequence[float]) -> str:
    """'0.485 0.456 0.406', as --mean takes them."""
    return " ".join(f"{value:.4g}" for value in values)
