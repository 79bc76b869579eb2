"""One small interface to every backend: `runtimes.load(artifact).infer(batch)`. Imports no vendor package."""

from runtimes.base import Description, Options, Prediction, Runtime, softmax, top_k
from runtimes.loader import disable_spinning, load, names

__all__ = [
    "Description",
    "Options",
    "Prediction",
    "Runtime",
    "disable_spinning",
    "load",
    "names",
    "softmax",
    "top_k",
]
