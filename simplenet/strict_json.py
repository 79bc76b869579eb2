"""JSON from files that anybody may have written: one bounded object of plain, finite values, or ValueError."""

from __future__ import annotations

import json
import math
from typing import Any

LARGEST_CHARACTERS = 4 << 20
_DEEPEST = 32
_LARGEST_INTEGER = 1 << 63


def loads(text: str) -> dict[str, Any]:
    """The object in `text`.

    Raises:
        ValueError: not JSON, not an object, too large, nested too deeply, or with a number that is not finite.
    """
    if len(text) > LARGEST_CHARACTERS:
        raise ValueError(f"more than {LARGEST_CHARACTERS} characters")
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    _check(values, 0)
    return values


def _check(value: object, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, depth + 1)
    elif isinstance(value, int):
        if abs(value) >= _LARGEST_INTEGER:
            raise ValueError("an integer of more than 63 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number that is not finite")


def is_integer(value: object) -> bool:
    """Whether a value is a whole number: True and 2.0 are not."""
    return type(value) is int


def texts(value: object) -> tuple[str, ...]:
    """A list of strings without control characters, which could rewrite the terminal they are shown on.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, list) or not all(map(is_clean_text, value)):
        raise ValueError("names that are not plain texts")
    return tuple(value)


def is_clean_text(value: object) -> bool:
    """Whether a value is a string without control characters."""
    return isinstance(value, str) and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value)
