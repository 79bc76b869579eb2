"""A live source whose frames are pushed, as visitors of the page do."""

from __future__ import annotations

import numpy as np
import pytest

from demos.live.sources.base import LiveSource
from simplenet.errors import SourceError
from tests.demos.live.sources.scripted_camera import next_frame


def shade(value: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.full((4, 4, 3), value, np.uint8)


def test_push_replaces_the_newest_frame() -> None:
    source = LiveSource("visitor", "visitor")
    source.push(shade(1))
    source.push(shade(2))
    frame = source.poll()
    assert frame is not None
    assert frame.image[0, 0, 0] == 2


def test_failed_source_ignores_pushes_and_raises() -> None:
    source = LiveSource("visitor", "visitor")
    source.set_state("failed", "the visitor sent garbage")
    with pytest.raises(SourceError, match="the visitor sent garbage"):
        next_frame(source)
    source.push(shade(3))
    assert source.poll() is None


def test_close_discards_the_newest_frame() -> None:
    source = LiveSource("visitor", "visitor")
    source.push(shade(1))
    source.close()
    assert next_frame(source) is None
