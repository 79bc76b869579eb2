"""Read JSON from untrusted files: an object of limited size and depth, with finite numbers."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_CHARACTERS = 4 << 20
_MAX_DEPTH = 32
_INTEGER_LIMIT = 1 << 63


def loads(text: str) -> dict[str, Any]:
    """Parse `text` as a JSON object; a byte order mark, which Windows editors write, is skipped.

    Raises:
        ValueError: not JSON, not an object, too large, nested too deeply, or with a key that an object has twice, or a
            number that is not finite.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"more than {MAX_CHARACTERS} characters")
    try:
        values = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    _check(values, 0)
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict[str, Any]()
    for key, value in pairs:
        if key in values:
            raise ValueError(f"{key!r} is there twice")
        values[key] = value
    return values


def _check(value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, depth + 1)
    elif isinstance(value, int):
        if abs(value) >= _INTEGER_LIMIT:
            raise ValueError("an integer of more than 63 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number that is not finite")


def plain_strings(value: object) -> tuple[str, ...]:
    """Return a list of strings as a tuple.

    Raises:
        ValueError: not a list of strings, or a string has control characters, which could control a terminal.
    """
    if not isinstance(value, list) or not all(map(is_plain_string, value)):
        raise ValueError("names that are not plain strings")
    return tuple(value)


def is_plain_string(value: object) -> bool:
    """Whether a value is a string without control characters."""
    return isinstance(value, str) and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value)
