"""A generated scene for machines without a camera: Fashion-MNIST images slide in and stop in the center.

Models classify the center of a frame, so their predictions change with the images and can be checked.
"""

from __future__ import annotations

import functools
import time

import numpy as np

from demos.live.sources.opencv import CaptureReader, opencv
from simplenet import datasets
from simplenet.preprocessing import UInt8Array

HOLD_S, SLIDE_S = 2.0, 0.5
_DRIFT = 64  # pixels by which the background moves
_IMAGES = 120
_COLORS = ((60, 110, 70), (110, 75, 50), (60, 60, 115), (105, 100, 45), (95, 55, 100))


class Scene:
    """Draws frames that depend only on their number. `images`, uint8 [N, 28, 28, 3], slide in one after another."""

    def __init__(self, width: int, height: int, frame_rate: int) -> None:
        self.width, self.height, self.frame_rate = width, height, frame_rate
        self.images = _images_by_rank()
        self._side = min(width, height)
        self._background = _background(width + _DRIFT, height + _DRIFT)
        self._scaled = functools.lru_cache(maxsize=2)(self._scale)

    def frame(self, number: int) -> UInt8Array:
        """Draw frame `number`, BGR uint8 [height, width, 3]."""
        cv2 = opencv()
        seconds = number / self.frame_rate
        x, y = (int((np.sin(seconds * speed) + 1) / 2 * _DRIFT) for speed in (0.7, 1.1))
        frame: UInt8Array = self._background[y : y + self.height, x : x + self.width].copy()
        size = self._side // 9
        for shape, color in enumerate(_COLORS):
            center = [
                int((np.sin(seconds * (0.3 + 0.13 * shape) + axis + 2 * shape) + 1) / 2 * extent)
                for axis, extent in enumerate((self.width, self.height))
            ]
            if shape % 2:
                cv2.rectangle(frame, [at - size for at in center], [at + size for at in center], color, -1)
            else:
                cv2.circle(frame, center, size, color, -1)
        index, since_s = self._position(number)
        # Slides in from the right and slows down, while the previous image leaves on the left.
        offset = round((1 - min(since_s / SLIDE_S, 1)) ** 2 * self.width)
        left = (self.width - self._side) // 2 + offset
        self._paste(frame, self._scaled(index), left)
        if offset and seconds > SLIDE_S:
            self._paste(frame, self._scaled((index - 1) % len(self.images)), left - self.width)
        return frame

    def _position(self, number: int) -> tuple[int, float]:
        """Index of the image in frame `number`, and seconds since it began to slide in."""
        count, since_s = divmod(number / self.frame_rate, HOLD_S + SLIDE_S)
        return int(count) % len(self.images), since_s

    def _scale(self, index: int) -> UInt8Array:
        cv2 = opencv()
        image = cv2.cvtColor(self.images[index], cv2.COLOR_RGB2BGR)
        scaled: UInt8Array = cv2.resize(image, (self._side, self._side), interpolation=cv2.INTER_CUBIC)
        return scaled

    def _paste(self, frame: UInt8Array, image: UInt8Array, left: int) -> None:
        """Draw the part of `image` that is inside the frame."""
        top, start, stop = (self.height - self._side) // 2, max(left, 0), min(left + self._side, self.width)
        if start < stop:
            frame[top : top + self._side, start:stop] = image[:, start - left : stop - left]


class SyntheticCapture:
    """Stands in for cv2.VideoCapture: waits for the next frame's time, and skips frames that are overdue."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._number = scene, -1
        self._start_s = time.perf_counter()

    def read(self) -> tuple[bool, UInt8Array]:
        rate = self._scene.frame_rate
        self._number = max(self._number + 1, int((time.perf_counter() - self._start_s) * rate))
        # Waits before drawing: drawing ahead would hold the GIL while the last frame is processed.
        time.sleep(max(0.0, self._start_s + self._number / rate - time.perf_counter()))
        return True, self._scene.frame(self._number)

    def release(self) -> None:
        pass


def open_synthetic(width: int, height: int, frame_rate: int) -> CaptureReader:
    return CaptureReader(SyntheticCapture(Scene(width, height, frame_rate)), "synthetic", float(frame_rate))


def _images_by_rank() -> UInt8Array:
    """Images of the shipped dataset: the first one of each class, then the second one of each."""
    data = datasets.shipped("fashion-mnist", "evaluation")
    rank_in_class = np.zeros(len(data), np.int64)
    for label in range(len(data.classes)):
        is_label = data.labels == label
        rank_in_class[is_label] = np.arange(is_label.sum())
    images: UInt8Array = data.images[np.lexsort((data.labels, rank_in_class))[:_IMAGES]]
    return images


def _background(width: int, height: int) -> UInt8Array:
    """A soft, dark, colored pattern."""
    cv2 = opencv()
    coarse = np.random.default_rng(0).integers(10, 90, (6, 8, 3)).astype(np.uint8)
    pattern: UInt8Array = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return pattern
