"""The 1000 ImageNet classes in class order: WordNet ids and names."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.lru_cache(maxsize=1)
def _imagenet() -> tuple[tuple[str, str], ...]:
    lines = (Path(__file__).parent / "imagenet_labels.tsv").read_text("utf-8").splitlines()
    return tuple((wordnet_id, name) for wordnet_id, name in (line.split("\t") for line in lines))


def imagenet_class_ids() -> tuple[str, ...]:
    """WordNet ids, 'n01440764' first."""
    return tuple(wordnet_id for wordnet_id, _ in _imagenet())


def imagenet_labels() -> tuple[str, ...]:
    """Names for people, 'tench' first."""
    return tuple(name for _, name in _imagenet())
