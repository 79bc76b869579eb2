"""Scripts: classify images, evaluate accuracy, compare backends, and a live demo for cameras and videos."""

from simplenet import signals  # noqa: F401 - first, so that Ctrl-C during the other imports is one line
