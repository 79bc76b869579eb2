"""Model cards: round trip and validation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simplenet.errors import WeightsError
from simplenet.model_card import ModelCard
from simplenet.preprocessing import CIFAR10_PREPROCESSING

CARD = ModelCard(
    "cifar-310k", 2, CIFAR10_PREPROCESSING, labels=("a cat", "狗"), class_ids=("n1", "n2"), training={"seconds": 3.5}
)


def test_round_trip() -> None:
    assert ModelCard.from_json(CARD.to_json()) == CARD


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(CARD.to_json()), **values})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "not a JSON object"),
        ("{}", "no 'schema_version'"),
        (CARD.to_json()[:-20], "Unterminated|Expecting"),
        ("[" * 100_000, "nested too deeply"),
        ('{"schema_version": 1, "training": ' + "[" * 900 + "]" * 900 + "}", "nested too deeply"),
        (changed(schema_version=2), "schema version 2, this program reads 1"),
        (changed(schema_version=True), "schema version True"),
        (changed(surprise=1), "surprise"),
        (changed(variant=None), "variant None"),
        (changed(num_classes=2.0), "num_classes 2.0"),
        (changed(num_classes=0), "num_classes 0"),
        (changed(labels=["one"]), "number of labels"),
        (changed(labels="ab"), "not plain strings"),
        (changed(labels=["a", "\x1b]0;owned\x07"]), "not plain strings"),
        (changed(class_ids=[1, 2]), "not plain strings"),
        (changed(training=[]), "training list"),
        (changed(preprocessing=None), "cannot be read"),
        (changed(preprocessing={"crop_size": 3}), "no 'mean'"),
        (changed(preprocessing=dict(json.loads(CARD.to_json())["preprocessing"], crop_size=99)), "impossible sizes"),
        (changed(training={"loss": float("nan")}), "not finite"),
        (CARD.to_json().replace("3.5", "1e999"), "not finite"),
        (CARD.to_json().replace("3.5", "9" * 400), "63 bits"),
        ('{"schema_version": 1, "x": "' + "x" * (5 << 20) + '"}', "characters"),
    ],
)
def test_rejects_other_text_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        ModelCard.from_json(text)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500
