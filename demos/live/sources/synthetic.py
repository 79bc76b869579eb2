"""A generated scene for machines with no camera: pictures whose class is known glide in and stand in the middle.

Models look at the middle of a frame, so their answers change with the pictures, and can be seen to be right.
"""

from __future__ import annotations

import functools
import time

import numpy as np

from demos.live.sources.base import UInt8Array
from demos.live.sources.capture import OpenedCapture
from demos.live.sources.opencv import opencv
from simplenet import datasets
from simplenet.errors import SimpleNetError

STANDS_S, GLIDES_S = 2.0, 0.5
_MARGIN = 64
_PICTURES = 120
_COLORS = ((60, 110, 70), (110, 75, 50), (60, 60, 115), (105, 100, 45), (95, 55, 100))


class Scene:
    """`picture(n)` is always the same for the same n. All pixels are blue, green, red, as OpenCV's are."""

    def __init__(self, width: int, height: int, frame_rate: int, pictures: str = "fashion-mnist") -> None:
        """`pictures`: the shipped data set whose evaluation pictures are shown; shapes alone where it is not here."""
        self.width, self.height, self.frame_rate = width, height, frame_rate
        self.images, self.classes = _a_few_of_each_class(pictures)
        self._side = min(width, height)
        self._background = _background(width + _MARGIN, height + _MARGIN)
        self._large = functools.lru_cache(maxsize=2)(self._enlarged)

    def shown(self, number: int) -> int | None:
        """Which of `images` stands still in the middle of frame `number`; None while they glide, or where none is."""
        index, since_s = self._turn(number)
        return index if len(self.images) and since_s >= GLIDES_S else None

    def picture(self, number: int) -> UInt8Array:
        """Frame `number`: uint8 [height, width, 3]."""
        cv2 = opencv()
        seconds = number / self.frame_rate
        x, y = (int((np.sin(seconds * speed) + 1) / 2 * _MARGIN) for speed in (0.7, 1.1))
        frame: UInt8Array = self._background[y : y + self.height, x : x + self.width].copy()
        for shape, color in enumerate(_COLORS):
            at = [
                int((np.sin(seconds * (0.3 + 0.13 * shape) + axis + 2 * shape) + 1) / 2 * extent)
                for axis, extent in enumerate((self.width, self.height))
            ]
            size = self._side // 9
            if shape % 2:
                cv2.rectangle(frame, [at[0] - size, at[1] - size], [at[0] + size, at[1] + size], color, -1)
            else:
                cv2.circle(frame, at, size, color, -1)
        if len(self.images):
            index, since_s = self._turn(number)
            # From the right into the middle, slower and slower, while the one before leaves on the left.
            left = round((1 - min(since_s / GLIDES_S, 1)) ** 2 * self.width)
            middle = (self.width - self._side) // 2
            self._paste(frame, self._large(index), middle + left)
            if left and seconds > GLIDES_S:
                self._paste(frame, self._large((index - 1) % len(self.images)), middle + left - self.width)
        return frame

    def _turn(self, number: int) -> tuple[int, float]:
        turn, since_s = divmod(number / self.frame_rate, STANDS_S + GLIDES_S)
        return int(turn) % max(1, len(self.images)), since_s

    def _enlarged(self, index: int) -> UInt8Array:
        cv2 = opencv()
        image = cv2.cvtColor(self.images[index], cv2.COLOR_RGB2BGR)
        large: UInt8Array = cv2.resize(image, (self._side, self._side), interpolation=cv2.INTER_CUBIC)
        return large

    def _paste(self, frame: UInt8Array, large: UInt8Array, left: int) -> None:
        """What of it is inside the frame."""
        top, first, last = (self.height - self._side) // 2, max(left, 0), min(left + self._side, self.width)
        if first < last:
            frame[top : top + self._side, first:last] = large[:, first - left : last - left]


class SyntheticCapture:
    """In the place of cv2.VideoCapture: `read` waits for the next frame's time, and skips those it is too late for."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._number = scene, -1
        self._start_s = time.perf_counter()

    def read(self) -> tuple[bool, UInt8Array]:
        rate = self._scene.frame_rate
        self._number = max(self._number + 1, int((time.perf_counter() - self._start_s) * rate))
        # First waited, then drawn: drawing ahead would hold Python's lock just when the last frame is handed over.
        time.sleep(max(0.0, self._start_s + self._number / rate - time.perf_counter()))
        return True, self._scene.picture(self._number)

    def release(self) -> None:
        pass


def open_synthetic(width: int, height: int, frame_rate: int) -> OpenedCapture:
    capture = SyntheticCapture(Scene(width, height, frame_rate))
    return OpenedCapture(capture, capture.read()[1], float(frame_rate))


def _a_few_of_each_class(name: str) -> tuple[UInt8Array, tuple[str, ...]]:
    """One of each class, then another of each, with the class of each; none where the data set cannot be had."""
    try:
        data = datasets.shipped(name, "evaluation")
    except SimpleNetError:
        return np.zeros((0, 1, 1, 3), np.uint8), ()
    rank_in_class = np.zeros(len(data), np.int64)
    for label in range(len(data.classes)):
        of_this = data.labels == label
        rank_in_class[of_this] = np.arange(of_this.sum())
    order = np.lexsort((data.labels, rank_in_class))[:_PICTURES]
    return data.images[order], tuple(data.classes[label] for label in data.labels[order])


def _background(width: int, height: int) -> UInt8Array:
    """A soft, dark, colored pattern."""
    cv2 = opencv()
    coarse = np.random.default_rng(0).integers(10, 90, (6, 8, 3)).astype(np.uint8)
    pattern: UInt8Array = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return pattern
