"""The model card in a checkpoint: variant, classes, preprocessing and training record of its weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from simplenet import strict_json
from simplenet.errors import UsageError, WeightsError, one_line
from simplenet.preprocessing import Preprocessing

CARD_SCHEMA_VERSION = 1
CARD_KEY = "simplenet"
"""Key of the card's JSON in the metadata of a .safetensors file."""


@dataclass(frozen=True)
class ModelCard:
    """What is needed to use a set of weights.

    `labels` are readable names, `class_ids` folder names such as WordNet ids, both in class order. `training` is an
    object of any content, such as data set, command and accuracy; only train/average.py reads it.
    """

    variant: str
    num_classes: int
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)

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
