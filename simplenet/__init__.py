"""SimpleNet for the edge: variants, model, weights, preprocessing, labels and artifacts."""

__version__ = "0.1.0"
