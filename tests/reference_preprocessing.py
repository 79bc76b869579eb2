"""Preprocessing in the two steps of SimpleNet's reference implementation; slow."""

from __future__ import annotations

import numpy as np
from PIL import Image

from simplenet.preprocessing import Preprocessing, UInt8Array, crop_geometry


def reference(image: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """Like `simplenet.preprocessing.to_model_input`."""
    height, width = image.shape[:2]
    geometry = crop_geometry(width, height, preprocessing)
    resized = Image.fromarray(image).resize((geometry.resized_width, geometry.resized_height), Image.Resampling.BICUBIC)
    crop, padding = preprocessing.crop_size, preprocessing.padding
    cropped = resized.crop((geometry.left, geometry.top, geometry.left + crop, geometry.top + crop))
    return np.pad(np.asarray(cropped), ((padding, padding), (padding, padding), (0, 0)))
