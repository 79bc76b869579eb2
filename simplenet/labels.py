"""Class names: ImageNet's, and the classes that a folder's name stands for."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path


@functools.lru_cache(maxsize=1)
def _imagenet() -> tuple[tuple[str, str], ...]:
    lines = (Path(__file__).parent / "imagenet_labels.tsv").read_text("utf-8").splitlines()
    return tuple((wordnet_id, name) for wordnet_id, name in (line.split("\t") for line in lines))


def imagenet_class_ids() -> tuple[str, ...]:
    """Return the 1000 WordNet ids in class order, 'n01440764' first."""
    return tuple(wordnet_id for wordnet_id, _ in _imagenet())


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 English names in class order, 'tench' first."""
    return tuple(name for _, name in _imagenet())


def class_lookup(*name_lists: Sequence[str]) -> Callable[[str], list[int]]:
    """Return a function from a folder's name to the indices of the classes of that name.

    If no class has exactly that name, case, spaces and punctuation are ignored.

    Args:
        name_lists: such as labels and class ids, each in class order.
    """
    exact: dict[str, set[int]] = {}
    similar: dict[str, set[int]] = {}
    for names in name_lists:
        for index, name in enumerate(names):
            exact.setdefault(name, set()).add(index)
            similar.setdefault(_key(name), set()).add(index)
    return lambda folder: sorted(exact.get(folder) or similar.get(_key(folder), set()))


def _key(name: str) -> str:
    """Return 't shirt top' for both 'T-shirt/top', which cannot name a folder, and 't_shirt_top'.

    The composed and the decomposed form of 'é' are the same; macOS and archives often write the latter.
    """
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    is_letter = [character.isalnum() or unicodedata.category(character)[0] == "M" for character in composed]
    kept = "".join(character if is_kept else " " for character, is_kept in zip(composed, is_letter, strict=True))
    return " ".join(kept.split()) or composed
