"""What to export: the fields that every format shares, checked before any work starts."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simplenet import cli
from simplenet.errors import UsageError, check_choice, check_integer, one_line
from simplenet.formats import FORMATS
from simplenet.manifest import MAX_BATCH
from simplenet.model_card import NO_OVERRIDES, CardOverrides

if TYPE_CHECKING:
    from simplenet.weights import LoadedWeights

INPUTS = ("uint8", "float32")


@dataclass(frozen=True)
class ExportRequest:
    """One export. Variant and weights are checked when they are loaded.

    Raises:
        UsageError: the format does not support a value.
    """

    format: str
    variant: str = "1.5m"
    weights: str | Path = "auto"
    weights_key: str | None = None
    """Which weights of a checkpoint, as `key` of `weights.load`."""
    overrides: CardOverrides = NO_OVERRIDES
    """Preprocessing and labels in place of those of the weights."""
    precision: str = "fp32"
    input: str = "uint8"
    """'uint8': NHWC RGB, normalized inside the graph; 'float32': normalized NCHW."""
    batch: int | None = 1
    """Images per inference; None for a dynamic batch."""
    calibration: str | Path = "auto"
    """Images for int8: 'auto', 'synthetic', the name of a shipped set, or a folder."""
    max_drop: float = 1.0
    """Percentage points of top-1 that an int8 model may lose; a larger drop fails the export."""
    allow_poor_calibration: bool = False
    """Warn, instead of failing, if the calibration images hardly vary, are saturated, or do not fit other images."""
    artifacts: str | Path = cli.DEFAULT_ARTIFACTS
    network: Callable[[], LoadedWeights] | None = None
    """Returns another network to export, in place of `variant` and `weights`, for example to compare with it."""
    progress: Callable[[str], None] = lambda step: None
    """Called with the name of each step when it starts."""

    def __post_init__(self) -> None:
        if not isinstance(self.overrides, CardOverrides):
            raise UsageError(f"overrides must be a CardOverrides, not {one_line(repr(self.overrides), 80)}")
        if not isinstance(self.artifacts, (str, Path)):
            raise UsageError(f"artifacts must be the path of a folder, not {one_line(repr(self.artifacts), 80)}")
        self.overrides.check_weights(str(self.weights))
        hint = "; bf16 is a way to run an fp32 artifact" if self.precision == "bf16" else ""
        check_choice(f"{self.format} precision", self.precision, FORMATS[self.format].precisions, hint=hint)
        check_choice("input", self.input, INPUTS)
        if self.batch is not None:
            batch = check_integer("batch (None: dynamic)", self.batch, 1, MAX_BATCH)
            object.__setattr__(self, "batch", batch)
        if not isinstance(self.max_drop, numbers.Real) or not 0 <= self.max_drop <= 100:
            raise UsageError(f"max_drop must be 0 to 100 points of top-1, not {one_line(repr(self.max_drop), 80)}")
