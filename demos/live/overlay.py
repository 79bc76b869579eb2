"""What is written over a picture: the best answers as bars, a line of figures, and UNTRAINED where that is so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from demos.live.opencv import opencv
from runtimes import Prediction

UInt8Array = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

_WHITE, _BLACK, _GREEN, _RED = (255, 255, 255), (0, 0, 0), (30, 140, 65), (220, 20, 20)
UNTRAINED = "UNTRAINED"
_LONGEST_LABEL = 32


def draw(image: UInt8Array, predictions: Sequence[Prediction], figures: str = "", untrained: bool = False) -> None:
    """Draws over `image`, RGB uint8 [H, W, 3], in place; sizes follow the picture's."""
    height, width = image.shape[:2]
    line = max(8, min(height // 16, width // 20))
    for row, prediction in enumerate(predictions):
        text = f"{100 * prediction.probability:.1f} % {prediction.label[:_LONGEST_LABEL]}"
        _bar(image, line // 2 + row * line, line, width // 2, prediction.probability, text)
    if figures:
        _bar(image, height - line, line, width, 0.0, figures)
    if untrained:
        # Across the whole picture: nobody may take these answers for real ones.
        band = min(height // 5, width // 6)
        _bar(image, (height - band) // 2, band, width, 1.0, UNTRAINED, _RED)


def _bar(image: UInt8Array, top: int, line: int, width: int, share: float, text: str, colour: Colour = _GREEN) -> None:
    """A black bar of `line` x `width` pixels, coloured up to `share` of its width, with a text that fits into it."""
    cv2 = opencv()
    bottom = top + line - 2
    cv2.rectangle(image, (0, top), (width, bottom), _BLACK, cv2.FILLED)
    cv2.rectangle(image, (0, top), (round(width * share), bottom), colour, cv2.FILLED)
    text = text.encode("ascii", "replace").decode("ascii")  # OpenCV 4's built-in font has nothing else
    (at_scale_1, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    margin = line // 4
    scale = min((line - 2 * margin) / max(1, tall), (width - 2 * margin) / max(1, at_scale_1))
    cv2.putText(image, text, (margin, bottom - margin), cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, 1, cv2.LINE_AA)
