"""A run that crashes, for the tests that resume it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from train import evaluation


def crash_in_second_epoch(patch: pytest.MonkeyPatch, train: Callable[[], object]) -> None:
    """Call `train`, whose second evaluation raises an error."""
    real, calls = evaluation.evaluate, []

    def crashing(*arguments: Any) -> tuple[float, float, int]:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the power went out")
        return real(*arguments)

    with patch.context() as context:
        context.setattr(evaluation, "evaluate", crashing)
        with pytest.raises(OSError, match="the power went out"):
            train()
