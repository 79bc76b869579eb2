"""What must travel with a set of weights for anybody to use them: variant, classes, preprocessing, origin."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from simplenet.errors import WeightsError
from simplenet.preprocessing import Preprocessing

CARD_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelCard:
    """`labels` are names for people, `class_ids` names of folders (ImageNet's WordNet ids), both in class order.

    `training` is free-form: dataset, command, machine, seconds, accuracy; for people, nothing reads it.
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
        """Raises WeightsError where the text is not a card this version understands."""
        try:
            values = json.loads(text)
            version = values.pop("schema_version")
            if version != CARD_SCHEMA_VERSION:
                raise WeightsError(
                    f"the checkpoint's card has schema version {version}, this program reads {CARD_SCHEMA_VERSION}"
                )
            values["preprocessing"] = preprocessing_from_json(values["preprocessing"])
            for name in ("labels", "class_ids"):
                values[name] = tuple(map(str, values.get(name, ())))
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise WeightsError(f"the checkpoint's card cannot be read ({error}); train or save it again") from error


def preprocessing_from_json(values: dict[str, Any]) -> Preprocessing:
    """Raises TypeError, KeyError or UsageError for anything but a sane preprocessing."""
    preprocessing = Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
    preprocessing.check()
    return preprocessing
