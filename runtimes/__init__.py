"""One interface to every backend; importing it imports no vendor package.

Example:
    with runtimes.load("artifacts/1.5m/openvino-int8") as model:
        predictions = model.classify([image], k=5)
"""

from runtimes.base import Description, Options, Runtime
from runtimes.loader import disable_spinning, load, names
from runtimes.ranking import Prediction, softmax, top_k

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
